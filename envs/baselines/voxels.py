"""A voxel map of what lies in the bin, from the points of a depth image (Appendix B).

Everything here is in the bin's frame: metres from the middle of its floor, axes
parallel to the base frame's. Calibration and the bin's geometry are known: its floor
and walls are taken away.
"""

import dataclasses

import numpy as np

from envs.bin import FLOOR_HALF, WALL_HEIGHT, WALL_RUN
from envs.units import BIN_CENTRE

VOXEL = 0.004  # m; two pixels of a depth camera a metre away
HIGHEST = 0.20  # above the floor: nothing lies higher, m
_HALF = np.array(FLOOR_HALF) + WALL_RUN  # of the bin at its rim, m
_SHAPE = tuple(int(n) for n in np.ceil([*(2 * _HALF / VOXEL), HIGHEST / VOXEL]))


@dataclasses.dataclass(frozen=True)
class VoxelMap:
  """What is known of the bin's content."""

  points: np.ndarray  # float64[V, 3]: the mean of the points in each occupied voxel, m
  tops: np.ndarray  # float64[X, Y]: height of what is highest over each column, m
  seen: np.ndarray  # bool[X, Y]: whether any point was measured in the column


def to_bin(points: np.ndarray, table_height: float) -> np.ndarray:
  """Points [..., 3] in the base frame, in the bin's."""
  return points - np.array([*BIN_CENTRE, table_height])


def build(points: np.ndarray, margin: float) -> VoxelMap:
  """Accumulates a point cloud.

  Args:
    points: [N, 3], bin's frame.
    margin: what is nearer to the bin's floor and walls belongs to them, m.
  """
  inside = np.all(np.abs(points[:, :2]) < _HALF, axis=1) & (points[:, 2] < HIGHEST)
  points = points[inside]
  column = column_of(points[:, :2])
  seen = np.zeros(_SHAPE[:2], bool)
  seen[column[:, 0], column[:, 1]] = True
  points = points[_clearance(points) > margin]
  cell = np.column_stack([column_of(points[:, :2]), (points[:, 2] / VOXEL).astype(int)])
  flat, voxel, counts = np.unique(
    np.ravel_multi_index(tuple(cell.T), _SHAPE),
    return_inverse=True,
    return_counts=True,
  )
  sums = [np.bincount(voxel, weights=w, minlength=len(flat)) for w in points.T]
  means = np.stack(sums, axis=1) / counts[:, None]
  tops = GROUND.copy()
  x, y = np.unravel_index(flat, _SHAPE)[:2]
  np.maximum.at(tops, (x, y), means[:, 2])
  return VoxelMap(means, tops, seen)


def ground(spots: np.ndarray) -> np.ndarray:
  """Height [...] of the empty bin's floor and sloped walls at spots [..., 2], m."""
  beyond = np.max(np.abs(spots) - FLOOR_HALF, axis=-1)
  return np.clip(beyond, 0.0, WALL_RUN) * WALL_HEIGHT / WALL_RUN


def _clearance(points: np.ndarray) -> np.ndarray:
  """How far points [N, 3] are from the floor or the wall below them, m."""
  sloped = np.any(np.abs(points[:, :2]) > FLOOR_HALF, axis=1)
  lean = WALL_RUN / np.hypot(WALL_RUN, WALL_HEIGHT)
  return (points[:, 2] - ground(points[:, :2])) * np.where(sloped, lean, 1.0)


def column_of(spots: np.ndarray) -> np.ndarray:
  """int[..., 2]: the columns that spots lie in."""
  return ((spots + _HALF) / VOXEL).astype(int)


_columns = np.stack(np.meshgrid(*map(np.arange, _SHAPE[:2]), indexing="ij"), axis=-1)
COLUMNS = VOXEL * (_columns + 0.5) - _HALF  # float64[X, Y, 2]: their middles, m
GROUND = ground(COLUMNS)  # float64[X, Y], m
