"""How well bounding boxes can be grasped, judged from a voxel map (Appendix B).

The gripper comes straight down to the floor with its fingers in the middle of the
box's longer edges, and closes across the shorter ones. What is judged is simple: does
it fit between the fingers, does it stand high enough to be held, is there free space
for the fingers.
"""

import dataclasses

import numpy as np

from envs import gripper
from envs.baselines import boxes, pinch
from envs.baselines.voxels import COLUMNS, GROUND, VOXEL, VoxelMap, column_of
from envs.units import WORKSPACE_HALF

WIDEST = pinch.WIDEST  # shorter edge of a box that fits between the fingers, m
# What each flaw takes from the log odds that a grasp holds: round numbers near a
# logistic fit to 720 attempts with training objects.
WEIGHTS = {
  "empty": 6.0,  # nothing between the pads
  "wide": 40.0,  # beyond 5.5 cm, m
  "too wide": 100.0,  # beyond what fits, m
  "short": 45.0,  # missing of 2.5 cm in length: a part of something, m
  "shallow": 300.0,  # missing of 1.4 cm from the pads' edges to the object's sides, m
  "slant": 2.0,  # of the line between the object's sides, m/m
  "beside": 20.0,  # of the sides, from the middle of the pads, both together, m
  "off centre": 10.0,  # of what is seen of the object, m
  "out of reach": 170.0,  # of the workspace, m
  "landing": 1.2,  # a finger would land on something
  "stopped": 15.0,  # so high that more of the 1.4 cm is missing, m
  "tight": 0.2,  # a finger would pass something within 6 mm
  "crowded": 2.0,  # share of the place between the pads where other things are
  "unseen": 0.3,  # share of the fingers' places of which nothing is known
}
_DEEP, _COMFORTABLE, _LONG = 0.014, 0.055, 0.025
_EDGE = 0.004  # of the workspace: room to correct in, m
_SIDE = 0.003  # so near to the outermost point it is the object's side, m
_WINDOW = 0.085  # around a grasp: further away nothing is touched, m
_INNER = pinch.OPENING / 2
_OUTER = _INNER + 2 * gripper.PAD_HALF_THICKNESS


@dataclasses.dataclass(frozen=True)
class BoxGrasp:
  """The grasp of one object; bin's frame."""

  box: boxes.Box
  pose: np.ndarray  # float64[3]: x, y, yaw
  height: float  # of the object's highest point, m
  flaws: dict[str, float]  # of those in WEIGHTS

  @property
  def cost(self) -> float:
    """What the flaws add up to; 3 is a grasp that often fails."""
    return sum(WEIGHTS[name] * flaw for name, flaw in self.flaws.items())


def best(voxels: VoxelMap, members: np.ndarray) -> BoxGrasp:
  """The better grasp of an object; there are two if its edges are about as long.

  Args:
    members: int[K] of the map's voxels: the object.
  """
  box = boxes.smallest_box(voxels.points[members])
  found = [judge(voxels, members, one) for one in box.alternatives()]
  return min(found, key=lambda grasp: grasp.cost)


def judge(voxels: VoxelMap, members: np.ndarray, box: boxes.Box) -> BoxGrasp:
  """The grasp of an object.

  Args:
    members: int[K] of the map's voxels: the object.
    box: around it.
  """
  points = voxels.points[members]
  axes = pinch.axes(box.yaw)
  spot = _within_reach(box)
  across, along = axes @ (points[:, :2] - spot).T
  height = points[:, 2]
  # Of tall things the sides may be hidden: they are as wide below as at the top.
  band = np.abs(along) <= gripper.PAD_HALF_WIDTH
  flaws = {"empty": float(not band.any())}
  width, sides = box.width, float(height.max())
  if band.any():
    low, high = across[band].min(), across[band].max()
    on_low = band & (across < low + _SIDE)
    on_high = band & (across > high - _SIDE)
    sides = float(min(height[on_low].max(), height[on_high].max()))
    spot = spot + axes[0] * (low + high) / 2
    width = float(high - low)
    one, other = along[on_low].mean(), along[on_high].mean()
    flaws["slant"] = float(abs(one - other) / max(width, 0.004))
    flaws["beside"] = float(abs(one) + abs(other))
  width += VOXEL / 2  # a mean lies within its voxel
  reached = _clip(spot)
  stop, obstacles = _obstacles(voxels, members, reached, axes)
  bottom = float(pinch.pad_bottom(np.array(min(width, WIDEST))))
  shallow, stopped = (max(0.0, _DEEP - (sides - h)) for h in (bottom, bottom + stop))
  flaws |= {
    "wide": max(0.0, width - _COMFORTABLE),
    "too wide": max(0.0, width - WIDEST),
    "short": max(0.0, _LONG - box.length),
    "shallow": shallow,
    "off centre": float(abs(axes[1] @ (points[:, :2].mean(axis=0) - spot))),
    "out of reach": float(np.linalg.norm(reached - spot)),
    "landing": float(stop > 0),
    "stopped": stopped - shallow,
    **obstacles,
  }
  pose = np.array([*reached, box.yaw])
  return BoxGrasp(box, pose, float(height.max()), flaws)


def _clip(spot: np.ndarray) -> np.ndarray:
  reach = np.array(WORKSPACE_HALF) - _EDGE
  return np.clip(spot, -reach, reach)


def _within_reach(box: boxes.Box) -> np.ndarray:
  """The place [2] on the box's long axis, within the workspace, next to its middle."""
  half = max(0.0, box.length / 2 - gripper.PAD_HALF_WIDTH)
  shifts = np.linspace(-half, half, 21)
  spots = box.centre + shifts[:, None] * pinch.axes(box.yaw)[1]
  outside = np.linalg.norm(spots - _clip(spots), axis=1)
  return spots[np.argmin(outside + 1e-3 * np.abs(shifts))]


def _obstacles(
  voxels: VoxelMap, members: np.ndarray, spot: np.ndarray, axes: np.ndarray
) -> tuple[float, dict[str, float]]:
  """What is in the way of a gripper coming down at a spot [2].

  Returns:
    The height above the table at which it is stopped, m, and flaws.
  """
  (x, y), (beyond_x, beyond_y) = (column_of(spot + s * _WINDOW) for s in (-1, 1))
  window = slice(max(x, 0), beyond_x), slice(max(y, 0), beyond_y)
  local = (COLUMNS[window] - spot).reshape(-1, 2)
  across, along = np.abs(axes @ local.T)
  tops = voxels.tops[window].ravel()
  stop, near = (
    # The second highest: one column may be a measurement gone wrong.
    float(np.sort(tops - underside(across, along, margin))[-2])
    for margin in (0.001, 0.006)
  )
  own = np.zeros(voxels.tops.shape, bool)
  own[tuple(column_of(voxels.points[members, :2]).T)] = True
  rises = tops > GROUND[window].ravel() + pinch.PAD_BOTTOM
  between = (across < _INNER) & (along < gripper.PAD_HALF_WIDTH)
  pads = (across > _INNER) & (across < _OUTER) & (along < gripper.PAD_HALF_WIDTH)
  return max(0.0, stop), {
    "tight": float(near > 0),
    "crowded": float(np.mean((rises & ~own[window].ravel())[between])),
    "unseen": float(np.mean(~voxels.seen[window].ravel()[pads])),
  }


def underside(across: np.ndarray, along: np.ndarray, margin: float) -> np.ndarray:
  """Height of the open gripper's lowest part over each place, at the table.

  Args:
    across, along: [N] distances from the middle between the fingers, m.
    margin: by which the gripper is thicker, m.

  Returns:
    float64[N] above the floor, m; infinite where it has no part.
  """
  lowest = np.full(across.shape, np.inf)
  palm = (across < pinch.PALM_HALF[0] + margin) & (along < pinch.PALM_HALF[1] + margin)
  lowest[palm] = pinch.PALM_BOTTOM - margin
  # The links lean from the pads' tops inwards to the palm.
  low_end = (_INNER + _OUTER) / 2
  rise = (low_end - (across + pinch.LINK_RADIUS + margin)) / (low_end - gripper.PIVOT)
  link = (along < pinch.LINK_RADIUS + margin) & (rise < 1)
  link &= across < low_end + pinch.LINK_RADIUS + margin
  up = pinch.PAD_TOP + np.clip(rise, 0, 1) * (pinch.PALM_BOTTOM - pinch.PAD_TOP)
  lowest[link] = np.minimum(lowest, up)[link]
  pads = (across > _INNER - margin) & (across < _OUTER + margin)
  pads &= along < gripper.PAD_HALF_WIDTH + margin
  lowest[pads] = pinch.PAD_BOTTOM
  return lowest
