"""Where motions may end, enforced inside the compiled decision for any network output.

The workspace (Appendix A) and the user's `Constraints` become one `FeasibleSet`.
CEM calls `is_feasible` and `project`. `bounded` shortens the resulting command, and
`is_safe` checks it again, independently of how it was found.
"""

import math

import chex
import jax.numpy as jnp

from hand_eye import commands
from hand_eye.constraints import Constraints

# After a motion to a limit an arm's error must not keep it from closing there.
CLOSE_SLACK = (0.005, 0.05)  # m, rad
# Motions end at least this far outside a region to keep out of, along x or along y.
# Regions that touch leave no seam between them: float32 rounds to 1e-7 of a metre here.
CLEARANCE = 5e-4  # m
_ROUNDING = 1e-4  # m and rad, of float32 and of wrapping angles


@chex.dataclass(frozen=True)
class FeasibleSet:
  """The poses that a motion may end at. K regions, A ranges of yaw.

  low, high: [4] smallest and largest (x, y, z, yaw), metres and radians.
  keep_out: [K, 4] regions (x low, y low, x high, y high), CLEARANCE added on each side.
    What is inside any of them is not feasible; a motion may end on such a side.
  yaw_ranges: [A, 2] (from, to), counter-clockwise, all of which hold its yaw.
  """

  low: chex.Array
  high: chex.Array
  keep_out: chex.Array
  yaw_ranges: chex.Array


def feasible_set(
  workspace: commands.Workspace, *given: dict[str, chex.Array]
) -> FeasibleSet:
  """Joins a workspace and what `Constraints.arrays` gives; all of them hold."""
  low, high = jnp.asarray(workspace.low), jnp.asarray(workspace.high)
  chex.assert_shape([low, high], (4,))
  for arrays in given:
    low = low.at[:2].max(arrays["grasp_in"][:2])
    high = high.at[:2].min(arrays["grasp_in"][2:])
  regions = jnp.concatenate([jnp.zeros((0, 4)), *(a["keep_out"] for a in given)])
  return FeasibleSet(
    low=low,
    high=high,
    keep_out=regions + CLEARANCE * jnp.array([-1.0, -1.0, 1.0, 1.0]),
    yaw_ranges=jnp.concatenate(
      [jnp.zeros((0, 2)), *(a["yaw_range"][None] for a in given)]
    ),
  )


def fixed(constraints: Constraints) -> dict[str, chex.Array]:
  """`Constraints.arrays` without free places: for limits that will not change."""
  arrays = constraints.arrays()
  arrays["keep_out"] = arrays["keep_out"][: len(constraints.keep_out)]
  return arrays


def is_feasible(
  motion: chex.Array, pose: chex.Array, feasible: FeasibleSet
) -> chex.Array:
  """Returns [...] bool: do motions [..., 3] from `pose` [4] end in the feasible set?

  The final x, y and yaw are inside, and the turn is at most 180 degrees. Heights are
  not searched. Motions are (dx, dy, dyaw), metres and radians.
  """
  position = _position_feasible(motion[..., :2], pose, feasible)
  yaw = commands.wrap_angle(pose[3] + motion[..., 2])
  turn = jnp.abs(motion[..., 2]) <= math.pi
  return position & _yaw_feasible(yaw, feasible) & turn


def project(motion: chex.Array, pose: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """Returns the nearest feasible motions [..., 3], or anything if there are none.

  A turn of more than 180 degrees becomes the shorter one to the same yaw.
  """
  position, _ = _nearest_position(motion[..., :2], pose, feasible)
  yaw = commands.wrap_angle(pose[3] + motion[..., 2])[..., None]
  ends = jnp.concatenate(
    [feasible.low[3:], feasible.high[3:], feasible.yaw_ranges.reshape(-1)]
  )
  ends = jnp.broadcast_to(commands.wrap_angle(ends), (*yaw.shape[:-1], ends.size))
  yaws = jnp.concatenate([yaw, ends], axis=-1)
  gap = jnp.abs(commands.wrap_angle(yaws - yaw))
  chosen, _ = _nearest(yaws[..., None], gap, _yaw_feasible(yaws, feasible))
  turn = commands.wrap_angle(chosen - pose[3])
  return jnp.concatenate([position, turn], axis=-1)


def may_close(pose: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """Returns [] bool: may the gripper close at `pose` [4], once it is down?

  It may up to CLOSE_SLACK outside the feasible set.
  """
  metres, radians = CLOSE_SLACK
  turned = _excess(pose, feasible)[3] <= radians
  return (_way_back(pose, feasible) <= metres) & turned


def bounded(command: chex.Array, max_step: float, max_turn: float) -> chex.Array:
  """Returns `command` [5], shortened to a step of `max_step` m and `max_turn` rad.

  The direction stays: it is the first part of the same straight motion.
  """
  length = jnp.linalg.norm(command[:3])
  turn = commands.yaw_change(command)
  share = jnp.minimum(
    max_step / jnp.maximum(length, max_step),
    max_turn / jnp.maximum(jnp.abs(turn), max_turn),
  )
  part = jnp.stack([jnp.sin(share * turn), jnp.cos(share * turn)])
  part = jnp.where(share < 1, part, command[3:])
  return jnp.concatenate([share * command[:3], part])


def is_safe(
  command: chex.Array,
  pose: chex.Array,
  feasible: FeasibleSet,
  max_step: float,
  max_turn: float,
) -> chex.Array:
  """Returns [] bool: is a command [5] finite, short enough, and does it end inside?

  Where the gripper is outside already, moved by hand or by a new limit, a step may end
  outside, but not farther out.
  """
  end = commands.apply(pose, command)
  short = jnp.linalg.norm(command[:3]) <= max_step + _ROUNDING
  turned = jnp.abs(commands.yaw_change(command)) <= max_turn + _ROUNDING
  unit = jnp.abs(jnp.linalg.norm(command[3:]) - 1) <= 1e-3
  before, after = _excess(pose, feasible), _excess(end, feasible)
  inside = jnp.all(after <= before + _ROUNDING)
  left = _way_back(end, feasible)
  apart = jnp.isfinite(left) & (left <= _way_back(pose, feasible) + _ROUNDING)
  finite = jnp.all(jnp.isfinite(command)) & jnp.all(jnp.isfinite(end))
  return finite & short & turned & unit & inside & apart


def _position_feasible(
  offset: chex.Array, pose: chex.Array, feasible: FeasibleSet
) -> chex.Array:
  """[...] bool for offsets [..., 2] from a pose [4], boundary included."""
  low, high = feasible.low[:2] - pose[:2], feasible.high[:2] - pose[:2]
  inside = jnp.all((offset >= low) & (offset <= high), axis=-1)
  near, far = feasible.keep_out[:, :2] - pose[:2], feasible.keep_out[:, 2:] - pose[:2]
  at = offset[..., None, :]
  kept_out = ~jnp.any(jnp.all((at > near) & (at < far), axis=-1), axis=-1)
  return inside & kept_out


def _lines(
  offset: chex.Array, axis: int, pose: chex.Array, feasible: FeasibleSet
) -> chex.Array:
  """[..., 3 + 2 K] offsets [...] along an axis: its own, clipped, and all limits."""
  low, high = feasible.low[axis] - pose[axis], feasible.high[axis] - pose[axis]
  own = jnp.clip(offset, low, high)[..., None]
  sides = feasible.keep_out[:, axis::2].reshape(-1) - pose[axis]
  lines = jnp.concatenate([jnp.stack([low, high]), sides])
  return jnp.concatenate(
    [own, jnp.broadcast_to(lines, (*own.shape[:-1], lines.size))], axis=-1
  )


def _nearest_position(
  offset: chex.Array, pose: chex.Array, feasible: FeasibleSet
) -> tuple[chex.Array, chex.Array]:
  """The feasible offset [..., 2] nearest to each [..., 2], and the square of its gap.

  The gap is infinite where no position is feasible.
  """
  x = _lines(offset[..., 0], 0, pose, feasible)
  y = _lines(offset[..., 1], 1, pose, feasible)
  # What is feasible is a union of rectangles, and their sides are among these lines.
  grid = jnp.stack(jnp.broadcast_arrays(x[..., :, None], y[..., None, :]), axis=-1)
  grid = grid.reshape(*grid.shape[:-3], -1, 2)
  gap = jnp.sum(jnp.square(grid - offset[..., None, :]), axis=-1)
  return _nearest(grid, gap, _position_feasible(grid, pose, feasible))


def _nearest(
  points: chex.Array, gap: chex.Array, good: chex.Array
) -> tuple[chex.Array, chex.Array]:
  """Of points [..., P, D] the good one with the smallest gap [..., P], and its gap."""
  known = jnp.where(good, gap, jnp.inf)
  index = jnp.argmin(known, axis=-1)
  chosen = jnp.take_along_axis(points, index[..., None, None], axis=-2)[..., 0, :]
  return chosen, jnp.min(known, axis=-1)


def _yaw_feasible(yaw: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """[...] bool for wrapped yaws [...]."""
  slack = 1e-5  # Wrapping costs the last digits of an angle at its limit.
  inside = (yaw >= feasible.low[3] - slack) & (yaw <= feasible.high[3] + slack)
  return inside & jnp.all(_past(yaw, feasible) <= slack, axis=-1)


def _past(yaw: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """[..., A] radians from yaws [...] to the nearer end of each range; 0 inside."""
  first = feasible.yaw_ranges[:, 0]
  width = feasible.yaw_ranges[:, 1] - first
  along = jnp.mod(yaw[..., None] - first, 2 * math.pi)
  outside = jnp.minimum(along - width, 2 * math.pi - along)
  return jnp.maximum(outside, 0.0)


def _excess(pose: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """[4] metres and radians by which a pose [4] is outside; 0 where it is inside."""
  beyond = jnp.maximum(feasible.low - pose, pose - feasible.high)
  ends = jnp.stack([feasible.low[3], feasible.high[3]])
  # Across pi it may be nearer to the other end.
  nearer = jnp.min(jnp.abs(commands.wrap_angle(pose[3] - ends)))
  yaw = jnp.where(beyond[3] > 0, nearer, 0.0)
  yaw = jnp.max(jnp.concatenate([yaw[None], _past(pose[3], feasible)]))
  return jnp.maximum(beyond.at[3].set(yaw), 0.0)


def _way_back(pose: chex.Array, feasible: FeasibleSet) -> chex.Array:
  """[] metres from a pose [4] to the nearest feasible (x, y); infinite if none is."""
  return jnp.sqrt(_nearest_position(jnp.zeros(2), pose, feasible)[1])
