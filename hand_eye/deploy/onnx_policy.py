"""A policy as ONNX files: the two halves of its network, and settings for the search.

  encode.onnx    images uint8 [1, S, S, 6] -> features
  score.onnx     features, commands float32 [N, 5] -> logits [N]; N is free
  manifest.json  shapes, scales, the search's settings, limits, checksums
  golden.npz     inputs of both halves, with JAX's outputs

`write` makes such a folder and tests it with onnxruntime; `onnx_reference` runs one
without jax. docs/onnx.md describes it for other languages. Needs `pip install onnx
onnxruntime`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hand_eye import architectures, checkpoint, commands, limits, network, servo
from hand_eye.constraints import Constraints
from hand_eye.deploy import onnx_graph
from hand_eye.deploy.onnx_graph import FREE
from hand_eye.deploy.onnx_session import Arrays, OnnxError, session

FORMAT = "hand_eye ONNX 1"
TOLERANCE = 1e-4  # of probabilities, between onnxruntime and JAX
FILES = ("encode.onnx", "score.onnx", "golden.npz")


def write(
  folder: str | pathlib.Path,
  weights: checkpoint.PolicyWeights,
  config: servo.ServoConfig | None = None,
  *,
  workspace: commands.Workspace,
  constraints: Constraints | None = None,
  about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Writes a policy's ONNX files, after onnxruntime gave what JAX gives.

  Args:
    folder: made if it is not there; files in it are replaced.
    weights: from `checkpoint.load_policy`, of any architecture whose operations
      `onnx_operations` knows. Both halves compute in float32.
    config: thresholds and sizes of the search.
    workspace: poses that the policy may send the gripper to.
    constraints: the user's own limits.
    about: JSON-able words on where the weights come from.

  Returns:
    The manifest.

  Raises:
    OnnxError: onnx or onnxruntime is not installed, an operation is not known, or
      probabilities differ by more than TOLERANCE.
    OSError: the folder cannot be written.
  """
  config, constraints = config or servo.ServoConfig(), constraints or Constraints()
  members, golden, inputs = _halves(weights, config.num_samples)
  gap = _largest_gap(members, golden)
  if not gap <= TOLERANCE:
    raise OnnxError(
      f"onnxruntime's probabilities are {gap:.2g} off JAX's, expected at most"
      f" {TOLERANCE:g}: these files are not written."
    )
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "golden.npz").open("wb") as file:
    np.savez_compressed(file, allow_pickle=False, **golden)
  for name, data in members.items():
    (folder / name).write_bytes(data)
  low, high = (np.asarray(end, np.float32) for end in (workspace.low, workspace.high))
  metres, radians = limits.CLOSE_SLACK
  manifest = {
    "format": FORMAT,
    "network": dataclasses.asdict(weights.config),
    "inputs": inputs,
    "servo": dataclasses.asdict(config),
    "workspace": {"low": low.tolist(), "high": high.tolist()},
    "constraints": dataclasses.asdict(constraints),
    "clearance": limits.CLEARANCE,
    "close_slack": {"metres": metres, "radians": radians},
    "largest_gap": gap,
    "step": weights.step,
    "software": checkpoint.software_versions(),
    "about": dict(about or {}),
    "sha256": {name: _digest(folder / name) for name in FILES},
  }
  (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
  return manifest


def _halves(
  weights: checkpoint.PolicyWeights, num_samples: int
) -> tuple[dict[str, bytes], Arrays, dict[str, Any]]:
  """Both files, inputs with their answers, and what the manifest says of the inputs."""
  # What XLA needs bfloat16 for, other engines decide for themselves.
  config = weights.config
  if hasattr(config, "dtype"):
    config = dataclasses.replace(config, dtype="float32")
  predictor = architectures.build_for_control(config)
  prepared = jax.jit(predictor.prepare)(weights.params, weights.batch_stats)
  params, batch_stats = jax.device_get(prepared)

  def encode(images):
    return predictor.encode(params, batch_stats, images)

  shape = (1, config.crop_size, config.crop_size, network.IMAGE_CHANNELS)
  images = jax.ShapeDtypeStruct(shape, np.uint8)
  paths, structure = jax.tree.flatten_with_path(jax.eval_shape(encode, images))
  names = [_name(path) for path, _ in paths]
  specs = dict(zip(names, (spec for _, spec in paths), strict=True))

  def score(*given):
    *leaves, candidates = given
    features = jax.tree.unflatten(structure, leaves)
    return [predictor.score(params, batch_stats, features, candidates)]

  def leaves_of(images):
    return jax.tree.leaves(encode(images))

  many = jax.ShapeDtypeStruct((FREE, network.COMMAND_SIZE), np.float32)
  members = {
    "encode.onnx": onnx_graph.convert(leaves_of, {"images": images}, names, "encode"),
    "score.onnx": onnx_graph.convert(
      score, {**specs, "commands": many}, ["logits"], "score"
    ),
  }
  rng = np.random.default_rng(0)
  golden: Arrays = {"images": rng.integers(0, 256, shape, dtype=np.uint8)}
  motions = rng.uniform([-0.3, -0.3, -0.3, -3], [0.3, 0.3, 0.1, 3], (num_samples, 4))
  steps, turns = motions[:, :3], motions[:, 3:]
  candidates = np.hstack([steps, np.sin(turns), np.cos(turns)])
  golden["commands"] = candidates.astype(np.float32)
  leaves = jax.jit(leaves_of)(golden["images"])
  golden |= dict(zip(names, map(np.asarray, leaves), strict=True))
  golden["logits"] = np.asarray(jax.jit(score)(*leaves, golden["commands"])[0])
  inputs = {
    "images": {
      "dtype": "uint8",
      "shape": list(shape),
      "meaning": "RGB of the pregrasp image, then of the image; centre crops, 0 to 255",
    },
    "features": {
      name: {"dtype": str(spec.dtype), "shape": list(spec.shape)}
      for name, spec in specs.items()
    },
    "commands": {
      "dtype": "float32",
      "shape": ["N", network.COMMAND_SIZE],
      "meaning": "(dx, dy, dz) metres, (sin, cos) of the turn; robot base frame; ending"
      " at the table",
    },
    "logits": {"dtype": "float32", "shape": ["N"], "meaning": "sigmoid: probability"},
  }
  return members, golden, inputs


def _largest_gap(members: Mapping[str, bytes], golden: Arrays) -> float:
  """Of probabilities, for one, a few, and all commands."""
  encode, score = (session(members[name]) for name in ("encode.onnx", "score.onnx"))
  features = encode({"images": golden["images"]})
  gaps = []
  for count in (1, 3, len(golden["commands"])):
    logits = score({**features, "commands": golden["commands"][:count]})["logits"]
    gaps.append(np.abs(_sigmoid(logits) - _sigmoid(golden["logits"][:count])).max())
  return float(np.max(gaps))


def _name(path: Any) -> str:
  """Of a part of the features: where it is among them."""
  return "_".join(["features", *(str(getattr(key, "key", key)) for key in path)])


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-logits.astype(float)))


def _digest(path: pathlib.Path) -> str:
  return hashlib.sha256(path.read_bytes()).hexdigest()
