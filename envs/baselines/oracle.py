"""An oracle that knows where everything lies: the ceiling of what the cell allows.

It reads the simulator's state, which no other policy may, and pinches the object that
is held best. What it cannot grasp is hardly to be grasped in this cell.
"""

import dataclasses

import numpy as np

from envs.attempt import Decision, Observation
from envs.baselines import pinch
from envs.baselines.reach import Reach
from envs.baselines.surfaces import Cloud, cloud
from envs.grasp_env import NULL_COMMAND, GraspEnv

EDGE = 0.004  # of the workspace: room to correct in, m
STILL = 0.002  # m: what moved less has not moved
LOOKED_AT = 60  # pinches of an object that are looked at more closely


@dataclasses.dataclass
class _Target:
  index: int  # of the object
  pose: np.ndarray  # float64[3]: x, y, yaw
  seen: np.ndarray  # float64[P, 3]: all surfaces when this was chosen
  cost: float


class OraclePolicy:
  """Goes over the best pinch, corrects its error, goes down, closes.

  It has no calibration of the arm: it learns from its motions how far the arm misses.
  """

  def __init__(self) -> None:
    self._env: GraspEnv | None = None
    self._reach = Reach()
    self._forget()

  def begin(self, env: GraspEnv) -> None:
    """Keeps the cell, to read its state at every decision."""
    if env is not self._env:
      self._reach = Reach()  # another robot, or who knows which
    self._env = env
    self._forget()

  def _forget(self) -> None:
    self._target: _Target | None = None
    self._blocked: list[np.ndarray] = []  # pinches [3] where fingers met something
    self._reach.begin()

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    """Decides; `key` is not needed.

    Raises:
      RuntimeError: `begin` was not called.
    """
    del key
    if self._env is None:
      raise RuntimeError("the oracle has no cell: call begin(env) before an attempt")
    if self._reach.blocked(observation):
      self._blocked.append(np.asarray(observation.pose, np.float64)[[0, 1, 3]])
      self._target = None
    target = self._target = self._choose(self._env, observation)
    if target is None:
      return Decision(NULL_COMMAND, close=True, evidence={"action": "close"})
    decision = self._reach(target.pose, observation)
    evidence = {
      "object": self._env.scene.objects[target.index].name,
      "pinch": target.pose,
      "cost": target.cost,
    }
    return decision._replace(evidence={**decision.evidence, **evidence})

  def _choose(self, env: GraspEnv, observation: Observation) -> _Target | None:
    """The best pinch; the one chosen before while nothing has moved."""
    remaining = env.remaining()
    if not remaining:
      return None
    clouds = {
      i: cloud(env.scene.objects[i], env.scene.bodies[i], env.data) for i in remaining
    }
    seen = np.concatenate([clouds[i].points for i in remaining])
    before = self._target
    if before is not None and np.abs(seen - before.seen).max() < STILL:
      return before
    best: _Target | None = None
    for index in remaining:
      others = [clouds[i].points for i in remaining if i != index]
      found = self._best_of(
        clouds[index],
        np.concatenate(others) if others else np.empty((0, 3)),
        observation,
        limit=np.inf if best is None else best.cost,
      )
      if found is not None:
        pose, cost = found
        best = _Target(index, pose, seen, cost)
    return best

  def _best_of(
    self, thing: Cloud, others: np.ndarray, observation: Observation, limit: float
  ) -> tuple[np.ndarray, float] | None:
    """The best pinch [3] of one object, if it costs less than `limit`, and its cost."""
    low, high = (np.asarray(w, np.float64)[:2] for w in observation.workspace)
    found = pinch.propose(thing, observation.table_height)
    spots = found.poses[:, :2]
    inside = np.all((spots >= low + EDGE) & (spots <= high - EDGE), axis=1)
    # A short way is preferred a little: between like pinches it does not waver.
    costs = found.costs + np.linalg.norm(spots - observation.pose[:2], axis=1) / 2
    costs[~inside] = np.inf
    for blocked in self._blocked:
      apart = np.linalg.norm(spots - blocked[:2], axis=1)
      turned = np.abs(np.sin(found.poses[:, 2] - blocked[2]))
      costs[(apart < 0.02) & (turned < 0.3)] += 2.0
    near = others[np.linalg.norm(others[:, :2] - thing.centre[:2], axis=1) < 0.2]
    best = None
    for k in np.argsort(costs)[:LOOKED_AT]:
      if costs[k] >= limit:
        break
      cost = float(costs[k]) + pinch.obstruction(
        found.poses[k], thing.points, near, observation.table_height
      )
      if cost < limit:
        best, limit = (found.poses[k], cost), cost
    return best
