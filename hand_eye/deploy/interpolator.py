"""Set-points for a robot's controller, between the decisions of a policy.

A policy decides 2 to 5 times a second; a robot's controller wants a set-point every 2
to 20 ms, without jumps. `Interpolator` follows the latest decision with bounded speed,
acceleration and jerk, and stops smoothly when decisions stop. Needs NumPy and
`pip install ruckig`, and no jax.

  motion = Interpolator(robot.pose(), rate=250)
  motion.follow(decision, observation)  # the thread that decides
  robot.send(motion.step().pose)        # the control loop, `rate` times a second

It is NOT a safety-rated function: the robot keeps its own limits.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from hand_eye.decision import Action, Decision, Observation

RATES = (10.0, 1000.0)  # Hz
# This near, and at most this fast, a motion has ended: metres, radians; per second.
_ARRIVED = np.array([1e-4, 1e-4, 1e-4, 1e-3])


class InterpolatorError(RuntimeError):
  """Ruckig is not installed, or finds no motion."""


@dataclasses.dataclass(frozen=True)
class MotionLimits:
  """How fast set-points may move. Those of the fingertips are lengths of vectors.

  Attributes:
    speed, acceleration, jerk: m/s, m/s^2 and m/s^3.
    yaw_speed, yaw_acceleration, yaw_jerk: rad/s, rad/s^2 and rad/s^3.
  """

  speed: float = 0.25
  acceleration: float = 1.0
  jerk: float = 10.0
  yaw_speed: float = 1.5
  yaw_acceleration: float = 5.0
  yaw_jerk: float = 50.0

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number > 0.")


class SetPoint(NamedTuple):
  """Where the gripper should be now. Robot base frame, metres and radians.

  pose: [4] (x, y, z, yaw); yaw is continuous, not wrapped.
  velocity, acceleration: [4] per second and per second squared.
  close: a CLOSE was decided, and the fingertips are down at the table and at rest.
  stopping: no decision to move holds: it brakes, or is at rest.
  """

  pose: np.ndarray
  velocity: np.ndarray
  acceleration: np.ndarray
  close: bool
  stopping: bool


class Interpolator:
  """Follows decisions with bounded speed, acceleration and jerk. For two threads.

  MOVE and RAISE set a target, relative to the pose of their observation. CLOSE sets the
  place at the table below that pose, and is carried out even if no decision follows it.
  HOLD, and no decision for `timeout`, stop the motion on the shortest way. Each axis
  stays between where it is, where it can stop, and its targets.

  Args:
    pose: [4] where the gripper is, at rest.
    limits: of the motion.
    rate: calls of `step` per second.
    timeout: seconds after a decision to move, without another, until it stops.
    clock: seconds that only grow.

  Raises:
    ValueError: for arguments that make no sense.
    InterpolatorError: ruckig is not installed.
  """

  def __init__(
    self,
    pose: np.ndarray,
    limits: MotionLimits | None = None,
    *,
    rate: float = 100.0,
    timeout: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
  ):
    pose = np.asarray(pose, float)
    if pose.shape != (4,) or not np.all(np.isfinite(pose)):
      raise ValueError(f"pose is {pose.tolist()}, expected 4 finite numbers.")
    if not RATES[0] <= rate <= RATES[1]:
      raise ValueError(f"rate is {rate!r}, expected {RATES[0]:g} to {RATES[1]:g} (Hz).")
    if not 0 < timeout < math.inf:
      raise ValueError(f"timeout is {timeout!r}, expected a finite number > 0 (s).")
    limits = limits or MotionLimits()
    along = np.array([limits.speed, limits.acceleration, limits.jerk])
    turning = (limits.yaw_speed, limits.yaw_acceleration, limits.yaw_jerk)
    self._timeout, self._clock, self._lock = timeout, clock, threading.Lock()
    # All at their bounds, x, y and z reach that of the vector.
    self._groups = (
      _Axes(pose[:3], tuple(along / math.sqrt(3)), rate),
      _Axes(pose[3:], turning, rate),
    )
    self._target: np.ndarray | None = None
    self._closes = False
    self._fed = clock()

  def follow(self, decision: Decision, observation: Observation) -> None:
    """Takes a decision, made just now.

    Args:
      decision: of a policy, a client or a watchdog.
      observation: that it was made on; commands start at its pose.

    Raises:
      ValueError: the target is not finite.
    """
    with self._lock:
      self._fed = self._clock()
      self._closes = decision.action == Action.CLOSE
      if decision.action == Action.HOLD:
        self._target = None
        return
      pose = np.array(observation.pose, float)
      # Continuous, as the set-point is: a turn keeps the direction that was decided.
      here = self._groups[1].state()[0, 0]
      pose[3] = here + math.remainder(pose[3] - here, 2 * math.pi)
      if self._closes:
        pose[2] = min(pose[2], float(observation.table_height))
      else:
        command = np.asarray(decision.command, float)
        pose += np.append(command[:3], math.atan2(command[3], command[4]))
      if not np.all(np.isfinite(pose)):
        self._target, self._closes = None, False
        raise ValueError(f"the target is {pose.tolist()}, expected finite numbers.")
      self._target = pose

  def brake(self) -> None:
    """Stops the motion, as a HOLD does."""
    with self._lock:
      self._target, self._closes = None, False

  @property
  def pose(self) -> np.ndarray:
    """[4] of the last set-point."""
    with self._lock:
      return np.hstack([axes.state()[0] for axes in self._groups])

  def step(self) -> SetPoint:
    """Returns the next set-point, `1 / rate` seconds after the last.

    Raises:
      InterpolatorError: ruckig finds no motion; set-points stay where they are.
    """
    with self._lock:
      stale = self._clock() - self._fed > self._timeout
      if stale and not self._closes:
        self._target = None
      target = self._target
      for axes, part in zip(self._groups, (slice(3), slice(3, 4)), strict=True):
        axes.step(None if target is None else target[part])
      return self._set_point()

  def _set_point(self) -> SetPoint:
    pose, velocity, acceleration = np.hstack([axes.state() for axes in self._groups])
    arrived = False
    if self._closes and self._target is not None:
      left = np.maximum(np.abs(pose - self._target), np.abs(velocity))
      arrived = bool(np.all(left <= _ARRIVED))
    return SetPoint(pose, velocity, acceleration, arrived, self._target is None)


class _Axes:
  """Axes that move together: from rest on a straight line.

  The yaw is planned by itself. In one plan with x, y and z it would set their time and
  bend the line, whatever `per_dof_synchronization` says (ruckig 0.19.4).
  """

  def __init__(self, position: np.ndarray, bounds: tuple[float, ...], rate: float):
    """bounds: speed, acceleration and jerk of each axis."""
    count, self._ruckig = len(position), _ruckig()
    self._planner = self._ruckig.Ruckig(count, 1 / rate)
    self._now = self._ruckig.InputParameter(count)
    self._next = self._ruckig.OutputParameter(count)
    self._now.current_position = position.tolist()
    speed, acceleration, jerk = ([float(bound)] * count for bound in bounds)
    self._now.max_velocity, self._now.max_acceleration = speed, acceleration
    self._now.max_jerk = jerk

  def step(self, target: np.ndarray | None) -> None:
    """Moves on towards a target, or to rest.

    Raises:
      InterpolatorError: ruckig finds no motion.
    """
    kinds, controls = self._ruckig.Synchronization, self._ruckig.ControlInterface
    if target is None:
      # Each axis by itself: braking together, which is the default, takes those that
      # could stop at once beyond their targets.
      self._now.synchronization = kinds.No
      self._now.control_interface = controls.Velocity
    else:
      self._now.synchronization = kinds.Phase
      self._now.control_interface = controls.Position
      self._now.target_position = target.tolist()
    result = self._planner.update(self._now, self._next)
    if result not in (self._ruckig.Result.Working, self._ruckig.Result.Finished):
      raise InterpolatorError(
        f"ruckig finds no motion ({result}) from {self._now.current_position} to"
        f" {target}: stop the robot, and start again from where it is."
      )
    self._next.pass_to_input(self._now)

  def state(self) -> np.ndarray:
    """[3, axes]: position, velocity and acceleration."""
    now = self._now
    return np.array(
      [now.current_position, now.current_velocity, now.current_acceleration]
    )


def _ruckig() -> Any:
  try:
    import ruckig  # Optional, so not at the top.
  except ImportError as error:
    raise InterpolatorError(
      "the interpolator needs ruckig: pip install ruckig"
    ) from error
  return ruckig
