"""What a policy sees before a step, and the checks of it.

`read` raises `ObservationError` for a field of the wrong type or shape: a mistake in
the program. `problem` names values that no robot measures, such as a pose in
millimetres; a policy answers them with HOLD. Needs NumPy alone.
"""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np

Limits = tuple[np.ndarray, np.ndarray]  # Lowest and highest pose, float32[4] each.

# A gripper farther outside the workspace than this is not believed: metres along x, y
# and z. Below the table there is little room.
MARGIN_BELOW = np.array([0.5, 0.5, 0.1], np.float32)
MARGIN_ABOVE = np.array([0.5, 0.5, 0.5], np.float32)
LARGEST_YAW = 2 * math.pi + 1e-3  # rad; more is degrees, or a counter that ran on
LARGEST_REACH = 10.0  # m; a workspace beyond it is in millimetres

# Metres by which a table may lie outside the workspace: float32 rounding, no more.
_TABLE_SLACK = 1e-4


class Observation(Protocol):
  """What a policy sees before step t. Poses are in the robot base frame, m and rad.

  It may have two fields more: `workspace`, (low [4], high [4]), which narrows that of
  the policy, and `age`, seconds since `image` was taken.
  """

  @property
  def pregrasp_image(self) -> np.ndarray:
    """[F, F, 3] uint8 RGB of the scene before the gripper came into view."""

  @property
  def image(self) -> np.ndarray:
    """[F, F, 3] uint8 RGB, now."""

  @property
  def pose(self) -> np.ndarray:
    """[4] float32 measured (x, y, z, yaw); z is the height of the fingertips."""

  @property
  def step(self) -> int:
    """t, from 1."""

  @property
  def num_steps(self) -> int:
    """T, the step that closes the gripper whatever the network says."""

  @property
  def table_height(self) -> float:
    """z of fingertips that touch the table, metres."""


class ObservationError(ValueError):
  """An observation or key of the wrong shape or type: a mistake in the program."""


class Seen(NamedTuple):
  """An observation whose fields have the right shapes and types; values may be wrong.

  Fields are those of `Observation`: images uint8, numbers as float32. workspace and age
  are None where they were not given.
  """

  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray
  step: int
  num_steps: int
  table_height: float
  workspace: Limits | None = None
  age: float | None = None


def read(observation: Observation, frame_size: int | None = None) -> Seen:
  """Returns the fields of an observation in their right types.

  Numbers are cast to float32 here, so that what is checked is what is computed with:
  1e39 is finite only as a float64.

  Args:
    observation: of one step.
    frame_size: F of the policy; None for square images of any size.

  Raises:
    ObservationError: naming the field, what it is and what was expected.
  """
  return Seen(
    pregrasp_image=_image(observation, "pregrasp_image", frame_size),
    image=_image(observation, "image", frame_size),
    pose=_pose(observation),
    step=_count(observation, "step"),
    num_steps=_count(observation, "num_steps"),
    table_height=_number("table_height", _field(observation, "table_height"), "m"),
    workspace=_workspace(getattr(observation, "workspace", None)),
    age=_age(getattr(observation, "age", None)),
  )


def read_key(key: Any) -> np.ndarray:
  """Returns a key as uint32[2].

  Raises:
    ObservationError: it is something else, such as what `jax.random.key` makes.
  """
  array = _array(key)
  if (
    array is None
    or array.shape != (2,)
    or not np.issubdtype(array.dtype, np.integer)
    or np.any(array < 0)
    or np.any(array > 2**32 - 1)
  ):
    raise ObservationError(
      f"key is {_describe(key)}, expected uint32[2]: raw key data, such as"
      " jax.random.key_data(jax.random.key(0))."
    )
  return array.astype(np.uint32)


def joined_workspace(seen: Seen, bounds: Limits | None) -> Limits:
  """Returns the poses that both a policy's `bounds` and the observation allow.

  Raises:
    ObservationError: neither has a workspace.
  """
  limits = [pair for pair in (bounds, seen.workspace) if pair is not None]
  if not limits:
    raise ObservationError(
      "no workspace: give the policy one, or give each observation (low [4], high [4])."
    )
  low = np.max([np.asarray(low, np.float32) for low, _ in limits], axis=0)
  high = np.min([np.asarray(high, np.float32) for _, high in limits], axis=0)
  return low, high


def not_finite(seen: Seen) -> str:
  """Returns which value is NaN or infinite, or an empty string."""
  for name, value in (
    ("measured pose", seen.pose),
    ("table height", seen.table_height),
    ("workspace", seen.workspace),
    ("image's age", seen.age),
  ):
    if value is not None and not np.all(np.isfinite(value)):
      return f"the {name} is not finite"
  return ""


def problem(seen: Seen, bounds: Limits | None) -> str:
  """Returns which value cannot be used or believed, or an empty string.

  Args:
    seen: of `read`.
    bounds: the policy's own workspace, if it has one.

  Raises:
    ObservationError: neither has a workspace.
  """
  lost = not_finite(seen._replace(age=None))
  if lost:
    return lost
  low, high = joined_workspace(seen, bounds)
  if not np.all(low < high):
    return "the workspace is empty: a low end is not below its high end"
  if np.max(np.abs([low, high])) > LARGEST_REACH:
    return f"the workspace reaches beyond {LARGEST_REACH:g} m: expected metres, radians"
  if not low[2] - _TABLE_SLACK <= seen.table_height <= high[2] + _TABLE_SLACK:
    return (
      f"the table height is outside the workspace: {seen.table_height:g} m, expected"
      f" {low[2]:g} to {high[2]:g}"
    )
  if bounds is not None:
    # A workspace that one observation narrows does not move the robot.
    low, high = joined_workspace(seen._replace(workspace=None), bounds)
  least, most = low[:3] - MARGIN_BELOW, high[:3] + MARGIN_ABOVE
  for axis, at, first, last in zip("xyz", seen.pose, least, most, strict=False):
    if not first <= at <= last:
      return (
        f"the measured {axis} is {at:g} m, expected {first:.2f} to {last:.2f}: far"
        " outside the workspace"
      )
  if abs(seen.pose[3]) > LARGEST_YAW:
    return f"the measured yaw is {seen.pose[3]:g} rad, expected -2 pi to 2 pi"
  return ""


def _field(observation: Any, name: str) -> Any:
  try:
    return getattr(observation, name)
  except AttributeError:
    raise ObservationError(
      f"{name} is missing in {type(observation).__name__}, expected an observation with"
      " pregrasp_image, image, pose, step, num_steps and table_height."
    ) from None


def _image(observation: Any, name: str, frame_size: int | None) -> np.ndarray:
  value = _field(observation, name)
  image = _array(value)
  size = "F" if frame_size is None else frame_size
  if (
    image is None
    or image.dtype != np.uint8
    or image.ndim != 3
    or image.shape != (frame_size or image.shape[0], image.shape[0], 3)
  ):
    raise ObservationError(
      f"{name} is {_describe(value)}, expected uint8[{size}, {size}, 3]: send whole"
      " camera frames, the policy crops them."
    )
  return image


def _pose(observation: Any) -> np.ndarray:
  value = _field(observation, "pose")
  pose = _array(value)
  if pose is None or pose.shape != (4,) or not np.issubdtype(pose.dtype, np.floating):
    raise ObservationError(
      f"pose is {_describe(value)}, expected float32[4]: (x, y, z, yaw)."
    )
  return _float32(pose)


def _count(observation: Any, name: str) -> int:
  value = _field(observation, name)
  array = _array(value)
  if array is None or array.shape or not np.issubdtype(array.dtype, np.integer):
    raise ObservationError(f"{name} is {_describe(value)}, expected an integer >= 1.")
  if array < 1:
    raise ObservationError(f"{name} is {array}, expected an integer >= 1.")
  return int(array)


def _number(name: str, value: Any, unit: str) -> float:
  array = _array(value)
  if array is None or array.shape or not _is_real(array):
    raise ObservationError(
      f"{name} is {_describe(value)}, expected one number ({unit})."
    )
  return float(_float32(array))


def _age(value: Any) -> float | None:
  return None if value is None else _number("age", value, "s, or None")


def _workspace(value: Any) -> Limits | None:
  if value is None:
    return None
  ends = _array(value)
  if ends is None or ends.shape != (2, 4) or not _is_real(ends):
    raise ObservationError(
      f"workspace is {_describe(value)}, expected (low, high), float32[4] each:"
      " (x, y, z, yaw)."
    )
  low, high = _float32(ends)
  return low, high


def _array(value: Any) -> np.ndarray | None:
  """`value` as an array, or None where it is none."""
  try:
    return np.asarray(value)
  except (TypeError, ValueError, RuntimeError):  # ragged, or a typed key of JAX
    return None


def _is_real(array: np.ndarray) -> bool:
  kinds = (np.floating, np.integer)
  return any(np.issubdtype(array.dtype, kind) for kind in kinds)


def _float32(array: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):  # becomes infinite, and is then refused
    return array.astype(np.float32)


def _describe(value: Any) -> str:
  """A value's type and shape, or the value itself where it has none."""
  shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
  if shape is None or dtype is None:
    words = repr(value)
    return f"{type(value).__name__} {words if len(words) <= 60 else words[:57] + '...'}"
  return f"{dtype}{list(shape)}"
