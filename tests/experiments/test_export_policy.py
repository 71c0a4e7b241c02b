"""The exported file is whole, tested, bounded, and of the right checkpoint."""

import json

import jax
import numpy as np
import pytest

from envs import units
from experiments import cli, export_policy
from experiments.configs import demo
from hand_eye import architectures, checkpoint, optimizers, training
from hand_eye import network as network_lib
from hand_eye.constraints import Constraints, from_json
from hand_eye.deploy import export, onnx_reference
from hand_eye.deploy import policy_file as policy_file_lib

SMALL = {"channels": 4, "image_convs": 1}


def config(**network):
  made = demo.get_config()
  made.network.update({"preset": "small", **SMALL, **network})
  return made


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
  """Checkpoints of an untrained network."""
  folder = tmp_path_factory.mktemp("train") / "checkpoints"
  network = network_lib.preset("small", **SMALL)
  predictor = architectures.build(network)
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig())
  state = training.init_state(predictor, optimizer, jax.random.key(0))
  with checkpoint.Checkpointer(folder, network) as checkpointer:
    checkpointer.save(state, score=0.5)
  return folder


@pytest.fixture(scope="module")
def policy_file(checkpoints, tmp_path_factory):
  out = tmp_path_factory.mktemp("out") / "below" / "policy.hep"
  return export_policy.export(config(), checkpoints, out)


def test_the_file_loads_and_knows_where_it_comes_from(policy_file):
  manifest = export.load_policy(policy_file).manifest
  assert manifest["network"]["channels"] == 4
  assert manifest["servo"]["close_ratio"] == demo.servo().close_ratio
  assert set(manifest["platforms"]) == {"cpu", "cuda", "tpu"}
  assert manifest["about"]["checkpoint"] == "checkpoints/0"


def test_the_limits_hold_every_units_workspace(policy_file):
  limits = export.read_manifest(policy_file)["workspace"]
  for unit in units.fleet_units(demo.collect().num_units, "training"):
    low, high = unit.workspace()
    assert np.all(np.asarray(limits["low"]) <= low + 1e-6)
    assert np.all(np.asarray(limits["high"]) >= high - 1e-6)


def test_onnx_from_checkpoints_and_from_a_file(checkpoints, policy_file, tmp_path):
  """The same weights both ways; limits of a file stay."""
  pytest.importorskip("onnxruntime")
  given = Constraints(keep_out=((0.4, 0.0, 0.5, 0.1),))
  one = export_policy.export_onnx(
    config(), checkpoints, tmp_path / "one", constraints=given
  )
  two = export_policy.export_onnx(config(), policy_file, tmp_path / "two")
  first, second = (onnx_reference.OnnxPolicy(folder) for folder in (one, two))
  size = first.manifest["inputs"]["images"]["shape"]
  images = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
  for name, value in first._encode({"images": images}).items():
    np.testing.assert_allclose(
      value, second._encode({"images": images})[name], atol=1e-5
    )
  assert (
    first.manifest["constraints"]["keep_out"]
    and not (second.manifest["constraints"]["keep_out"])
  )
  assert second.manifest["about"]["policy_file"] == "policy.hep"
  with pytest.raises(cli.UserError, match="a policy file with limits of its own"):
    export_policy.export_onnx(
      config(), policy_file, tmp_path / "two", constraints=given
    )
  with pytest.raises(cli.UserError, match="is a file; expected the name of a folder"):
    export_policy.export_onnx(config(), policy_file, policy_file)


@pytest.mark.slow  # exports again
def test_a_persons_limits_and_those_of_the_config_are_in_the_file(
  checkpoints, tmp_path
):
  with_limits = config()
  with_limits.servo.max_step = 0.2
  given = Constraints(keep_out=((0.4, 0.0, 0.5, 0.1),), yaw_range=(-1.0, 1.0))
  out = export_policy.export(
    with_limits, checkpoints, tmp_path / "policy.hep", constraints=given
  )
  manifest = export.read_manifest(out)
  assert manifest["servo"]["max_step"] == 0.2
  assert from_json(manifest["constraints"]) == given


@pytest.mark.slow  # exports again
def test_a_policy_file_is_exported_again_from_itself(policy_file, tmp_path):
  own = tmp_path / "policy.hep"
  manifest, members = policy_file_lib.read(policy_file)
  # As of an older format, whose functions this program does not run.
  old = policy_file_lib.seal({**manifest, "format": 2}, members)
  contents = {**members, "manifest.json": json.dumps(old).encode()}
  own.write_bytes(policy_file_lib.archive(contents))
  words = f"format 2.*export it again from itself: python.*--checkpoint={own}"
  with pytest.raises(export.PolicyFileError, match=words):
    export.load_policy(own)
  assert export_policy.export({}, own, own) == own
  before, after = (policy_file_lib.read(path) for path in (policy_file, own))
  assert after[0]["about"]["policy_file"] == "policy.hep"
  for name in ("network", "servo", "workspace", "constraints", "step"):
    assert before[0][name] == after[0][name]
  for name in ("weights.npz", "golden.npz"):
    arrays = [
      policy_file_lib.read_arrays(members[name]) for _, members in (before, after)
    ]
    assert arrays[0].keys() == arrays[1].keys()
    for array, value in arrays[0].items():
      np.testing.assert_allclose(value, arrays[1][array], atol=1e-6)


def test_a_checkpoint_of_another_preset_is_refused(checkpoints, tmp_path):
  with pytest.raises(cli.UserError, match="channels is 4 .* says 8"):
    export_policy.export(config(channels=8), checkpoints, tmp_path / "policy.hep")
  assert not list(tmp_path.iterdir())


def test_a_missing_checkpoint_is_named(tmp_path):
  with pytest.raises(cli.UserError, match="--checkpoint=.*does not exist"):
    export_policy.export(config(), tmp_path / "nothing", tmp_path / "policy.hep")
  (tmp_path / "empty").mkdir()
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint"):
    export_policy.export(config(), tmp_path / "empty", tmp_path / "policy.hep")
  assert not (tmp_path / "policy.hep").exists()


def test_an_out_that_is_a_folder_is_refused(checkpoints, tmp_path):
  with pytest.raises(cli.UserError, match="is a folder"):
    export_policy.export(config(), checkpoints, tmp_path)


def test_an_unwritable_out_is_refused(checkpoints, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(cli.UserError, match="--out=.*cannot be written"):
    export_policy.export(config(), checkpoints, tmp_path / "file" / "policy.hep")
