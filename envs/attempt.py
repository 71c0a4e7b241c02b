"""One grasp attempt, from pregrasp image to label (Figure 3): its rules and its words.

A policy is any callable `policy(observation, key) -> decision`; see `Policy`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from envs.grasp_env import NULL_COMMAND, GraspEnv
from envs.objects.shapes import properties
from envs.units import Unit

START_HEIGHTS = (0.04, 0.10)  # of the first pose above the floor, as when raising
# Within this height above the floor the gripper closes where it is.
AT_TABLE = 0.01


class Observation(NamedTuple):
  """What a policy is given at step t. It holds no calibration and no joint angles."""

  pregrasp_image: np.ndarray  # uint8[H, W, 3], the scene without the gripper
  image: np.ndarray  # uint8[H, W, 3], now
  pose: np.ndarray  # float32[4], gripper now: to keep commands in the workspace
  step: int  # t, from 1
  num_steps: int  # T; at t = T the gripper closes whatever the policy says
  table_height: float  # m
  workspace: tuple[np.ndarray, np.ndarray]  # lowest and highest pose, float32[4] each


class Decision(NamedTuple):
  """What a policy answers."""

  command: np.ndarray  # float32[5], the next motion; ignored when closing
  close: bool
  evidence: dict[str, Any] = {}  # never written to


class Policy(Protocol):
  """`key` is uint32[2], fresh for every decision."""

  def __call__(self, observation: Observation, key: np.ndarray) -> Any: ...


@runtime_checkable
class NeedsEnv(Protocol):
  """A baseline that may look at the cell before each attempt.

  The learned policy never does: all it gets is in `Observation`. Baselines with a
  calibrated depth camera, and the oracle, read here what the paper gives them. One that
  asks the cell for larger images than policies see has an attribute `largest_image`,
  like a recorder.
  """

  def begin(self, env: GraspEnv) -> None:
    """An attempt begins; the bin is in view, the gripper is not."""


@runtime_checkable
class BatchedPolicy(Protocol):
  """A policy that answers several robots in one call, which is faster."""

  def decide_batch(
    self, observations: Sequence[Observation], keys: Sequence[np.ndarray]
  ) -> Sequence[Any]:
    """One decision for each; observations may be of different robots."""


@dataclasses.dataclass(frozen=True)
class Target:
  """What was nearest to the fingertips when they closed: the simulator's truth.

  name: of the object, '' in an empty bin; properties: see `shapes.properties`.
  across: m from its middle to that of the fingers, along which they close;
  along: the same along the pads' width; moved: m that it moved between the first and
  the last decision, as when it was pushed.
  """

  name: str = ""
  across: float = 0.0
  along: float = 0.0
  properties: tuple[str, ...] = ()
  moved: float = 0.0


@dataclasses.dataclass(frozen=True)
class Attempt:
  """One grasp attempt with its label and where it came from.

  T images and poses; commands[t] is what was executed after images[t], and the last
  is the null command (footnote 2 of the paper).
  """

  pregrasp_image: np.ndarray  # uint8[H, W, 3]
  images: np.ndarray  # uint8[T, H, W, 3]
  poses: np.ndarray  # float32[T, 4], measured
  commands: np.ndarray  # float32[T, 5]
  success: bool
  gripper_reading: float  # m
  drop_test: bool
  simulator_truth: bool
  grasped: str
  unit: str
  table_height: float  # m
  scene_seed: int
  attempt_seed: int  # position within the scene
  objects: tuple[str, ...]  # names of what lay in the bin
  evidence: tuple[dict[str, Any], ...]  # one a decision
  target: Target = Target()
  num_held: int = 0  # objects that really hung in the gripper
  grade: str = ""  # one of `success.GRADES`; '' where no simulator knows


class Recorder(Protocol):
  """Watches attempts, for videos and pictures; changes nothing.

  Derive from it to leave out what is not needed.
  """

  largest_image: int  # pixels, that it will ask the cell to draw

  def begin(self, env: GraspEnv) -> None:
    """An attempt begins; the bin is in view, the gripper is not."""
    return None

  def decided(self, env: GraspEnv, observation: Observation, decision: Any) -> None:
    """The policy has answered; nothing has moved yet."""
    return None

  def frame(self, env: GraspEnv) -> None:
    """A control period has passed."""
    return None

  def end(self, env: GraspEnv, attempt: "Attempt") -> None:
    """The attempt has its label."""
    return None


class AttemptRun:
  """One attempt in a filled bin, a decision at a time.

  The rules of an attempt for everyone who drives one: `run_attempt`, and the
  Gymnasium environment. After `env.begin` gave I0:

    run = AttemptRun(env, pregrasp_image, rng, num_steps)
    while not run.must_close:
      run.execute(policy(run.observation(), key))
    attempt = run.close()

  A decision to close above the table first descends (Appendix A: the network scores
  motions that end on the table). Everything that moves raises DivergedError when the
  physics become unstable; the bin must then be filled again.
  """

  def __init__(
    self,
    env: GraspEnv,
    pregrasp_image: np.ndarray,
    rng: np.random.Generator,
    num_steps: int,
    push: Callable[[int], None] = lambda step: None,
  ):
    """Approaches the first pose, which is random, and looks.

    Args:
      rng: for the first pose, the actuation, and where what was held is let go.
      num_steps: T. The attempt has at most T steps, fewer when closed early.
      push: called with the step before its motion.
    """
    self._push = push
    self._env, self._rng, self._num_steps = env, rng, num_steps
    self._pregrasp = pregrasp_image
    self._in_bin = env.remaining()
    self._images: list[np.ndarray] = []
    self._poses: list[np.ndarray] = []
    self._commands: list[np.ndarray] = []
    self._evidence: list[dict[str, Any]] = []
    self._lay: list[np.ndarray] = []  # float64[N, 3]: objects, at each decision
    self._closing = False
    env.approach(_first_pose(env.unit, rng))
    self._look()

  @property
  def must_close(self) -> bool:
    """Whether nothing is left to decide: step T has come, or the decision to close."""
    return self._closing or len(self._images) == self._num_steps

  def observation(self) -> Observation:
    """What there is to see at this step; arrays that belong to the attempt."""
    return Observation(
      pregrasp_image=self._pregrasp,
      image=self._images[-1],
      pose=self._poses[-1],
      step=len(self._images),
      num_steps=self._num_steps,
      table_height=self._env.unit.table_height,
      workspace=self._env.unit.workspace(),
    )

  def execute(self, decision: Any) -> None:
    """Makes the motion that was decided, if there is one, and looks again."""
    self._evidence.append(decision.evidence)
    self._lay.append(self._env.object_positions())
    self._closing = decision.close
    self._push(len(self._images))
    table_height, height = self._env.unit.table_height, self._poses[-1][2]
    if self._closing and not height - table_height > AT_TABLE:
      return
    command = np.array(NULL_COMMAND if self._closing else decision.command, np.float32)
    # Down on the table by the last step, whatever the policy does with the height.
    if self._closing or len(self._images) == self._num_steps - 1:
      command[2] = table_height - height
    self._commands.append(command)
    self._env.step(command, self._rng)
    self._look()

  def close(
    self, *, scene_seed: int = 0, number: int = 0, replacement: bool = True
  ) -> Attempt:
    """Closes the gripper here, lifts, and finds the label.

    Args:
      scene_seed, number: recorded, not used.
      replacement: whether what was grasped stays in the bin.
    """
    env = self._env
    height = self._poses[-1][2] - env.unit.table_height
    if height > AT_TABLE and len(self._images) == self._num_steps:
      # T = 1: there was no motion that could have gone down.
      down = np.array([0.0, 0.0, -height, 0.0, 1.0], np.float32)
      env.step(down, self._rng)
    target = _nearest(env, self._lay)
    outcome = env.grasp(self._rng)
    if not replacement:
      env.take_away(outcome.held)
    return Attempt(
      pregrasp_image=self._pregrasp,
      images=np.stack(self._images),
      poses=np.stack(self._poses),
      commands=np.stack([*self._commands, NULL_COMMAND]),
      success=outcome.success,
      gripper_reading=outcome.gripper_reading,
      drop_test=outcome.drop_test,
      simulator_truth=outcome.simulator_truth,
      grasped=outcome.grasped,
      unit=env.unit.name,
      table_height=env.unit.table_height,
      scene_seed=scene_seed,
      attempt_seed=number,
      objects=tuple(env.scene.objects[i].name for i in self._in_bin),
      evidence=tuple(self._evidence),
      target=target,
      num_held=len(outcome.held),
      grade=outcome.grade,
    )

  def _look(self) -> None:
    self._images.append(self._env.image())
    self._poses.append(self._env.pose())


def _nearest(env: GraspEnv, lay: Sequence[np.ndarray]) -> Target:
  remaining = env.remaining()
  if not remaining:
    return Target()
  x, y, z, yaw = (float(value) for value in env.pose())
  apart = env.object_positions()[remaining] - np.array([x, y, z])
  nearest = int(np.argmin(np.linalg.norm(apart, axis=1)))
  dx, dy = -apart[nearest, :2]
  index = remaining[nearest]
  thing = env.scene.objects[index]
  return Target(
    name=thing.name,
    across=float(-np.sin(yaw) * dx + np.cos(yaw) * dy),
    along=float(np.cos(yaw) * dx + np.sin(yaw) * dy),
    properties=properties(thing),
    moved=float(np.linalg.norm(lay[-1][index] - lay[0][index])) if lay else 0.0,
  )


def _first_pose(unit: Unit, rng: np.random.Generator) -> np.ndarray:
  low, high = unit.workspace()
  pose = rng.uniform(low, high)
  pose[2] = unit.table_height + rng.uniform(*START_HEIGHTS)
  return pose
