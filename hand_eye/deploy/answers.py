"""Checks of a controller on an answer from a server: its own limits.

A server that is wrong, old or not ours may answer anything. Needs NumPy alone.
"""

import dataclasses
import math

import numpy as np

from hand_eye.decision import Action, Cause, Decision, Limits

_ROUNDING = 1e-3  # m and rad, of float32 and of a server's own rounding
_STILL = 1e-6  # m and rad


@dataclasses.dataclass(frozen=True)
class AnswerLimits:
  """The longest motion that a controller accepts, and where it may end.

  Attributes:
    max_step: metres.
    max_turn: radians.
    workspace: lowest and highest (x, y, z, yaw), metres and radians, beside the one
      that an observation brings. Where the gripper is outside already, a motion may end
      outside, but not farther out.
  """

  max_step: float = 0.6
  max_turn: float = math.pi
  workspace: Limits | None = None

  def __post_init__(self) -> None:
    for name in ("max_step", "max_turn"):
      value = getattr(self, name)
      if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number > 0.")
    if self.workspace is not None:
      low, high = (np.asarray(end, np.float32) for end in self.workspace)
      if low.shape != (4,) or high.shape != (4,) or not np.all(low < high):
        raise ValueError(
          f"workspace is {self.workspace!r}, expected (low, high), 4 numbers each, low"
          " below high."
        )
      object.__setattr__(self, "workspace", (low, high))


def broken_rule(
  made: Decision, pose: np.ndarray, limits: AnswerLimits, asked: Limits | None = None
) -> str:
  """Returns which rule a decision breaks, or an empty string.

  Args:
    made: the decision; its numbers are finite.
    pose: [4] measured, from which it moves.
    limits: of the controller.
    asked: the workspace that the observation brought.
  """
  step, turn = made.command[:3], made.command[3:]
  length, change = float(np.linalg.norm(step)), float(np.arctan2(*turn))
  for name, share in (
    ("confidence", made.confidence),
    ("p_null", made.evidence.get("p_null", 0.0)),
    ("p_best", made.evidence.get("p_best", 0.0)),
  ):
    if not 0 <= share <= 1:
      return f"{name} is {share:g}, expected a probability"
  if made.seconds < 0:
    return f"seconds is {made.seconds:g}, expected 0 or more"
  if abs(np.linalg.norm(turn) - 1) > _ROUNDING:
    return f"the direction {turn.tolist()} is no (sin, cos)"
  held = made.action == Action.HOLD
  if held != (made.cause != Cause.NONE):
    return f"{made.action.name} with the cause {made.cause.name}"
  if held or made.action == Action.CLOSE:
    if length > _STILL or abs(change) > _STILL:
      return f"{made.action.name} with a motion of {length:.3g} m, {change:.3g} rad"
    return ""
  if length > limits.max_step + _ROUNDING:
    return f"a motion of {length:.3g} m, expected at most {limits.max_step:g}"
  if abs(change) > limits.max_turn + _ROUNDING:
    return f"a turn of {change:.3g} rad, expected at most {limits.max_turn:g}"
  end = np.append(pose[:3] + step, pose[3] + change)
  for box in (limits.workspace, asked):
    if box is not None and np.any(_excess(end, box) > _excess(pose, box) + _ROUNDING):
      return f"a motion that ends outside the workspace, at {np.round(end, 3).tolist()}"
  return ""


def _excess(pose: np.ndarray, box: Limits) -> np.ndarray:
  """[4] metres and radians by which a pose is outside a box; 0 where it is inside."""
  low, high = (np.asarray(end, float) for end in box)
  excess = np.maximum(np.maximum(low - pose, pose - high), 0.0)
  # From the middle of the range, so that -pi and pi are the same yaw.
  middle, half = (low[3] + high[3]) / 2, (high[3] - low[3]) / 2
  off = abs(np.angle(np.exp(1j * (float(pose[3]) - middle))))
  excess[3] = max(off - half, 0.0)
  return excess
