"""Continuous servoing in a simulated cell: decisions come while the arm is moving.

In `envs.rollout` the world waits for the policy, and motions are finished. Here the
cell goes on for as long as a decision really takes, and a new command replaces the
current motion (Section 4.3: the robot never stops to think). A watchdog stops the arm
when no fresh decision comes.
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import numpy as np

from envs import control
from envs.arm import inverse_kinematics
from envs.attempt import START_HEIGHTS, Recorder
from envs.grasp_env import GraspEnv, Outcome, apply_command
from envs.gripper import TOOL_LENGTH
from envs.rollout import Pushing
from envs.scene import TIMESTEP
from hand_eye.decision import Action, Decision
from hand_eye.deploy.watchdog import Watchdog

CONTROL_PERIOD = control.CONTROL_SUBSTEPS * TIMESTEP  # s
STALE_PERIODS = 2.0  # of decisions, after which the watchdog stops the arm


class Observed(NamedTuple):
  """What the policy is given, see `hand_eye.decision.Observation`."""

  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray
  step: int
  num_steps: int
  table_height: float
  workspace: tuple[np.ndarray, np.ndarray]
  age: float


class DeadlinePolicy(Protocol):
  """A policy that takes a deadline, s from now."""

  def __call__(
    self, observation: Observed, key: np.ndarray, deadline: float | None = None
  ) -> Decision: ...


@dataclasses.dataclass(frozen=True)
class Servoed:
  """One attempt. latencies, seconds, one a decision; skipped: ticks without one."""

  decisions: tuple[Decision, ...]
  outcome: Outcome
  skipped: int
  stopped: int  # by the watchdog
  seconds: float  # of the cell's time, until the gripper closed


def servo(
  env: GraspEnv,
  policy: DeadlinePolicy,
  rng: np.random.Generator,
  *,
  rate: float,
  deadline: float,
  num_steps: int,
  pushing: Pushing,
  recorder: Recorder,
) -> Servoed:
  """Makes one attempt in a filled bin, with decisions at a rate.

  Args:
    rate: decisions a second of the cell's time.
    deadline: seconds that each of them is given.
    num_steps: T; the gripper closes there whatever the policy says.
    recorder: its `end` is given the outcome.

  Raises:
    DivergedError: the physics became unstable.
  """
  pregrasp = env.begin(rng)
  recorder.begin(env)
  low, high = env.unit.workspace()
  pose = rng.uniform(low, high)
  pose[2] = env.unit.table_height + rng.uniform(*START_HEIGHTS)
  env.approach(pose)

  watchdog = Watchdog(STALE_PERIODS / rate, lambda: env.data.time)
  arm = _Arm(env, watchdog, rng)
  made: list[Decision] = []
  begin, tick, skipped = env.data.time, 0, 0
  while len(made) < num_steps:
    if pushing.step and len(made) + 1 == pushing.step:
      env.push_objects(rng, pushing.speed)
    seen = Observed(
      pregrasp_image=pregrasp,
      image=env.image(),
      pose=env.pose(),
      step=len(made) + 1,
      num_steps=num_steps,
      table_height=env.unit.table_height,
      workspace=(low, high),
      age=0.0,
    )
    looked = env.data.time
    key = rng.integers(2**32, size=2, dtype=np.uint32)
    decision = policy(seen, key, deadline)
    made.append(decision)
    # Meanwhile the cell has gone on with what was decided before.
    arm.advance(looked + decision.seconds)
    recorder.decided(env, seen, decision)  # type: ignore[arg-type]  # has its fields
    watchdog.feed(decision)
    arm.aim(seen.pose, decision)
    if decision.close:
      break
    due = math.ceil((env.data.time - begin) * rate - 1e-6)
    skipped += max(0, due - tick - 1)
    tick = max(due, tick + 1)
    arm.advance(begin + tick / rate)
  if made[-1].close:
    arm.descend()
  else:
    arm.stop()  # the policy holds at the last step: nothing is grasped on purpose
  seconds = env.data.time - begin
  outcome = env.grasp(rng)
  recorder.end(env, outcome)  # type: ignore[arg-type]  # has the label and the name
  return Servoed(tuple(made), outcome, skipped, watchdog.expired, seconds)


class _Arm:
  """Follows the last decision in a straight line, a control period at a time."""

  def __init__(self, env: GraspEnv, watchdog: Watchdog, rng: np.random.Generator):
    self._env, self._watchdog, self._rng = env, watchdog, rng
    self._reference = env.pose().astype(np.float64)
    self._target = self._reference.copy()
    self._moves = False

  def aim(self, seen_from: np.ndarray, decision: Any) -> None:
    """Takes a decision on; HOLD and CLOSE stop the arm where it is."""
    if decision.action in (Action.HOLD, Action.CLOSE):
      self.stop()
      return
    unit = self._env.unit
    # The target is clipped as a robot's own safety limits would.
    target = np.clip(apply_command(seen_from, decision.command), *unit.workspace())
    noise = self._rng.normal(size=4) * unit.actuation.noise
    self._target = target + np.asarray(unit.actuation.bias) + noise
    self._moves = True

  def stop(self) -> None:
    self._target, self._moves = self._reference.copy(), False

  def advance(self, until: float) -> None:
    """Lets the cell live on until a time of its own, s, in control periods."""
    while self._env.data.time < until - 0.5 * CONTROL_PERIOD:
      if self._moves and self._watchdog.poll().action == Action.HOLD:
        self.stop()
      self._step()

  def descend(self) -> None:
    """Goes straight down: the network scored closing at the table (Appendix A)."""
    self._target = self._reference.copy()
    self._target[2] = self._env.unit.table_height
    while np.any(self._step() > 1e-6):
      pass
    self._env.controller.wait(0.06)  # the arm catches up

  def _step(self) -> np.ndarray:
    """A control period; returns what is left to the target, [2] metres and radians."""
    change = self._target - self._reference
    # Yaw is not wrapped: the wrist's limit lies beyond that of the workspace.
    far = np.array([np.linalg.norm(change[:3]), abs(change[3])])
    most = CONTROL_PERIOD * np.array([control.LINEAR_SPEED, control.YAW_SPEED])
    share = float(np.min(np.minimum(1.0, most / np.maximum(far, 1e-9))))
    self._reference += share * change
    joints = inverse_kinematics(self._reference, TOOL_LENGTH)
    self._env.data.ctrl[self._env.scene.arm_ctrl] = joints
    self._env.controller.wait(CONTROL_PERIOD)
    return (1 - share) * far
