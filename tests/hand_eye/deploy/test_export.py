"""The exported policy answers like the one in process, and nothing damaged loads."""

import hashlib
import json
import math
import pathlib
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from hand_eye import commands, inference, network, servo
from hand_eye.decision import Cause
from hand_eye.deploy import export, policy_file, runtime
from tests.hand_eye.deploy import tiny
from tests.hand_eye.deploy.tiny import CONFIG, WORKSPACE

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = pathlib.Path(__file__).parents[3]
SHIPPED = ROOT / "hand_eye" / "pretrained" / "small.hep"


@pytest.fixture(scope="module")
def in_process(weights):
  return servo.ServoPolicy(
    inference.build(CONFIG),
    weights.params,
    weights.batch_stats,
    config=tiny.BOUNDED,
    workspace=WORKSPACE,
    constraints=tiny.CONSTRAINTS,
  )


def _rewritten(path, tmp_path, **members):
  """A copy of a policy file with some members replaced."""
  copy = tmp_path / "changed.hep"
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
    for name in old.namelist():
      new.writestr(name, members.get(name.split(".")[0], old.read(name)))
  return copy


def test_exported_policy_equals_the_one_in_process(exported, in_process):
  loaded = runtime.load_policy(exported, deadlines=False)
  for seed in range(4):
    observation, key = (
      tiny.observation(seed, pose=tiny.pose(seed)),
      np.array([seed, 0], np.uint32),
    )
    one, other = loaded(observation, key), in_process(observation, key)
    assert one.action == other.action
    assert np.std(one.evidence["probabilities"]) > 1e-3
    np.testing.assert_allclose(one.command, other.command, atol=1e-5)
    np.testing.assert_allclose(
      one.evidence["probabilities"], other.evidence["probabilities"], atol=1e-5
    )


def test_exported_policy_scores_like_the_network_that_was_trained(weights, exported):
  loaded = runtime.load_policy(exported, deadlines=False)
  seen = tiny.observation(0)
  made = loaded(seen, np.zeros(2, np.uint32)).evidence
  pair = np.concatenate([seen.pregrasp_image, seen.image], axis=-1)[4:68, 4:68]
  plain = network.build(CONFIG)

  @jax.jit
  def score(candidates):
    tree = weights.params, weights.batch_stats
    return jax.nn.sigmoid(
      plain.score(*tree, plain.encode(*tree, pair[None]), candidates)
    )

  assert np.std(made["probabilities"]) > 1e-3
  np.testing.assert_allclose(
    made["probabilities"], score(made["candidates"]), atol=1e-4, rtol=0
  )


def test_manifest_says_what_it_is(exported):
  manifest = runtime.read_manifest(exported)
  assert manifest["network"]["channels"] == 4
  assert manifest["platforms"] == ["cpu", "cuda", "tpu"]
  assert manifest["about"] == {"run": "test"} and manifest["step"] == 7
  assert manifest["inputs"]["image"] == ["uint8", [72, 72, 3]]


def test_file_names_no_place_on_this_machine(exported):
  data = exported.read_bytes()
  for place in (pathlib.Path(__file__).parent, pathlib.Path(sys.prefix)):
    assert str(place).encode() not in data


def test_same_weights_same_bytes(weights, exported, tmp_path):
  again = tmp_path / "again.hep"
  tiny.write(again, weights)
  assert again.read_bytes() == exported.read_bytes()
  assert [file.name for file in tmp_path.iterdir()] == ["again.hep"]


def test_workspace_of_the_file_bounds_that_of_the_observation(exported):
  everywhere = np.full(4, -9.0), np.full(4, 9.0)
  observation = tiny.observation(0, workspace=everywhere)
  policy = runtime.load_policy(exported, deadlines=False)
  made = policy(observation, np.zeros(2, np.uint32))
  ends = np.asarray(commands.apply(observation.pose, made.evidence["candidates"]))
  assert np.all(ends[:, :2] >= WORKSPACE.low[:2] - 1e-6)
  assert np.all(ends[:, :2] <= WORKSPACE.high[:2] + 1e-6)


# With what jax itself needs.
_ENOUGH = ("jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers")
# Beside `hand_eye/deploy`: tests/test_architecture.py lets it import no others.
_FILES = ("constraints", "decision", "observations", "platforms", "presets")


def test_the_documentation_names_the_files_that_a_control_process_needs():
  text = (ROOT / "docs" / "exported_policy.md").read_text(encoding="utf-8")
  assert f"hand_eye/{{{','.join(_FILES)}}}.py" in text


def test_it_runs_where_there_is_only_jax_numpy_and_flatbuffers(
  exported, in_process, tmp_path
):
  """In an environment with nothing else, it answers like the one in process."""
  packages = tmp_path / "packages"
  (packages / "hand_eye").mkdir(parents=True)
  installed = pathlib.Path(np.__file__).parents[1]
  for found in installed.iterdir():
    if found.name.split(".")[0].split("-")[0] in _ENOUGH:
      (packages / found.name).symlink_to(found)
  here = ROOT / "hand_eye"
  for name in ("deploy", *(f"{name}.py" for name in ("__init__", *_FILES))):
    (packages / "hand_eye" / name).symlink_to(here / name)
  program = f"""
import sys
sys.path = [{str(packages)!r}] + [p for p in sys.path if "-packages" not in p]
import numpy as np
from hand_eye.deploy import client, interpolator, robot_session, runtime, watchdog
policy = runtime.load_policy({str(exported)!r}, deadlines=False)
seen = np.load({str(tmp_path / "seen.npz")!r})
class Seen:
  pregrasp_image, image, pose = seen["pregrasp_image"], seen["image"], seen["pose"]
  step, num_steps, table_height = 1, 4, 0.01
made = policy(Seen, np.array([3, 0], np.uint32))
probabilities = made.evidence["probabilities"]
np.savez({str(tmp_path / "made.npz")!r}, command=made.command, p=probabilities)
for more in ("flax", "chex", "hand_eye.network"):
  try:
    __import__(more)
  except ModuleNotFoundError:
    continue
  sys.exit("this environment has more: " + more)
"""
  seen = tiny.observation(3)
  np.savez(
    tmp_path / "seen.npz",
    pregrasp_image=seen.pregrasp_image,
    image=seen.image,
    pose=seen.pose,
  )
  done = subprocess.run(
    [sys.executable, "-I", "-S", "-c", program],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  expected = in_process(seen, np.array([3, 0], np.uint32))
  made = np.load(tmp_path / "made.npz")
  np.testing.assert_allclose(made["command"], expected.command, atol=1e-5)
  np.testing.assert_allclose(made["p"], expected.evidence["probabilities"], atol=1e-5)


def test_any_flipped_byte_is_found(exported, tmp_path):
  data = bytearray(exported.read_bytes())
  with zipfile.ZipFile(exported) as archive:
    starts = [info.header_offset + 60 for info in archive.infolist()]
  for at in (*starts, len(data) - 30):
    damaged = bytearray(data)
    damaged[at] ^= 0xFF
    (tmp_path / "damaged.hep").write_bytes(damaged)
    with pytest.raises(export.PolicyFileError, match="damaged"):
      export.read_manifest(tmp_path / "damaged.hep")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_file_is_found(exported, tmp_path, share):
  data = exported.read_bytes()
  (tmp_path / "short.hep").write_bytes(data[: int(len(data) * share)])
  with pytest.raises(export.PolicyFileError, match="is damaged or no policy"):
    export.load_policy(tmp_path / "short.hep")


def test_missing_file_is_one_clear_error(tmp_path):
  with pytest.raises(export.PolicyFileError, match="no policy file at"):
    export.load_policy(tmp_path / "absent.hep")


@pytest.mark.parametrize(
  ("found", "message"),
  [
    (99, "format 99, this program reads 3: .* or use the one that wrote it"),
    (2, "format 2, .* older than this program; export it again .*export_policy"),
    ("two", "format 'two', this program reads 3"),
  ],
)
def test_other_format_is_named(exported, tmp_path, found, message):
  manifest = {**runtime.read_manifest(exported), "format": found}
  changed = _rewritten(exported, tmp_path, manifest=json.dumps(manifest))
  with pytest.raises(export.PolicyFileError, match=message):
    export.load_policy(changed)


def test_a_changed_manifest_does_not_match_its_checksum(exported, tmp_path):
  manifest = runtime.read_manifest(exported)
  manifest["servo"]["max_step"] = 2.0
  changed = _rewritten(exported, tmp_path, manifest=json.dumps(manifest))
  with pytest.raises(export.PolicyFileError, match=r"manifest\.json does not match"):
    export.load_policy(changed)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda m: m["servo"].update(max_step=0.0), "max_step is 0.0"),
    (lambda m: m["servo"].update(max_turn=-1.0), "max_turn is -1.0"),
    (lambda m: m["workspace"].update(high=m["workspace"]["low"]), "empty or not fin"),
    (lambda m: m["workspace"].update(low=[0.1]), "not two poses of four numbers"),
    (lambda m: m["constraints"].update(keep_out=[[0, 0, 0, 0]]), "keep_out is"),
  ],
)
def test_limits_that_are_none_are_refused(exported, tmp_path, change, message):
  """Also where the checksum was made to fit."""
  manifest = runtime.read_manifest(exported)
  sums = manifest.pop("sha256")
  change(manifest)
  manifest = policy_file.seal(manifest, {})
  manifest["sha256"] = {**sums, **manifest["sha256"]}
  changed = _rewritten(exported, tmp_path, manifest=json.dumps(manifest))
  with pytest.raises(export.PolicyFileError, match=message):
    export.load_policy(changed)


def test_exchanged_weights_do_not_match_their_checksum(exported, tmp_path):
  changed = _rewritten(exported, tmp_path, weights=b"other")
  with pytest.raises(export.PolicyFileError, match=r"weights\.npz does not match"):
    export.load_policy(changed)


@pytest.mark.parametrize("factor", [-1.0, math.nan], ids=["other", "nan"])
def test_weights_that_give_another_answer_are_refused(exported, tmp_path, factor):
  """Changed together with all checksums: the self-test still sees it."""
  _, members = policy_file.read(exported)
  weights = policy_file.read_arrays(members["weights.npz"])
  changed = {name: factor * array for name, array in weights.items()}
  changed = _with_member(exported, tmp_path, "weights.npz", policy_file.npz(changed))
  with pytest.raises(export.PolicyFileError, match="fails its self-test"):
    export.load_policy(changed, deadlines=False)


def test_functions_that_this_jax_cannot_read_are_one_clear_error(exported, tmp_path):
  changed = _with_member(exported, tmp_path, "whole.bin", b"of another time")
  with pytest.raises(
    export.PolicyFileError, match="cannot be run by jax .* Export it again"
  ):
    export.load_policy(changed)


def test_a_device_that_the_file_is_not_for_is_named(exported, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "rocm")
  with pytest.raises(export.PolicyFileError, match="is for cpu, .* runs on rocm here"):
    export.load_policy(exported)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  with pytest.raises(export.PolicyFileError, match="is for CPUs, and JAX runs on cuda"):
    export.load_policy(exported, engine="openvino_float32")


def _with_member(path, tmp_path, name, data):
  """A copy of a policy file with one member replaced and checksums that fit."""
  manifest = runtime.read_manifest(path)
  manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
  stem = name.split(".")[0]
  return _rewritten(path, tmp_path, manifest=json.dumps(manifest), **{stem: data})


def test_the_policy_that_ships_here_loads():
  policy = export.load_policy(SHIPPED, deadlines=False)
  seen = tiny.observation(0, table_height=policy.manifest["workspace"]["low"][2])
  assert policy(seen, np.zeros(2, np.uint32)).cause == Cause.NONE


def test_nested_dicts_survive_their_file_empty_ones_too():
  tree = {"a": {"b": np.ones(2), "c": {}}, "d": {}, "e": np.zeros((1, 2), np.float32)}
  found = policy_file.unflatten(
    policy_file.read_arrays(policy_file.npz(policy_file.flatten(tree)))
  )
  assert jax.tree.structure(found) == jax.tree.structure(tree)
  jax.tree.map(np.testing.assert_array_equal, found, tree)


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
