"""A robot of one's own, and what stands between it and the rules of an attempt.

Whoever implements `Robot` collects, servoes and evaluates with the programs of this
project: `--robot=module:factory`, where `factory()` returns the robot. The simulated
cell behind the same protocol is `SimulatedRobot`; examples/own_robot.py drives a robot
in another process.
"""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from envs.grasp_env import GraspEnv, Outcome, apply_command
from envs.success import TEST_IMAGE_SIZE, label
from envs.units import Unit

SLOWEST_IMAGE = 2.0  # s: a camera that takes longer has stalled
FARTHEST = 0.10  # m, between where a motion was to end and where it did
OUTSIDE = 0.15  # m: a pose so far beyond the workspace is no measurement
MOVED = 0.02  # m: after such a motion the camera sees another image


class RobotError(RuntimeError):
  """The robot did not do what it should; the attempt ends and is not kept."""


class Robot(Protocol):
  """A robot arm with a gripper and a camera over its shoulder.

  Poses are float32[4]: (x, y, z, yaw) of the fingertips in the robot's base frame,
  metres and radians. Methods return when what they ask for is done, and raise
  `RobotError` (or anything else) where it cannot be done.

  Attributes:
    name: of this robot, in rows and datasets.
    table_height: z of fingertips that touch the bin's floor, m.
    workspace: lowest and highest pose of fingertips, float32[4] each.
  """

  name: str
  table_height: float
  workspace: tuple[np.ndarray, np.ndarray]

  def reset(self) -> None:
    """Opens the gripper, leaves the camera's view, waits until nothing moves."""

  def image(self) -> np.ndarray:
    """uint8[H, H, 3] RGB, taken now."""

  def pose(self) -> np.ndarray:
    """Measured."""

  def approach(self, pose: np.ndarray) -> None:
    """Comes to the attempt's first pose from above, with the gripper open."""

  def move(self, pose: np.ndarray) -> None:
    """Moves in a straight line to a pose within the workspace."""

  def close(self) -> None:
    """Closes the gripper with what force it has."""

  def lift(self) -> None:
    """Lifts straight up, and leaves the camera's view with what it holds."""

  def reading(self) -> float:
    """Opening between the fingers, m."""

  def open(self, over: np.ndarray) -> None:
    """Lets go over (x, y) of the bin, and returns to where `lift` ended."""


@runtime_checkable
class DrawsChance(Protocol):
  """A robot that is simulated, and draws what chance there is from a generator."""

  rng: np.random.Generator


class RobotUnit(NamedTuple):
  """What `envs.units.Unit` says of a simulated robot, of one's own."""

  name: str
  table_height: float
  limits: tuple[np.ndarray, np.ndarray]

  def workspace(self) -> tuple[np.ndarray, np.ndarray]:
    return self.limits


class RobotCell:
  """A robot as the cell that `envs.attempt.AttemptRun` knows.

  Watches what the robot says: a camera that stalls or stands still, a pose that is no
  measurement and a motion that ends elsewhere are a RobotError.
  """

  def __init__(self, robot: Robot):
    """Looks at the robot once.

    Raises:
      RobotError: it lacks a method or attribute, or what it says cannot be.
    """
    members = [n for n in dir(Robot) if not n.startswith("_")]
    members += list(Robot.__annotations__)
    if missing := sorted(n for n in members if not hasattr(robot, n)):
      raise RobotError(
        f"{type(robot).__name__} lacks {', '.join(missing)}: see envs.robots.Robot"
      )
    low, high = (np.asarray(end, np.float32) for end in robot.workspace)
    if low.shape != (4,) or high.shape != (4,) or not np.all(low < high):
      raise RobotError(
        f"workspace is {robot.workspace!r}, expected the lowest and the highest pose,"
        " 4 numbers each"
      )
    self.robot = robot
    self.unit = RobotUnit(str(robot.name), float(robot.table_height), (low, high))
    self.strays_returned = 0
    self.scene = _NoScene()
    self._seen: tuple[np.ndarray, np.ndarray] | None = None  # image, pose

  def begin(self, rng: np.random.Generator) -> np.ndarray:
    """Clears the view and takes the pregrasp image I0, uint8[H, H, 3]."""
    if isinstance(self.robot, DrawsChance):
      self.robot.rng = rng
    self.robot.reset()
    self._seen = None
    return self.image()

  def approach(self, pose: np.ndarray) -> None:
    self.robot.approach(pose)
    self._check_arrival(pose)

  def step(self, command: np.ndarray, rng: np.random.Generator) -> None:
    """Executes a command [5], to a target within the workspace."""
    target = np.clip(apply_command(self.pose(), command), *self.unit.limits)
    self.robot.move(target)
    self._check_arrival(target)

  def image(self) -> np.ndarray:
    """uint8[H, H, 3].

    Raises:
      RobotError: the camera stalled, or it shows what it showed before a motion.
    """
    begin = time.monotonic()
    image = np.asarray(self.robot.image())
    took = time.monotonic() - begin
    if took > SLOWEST_IMAGE:
      raise RobotError(f"an image took {took:.1f} s, expected at most {SLOWEST_IMAGE}")
    side = image.shape[0] if image.ndim else 0
    if image.dtype != np.uint8 or image.shape != (side, side, 3):
      raise RobotError(
        f"an image is {image.dtype}{list(image.shape)}, expected uint8[H, H, 3]"
      )
    pose = self.pose()
    if self._seen is not None and np.array_equal(image, self._seen[0]):
      moved = float(np.linalg.norm(pose[:3] - self._seen[1][:3]))
      if moved > MOVED:
        raise RobotError(
          f"the camera stands still: the same image after a motion of {moved:.2f} m"
        )
    self._seen = image.copy(), pose
    return image

  def pose(self) -> np.ndarray:
    """float32[4].

    Raises:
      RobotError: it is no measurement.
    """
    pose = np.asarray(self.robot.pose(), np.float32)
    if pose.shape != (4,) or not np.isfinite(pose).all():
      raise RobotError(f"the pose is {pose.tolist()}, expected 4 finite numbers")
    return pose

  def grasp(self, rng: np.random.Generator) -> Outcome:
    """Closes, lifts, reads the gripper, lets go and compares the images."""
    robot = self.robot
    robot.close()
    robot.lift()
    reading = float(robot.reading())
    if not np.isfinite(reading):
      raise RobotError(f"the gripper reads {reading}, expected an opening in m")
    before = small(np.asarray(robot.image()))
    low, high = self.unit.limits
    robot.open(rng.uniform(low[:2], high[:2]))
    success, dropped = label(reading, before, small(np.asarray(robot.image())))
    return Outcome(reading, dropped, success, False, "", ())

  def remaining(self) -> list[int]:
    return []  # what lies in the bin is not known

  def object_positions(self) -> np.ndarray:
    return np.empty((0, 3))

  def take_away(self, indices: Sequence[int]) -> None:
    """A human does, if it is wanted."""

  def _check_arrival(self, target: np.ndarray) -> None:
    pose, (low, high) = self.pose(), self.unit.limits
    beyond = float(np.maximum(low - pose, pose - high)[:3].max())
    if beyond > OUTSIDE:
      raise RobotError(
        f"the pose jumped to {pose.round(3).tolist()}, {beyond:.2f} m outside the"
        " workspace"
      )
    missed = float(np.linalg.norm(pose[:3] - np.asarray(target)[:3]))
    if missed > FARTHEST:
      raise RobotError(f"a motion ended {missed:.2f} m from where it was to end")


class _NoScene:
  """In place of a simulated scene."""

  objects: tuple[Any, ...] = ()


def small(image: np.ndarray) -> np.ndarray:
  """The image at the size of the drop test, or as it is if that is no divisor."""
  factor, rest = divmod(len(image), TEST_IMAGE_SIZE)
  if rest or factor < 2:
    return image
  side = TEST_IMAGE_SIZE
  cells = image.reshape(side, factor, side, factor, 3)
  return cells.mean(axis=(1, 3)).astype(np.uint8)


class SimulatedRobot:
  """The simulated cell, filled, behind the protocol of a robot of one's own."""

  def __init__(self, env: GraspEnv, rng: np.random.Generator):
    self.env, self.rng = env, rng
    unit: Unit = env.unit
    self.name, self.table_height = unit.name, unit.table_height
    self.workspace = unit.workspace()
    self._lifted = False

  def reset(self) -> None:
    self._let_go()
    self.env.clear_view(self.rng)

  def image(self) -> np.ndarray:
    size = self.env.test_image_size() if self._lifted else 0
    return self.env.image(size)

  def pose(self) -> np.ndarray:
    return self.env.pose()

  def approach(self, pose: np.ndarray) -> None:
    self._let_go()
    self.env.approach(pose)

  def move(self, pose: np.ndarray) -> None:
    self.env.actuate(pose, self.rng)

  def close(self) -> None:
    self.env.close_gripper()

  def lift(self) -> None:
    self.env.lift()
    self._lifted = True

  def reading(self) -> float:
    return float(self.env.controller.gripper_reading())

  def open(self, over: np.ndarray) -> None:
    self._release = contextlib.ExitStack()
    self._release.enter_context(self.env.released(over))

  def _let_go(self) -> None:
    """Ends the look after letting go: the arm is where it went then."""
    release = self.__dict__.pop("_release", None)
    if release is not None:
      release.close()
    self._lifted = False
