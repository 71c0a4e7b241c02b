"""One robot cell: fill the bin, observe, move, close, lift, drop.

The bin stays as it is from attempt to attempt. Poses and commands are in the robot
base frame, m and rad; see DESIGN words in WORKSPACE.md.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import mujoco
import numpy as np

from envs.arm import inverse_kinematics
from envs.bin import contains
from envs.cameras import OVER_SHOULDER, focal_length
from envs.control import CARRY_SPEED, Controller
from envs.depth import unreliable_pixels, with_noise
from envs.gripper import CLOSING_TORQUE, OPENING_TORQUE, TOOL_LENGTH
from envs.objects import ObjectSpec
from envs.rendering import Renderer
from envs.scene import Scene, build_scene, object_positions
from envs.success import (
  TEST_IMAGE_SIZE,
  grade,
  label,
  lifted_objects,
  risen_objects,
)
from envs.units import BIN_CENTRE, Unit

# Folded back beside the camera's view: what I0 is taken from.
HOME_JOINTS = np.deg2rad([-60.0, -30.0, 0.0, -110.0, 0.0, 60.0, 0.0])
APPROACH_HEIGHT = 0.18  # above the floor: over any pile, where attempts begin
# High over the far half: the arm and what it holds leave the camera's view.
DROP_XY = (BIN_CENTRE[0] + 0.06, BIN_CENTRE[1])
DROP_HEIGHT = 0.42
LIFT_HEIGHT = 0.12  # straight up, before anything is carried sideways
RELEASE_HEIGHT = 0.20
STILL = 0.02  # m/s and rad/s: slower than this is at rest
# On the table, beyond every view: where objects stand that were taken away.
_SHELF = [(x, 0.2 * column) for x in (1.02, 1.20, 1.38) for column in range(-4, 5)]

_UPRIGHT = (1.0, 0.0, 0.0, 0.0)

NULL_COMMAND = np.array([0.0, 0.0, 0.0, 0.0, 1.0], np.float32)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result of closing the gripper."""

  gripper_reading: float  # m, after lifting
  drop_test: bool
  success: bool  # the label: reading or drop test
  simulator_truth: bool  # something really hung in the gripper
  grasped: str  # name of what did, '' if nothing
  held: tuple[int, ...]  # indices of all that did, among the cell's objects
  grade: str = ""  # one of `success.GRADES`; '' where no simulator knows


class GraspEnv:
  """A unit with a filled bin. Not for use from several threads."""

  def __init__(
    self,
    unit: Unit,
    objects: list[ObjectSpec],
    frame_size: int,
    largest_image: int = 0,
  ):
    """Builds the cell; the bin is empty until `fill`.

    Args:
      frame_size: of the images that policies see, pixels.
      largest_image: of pictures for humans, pixels; 0 if there are none.
    """
    self.unit = unit
    self.scene: Scene = build_scene(unit, objects, frame_size, largest_image)
    self.data = mujoco.MjData(self.scene.model)
    self.controller = Controller(self.scene, self.data)
    self.strays_returned = 0
    self._taken: list[int] = []
    self._lifted_yaw = 0.0
    self._renderer = Renderer(self.scene.model)
    self._frame_size = frame_size

  def close(self) -> None:
    """Frees the renderer."""
    self._renderer.close()

  def fill(self, rng: np.random.Generator) -> None:
    """Drops all objects into the bin and waits until they lie."""
    order = rng.permutation(len(self.scene.objects))
    for layer, index in enumerate(order):
      self._drop_from(index, 0.06 + 0.045 * layer, rng)
    self._retract()
    self._settle(longest=3.0)
    self.return_strays(rng)
    self.strays_returned = 0  # those of the filling were not knocked out by anybody

  def begin(self, rng: np.random.Generator) -> np.ndarray:
    """Clears the view, waits, and takes the pregrasp image I0, uint8[H, W, 3]."""
    self.clear_view(rng)
    return self.image()

  def clear_view(self, rng: np.random.Generator) -> None:
    """Opens the gripper, leaves the view, and puts strays back into the bin."""
    self._retract()
    self.return_strays(rng)
    self._settle(longest=2.5)

  def approach(self, pose: np.ndarray) -> None:
    """Brings the open gripper to the attempt's first pose [4] from above."""
    above = np.asarray(pose, np.float64).copy()
    above[2] = max(above[2], self.unit.table_height + APPROACH_HEIGHT)
    self.controller.teleport(inverse_kinematics(above, TOOL_LENGTH))
    self.controller.move_to(pose)

  def image(self, size: int = 0) -> np.ndarray:
    """uint8[H, W, 3]: what the over-the-shoulder camera sees now.

    Args:
      size: H and W, pixels; 0 is the size that policies see.
    """
    return self._renderer.render(self.data, OVER_SHOULDER, size or self._frame_size)

  def depth(
    self, size: int = 0, noise_rng: np.random.Generator | None = None
  ) -> np.ndarray:
    """float32[H, W]: the same view in metres along the optical axis; 0 is unmeasured.

    Args:
      size: as for `image`.
      noise_rng: None for the truth; with a generator, what a structured-light sensor
        would measure (see `envs.depth`).
    """
    size = size or self._frame_size
    truth = self._renderer.render_depth(self.data, OVER_SHOULDER, size)
    if noise_rng is None:
      return truth
    segmentation = self._renderer.render_segmentation(self.data, OVER_SHOULDER, size)
    unreliable = unreliable_pixels(self.scene, segmentation)
    return with_noise(
      truth, unreliable, noise_rng, focal_length(self.unit.camera, size)
    )

  def pose(self) -> np.ndarray:
    """float32[4]: the gripper's measured pose."""
    return self.controller.pose()

  def step(self, command: np.ndarray, rng: np.random.Generator) -> None:
    """Executes a command [5], as well as this unit's actuation does.

    The target is clipped to the workspace, as a robot's own safety limits would.
    """
    low, high = self.unit.workspace()
    self.actuate(np.clip(apply_command(self.pose(), command), low, high), rng)

  def actuate(self, target: np.ndarray, rng: np.random.Generator) -> None:
    """Moves to a pose [4], as well as this unit's actuation does."""
    actuation = self.unit.actuation
    error = np.asarray(actuation.bias) + rng.normal(size=4) * actuation.noise
    self.controller.move_to(target + error)

  def grasp(self, rng: np.random.Generator) -> Outcome:
    """Closes the gripper here, lifts, and finds out whether it holds something.

    What it holds is let go over a random place of the bin, where it stays.
    """
    lay = self.object_positions()
    self.close_gripper()
    risen = self.lift(lay)
    reading = self.controller.gripper_reading()
    lifted = lifted_objects(self.scene, self.data)
    test_size = self.test_image_size()
    before = self.image(test_size)
    low, high = self.unit.workspace()
    with self.released(rng.uniform(low[:2], high[:2])):
      success, dropped = label(reading, before, self.image(test_size))
    return Outcome(
      gripper_reading=float(reading),
      drop_test=dropped,
      success=success,
      simulator_truth=bool(lifted),
      grasped=self.scene.objects[lifted[0]].name if lifted else "",
      held=tuple(lifted),
      grade=grade(lay, self.object_positions(), risen, bool(lifted)),
    )

  def test_image_size(self) -> int:
    """Pixels of the drop test's images."""
    return min(self._frame_size, TEST_IMAGE_SIZE)

  def close_gripper(self) -> None:
    self.controller.drive(CLOSING_TORQUE, 0.4)

  def lift(self, lay: np.ndarray | None = None) -> bool:
    """Straight up, and out of view with whatever the gripper holds.

    Args:
      lay: where objects were before, float64[N, 3], if it matters whether they rose.

    Returns:
      Whether something hung in the gripper before it went out of view.
    """
    x, y, _, yaw = self.pose().astype(np.float64)
    floor = self.unit.table_height
    self.controller.move_to([x, y, floor + LIFT_HEIGHT, yaw])
    risen = lay is not None and bool(risen_objects(self.scene, self.data, lay))
    self.controller.move_to([*DROP_XY, floor + DROP_HEIGHT, yaw])
    # What was knocked over or slipped out comes to rest, or it would look as if it
    # had been dropped between the two images. What rolls slowly stands still for a
    # moment: one look is not enough.
    self._settle(longest=2.5, looks=3)
    self._lifted_yaw = yaw
    return risen

  @contextlib.contextmanager
  def released(self, over: np.ndarray) -> Iterator[None]:
    """Lets go over (x, y); in the block the arm looks as it did before, lifted."""
    controller, floor = self.controller, self.unit.table_height
    holding = controller.configuration()
    controller.move_to([*over, floor + RELEASE_HEIGHT, self._lifted_yaw], CARRY_SPEED)
    controller.drive(-OPENING_TORQUE, 0.3)
    self._retract()
    self._settle(longest=1.2)
    opened = controller.configuration()
    controller.restore(holding)  # the arm's shadow is then the same in both images
    yield
    controller.restore(opened)

  def take_away(self, indices: Sequence[int]) -> None:
    """Removes objects from the bin for good, to where no camera looks."""
    for index in indices:
      layer, place = divmod(len(self._taken), len(_SHELF))
      height = self.unit.table_height + 0.12 * (1 + layer)
      spot = (*_SHELF[place], height)
      self.scene.bodies[index].place(self.data, np.array(spot), np.array(_UPRIGHT))
      self._taken.append(index)
    if indices:
      self._wake()
      self._settle(longest=1.0)

  def remaining(self) -> list[int]:
    """Indices of the objects that have not been taken away."""
    return [i for i in range(len(self.scene.objects)) if i not in self._taken]

  def return_strays(self, rng: np.random.Generator) -> int:
    """Puts objects that left the bin back, as the paper's operators did."""
    outside = ~contains(self.object_positions(), self.unit.table_height)
    strays = [i for i in self.remaining() if outside[i]]
    for layer, index in enumerate(strays):
      self._drop_from(index, 0.12 + 0.05 * layer, rng)
    if strays:
      self._wake()
      self._settle(longest=1.5)
    self.strays_returned += len(strays)
    return len(strays)

  def push_objects(self, rng: np.random.Generator, speed: float) -> None:
    """Knocks every object in the bin sideways, each its own way; time does not pass.

    Args:
      speed: m/s; friction stops what lies on the floor after about speed**2 / 12 m.
    """
    for index in self.remaining():
      angle = rng.uniform(-np.pi, np.pi)
      body = self.scene.bodies[index]
      # A rigid body turns as well; all nodes of a soft one only move.
      moving = body.qvel[:3] if len(body.geoms) else body.qvel
      velocity = speed * np.array([np.cos(angle), np.sin(angle), 0.0])
      self.data.qvel[moving.reshape(-1, 3)] += velocity  # which wakes it

  def object_positions(self) -> np.ndarray:
    """float64[N, 3]: the simulator's truth, for the oracle and for pictures."""
    return object_positions(self.scene, self.data)

  def _wake(self) -> None:
    # An object that was put elsewhere in its sleep would hang there, and so would
    # what lay on it; without sleeping for a moment, everything is awake.
    option = self.scene.model.opt
    option.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    mujoco.mj_forward(self.scene.model, self.data)
    option.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)

  def _retract(self) -> None:
    self.data.ctrl[self.scene.drive_ctrl] = -OPENING_TORQUE
    self.controller.teleport(HOME_JOINTS)

  def _settle(self, longest: float, looks: int = 1) -> None:
    """Waits until nothing has moved at `looks` looks in a row, 0.1 s apart.

    What was taken away does not matter: it may roll off the shelf.
    """
    bodies = [self.scene.bodies[i].qvel for i in self.remaining()]
    watched = np.concatenate([np.empty(0, np.int64), *bodies])
    still = 0
    for _ in range(round(longest / 0.1)):
      self.controller.wait(0.1)
      speed = np.abs(self.data.qvel[watched]).max(initial=0.0)
      still = still + 1 if speed < STILL else 0
      if still == looks:
        return

  def _drop_from(self, index: int, height: float, rng: np.random.Generator) -> None:
    (cx, cy), spread = BIN_CENTRE, (0.09, 0.11)
    rotation = rng.normal(size=4)
    position = (
      cx + rng.uniform(-spread[0], spread[0]),
      cy + rng.uniform(-spread[1], spread[1]),
      self.unit.table_height + height,
    )
    self.scene.bodies[index].place(
      self.data, np.array(position), rotation / np.linalg.norm(rotation)
    )


def apply_command(pose: np.ndarray, command: np.ndarray) -> np.ndarray:
  """Pose [4] reached from `pose` [4] by `command` [5]; yaw wrapped to (-pi, pi]."""
  yaw = pose[3] + np.arctan2(command[3], command[4])
  wrapped = np.pi - np.mod(np.pi - yaw, 2 * np.pi)
  return np.array([*(pose[:3] + command[:3]), wrapped])
