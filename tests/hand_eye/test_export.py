"""The exported policy answers like the one in process, and nothing damaged loads."""

import hashlib
import json
import pathlib
import subprocess
import sys
import zipfile
from typing import NamedTuple

import jax
import numpy as np
import pytest

from hand_eye import checkpoint, commands, export, network, runtime, servo

CONFIG = network.preset("small", channels=4, image_convs=1, command_convs=1)
WORKSPACE = commands.Workspace(
  low=np.array([0.4, -0.1, 0.0, -3.0], np.float32),
  high=np.array([0.6, 0.1, 0.3, 3.0], np.float32),
)


class Observation(NamedTuple):
  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray
  step: int = 1
  num_steps: int = 4
  table_height: float = 0.01


def _observation(seed, **fields):
  rng = np.random.default_rng(seed)
  frames = rng.integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  pose = rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)
  return Observation(frames[0], frames[1], pose)._replace(**fields)


@pytest.fixture(scope="module")
def weights():
  params, batch_stats = network.build_predictor(CONFIG).init(jax.random.key(0))
  kernel = np.random.default_rng(0).normal(size=(64, 1)) / 4
  params["logit"]["kernel"] = kernel.astype(np.float32)
  return checkpoint.PolicyWeights(CONFIG, params, batch_stats, 7)


@pytest.fixture(scope="module")
def policy_file(weights, tmp_path_factory):
  path = tmp_path_factory.mktemp("export") / "policy.hep"
  export.write_policy(path, weights, workspace=WORKSPACE, about={"run": "test"})
  return path


def _rewritten(path, tmp_path, **members):
  """A copy of a policy file with some members replaced."""
  copy = tmp_path / "changed.hep"
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
    for name in old.namelist():
      new.writestr(name, members.get(name.split(".")[0], old.read(name)))
  return copy


def test_exported_policy_equals_the_one_in_process(weights, policy_file):
  exported = runtime.load_policy(policy_file)
  predictor = network.build_predictor(CONFIG)
  in_process = servo.ServoPolicy(
    predictor, weights.params, weights.batch_stats, workspace=WORKSPACE
  )
  for seed in range(4):
    observation, key = _observation(seed), np.array([seed, 0], np.uint32)
    one, other = exported(observation, key), in_process(observation, key)
    assert one.action == other.action
    assert np.std(one.evidence["probabilities"]) > 1e-3
    np.testing.assert_allclose(one.command, other.command, atol=1e-5)
    np.testing.assert_allclose(
      one.evidence["probabilities"], other.evidence["probabilities"], atol=1e-5
    )


def test_manifest_says_what_it_is(policy_file):
  manifest = runtime.read_manifest(policy_file)
  assert manifest["network"]["channels"] == 4
  assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
  assert manifest["about"] == {"run": "test"} and manifest["step"] == 7
  assert manifest["inputs"]["image"] == ["uint8", [72, 72, 3]]


def test_file_names_no_place_on_this_machine(policy_file):
  data = policy_file.read_bytes()
  for place in (pathlib.Path(__file__).parent, pathlib.Path(sys.prefix)):
    assert str(place).encode() not in data


def test_same_weights_same_bytes(weights, policy_file, tmp_path):
  again = tmp_path / "again.hep"
  export.write_policy(again, weights, workspace=WORKSPACE, about={"run": "test"})
  assert again.read_bytes() == policy_file.read_bytes()
  assert [file.name for file in tmp_path.iterdir()] == ["again.hep"]


def test_workspace_of_the_file_bounds_that_of_the_observation(policy_file):
  class Wider(NamedTuple):
    pregrasp_image: np.ndarray
    image: np.ndarray
    pose: np.ndarray
    step: int
    num_steps: int
    table_height: float
    workspace: tuple = (np.full(4, -9.0), np.full(4, 9.0))

  observation = _observation(0)
  made = runtime.load_policy(policy_file)(Wider(*observation), np.zeros(2, np.uint32))
  ends = np.asarray(commands.apply(observation.pose, made.evidence["candidates"]))
  assert np.all(ends[:, :2] >= WORKSPACE.low[:2] - 1e-6)
  assert np.all(ends[:, :2] <= WORKSPACE.high[:2] + 1e-6)


def test_loading_needs_no_training_code(policy_file):
  program = f"""
import sys
from hand_eye import runtime
policy = runtime.load_policy({str(policy_file)!r})
foreign = {{"flax", "optax", "orbax", "chex", "scipy.stats", "hand_eye.training"}}
sys.exit(", ".join(foreign & set(sys.modules)) or 0)
"""
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr


def test_any_flipped_byte_is_found(policy_file, tmp_path):
  data = bytearray(policy_file.read_bytes())
  with zipfile.ZipFile(policy_file) as archive:
    starts = [info.header_offset + 60 for info in archive.infolist()]
  for at in (*starts, len(data) - 30):
    damaged = bytearray(data)
    damaged[at] ^= 0xFF
    (tmp_path / "damaged.hep").write_bytes(damaged)
    with pytest.raises(export.PolicyFileError, match="damaged"):
      export.read_manifest(tmp_path / "damaged.hep")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file_is_found(policy_file, tmp_path, share):
  data = policy_file.read_bytes()
  (tmp_path / "short.hep").write_bytes(data[: int(len(data) * share)])
  with pytest.raises(export.PolicyFileError, match="is damaged or no policy"):
    export.load_policy(tmp_path / "short.hep")


def test_missing_file_is_one_clear_error(tmp_path):
  with pytest.raises(export.PolicyFileError, match="no policy file at"):
    export.load_policy(tmp_path / "absent.hep")


def test_other_format_is_named(policy_file, tmp_path):
  manifest = {**runtime.read_manifest(policy_file), "format": 99}
  changed = _rewritten(policy_file, tmp_path, manifest=json.dumps(manifest))
  with pytest.raises(export.PolicyFileError, match="format 99, this program reads 1"):
    export.load_policy(changed)


def test_exchanged_weights_do_not_match_their_checksum(policy_file, tmp_path):
  changed = _rewritten(policy_file, tmp_path, weights=b"other")
  with pytest.raises(export.PolicyFileError, match=r"weights\.npz does not match"):
    export.load_policy(changed)


def test_other_answer_than_the_golden_one_is_refused(policy_file, tmp_path, weights):
  """Weights changed together with their checksum: the self-test still sees it."""
  tree = {"params": weights.params, "batch_stats": weights.batch_stats}
  data = export._npz(runtime.flatten(jax.tree.map(lambda x: -x, tree)))
  manifest = runtime.read_manifest(policy_file)
  manifest["sha256"]["weights.npz"] = hashlib.sha256(data).hexdigest()
  changed = _rewritten(
    policy_file, tmp_path, weights=data, manifest=json.dumps(manifest)
  )
  with pytest.raises(export.PolicyFileError, match="fails its self-test"):
    export.load_policy(changed)


def test_unwritable_path_is_one_clear_error(weights, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(export.PolicyFileError, match="cannot write"):
    export.write_policy(tmp_path / "file" / "policy.hep", weights, platforms=("cpu",))


def test_empty_workspace_is_refused(weights, tmp_path):
  empty = commands.Workspace(low=WORKSPACE.high, high=WORKSPACE.low)
  with pytest.raises(ValueError, match="empty"):
    export.write_policy(
      tmp_path / "p.hep", weights, workspace=empty, platforms=("cpu",)
    )
