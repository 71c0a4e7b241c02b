"""`hand_eye.limits` in NumPy: where motions may end, for programs without jax.

Motions are (dx, dy, dyaw), metres and radians, from a pose (x, y, z, yaw).
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_ROUNDING = 1e-4  # m and rad
_YAW_ROUNDING = 1e-5  # rad, of wrapping


class Feasible(NamedTuple):
  """Where motions may end.

  low, high: [4] lowest and highest (x, y, z, yaw).
  keep_out: [K, 4] (x low, y low, x high, y high), each larger by the clearance on all
    sides: regions that touch overlap, so that no seam is left between them.
  yaw_ranges: [A, 2] (from, to), counter-clockwise; the yaw lies in all of them.
  """

  low: np.ndarray
  high: np.ndarray
  keep_out: np.ndarray
  yaw_ranges: np.ndarray


def feasible_set(manifest: Mapping[str, Any]) -> Feasible:
  """Joins the workspace and the constraints of a manifest."""
  low, high = (np.array(manifest["workspace"][end], float) for end in ("low", "high"))
  given = manifest["constraints"]
  if given["grasp_in"]:
    low[:2] = np.maximum(low[:2], given["grasp_in"][:2])
    high[:2] = np.minimum(high[:2], given["grasp_in"][2:])
  regions = np.array(given["keep_out"], float).reshape(-1, 4)
  ranges = np.array([given["yaw_range"]] if given["yaw_range"] else [], float)
  grown = regions + manifest["clearance"] * np.array([-1, -1, 1, 1])
  return Feasible(low, high, grown, ranges.reshape(-1, 2))


def is_feasible(motions: np.ndarray, pose: np.ndarray, feasible: Feasible):
  """[N] bool: do motions [N, 3] end in the feasible set, by half a turn at most?"""
  yaw = wrap(pose[3] + motions[:, 2])
  turned = (np.abs(motions[:, 2]) <= math.pi) & (_yaw_excess(yaw, feasible) == 0)
  return _in_place(motions[:, :2], pose, feasible) & turned


def project(motions: np.ndarray, pose: np.ndarray, feasible: Feasible) -> np.ndarray:
  """The nearest feasible motions [N, 3], or anything where there are none."""
  position, _ = _nearest(motions[:, :2], pose, feasible)
  yaw = wrap(pose[3] + motions[:, 2])
  ends = wrap(np.concatenate([[feasible.low[3], feasible.high[3]],
                              feasible.yaw_ranges.ravel()]))  # fmt: skip
  yaws = np.hstack([yaw[:, None], np.broadcast_to(ends, (len(yaw), len(ends)))])
  gap = np.abs(wrap(yaws - yaw[:, None]))
  gap = np.where(_yaw_excess(yaws, feasible) == 0, gap, np.inf)
  chosen = yaws[np.arange(len(yaws)), np.argmin(gap, axis=1)]
  return np.hstack([position, wrap(chosen - pose[3])[:, None]])


def may_close(pose: np.ndarray, feasible: Feasible, slack: Mapping[str, float]) -> bool:
  """Whether the gripper may close here, up to a slack outside the feasible set."""
  _, gap = _nearest(np.zeros((1, 2)), pose, feasible)
  turned = _yaw_excess(pose[3:], feasible)[0]
  return bool(gap[0] <= slack["metres"] and turned <= slack["radians"])


def is_safe(command: np.ndarray, pose: np.ndarray, feasible: Feasible) -> bool:
  """Whether a command [5] is finite and ends inside, or no farther out than before."""
  turn = math.atan2(command[3], command[4])
  end = np.append(pose[:3] + command[:3], wrap(pose[3] + turn))
  gaps = [_nearest(np.zeros((1, 2)), at, feasible)[1][0] for at in (pose, end)]
  before, after = (
    np.append(
      np.maximum(0, np.maximum(feasible.low - at, at - feasible.high))[:3],
      _yaw_excess(at[3:], feasible),
    )
    for at in (pose, end)
  )
  inside = np.all(after <= before + _ROUNDING)
  apart = np.isfinite(gaps[1]) and gaps[1] <= gaps[0] + _ROUNDING
  return bool(np.all(np.isfinite(command)) and inside and apart)


def wrap(angle):
  """Radians wrapped into (-pi, pi]."""
  return math.pi - np.mod(math.pi - angle, 2 * math.pi)


def _in_place(offsets, pose, feasible):
  """[...] bool for offsets [..., 2]: in the box, and in no region to keep out of."""
  at = np.asarray(offsets)[..., None, :]
  low, high = feasible.low[:2] - pose[:2], feasible.high[:2] - pose[:2]
  inside = np.all((offsets >= low) & (offsets <= high), axis=-1)
  near, far = feasible.keep_out[:, :2] - pose[:2], feasible.keep_out[:, 2:] - pose[:2]
  return inside & ~np.any(np.all((at > near) & (at < far), axis=-1), axis=-1)


def _nearest(offsets, pose, feasible):
  """The feasible offsets nearest to [N, 2], and how far they are, metres."""
  # What is feasible is a union of rectangles. The nearest place has the coordinates of
  # the wish itself, or of a side of one of them.
  lines = []
  for axis in (0, 1):
    low, high = feasible.low[axis] - pose[axis], feasible.high[axis] - pose[axis]
    sides = feasible.keep_out[:, axis::2].ravel() - pose[axis]
    ends = np.concatenate([[low, high], sides])
    own = np.clip(offsets[:, axis], low, high)[:, None]
    lines.append(np.hstack([own, np.broadcast_to(ends, (len(offsets), len(ends)))]))
  x, y = np.broadcast_arrays(lines[0][:, :, None], lines[1][:, None, :])
  grid = np.stack([x, y], axis=-1).reshape(len(offsets), -1, 2)
  gap = np.linalg.norm(grid - offsets[:, None], axis=-1)
  gap = np.where(_in_place(grid, pose, feasible), gap, np.inf)
  best = np.argmin(gap, axis=1)
  rows = np.arange(len(offsets))
  return grid[rows, best], gap[rows, best]


def _yaw_excess(yaw, feasible):
  """[...] radians by which yaws are outside the workspace's and the user's ranges."""
  own = np.array([[feasible.low[3], feasible.high[3]]])
  ranges = np.concatenate([own, feasible.yaw_ranges])
  along = np.mod(np.asarray(yaw)[..., None] - ranges[:, 0], 2 * math.pi)
  width = ranges[:, 1] - ranges[:, 0]
  outside = np.minimum(along - width, 2 * math.pi - along)
  return np.max(np.where(outside > _YAW_ROUNDING, outside, 0), axis=-1)
