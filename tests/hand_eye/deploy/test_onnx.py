"""Policies as ONNX files give what JAX gives; their search in NumPy is `cem`'s."""

import builtins
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hand_eye
from hand_eye import (
  algorithm1,
  architectures,
  cem,
  checkpoint,
  commands,
  limits,
  network,
  servo,
)
from hand_eye.constraints import Constraints
from hand_eye.decision import Action, Inputs
from hand_eye.deploy import (
  export,
  numpy_limits,
  onnx_graph,
  onnx_policy,
  onnx_reference,
  onnx_session,
)
from hand_eye.deploy.onnx_graph import FREE

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SHIPPED = sorted((Path(hand_eye.__file__).parent / "pretrained").glob("*.hep"))
WORKSPACE = commands.Workspace(
  low=np.array([0.4, -0.2, 0.01, -math.pi], np.float32),
  high=np.array([0.7, 0.2, 0.3, math.pi], np.float32),
)
RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(5, 7)).astype(np.float32)
KERNEL = RNG.normal(size=(3, 3, 5, 4)).astype(np.float32)


def _pixels(x):
  return jnp.tanh(x[:, None, None, :] * jnp.linspace(0, 1, 30).reshape(1, 6, 5, 1))


# Functions of x [N, 5]; most of what networks consist of, N among shapes and limits.
FUNCTIONS = {
  "dense": lambda x: jax.nn.relu(x @ MATRIX + 1),
  "einsum": lambda x: jnp.einsum("ni,ij,nk->njk", x, MATRIX, x),
  "batched": lambda x: jnp.einsum("nij,nj->ni", x[:, :, None] * MATRIX[:, :5], x),
  "convolution": lambda x: jax.lax.conv_general_dilated(
    _pixels(x), KERNEL, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  ),
  "dilated": lambda x: jax.lax.conv_general_dilated(
    _pixels(x), KERNEL, (1, 1), "VALID", rhs_dilation=(2, 1),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  ),
  "grouped": lambda x: jax.lax.conv_general_dilated(
    _pixels(x), KERNEL[:, :, :1].repeat(5, -1), (1, 1), "SAME", feature_group_count=5,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  ),
  "pooling": lambda x: network.max_pool(_pixels(x), 4),
  "atan2": lambda x: jnp.arctan2(x, x[:, ::-1]),
  "atan2 on axes": lambda x: jnp.arctan2(jnp.sign(x) * (x > 0), jnp.zeros(5) - (x < 1)),
  "trigonometry": lambda x: jnp.sin(x) * jnp.cos(x) + jnp.exp(-(x**2)) + x**3,
  "roots": lambda x: jax.lax.rsqrt(x * x + 1) + jnp.sqrt(jnp.abs(x)) + jnp.log1p(x * x),
  "softmax": lambda x: jax.nn.softmax(x) + jax.nn.sigmoid(x),
  "norm": lambda x: (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True),
  "taken": lambda x: x[:, np.array([4, 0, 0, 2])],
  "looked up": lambda x: jnp.asarray(MATRIX.T)[
    jnp.clip(jnp.floor(jnp.abs(x)), 0, 6).astype(jnp.int32)
  ],
  "sliced": lambda x: x[:, 1:5:2],
  "halves": lambda x: jnp.concatenate([x, 2 * x])[: len(x)] + x,
  "second half": lambda x: jnp.concatenate([x, 2 * x])[len(x) :],
  "reversed": lambda x: x[:, ::-1],
  "stacked": lambda x: jnp.stack([x, -x, x * x], axis=1),
  "flat": lambda x: jnp.concatenate([x, x]).reshape(len(x) * 2, 1, 5).reshape(-1, 5),
  "wide": lambda x: jnp.broadcast_to(x[:, None], (len(x), 3, 5)).reshape(len(x), 15),
  "constant rows": lambda x: jnp.concatenate([x, jnp.ones((len(x), 2))], axis=1),
  "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2)), constant_values=7),
  "chosen": lambda x: jnp.where((x > 0) & ~(x >= 1) | (x == -1), x, jnp.round(0.4)),
  "transposed": lambda x: jnp.transpose(x[:, :, None] * MATRIX, (2, 0, 1)),
  "whole numbers": lambda x: (x * 10).astype(jnp.int32) % 3 if False else x * 2,
  "compared": lambda x: jnp.maximum(x, 0.5) + jnp.minimum(x, -0.5) + jnp.sign(x),
  "sums": lambda x: jnp.stack([x.sum(-1), x.max(-1), x.min(-1)], -1),
}  # fmt: skip
del FUNCTIONS["whole numbers"]


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_operations_give_what_jax_gives_for_any_number_of_rows(name):
  function = FUNCTIONS[name]
  shape = jax.ShapeDtypeStruct((FREE, 5), np.float32)
  model = onnx_graph.convert(lambda x: [function(x)], {"x": shape}, ["y"], "one")
  run = onnx_session.session(model)
  for count in (1, 3, 8):
    x = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
    x[0, :2] = 0, -1
    expected = np.asarray(function(x))
    made = run({"x": x})["y"]
    assert made.shape == expected.shape and made.dtype == expected.dtype
    np.testing.assert_allclose(made, expected, atol=2e-6, rtol=2e-6)


def test_an_operation_that_is_not_known_is_named():
  shape = jax.ShapeDtypeStruct((FREE, 5), np.float32)
  with pytest.raises(onnx_session.OnnxError, match="the operation sort has no form"):
    onnx_graph.convert(lambda x: [jnp.sort(x)], {"x": shape}, ["y"], "one")


def test_without_onnx_the_error_says_what_to_install(monkeypatch):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name.split(".")[0] in ("onnx", "onnxruntime"):
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(onnx_session.OnnxError, match="pip install onnx onnxruntime"):
    onnx_graph.load_onnx()
  with pytest.raises(onnx_session.OnnxError, match="pip install onnxruntime"):
    onnx_session.session(b"")


def _frames(size, seed=0):
  shape = (2, size, size, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda path: path.stem)
def shipped(request, tmp_path_factory):
  """A shipped policy with its trained weights, as ONNX files: (folder, its parts)."""
  folder = tmp_path_factory.mktemp("onnx") / request.param.stem
  parts = export.parts_of(request.param)
  onnx_policy.write(
    folder,
    parts.weights,
    parts.config,
    workspace=parts.workspace or WORKSPACE,
    constraints=Constraints(keep_out=((0.4, -0.2, 0.5, 0.0),), yaw_range=(-1.0, 1.5)),
  )
  return folder, parts


def test_trained_weights_give_the_same_probabilities(shipped):
  """Of images of the same kind as they were trained on: blobs on a plane."""
  folder, (weights, *_) = shipped
  policy = onnx_reference.OnnxPolicy(folder)
  assert policy.manifest["largest_gap"] <= onnx_policy.TOLERANCE
  predictor = architectures.build_for_control(weights.config)
  size = weights.config.crop_size
  encode = jax.jit(lambda x: predictor.encode(weights.params, weights.batch_stats, x))
  score = jax.jit(
    lambda f, c: predictor.score(weights.params, weights.batch_stats, f, c)
  )
  rng, spread = np.random.default_rng(3), []
  for count in (1, 64, 5):
    images = (
      rng.uniform(40, 215, (1, size // 8, size // 8, 6)).repeat(8, 1).repeat(8, 2)
    )
    images = (images + rng.normal(scale=5, size=images.shape)).astype(np.uint8)
    turn = rng.uniform(-3, 3, count)
    step = rng.uniform([-0.2, -0.2, -0.1], [0.2, 0.2, 0.0], (count, 3))
    given = np.column_stack([step, np.sin(turn), np.cos(turn)]).astype(np.float32)
    expected = np.asarray(jax.nn.sigmoid(score(encode(images), given)))
    logits = policy._score({**policy._encode({"images": images}), "commands": given})
    made = 1 / (1 + np.exp(-logits["logits"].astype(float)))
    np.testing.assert_allclose(made, expected, atol=onnx_policy.TOLERANCE)
    spread.extend(expected)
  assert np.ptp(spread) > 0.05  # trained: it tells commands apart


def test_the_manifest_says_shapes_and_limits(shipped):
  folder, parts = shipped
  manifest = json.loads((folder / "manifest.json").read_text())
  config = parts.weights.config
  assert manifest["inputs"]["images"]["shape"] == [1, *[config.crop_size] * 2, 6]
  assert manifest["inputs"]["commands"]["shape"] == ["N", 5]
  assert manifest["servo"]["num_samples"] == parts.config.num_samples
  assert manifest["constraints"]["yaw_range"] == [-1.0, 1.5]
  score = onnx.load(str(folder / "score.onnx"))
  onnx.checker.check_model(score, full_check=True)
  named = {value.name: value for value in score.graph.input}
  assert set(named) == {*manifest["inputs"]["features"], "commands"}
  assert named["commands"].type.tensor_type.shape.dim[0].dim_param == "N"


def test_golden_values_are_those_of_the_files(shipped):
  folder, _ = shipped
  policy = onnx_reference.OnnxPolicy(folder)
  with np.load(folder / "golden.npz") as golden:
    features = policy._encode({"images": golden["images"]})
    for name, value in features.items():
      np.testing.assert_allclose(value, golden[name], atol=1e-4)
    given = {**features, "commands": golden["commands"]}
    np.testing.assert_allclose(
      policy._score(given)["logits"], golden["logits"], atol=1e-4
    )


def test_the_reference_decides(shipped):
  folder, parts = shipped
  policy = onnx_reference.OnnxPolicy(folder)
  images, pose = _frames(parts.weights.config.frame_size), [0.6, 0.1, 0.12, 0.3]
  low = policy.manifest["workspace"]["low"]

  def decide(seed, where=pose, is_last=False):
    rng = np.random.default_rng(seed)
    return policy(*images, where, low[2], is_last=is_last, rng=rng)

  for seed in range(3):
    action, command, evidence = decide(seed)
    again = decide(seed)
    assert action == again[0] and np.array_equal(command, again[1])
    end = pose[:2] + evidence["best"][:2]
    assert np.all(end <= policy.manifest["workspace"]["high"][:2])
    assert not (0.4 <= end[0] <= 0.5 and -0.2 <= end[1] <= 0.0)  # to keep out of
    assert -1.001 <= pose[3] + evidence["best"][2] <= 1.501
  assert decide(0, is_last=True)[0] == "close"
  assert decide(0, where=[0.45, -0.1, 0.1, 0.0], is_last=True)[0] == "hold"


def test_files_that_are_damaged_or_missing_are_refused(shipped, tmp_path):
  folder, _ = shipped
  for name in ("manifest.json", *onnx_policy.FILES):
    (tmp_path / name).write_bytes((folder / name).read_bytes())
  data = bytearray((tmp_path / "score.onnx").read_bytes())
  data[len(data) // 2] ^= 1
  (tmp_path / "score.onnx").write_bytes(data)
  with pytest.raises(onnx_session.OnnxError, match="score.onnx is damaged"):
    onnx_reference.OnnxPolicy(tmp_path)
  (tmp_path / "encode.onnx").unlink()
  with pytest.raises(onnx_session.OnnxError, match="holds no whole policy"):
    onnx_reference.OnnxPolicy(tmp_path)


def test_files_that_compute_something_else_are_not_written(tmp_path, monkeypatch):
  parts = export.parts_of(SHIPPED[0])
  real = onnx_policy.session

  def wrong(model):
    run = real(model)
    return lambda inputs: {name: 1.01 * value for name, value in run(inputs).items()}

  monkeypatch.setattr(onnx_policy, "session", wrong)
  with pytest.raises(
    onnx_session.OnnxError, match="off JAX's, expected at most 0.0001"
  ):
    onnx_policy.write(tmp_path / "out", parts.weights, workspace=WORKSPACE)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "fields",
  [
    {"command_convs": 0, "pregrasp": False, "stem_form": "direct"},
    # Several forms for CPUs and others; none is bfloat16 here.
    {"channels": 64, "dtype": "bfloat16", "crop_size": 32, "final_convs": 0},
  ],
)
def test_untrained_networks_of_other_forms_convert(fields, tmp_path):
  given = {"channels": 8, "image_convs": 1, "final_convs": 1, **fields}
  config = network.preset("small", **given)
  params, batch_stats = network.build(config).init(jax.random.key(0))
  logit = params["logit"]
  logit["kernel"] = RNG.normal(size=logit["kernel"].shape).astype(np.float32)
  weights = checkpoint.PolicyWeights(config, params, batch_stats, 1)
  manifest = onnx_policy.write(tmp_path, weights, workspace=WORKSPACE)
  assert manifest["largest_gap"] < 1e-4


@pytest.mark.slow
def test_the_reference_decides_like_the_policy(shipped):
  """Over many keys, as their candidates are others: the same search."""
  folder, parts = shipped
  reference = onnx_reference.OnnxPolicy(folder)
  size = parts.weights.config.frame_size
  images, pose = _frames(size), np.array([0.6, 0.1, 0.12, 0.3], np.float32)
  predictor = architectures.build_for_control(parts.weights.config)
  decide = jax.jit(servo.Servo(predictor, parts.config).decide)
  weights = {
    "params": parts.weights.params,
    "batch_stats": parts.weights.batch_stats,
  }
  low, high = (
    np.float32(reference.manifest["workspace"][end]) for end in ("low", "high")
  )
  given = Constraints(keep_out=((0.4, -0.2, 0.5, 0.0),), yaw_range=(-1.0, 1.5)).arrays()
  theirs, ours = [], []
  table = float(low[2])
  for seed in range(12):
    key = np.array([0, seed], np.uint32)
    inputs = Inputs(*images, pose, np.float32(table), low, high, False, key, **given)
    made = decide(weights, inputs)
    theirs.append((float(made.p_best), float(made.p_null)))
    rng = np.random.default_rng(seed)
    action, command, evidence = reference(*images, pose, table, is_last=False, rng=rng)
    ours.append((evidence["p_best"], evidence["p_null"]))
    assert action in ("move", "raise", "close", "hold")
    assert np.isclose(np.linalg.norm(command[3:]), 1)
  theirs, ours = np.array(theirs), np.array(ours)
  np.testing.assert_allclose(ours[:, 1], theirs[:, 1], atol=1e-4)  # no chance in it
  spread = np.hypot(theirs[:, 0].std(), ours[:, 0].std()) / math.sqrt(12)
  assert abs(theirs[:, 0].mean() - ours[:, 0].mean()) < 4 * spread + 1e-3


def test_limits_in_numpy_are_those_of_jax():
  """On random constraints, poses and motions."""
  rng = np.random.default_rng(0)
  project, is_feasible = jax.jit(limits.project), jax.jit(limits.is_feasible)
  is_safe, may_close = jax.jit(limits.is_safe), jax.jit(limits.may_close)
  feasible_set = jax.jit(limits.feasible_set)
  good, bad = 0, 0
  for _ in range(60):
    corners = rng.uniform([0.35, -0.3], [0.7, 0.2], (2, 2))
    regions = tuple((x, y, x + 0.1, y + 0.15) for x, y in corners)
    first = rng.uniform(-3, 3)
    given = Constraints(
      grasp_in=(0.45, -0.15, 0.65, 0.15) if rng.random() < 0.5 else None,
      keep_out=regions,
      yaw_range=(first, first + rng.uniform(0.3, 5)) if rng.random() < 0.5 else None,
    )
    manifest = {
      "workspace": {"low": WORKSPACE.low.tolist(), "high": WORKSPACE.high.tolist()},
      "constraints": {
        "grasp_in": given.grasp_in,
        "keep_out": given.keep_out,
        "yaw_range": given.yaw_range,
      },
      "clearance": limits.CLEARANCE,
    }
    ours = numpy_limits.feasible_set(manifest)
    theirs = feasible_set(WORKSPACE, given.arrays())
    pose = rng.uniform([0.35, -0.25, 0.0, -3], [0.75, 0.25, 0.3, 3]).astype(np.float32)
    motions = rng.uniform([-0.3, -0.3, -3.5], [0.3, 0.3, 3.5], (64, 3))
    motions = motions.astype(np.float32)
    made = numpy_limits.project(motions, pose.astype(float), ours)
    expected = np.asarray(project(motions, pose, theirs))
    np.testing.assert_allclose(made[:, :2], expected[:, :2], atol=1e-5)
    np.testing.assert_allclose(
      np.exp(1j * made[:, 2]), np.exp(1j * expected[:, 2]), atol=1e-4
    )
    metres, radians = limits.CLOSE_SLACK
    slack = {"metres": metres, "radians": radians}
    assert numpy_limits.may_close(pose, ours, slack) == may_close(pose, theirs)
    same = numpy_limits.is_feasible(motions, pose, ours) == np.asarray(
      is_feasible(motions, pose, theirs)
    )
    assert same.mean() > 0.98  # but for what rounds at an edge
    for motion in motions[:8]:
      command = np.asarray(commands.from_search(motion, 0.0))
      safe = bool(is_safe(command, pose, theirs, 9.0, math.pi))
      assert numpy_limits.is_safe(command, pose.astype(float), ours) == safe
      good, bad = good + safe, bad + (not safe)
  assert good > 20 and bad > 20


def test_algorithm_1_in_numpy_is_that_of_jax():
  config = servo.ServoConfig()
  settings = {"close_ratio": config.close_ratio, "raise_ratio": config.raise_ratio}
  for p_null in (0.0, 0.2, 0.45, 0.81, 0.9, math.nan):
    for p_best in (0.1, 0.5, 0.9, 1.0):
      for last in (False, True):
        expected = Action(int(algorithm1.decide(p_null, p_best, last, config)))
        made = onnx_reference.algorithm1(p_null, p_best, last, settings)
        assert made == expected.name.lower()


def test_the_search_in_numpy_finds_a_known_peak():
  peak = np.array([0.05, -0.04, 0.5])

  def probabilities(motions):
    return np.exp(-np.sum(np.square((motions - peak) / [0.1, 0.1, 1.0]), axis=-1))

  settings = {
    "num_samples": cem.NUM_SAMPLES, "num_elites": cem.NUM_ELITES, "num_iterations": 3,
    "num_redraws": cem.NUM_REDRAWS, "initial_std": (0.08, 0.08, 0.8),
    "min_std": (0.004, 0.004, 0.04),
  }  # fmt: skip
  manifest = {
    "workspace": {"low": [0.4, -0.2, 0.0, -3.0], "high": [0.7, 0.2, 0.3, 3.0]},
    "constraints": {"grasp_in": None, "keep_out": [], "yaw_range": None},
    "clearance": limits.CLEARANCE,
  }
  feasible = numpy_limits.feasible_set(manifest)
  pose = np.array([0.55, 0.0, 0.1, 0.0])
  for seed in range(5):
    rng = np.random.default_rng(seed)
    best, p_best = onnx_reference.search(probabilities, pose, feasible, settings, rng)
    assert p_best > 0.95
    np.testing.assert_allclose(
      best / [0.1, 0.1, 1.0], peak / [0.1, 0.1, 1.0], atol=0.25
    )
