"""Patches of the pregrasp image: what a calibrated camera sees around a grasp.

A patch is a square of a plane just above the table, in the gripper's own axes, so
that every grasp looks alike whatever its place and yaw. Seen from above: up in the
patch is `along` the pads, left is `across`, towards the left finger.
"""

import dataclasses

import numpy as np

from envs.baselines import pinch
from envs.cameras import project
from envs.units import Camera


@dataclasses.dataclass(frozen=True)
class Square:
  """Where the plane of a patch lies, and how much of it is seen.

  Attributes:
    side: m; the open gripper is 8.4 cm wide between its pads.
    height: of the plane above the bin's floor, m: about the middle of what lies there.
  """

  side: float = 0.16
  height: float = 0.02

  def __post_init__(self) -> None:
    if not self.side > 0:
      raise ValueError(f"side is {self.side}, expected more than 0 m")


SQUARE = Square()


def cut_patches(
  image: np.ndarray,
  camera: Camera,
  table_height: float,
  poses: np.ndarray,
  size: int,
  square: Square,
) -> np.ndarray:
  """Cuts the patches around grasps out of one image.

  Args:
    image: uint8[H, H, 3], of this camera.
    camera: its calibration.
    table_height: of the bin's floor, m.
    poses: float[N, 3] (x, y, yaw) of the gripper when it closes, base frame.
    size: S, pixels.
    square: which square of the table a patch is.

  Returns:
    uint8[N, S, S, 3]. What lies beyond the image looks like its border.
  """
  points = patch_points(poses, table_height, size, square)
  return _bilinear(image, project(camera, points, len(image)))


def patch_points(
  poses: np.ndarray, table_height: float, size: int, square: Square
) -> np.ndarray:
  """float64[N, S, S, 3]: the points of the base frame that patches show, as above."""
  poses = np.asarray(poses, np.float64)
  offset = square.side * (0.5 - (np.arange(size) + 0.5) / size)
  across, along = np.moveaxis(
    np.array([pinch.axes(yaw) for yaw in poses[:, 2]]).reshape(-1, 2, 2), 1, 0
  )
  points = np.empty((len(poses), size, size, 3))
  points[..., :2] = (
    poses[:, None, None, :2]
    + offset[:, None, None] * along[:, None, None]
    + offset[:, None] * across[:, None, None]
  )
  points[..., 2] = table_height + square.height
  return points


def _bilinear(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
  """uint8[..., 3]: the image at pixels [..., 2], (column, row) as `project` gives."""
  height, width = image.shape[:2]
  column = np.clip(pixels[..., 0] - 0.5, 0, width - 1).astype(np.float32)
  row = np.clip(pixels[..., 1] - 0.5, 0, height - 1).astype(np.float32)
  left = np.minimum(column.astype(np.int32), width - 2)
  top = np.minimum(row.astype(np.int32), height - 2)
  to_right, to_bottom = (column - left)[..., None], (row - top)[..., None]
  colours = image.reshape(-1, 3).astype(np.float32)
  corner = top * width + left
  upper = colours[corner]
  upper += to_right * (colours[corner + 1] - upper)
  lower = colours[corner + width]
  lower += to_right * (colours[corner + width + 1] - lower)
  upper += to_bottom * (lower - upper)
  return (upper + 0.5).astype(np.uint8)
