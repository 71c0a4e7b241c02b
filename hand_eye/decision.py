"""The protocol of a policy: what it is given and what it answers.

  decision = policy(observation, key)

This file and `runtime` are all that a control process needs beside jax and NumPy.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

Limits = tuple[np.ndarray, np.ndarray]  # Lowest and highest pose, float32[4] each.


# Metres by which a table may lie outside the workspace: float32 rounding, no more.
_TABLE_SLACK = 1e-4


class Action(enum.IntEnum):
  """What Algorithm 1 can answer, and HOLD where there is no answer to give."""

  MOVE = 0  # to the best pose, down at the table (line 9)
  RAISE = 1  # to the best pose, but above the objects (line 7)
  CLOSE = 2  # close the gripper here (line 5)
  HOLD = 3  # stay: no finite prediction, or an input that cannot be used


class Observation(Protocol):
  """What a policy sees before step t. Poses are in the robot base frame, m and rad."""

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


class Decision(NamedTuple):
  """What a policy answers.

  command: [5] float32, the next motion from the current pose: (dx, dy, dz) metres,
    (sin, cos) of the change in yaw; robot base frame. No motion with CLOSE and HOLD.
  action: of Algorithm 1.
  reason: why, for people.
  evidence: what the decision rests on:
    candidates [N, 5] float32: commands that were scored, all ending at the table;
    probabilities [N] float32: of success, one a candidate;
    best [5] float32: the candidate with the highest;
    p_best, p_null, ratio: its probability, that of closing here, and their quotient;
    action: name of the action, in lower case.
    With HOLD it may hold the action alone.
  """

  command: np.ndarray
  action: Action
  reason: str
  evidence: dict[str, Any]

  @property
  def close(self) -> bool:
    """Whether the gripper is to be closed now."""
    return self.action == Action.CLOSE


class ObservationError(ValueError):
  """An observation of the wrong shape or type: a mistake in the program."""


def hold(reason: str) -> Decision:
  """Returns the decision to stay."""
  command = np.array([0.0, 0.0, 0.0, 0.0, 1.0], np.float32)
  return Decision(command, Action.HOLD, reason, {"action": "hold"})


def check_observation(observation: Observation, frame_size: int) -> None:
  """Raises ObservationError unless images and pose have the policy's shape and type."""
  for name in ("pregrasp_image", "image"):
    image = np.asarray(getattr(observation, name))
    if image.shape != (frame_size, frame_size, 3) or image.dtype != np.uint8:
      raise ObservationError(
        f"{name} is {image.dtype}{list(image.shape)}, expected"
        f" uint8[{frame_size}, {frame_size}, 3]: send whole camera frames, the policy"
        " crops them."
      )
  pose = np.asarray(observation.pose)
  if pose.shape != (4,) or not np.issubdtype(pose.dtype, np.floating):
    raise ObservationError(
      f"pose is {pose.dtype}{list(pose.shape)}, expected float32[4]: (x, y, z, yaw)."
    )


def answer(
  call: Callable[..., Mapping[str, Any]],
  observation: Observation,
  key: np.ndarray,
  *,
  frame_size: int,
  bounds: Limits | None,
) -> Decision:
  """Checks an observation, decides on it by `call`, and puts the answer into words.

  Args:
    call: what `servo.make_array_fn` made, without its first argument.
    observation: of this step.
    key: [2] uint32, raw key data; consumed.
    frame_size: F that the policy was made for.
    bounds: poses that this policy may send the gripper to. An observation may narrow
      them by a `workspace` of its own, and must bring one if this is None.

  Raises:
    ObservationError: for images or a pose of another shape or type, or no workspace.
  """
  check_observation(observation, frame_size)
  low, high = _workspace(observation, bounds)
  for name, value in (
    ("measured pose", observation.pose),
    ("table height", observation.table_height),
    ("workspace", (low, high)),
  ):
    if not np.all(np.isfinite(value)):
      return hold(f"the {name} is not finite")
  if np.any(low > high):
    return hold("the workspace is empty")
  if not low[2] - _TABLE_SLACK <= observation.table_height <= high[2] + _TABLE_SLACK:
    return hold("the table height is outside the workspace")
  is_last = bool(observation.step >= observation.num_steps)
  arrays = call(
    np.asarray(observation.pregrasp_image),
    np.asarray(observation.image),
    np.asarray(observation.pose, np.float32),
    np.float32(observation.table_height),
    low,
    high,
    np.bool_(is_last),
    np.asarray(key, np.uint32),
  )
  return _in_words({name: np.asarray(a) for name, a in arrays.items()}, is_last)


def _workspace(observation: Observation, bounds: Limits | None) -> Limits:
  given = getattr(observation, "workspace", None)
  limits = [pair for pair in (bounds, given) if pair is not None]
  if not limits:
    raise ObservationError(
      "no workspace: give the policy one, or give each observation (low [4], high [4])."
    )
  low = np.max([np.asarray(low, np.float32) for low, _ in limits], axis=0)
  high = np.min([np.asarray(high, np.float32) for _, high in limits], axis=0)
  return low, high


def _in_words(arrays: Mapping[str, np.ndarray], is_last: bool) -> Decision:
  action = Action(int(arrays["action"]))
  p_null, p_best = float(arrays["p_null"]), float(arrays["p_best"])
  if action == Action.HOLD:
    return hold("the network's prediction is not finite")
  if action == Action.CLOSE and is_last:
    reason = "the last step closes"
  else:
    consequence = {
      Action.CLOSE: "about as good as any motion",
      Action.RAISE: "far from the best motion, so raise on the way",
      Action.MOVE: "worse than the best motion",
    }[action]
    reason = f"closing here has p = {p_null:.2f} of {p_best:.2f}: {consequence}"
  evidence = {
    "candidates": arrays["samples"],
    "probabilities": arrays["probabilities"],
    "best": arrays["best"],
    "p_null": p_null,
    "p_best": p_best,
    "ratio": float(arrays["ratio"]),
    "action": action.name.lower(),
  }
  return Decision(arrays["command"], action, reason, evidence)
