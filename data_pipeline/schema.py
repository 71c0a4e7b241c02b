"""The one schema of a grasp attempt: its fields, and what is wrong with a record."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np

# Raised whenever a record of before could be misread; written into every dataset.
# 2: fields that only a simulator knows are optional.
SCHEMA_VERSION = 2
READ_VERSIONS = (1, 2)

NULL_COMMAND = np.array([0, 0, 0, 0, 1], np.float32)

# |(sin, cos)| of a command may differ from 1 by float32 rounding, not by more.
_UNIT_NORM_TOLERANCE = 1e-3

# Fields of AttemptRecord by their kind, which have the same name everywhere.
BOOLS = ("success", "drop_test", "simulator_truth")
FLOATS = ("gripper_reading", "table_height")
INTS = ("scene_seed", "attempt_seed", "round")
TEXTS = (
  "unit",
  "attempt_id",
  "grasped",
  "policy",
  "policy_version",
  "software",
)


# What only a simulator knows, and what stands in its place; see `complete`.
OPTIONAL: Mapping[str, Any] = {
  "simulator_truth": False,
  "scene_seed": 0,
  "objects": [],
  "grasped": "",
}


class RecordError(ValueError):
  """A record breaks the schema; the message names field, found and expected."""


class AttemptRecord(TypedDict):
  """One grasp attempt of T >= 1 steps, as plain NumPy.

  Poses are (x, y, z, yaw) of the gripper in the robot base frame, metres and
  radians, z at the fingertips. Commands are (dx, dy, dz, sin dyaw, cos dyaw).
  """

  pregrasp_image: np.ndarray  # uint8[H, W, 3] RGB: before the gripper is in view.
  images: np.ndarray  # uint8[T, H, W, 3] RGB: before each step's command.
  poses: np.ndarray  # float32[T, 4]: measured, before each step's command.
  commands: np.ndarray  # float32[T, 5]: executed; the last is the null command.
  success: bool  # The label, from gripper reading and drop test.
  gripper_reading: float  # Finger opening after lifting, metres.
  drop_test: bool  # Whether the images before and after dropping differ.
  simulator_truth: NotRequired[bool]  # What the simulator knows; never trained on.
  table_height: float  # Metres, robot base frame.
  unit: str  # The robot, by name.
  scene_seed: NotRequired[int]  # int64: gives objects and their arrangement.
  attempt_seed: int  # int64: number of the attempt in its scene; with it, its draws.
  attempt_id: str  # Unique within a dataset.
  objects: NotRequired[list[str]]  # Names of the object instances in the bin.
  grasped: NotRequired[str]  # Name of the object instance held at the end; '' if none.
  policy: str
  policy_version: str
  round: int  # int64: one collection with one version of the network.
  software: str  # JSON of the versions of the software that made the attempt.
  unknown: NotRequired[list[str]]  # Fields of OPTIONAL that are not known.


def complete(record: Mapping[str, Any]) -> dict[str, Any]:
  """The record with all fields, and in `unknown` those that it came without.

  An unknown scene is one of its own: its seed is a checksum of what was seen, so that
  attempts are neither taken for repeated ones nor for such in one bin.
  """
  given = set(record.get("unknown", ()))
  unknown = sorted(given | (OPTIONAL.keys() - record.keys()))
  whole = {**OPTIONAL, **record, "unknown": unknown}
  if "scene_seed" in unknown and "scene_seed" not in record:
    digest = hashlib.sha256()
    for name in ("pregrasp_image", "images", "poses"):
      digest.update(np.ascontiguousarray(record.get(name, 0)).tobytes())
    whole["scene_seed"] = int.from_bytes(digest.digest()[:7], "big")
  return whole


def validate(record: AttemptRecord) -> None:
  """Checks an attempt against the schema.

  Raises:
    RecordError: naming the first field that is wrong, what was found and what
      was expected.
  """
  for problem in _problems(dict(record)):
    name = record.get("attempt_id", "without attempt_id")
    raise RecordError(f"attempt {name!r} breaks the schema: {problem}")


def _problems(record: dict[str, Any]) -> Iterator[str]:
  """Yields what is wrong with a record; later checks rely on earlier ones."""
  required = AttemptRecord.__required_keys__
  if missing := sorted(required - record.keys()):
    yield f"fields missing: {missing}"
  known = required | AttemptRecord.__optional_keys__
  if unknown := sorted(record.keys() - known):
    yield f"unknown fields {unknown}, known are {sorted(known)}"
  record = complete(record)
  if wrong_names := sorted(set(record["unknown"]) - OPTIONAL.keys()):
    yield f"unknown names {wrong_names}, expected some of {sorted(OPTIONAL)}"

  pregrasp, images = record["pregrasp_image"], record["images"]
  yield from _array_problems("pregrasp_image", pregrasp, np.uint8, (None, None, 3))
  if pregrasp.shape[0] != pregrasp.shape[1]:
    yield f"pregrasp_image has shape {pregrasp.shape}, expected a square image"
  yield from _array_problems("images", images, np.uint8, (None, *pregrasp.shape))
  num_steps = len(images)
  if num_steps == 0:
    yield "images has no step, expected at least 1"
  yield from _array_problems("poses", record["poses"], np.float32, (num_steps, 4))
  commands = record["commands"]
  yield from _array_problems("commands", commands, np.float32, (num_steps, 5))
  norms = np.linalg.norm(commands[:, 3:], axis=1)
  wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT_NORM_TOLERANCE)
  if wrong.size:
    yield (
      f"the command of step {wrong[0] + 1} has |(sin, cos)| = {norms[wrong[0]]:.4f}, "
      "expected 1"
    )
  if not np.array_equal(commands[-1], NULL_COMMAND):
    yield (
      f"the last command is {commands[-1].tolist()}, expected the null command "
      f"{NULL_COMMAND.tolist()}"
    )

  for name in BOOLS:
    if not isinstance(record[name], bool | np.bool_):
      yield f"{name} is {record[name]!r}, expected a bool"
  for name in FLOATS:
    value = record[name]
    if not isinstance(value, float | int | np.floating) or not np.isfinite(value):
      yield f"{name} is {value!r}, expected a finite number in metres"
  for name in INTS:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
      yield f"{name} is {value!r}, expected an integer"
    if not -(2**63) <= value < 2**63:
      yield f"{name} is {value}, expected an integer that fits into int64"
  for name in TEXTS:
    if not isinstance(record[name], str):
      yield f"{name} is {record[name]!r}, expected a str"
  objects = record["objects"]
  if not isinstance(objects, list | tuple) or not all(
    isinstance(name, str) for name in objects
  ):
    yield f"objects is {objects!r}, expected a list of str"


def _array_problems(
  name: str, value: Any, dtype: Any, shape: tuple[int | None, ...]
) -> Iterator[str]:
  if not isinstance(value, np.ndarray):
    yield f"{name} is a {type(value).__name__}, expected a NumPy array"
  if value.dtype != dtype:
    yield f"{name} has dtype {value.dtype}, expected {np.dtype(dtype)}"
  fits = len(value.shape) == len(shape) and all(
    want in (None, got) for got, want in zip(value.shape, shape, strict=True)
  )
  if not fits:
    expected = str(shape).replace("None", "any")
    yield f"{name} has shape {value.shape}, expected {expected}"
  if value.dtype == np.float32 and not np.isfinite(value).all():
    row = int(np.argwhere(~np.isfinite(value))[0][0])
    yield f"{name} of step {row + 1} is {value[row].tolist()}, expected finite numbers"
