"""Judges grasps by where things lie: in the network's place, it shows what the rest of
the open-loop policy (search, calibration, motion) loses.
"""

import numpy as np

from envs.baselines import pinch
from envs.baselines.surfaces import Cloud, cloud
from envs.grasp_env import GraspEnv

# What it takes from the log odds of a pinch to miss it by so much: off the middle
# between the fingers (they push what they meet there), along the pads, and in yaw.
_ACROSS, _ALONG, _TURN = 40.0, 100.0, 5.0  # 1/m, 1/m, 1/rad
_OUTSIDE = 500.0  # 1/m of the object that is not between the fingers
_EVEN = 3.0  # cost of a grasp that holds about every other time
_HOPELESS = 8.0  # costs that it is not worth adding to


class OracleScore:
  """Scores grasps by the best pinch near them of anything in the bin.

  A `open_loop.Score` that looks at patches of no image, but at the simulator's state
  when the attempt begins.
  """

  def __init__(self) -> None:
    self._floor = 0.0
    self._clouds: list[Cloud] | None = None
    self._pinches: list[pinch.Pinches] = []  # of each cloud

  def begin(self, env: GraspEnv) -> None:
    """Notes where everything lies."""
    self._floor = env.unit.table_height
    self._clouds = [
      cloud(env.scene.objects[i], env.scene.bodies[i], env.data)
      for i in env.remaining()
    ]
    self._pinches = [pinch.propose(c, self._floor) for c in self._clouds]

  def __call__(self, patches: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """float64[N]: probability of success at poses [N, 3], (x, y, yaw).

    Raises:
      RuntimeError: `begin` was not called.
    """
    del patches
    if self._clouds is None:
      raise RuntimeError("the oracle has seen no cell: call begin(env) first")
    poses = np.asarray(poses, np.float64)
    costs = [_miss(poses, found) for found in self._pinches]
    if not costs:
      return np.zeros(len(poses))
    own = np.argmin(costs, axis=0)
    cost = np.min(costs, axis=0)
    for n in np.flatnonzero(cost < _HOPELESS):
      cost[n] += self._obstruction(poses[n], own[n])
    return 1.0 / (1.0 + np.exp(np.minimum(cost, 100.0) - _EVEN))

  def _obstruction(self, pose: np.ndarray, own: int) -> float:
    assert self._clouds is not None
    others = [c.points for i, c in enumerate(self._clouds) if i != own]
    return pinch.obstruction(
      pose,
      self._clouds[own].points,
      np.concatenate(others) if others else np.empty((0, 3)),
      self._floor,
    )


def _miss(poses: np.ndarray, pinches: pinch.Pinches) -> np.ndarray:
  """float64[N]: the cost of the pinch near each pose that costs least with its miss."""
  if not len(pinches.costs):
    return np.full(len(poses), np.inf)
  apart = poses[:, None, :2] - pinches.poses[:, :2]  # [N, K, 2]
  cos, sin = np.cos(pinches.poses[:, 2]), np.sin(pinches.poses[:, 2])
  across = np.abs(cos * apart[..., 1] - sin * apart[..., 0])
  along = np.abs(cos * apart[..., 0] + sin * apart[..., 1])
  turn = np.abs(np.sin(poses[:, None, 2] - pinches.poses[:, 2]))
  outside = np.maximum(0.0, across + pinches.widths / 2 - pinch.OPENING / 2)
  cost = pinches.costs + _ACROSS * across + _OUTSIDE * outside
  cost += _ALONG * along + _TURN * turn
  return cost.min(axis=1)
