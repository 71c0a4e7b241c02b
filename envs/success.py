"""How an attempt is labelled: gripper reading and drop test (Section 5.2)."""

import mujoco
import numpy as np

from envs.scene import Scene, object_positions

READING_THRESHOLD = 0.010  # m: fingers further apart than this hold something
# Images are compared on a grid of about 36 x 36 cell means. What was held is out of
# view before, so it changes only the cells where it was dropped: an object of 3 cm
# about 16 of the tight view; one that shifts by a pixel changes a few.
GRID = 36
TEST_IMAGE_SIZE = 4 * GRID  # pixels; finer images would only be averaged away
CHANGE_LEVEL = 30  # grey levels, of the most changed channel of a cell
CHANGED_CELLS = 12
LIFTED_HEIGHT = 0.15  # above the bin's floor: higher than any pile
HELD_DISTANCE = 0.12  # of an object's middle from the fingertips, m
# What the simulator says of an attempt, from worst to best.
GRADES = ("missed", "touched", "lifted", "held")
TOUCHED_DISTANCE = 0.005  # m that an object moved
RISEN_DISTANCE = 0.05  # m that it was higher than before


def reading_says_grasped(reading: float) -> bool:
  """First method of Section 5.2: the fingers have not closed fully."""
  return reading > READING_THRESHOLD


def drop_test_says_grasped(before: np.ndarray, after: np.ndarray) -> bool:
  """Second method: the bin looks different once the gripper has let go.

  Args:
    before: uint8[H, W, 3], the bin while the gripper holds what it picked up.
    after: uint8[H, W, 3], the bin after the gripper was opened over it.
  """
  difference = np.abs(_cell_means(before) - _cell_means(after)).max(axis=-1)
  return int(np.sum(difference > CHANGE_LEVEL)) >= CHANGED_CELLS


def label(reading: float, before: np.ndarray, after: np.ndarray) -> tuple[bool, bool]:
  """(success, what the drop test says): either method suffices."""
  dropped = drop_test_says_grasped(before, after)
  return bool(reading_says_grasped(reading) or dropped), dropped


def _cell_means(image: np.ndarray) -> np.ndarray:
  side = max(1, image.shape[0] // GRID)
  rows, columns = image.shape[0] // side, image.shape[1] // side
  cells = image[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
  return cells.mean(axis=(1, 3))


def lifted_objects(scene: Scene, data: mujoco.MjData) -> list[int]:
  """Indices of objects that really hang in the gripper: the simulator's own truth."""
  positions = object_positions(scene, data)
  high = positions[:, 2] - scene.unit.table_height > LIFTED_HEIGHT
  tip = data.site_xpos[scene.tip_site]
  held = np.linalg.norm(positions - tip, axis=1) < HELD_DISTANCE
  return [int(i) for i in np.nonzero(high & held)[0]]


def risen_objects(scene: Scene, data: mujoco.MjData, before: np.ndarray) -> list[int]:
  """Indices of objects that hang in the gripper just above where they lay.

  Args:
    before: float64[N, 3], where objects were before the gripper closed.
  """
  positions = object_positions(scene, data)
  higher = positions[:, 2] - before[:, 2] > RISEN_DISTANCE
  tip = data.site_xpos[scene.tip_site]
  near = np.linalg.norm(positions - tip, axis=1) < HELD_DISTANCE
  return [int(i) for i in np.nonzero(higher & near)[0]]


def grade(before: np.ndarray, after: np.ndarray, risen: bool, held: bool) -> str:
  """One of `GRADES`.

  Args:
    before, after: float64[N, 3], where objects were before the gripper closed, and
      after it was lifted.
    risen: whether something hung in the gripper above the bin's floor.
    held: whether something still did when the gripper was out of view.
  """
  if held:
    return "held"
  if risen:
    return "lifted"
  moved = np.linalg.norm(after - before, axis=1) > TOUCHED_DISTANCE
  return "touched" if moved.any() else "missed"
