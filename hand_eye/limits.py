"""Where motions may end, inside the compiled decision: whatever the network says.

The workspace (Appendix A) and a person's `Constraints` become one `Allowed`.
CEM asks `is_feasible` and `pull`; the command that comes out is shortened by `bounded`
and looked at once more by `is_safe`, which knows nothing of how it was found.
"""

import math

import chex
import jax.numpy as jnp

from hand_eye import commands
from hand_eye.constraints import Constraints

# After a motion to a limit an arm's error must not keep it from closing there.
CLOSE_SLACK = (0.005, 0.05)  # m, rad
_FAR = 1e3  # m, beyond any workspace
_ROUNDING = 1e-4  # m and rad, of float32 and of wrapping angles


@chex.dataclass(frozen=True)
class Allowed:
  """The poses that a motion may end at. K regions, A ranges of yaw.

  low, high: [4] smallest and largest (x, y, z, yaw), metres and radians.
  keep_out: [K, 4] open regions (x low, y low, x high, y high) in none of which it ends.
  yaw_ranges: [A, 2] (from, to), counter-clockwise, all of which hold its yaw.
  """

  low: chex.Array
  high: chex.Array
  keep_out: chex.Array
  yaw_ranges: chex.Array


def allow(workspace: commands.Workspace, *given: dict[str, chex.Array]) -> Allowed:
  """Joins a workspace and what `Constraints.arrays` gives; all of them hold."""
  low, high = jnp.asarray(workspace.low), jnp.asarray(workspace.high)
  chex.assert_shape([low, high], (4,))
  for arrays in given:
    low = low.at[:2].max(arrays["grasp_in"][:2])
    high = high.at[:2].min(arrays["grasp_in"][2:])
  regions = jnp.concatenate([jnp.zeros((0, 4)), *(a["keep_out"] for a in given)])
  # A strip without width, between a region and the workspace's edge, is no place to be.
  near = jnp.where(regions[:, :2] <= low[:2], -_FAR, regions[:, :2])
  far = jnp.where(regions[:, 2:] >= high[:2], _FAR, regions[:, 2:])
  return Allowed(
    low=low,
    high=high,
    keep_out=jnp.concatenate([near, far], axis=1),
    yaw_ranges=jnp.concatenate(
      [jnp.zeros((0, 2)), *(a["yaw_range"][None] for a in given)]
    ),
  )


def fixed(constraints: Constraints) -> dict[str, chex.Array]:
  """`Constraints.arrays` without free places: for limits that will not change."""
  arrays = constraints.arrays()
  arrays["keep_out"] = arrays["keep_out"][: len(constraints.keep_out)]
  return arrays


def is_feasible(motion: chex.Array, pose: chex.Array, allowed: Allowed) -> chex.Array:
  """Returns [...] bool: do motions [..., 3] from `pose` [4] end where it is allowed?

  The final x, y and yaw are inside, and the turn is at most 180 degrees. Heights are
  not searched. Motions are (dx, dy, dyaw), metres and radians.
  """
  position = _position_allowed(motion[..., :2], pose, allowed)
  yaw = commands.wrap_angle(pose[3] + motion[..., 2])
  turn = jnp.abs(motion[..., 2]) <= math.pi
  return position & _yaw_allowed(yaw, allowed) & turn


def pull(motion: chex.Array, pose: chex.Array, allowed: Allowed) -> chex.Array:
  """Returns the nearest feasible motions [..., 3], or anything if there are none.

  A turn of more than 180 degrees becomes the shorter one to the same yaw.
  """
  x = _corners(motion[..., 0], 0, pose, allowed)
  y = _corners(motion[..., 1], 1, pose, allowed)
  # What is allowed is a union of rectangles, and their sides are among these lines.
  grid = jnp.stack(jnp.broadcast_arrays(x[..., :, None], y[..., None, :]), axis=-1)
  grid = grid.reshape(*grid.shape[:-3], -1, 2)
  gap = jnp.sum(jnp.square(grid - motion[..., None, :2]), axis=-1)
  position = _nearest(grid, gap, _position_allowed(grid, pose, allowed))

  yaw = commands.wrap_angle(pose[3] + motion[..., 2])[..., None]
  ends = jnp.concatenate(
    [allowed.low[3:], allowed.high[3:], allowed.yaw_ranges.reshape(-1)]
  )
  ends = jnp.broadcast_to(commands.wrap_angle(ends), (*yaw.shape[:-1], ends.size))
  yaws = jnp.concatenate([yaw, ends], axis=-1)
  gap = jnp.abs(commands.wrap_angle(yaws - yaw))
  chosen = _nearest(yaws[..., None], gap, _yaw_allowed(yaws, allowed))
  turn = commands.wrap_angle(chosen - pose[3])
  return jnp.concatenate([position, turn], axis=-1)


def may_close(pose: chex.Array, allowed: Allowed) -> chex.Array:
  """Returns [] bool: may the gripper close at `pose` [4], once it is down?

  CLOSE_SLACK beyond a limit it still may.
  """
  metres, radians = CLOSE_SLACK
  excess, inside = _excess(pose, allowed), _depth(pose, allowed)
  near = jnp.all(excess[:2] <= metres) & (excess[3] <= radians)
  return near & jnp.all(inside <= metres)


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
  allowed: Allowed,
  max_step: float,
  max_turn: float,
) -> chex.Array:
  """Returns [] bool: is a command [5] finite, short enough, and does it end inside?

  Where the gripper is outside already, by a person's hand or a new limit, a step may
  end outside, but nowhere farther out.
  """
  end = commands.apply(pose, command)
  short = jnp.linalg.norm(command[:3]) <= max_step + _ROUNDING
  turned = jnp.abs(commands.yaw_change(command)) <= max_turn + _ROUNDING
  unit = jnp.abs(jnp.linalg.norm(command[3:]) - 1) <= 1e-3
  before, after = _excess(pose, allowed), _excess(end, allowed)
  inside = jnp.all(after <= before + _ROUNDING)
  apart = jnp.all(_depth(end, allowed) <= _depth(pose, allowed) + _ROUNDING)
  finite = jnp.all(jnp.isfinite(command)) & jnp.all(jnp.isfinite(end))
  return finite & short & turned & unit & inside & apart


def _position_allowed(
  offset: chex.Array, pose: chex.Array, allowed: Allowed
) -> chex.Array:
  """[...] bool for offsets [..., 2]. As offsets, so that a pulled motion is at them."""
  low, high = allowed.low[:2] - pose[:2], allowed.high[:2] - pose[:2]
  inside = jnp.all((offset >= low) & (offset <= high), axis=-1)
  near, far = allowed.keep_out[:, :2] - pose[:2], allowed.keep_out[:, 2:] - pose[:2]
  at = offset[..., None, :]
  kept_out = ~jnp.any(jnp.all((at > near) & (at < far), axis=-1), axis=-1)
  return inside & kept_out


def _corners(
  offset: chex.Array, axis: int, pose: chex.Array, allowed: Allowed
) -> chex.Array:
  """[..., 3 + 2 K] offsets [...] along an axis: its own, clipped, and all limits."""
  low, high = allowed.low[axis] - pose[axis], allowed.high[axis] - pose[axis]
  own = jnp.clip(offset, low, high)[..., None]
  sides = allowed.keep_out[:, axis::2].reshape(-1) - pose[axis]
  lines = jnp.concatenate([jnp.stack([low, high]), sides])
  return jnp.concatenate(
    [own, jnp.broadcast_to(lines, (*own.shape[:-1], lines.size))], axis=-1
  )


def _nearest(points: chex.Array, gap: chex.Array, good: chex.Array) -> chex.Array:
  """[..., D]: of points [..., P, D] the good one with the smallest gap [..., P]."""
  index = jnp.argmin(jnp.where(good, gap, jnp.inf), axis=-1)
  return jnp.take_along_axis(points, index[..., None, None], axis=-2)[..., 0, :]


def _yaw_allowed(yaw: chex.Array, allowed: Allowed) -> chex.Array:
  """[...] bool for wrapped yaws [...]."""
  slack = 1e-5  # Wrapping costs the last digits of an angle at its limit.
  inside = (yaw >= allowed.low[3] - slack) & (yaw <= allowed.high[3] + slack)
  return inside & jnp.all(_past(yaw, allowed) <= slack, axis=-1)


def _past(yaw: chex.Array, allowed: Allowed) -> chex.Array:
  """[..., A] radians from yaws [...] to the nearer end of each range; 0 inside."""
  first = allowed.yaw_ranges[:, 0]
  width = allowed.yaw_ranges[:, 1] - first
  along = jnp.mod(yaw[..., None] - first, 2 * math.pi)
  outside = jnp.minimum(along - width, 2 * math.pi - along)
  return jnp.maximum(outside, 0.0)


def _excess(pose: chex.Array, allowed: Allowed) -> chex.Array:
  """[4] metres and radians by which a pose [4] is outside; 0 where it is inside."""
  beyond = jnp.maximum(allowed.low - pose, pose - allowed.high)
  ends = jnp.stack([allowed.low[3], allowed.high[3]])
  # Across pi it may be nearer to the other end.
  nearer = jnp.min(jnp.abs(commands.wrap_angle(pose[3] - ends)))
  yaw = jnp.where(beyond[3] > 0, nearer, 0.0)
  yaw = jnp.max(jnp.concatenate([yaw[None], _past(pose[3], allowed)]))
  return jnp.maximum(beyond.at[3].set(yaw), 0.0)


def _depth(pose: chex.Array, allowed: Allowed) -> chex.Array:
  """[K] metres from a pose [4] to the nearest side of each region that it is in."""
  near, far = allowed.keep_out[:, :2], allowed.keep_out[:, 2:]
  inside = jnp.minimum(pose[:2] - near, far - pose[:2])
  return jnp.maximum(jnp.min(inside, axis=-1), 0.0)
