"""An oracle that knows where everything lies: the ceiling of what the cell allows.

It reads the simulator's state, which no other policy may, and pinches the object that
is held best. What it cannot grasp is hardly to be grasped in this cell.
"""

import dataclasses
from typing import Any

import numpy as np

from envs.attempt import AT_TABLE, Decision, Observation
from envs.baselines import pinch
from envs.baselines.surfaces import Cloud, cloud
from envs.grasp_env import GraspEnv

HOVER = 0.11  # of the fingertips above the floor: over most of what lies there, m
CLOSE_ENOUGH = np.array([0.003, 0.003, np.deg2rad(3.0)])  # x, y, yaw
EDGE = 0.004  # of the workspace: room to correct in, m
STILL = 0.002  # m: what moved less has not moved
LOOKED_AT = 60  # pinches of an object that are looked at more closely
# Share of a measured miss that is this unit's bias, after one motion: its variance
# beside that of the noise that changes from motion to motion.
BIAS_TO_NOISE = 1.3


@dataclasses.dataclass
class _Target:
  index: int  # of the object
  pose: np.ndarray  # float64[3]: x, y, yaw
  seen: np.ndarray  # float64[P, 3]: all surfaces when this was chosen
  cost: float


class OraclePolicy:
  """Goes over the best pinch, corrects its error, goes down, closes.

  It is told no calibration: how far the arm misses it finds out from its motions.
  """

  def __init__(self) -> None:
    self._env: GraspEnv | None = None
    self._misses: list[np.ndarray] = []  # float64[3] each, of this scene's motions
    self._forget()

  def begin(self, env: GraspEnv) -> None:
    """Keeps the cell, to read its state at every decision."""
    if env is not self._env:
      self._misses = []  # of another robot, or of who knows which
    self._env = env
    self._forget()

  def _forget(self) -> None:
    self._target: _Target | None = None
    self._sent: np.ndarray | None = None  # float64[4]
    self._bias_then = np.zeros(3)  # what the last motion allowed for
    self._blocked: list[np.ndarray] = []  # pinches [3] where fingers met something

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    """Decides; `key` is not needed.

    Raises:
      RuntimeError: `begin` was not called.
    """
    del key
    if self._env is None:
      raise RuntimeError("the oracle has no cell: call begin(env) before an attempt")
    pose = np.asarray(observation.pose, np.float64)
    raised = pose[2] - observation.table_height > AT_TABLE
    self._learn(pose, raised, observation)
    target = self._target = self._choose(self._env, observation)
    if target is None:
      return Decision(_command(np.zeros(4)), close=True, evidence={"action": "close"})
    error = _wrap(_nearest_turn(target.pose, pose, observation) - pose[[0, 1, 3]])
    aligned = bool(np.all(np.abs(error) < CLOSE_ENOUGH))
    last = observation.step == observation.num_steps - 1
    evidence: dict[str, Any] = {
      "object": self._env.scene.objects[target.index].name,
      "pinch": target.pose,
      "cost": target.cost,
    }
    if not raised and (aligned or np.all(np.abs(error) < 3 * CLOSE_ENOUGH)):
      return Decision(
        _command(np.zeros(4)), close=True, evidence={"action": "close", **evidence}
      )
    down = last or (raised and aligned)
    height = observation.table_height + (0.0 if down else HOVER)
    goal = np.array([*(pose[:2] + error[:2]), height, pose[3] + error[2]])
    self._sent = goal
    motion = goal - pose
    motion[[0, 1, 3]] -= self._bias()
    return Decision(
      _command(motion),
      close=False,
      evidence={"action": "down" if down else "above", **evidence},
    )

  def _learn(self, pose: np.ndarray, raised: bool, observation: Observation) -> None:
    """Learns from the last motion: how far it missed, or that it was blocked."""
    if self._sent is None:
      return
    if raised and self._sent[2] - observation.table_height < AT_TABLE:
      self._blocked.append(pose[[0, 1, 3]])
      self._target = None
    else:
      miss = _wrap((pose - self._sent)[[0, 1, 3]])
      self._misses.append(miss + self._bias_then)

  def _bias(self) -> np.ndarray:
    count = len(self._misses)
    weight = count * BIAS_TO_NOISE / (count * BIAS_TO_NOISE + 1)
    self._bias_then = weight * np.mean(self._misses, axis=0) if count else np.zeros(3)
    return self._bias_then

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


def _nearest_turn(
  target: np.ndarray, pose: np.ndarray, observation: Observation
) -> np.ndarray:
  """The pinch [3] with that of its equal yaws that is least far to turn."""
  low, high = (float(w[3]) for w in observation.workspace)
  yaws = target[2] + np.pi * np.arange(-1, 2)
  yaws = yaws[(yaws >= low) & (yaws <= high)]
  return np.array([*target[:2], yaws[np.argmin(np.abs(yaws - pose[3]))]])


def _wrap(error: np.ndarray) -> np.ndarray:
  """[3] x, y, yaw with the yaw in [-180, 180) degrees."""
  return np.array([*error[:2], (error[2] + np.pi) % (2 * np.pi) - np.pi])


def _command(motion: np.ndarray) -> np.ndarray:
  x, y, z, yaw = motion
  return np.array([x, y, z, np.sin(yaw), np.cos(yaw)], np.float32)
