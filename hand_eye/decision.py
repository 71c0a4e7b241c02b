"""The protocol of a policy: what it is given and what it answers.

  decision = policy(observation, key)

Needs NumPy alone. `answer` checks an observation, calls the decision function, and adds
a reason in words.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hand_eye import constraints as constraints_lib
from hand_eye import observations
from hand_eye.constraints import Constraints
from hand_eye.observations import Limits, Observation, ObservationError

__all__ = [
  "Action",
  "Cause",
  "Decision",
  "Inputs",
  "Limits",
  "Observation",
  "ObservationError",
  "answer",
  "hold",
  "in_words",
  "inputs_of",
  "is_last",
]


class Inputs(NamedTuple):
  """The inputs of a compiled decision, apart from the weights. Exported functions take
  the fields as arguments, in this order.

  pregrasp_image, image: [F, F, 3] uint8, whole camera frames.
  pose: [4] float32, measured (x, y, z, yaw), metres and radians, robot base frame.
  table_height: [] float32, metres.
  low, high: [4] float32, the workspace: poses that commands may lead to.
  is_last: [] bool, whether t = T.
  key: [2] uint32, raw key data; consumed.
  grasp_in, keep_out, yaw_range: `Constraints.arrays`.
  """

  pregrasp_image: Any
  image: Any
  pose: Any
  table_height: Any
  low: Any
  high: Any
  is_last: Any
  key: Any
  grasp_in: Any
  keep_out: Any
  yaw_range: Any


class Action(enum.IntEnum):
  """What Algorithm 1 can answer, and HOLD where there is no answer to give."""

  MOVE = 0  # to the best pose, down at the table (line 9)
  RAISE = 1  # to the best pose, but above the objects (line 7)
  CLOSE = 2  # close the gripper here (line 5)
  HOLD = 3  # stay: see the cause


class Cause(enum.IntEnum):
  """Why a policy holds. The first ones are found by the compiled decision."""

  NONE = 0  # it does not hold
  NOT_FINITE = 1  # a score of the network is NaN or infinite
  NOTHING_ALLOWED = 2  # the limits leave no motion
  MAY_NOT_CLOSE = 3  # the last step, but the gripper is where it may not close
  UNSAFE = 4  # the command would end outside the limits
  NO_TIME = 5  # the deadline left no time for an iteration
  BAD_INPUT = 6  # pose, table height or workspace are implausible, or leave no room
  BLACK_FRAME = 7  # an image of one colour
  FROZEN_FRAME = 8  # the camera sends the same image again and again
  OLD_FRAME = 9  # the image was taken too long ago
  STALE = 10  # the watchdog: no fresh decision has come
  NO_ANSWER = 11  # a server could not be reached, or was busy, or said no
  FAILED = 12  # an error while deciding
  BAD_ANSWER = 13  # a server's answer breaks the client's own limits


_WORDS: Mapping[Cause, str] = {
  Cause.NOT_FINITE: "a score of the network is not finite",
  Cause.NOTHING_ALLOWED: "the workspace and the constraints leave no motion",
  Cause.MAY_NOT_CLOSE: "the last step would close where the gripper may not",
  Cause.UNSAFE: "the command would end outside the limits",
  Cause.NO_TIME: "the deadline left no time for one iteration",
}


class Decision(NamedTuple):
  """What a policy answers.

  command: [5] float32, the next motion from the current pose: (dx, dy, dz) metres,
    (sin, cos) of the change in yaw; robot base frame. No motion with CLOSE and HOLD.
  action: of Algorithm 1.
  reason: why, in words.
  evidence: what the decision rests on, N candidates of I iterations:
    candidates [N, 5] float32: commands that were scored, all ending at the table;
    probabilities [N] float32: of success, one a candidate;
    means [I, 3], covariances [I, 3, 3] float32: of the Gaussians that they come from;
    best [5] float32: the candidate with the highest;
    p_best, p_null, ratio: its probability, that of closing here, and their quotient;
    action: name of the action, in lower case.
    HOLD has the probabilities if they were found and are finite, else the action alone.
  confidence: predicted probability that what is sent ends in a success: of closing
    here with CLOSE, of the best motion with MOVE and RAISE, 0 with HOLD.
  cause: of HOLD, or NONE.
  iterations: of the search, made before the answer.
  complete: whether these are all that the policy was made for.
  seconds: that the decision took, where the policy has a clock, else 0.
  on_time: whether a deadline, if there was one, was kept.
  """

  command: np.ndarray
  action: Action
  reason: str
  evidence: dict[str, Any]
  confidence: float = 0.0
  cause: Cause = Cause.NONE
  iterations: int = 0
  complete: bool = True
  seconds: float = 0.0
  on_time: bool = True

  @property
  def close(self) -> bool:
    """Whether the gripper is to be closed now."""
    return self.action == Action.CLOSE


def hold(
  reason: str, cause: Cause = Cause.BAD_INPUT, evidence: Mapping[str, Any] | None = None
) -> Decision:
  """Returns the decision to stay."""
  command = np.array([0.0, 0.0, 0.0, 0.0, 1.0], np.float32)
  told = {**(evidence or {}), "action": "hold"}
  return Decision(command, Action.HOLD, reason, told, cause=cause, complete=False)


def answer(
  decide: Callable[[Inputs], Mapping[str, Any]],
  observation: Observation,
  key: np.ndarray,
  *,
  frame_size: int,
  bounds: Limits | None,
  constraints: Constraints | None = None,
) -> Decision:
  """Checks an observation, decides on it, and puts the answer into words.

  Args:
    decide: the compiled decision: `ServoDecision`, or such a dict.
    observation: of this step.
    key: [2] uint32, raw key data; consumed.
    frame_size: F that the policy was made for.
    bounds: poses that this policy may send the gripper to. An observation may narrow
      them by a `workspace` of its own, and must bring one if this is None.
    constraints: the user's own limits.

  Raises:
    ObservationError: for a field or key of another shape or type, or no workspace.
  """
  inputs = inputs_of(
    observation, key, frame_size=frame_size, bounds=bounds, constraints=constraints
  )
  if isinstance(inputs, Decision):
    return inputs
  arrays = {name: np.asarray(array) for name, array in decide(inputs).items()}
  return in_words(arrays, is_last(observation))


def inputs_of(
  observation: Observation,
  key: np.ndarray,
  *,
  frame_size: int,
  bounds: Limits | None,
  constraints: Constraints | None = None,
) -> Inputs | Decision:
  """What a compiled decision takes, or HOLD where the observation makes no sense.

  Arguments and errors are those of `answer`.
  """
  seen = observations.read(observation, frame_size)
  key = observations.read_key(key)
  problem = observations.problem(seen, bounds)
  if problem:
    return hold(problem)
  low, high = observations.joined_workspace(seen, bounds)
  return Inputs(
    pregrasp_image=seen.pregrasp_image,
    image=seen.image,
    pose=seen.pose,
    table_height=np.asarray(seen.table_height, np.float32),
    low=low,
    high=high,
    is_last=np.asarray(is_last(seen)),
    key=key,
    **constraints_lib.ensure(constraints).arrays(),
  )


def is_last(observation: Observation) -> bool:
  """Whether t = T: the step that closes whatever the network says."""
  return bool(observation.step >= observation.num_steps)


def in_words(arrays: Mapping[str, np.ndarray], last: bool) -> Decision:
  """Returns the decision that a compiled function made.

  Rejects output that is not finite: HOLD.
  """
  action, cause = Action(int(arrays["action"])), Cause(int(arrays["cause"]))
  planned, size = arrays["means"].shape[0], arrays["candidates"].shape[0]
  done = int(arrays["iterations"])
  count = done * (size // planned)
  p_null, p_best = float(arrays["p_null"]), float(arrays["p_best"])
  evidence: dict[str, Any] = {
    "candidates": arrays["candidates"][:count],
    "probabilities": arrays["probabilities"][:count],
    "means": arrays["means"][:done],
    "covariances": arrays["covariances"][:done],
    "best": arrays["best"],
    "p_null": p_null,
    "p_best": p_best,
    "ratio": float(arrays["ratio"]),
    "action": action.name.lower(),
  }
  finite = all(
    np.all(np.isfinite(value))
    for value in evidence.values()
    if not isinstance(value, str)
  )
  if not (finite and np.all(np.isfinite(arrays["command"]))):
    action, cause = Action.HOLD, cause or Cause.NOT_FINITE
  if action == Action.HOLD:
    known = evidence if finite and done else None
    return hold(_WORDS[cause], cause, known)._replace(iterations=done)
  reason = _reason(action, p_null, p_best, last)
  if done < planned:
    reason += f" (the best of {done} of {planned} iterations: the deadline came)"
  return Decision(
    arrays["command"],
    action,
    reason,
    evidence,
    confidence=p_null if action == Action.CLOSE else p_best,
    iterations=done,
    complete=done == planned,
  )


def _reason(action: Action, p_null: float, p_best: float, last: bool) -> str:
  if action == Action.CLOSE and last:
    return "the last step closes"
  consequence = {
    Action.CLOSE: "about as good as any motion",
    Action.RAISE: "far from the best motion, so raise on the way",
    Action.MOVE: "worse than the best motion",
  }[action]
  if action == Action.MOVE and p_null > p_best:
    consequence = "better, but the gripper may not close here"
  return f"closing here has p = {p_null:.2f} of {p_best:.2f}: {consequence}"
