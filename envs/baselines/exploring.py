"""A policy whose commands are disturbed now and then, so that its data stay diverse."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.attempt import BatchedPolicy, Decision, Observation, Policy

_MOST_TURN = 3.14  # rad; sine and cosine tell no more than half a turn
_NOISE = 3_000  # keeps these draws apart from those of the policy with the same key


@dataclasses.dataclass(frozen=True)
class Exploring:
  """Adds normal noise to some of a policy's motions (Section 5.2).

  What the gripper then meets is off the policy's own path, so its network sees its
  errors and the motions that correct them. A decision to close stands.

  Attributes:
    policy: what is disturbed; it must not remember anything of an attempt.
    probability: that a motion is disturbed.
    metres: standard deviation of the noise in x and in y.
    radians: standard deviation of the noise in yaw.
  """

  policy: Policy
  probability: float
  metres: float
  radians: float

  def __call__(self, observation: Observation, key: np.ndarray) -> Any:
    return self._disturb(self.policy(observation, key), observation, key)

  def decide_batch(
    self, observations: Sequence[Observation], keys: Sequence[np.ndarray]
  ) -> list[Any]:
    """One decision for each; in one call where the policy decides together."""
    if isinstance(self.policy, BatchedPolicy):
      made = self.policy.decide_batch(observations, keys)
    else:
      made = [self.policy(*one) for one in zip(observations, keys, strict=True)]
    return [self._disturb(*one) for one in zip(made, observations, keys, strict=True)]

  def _disturb(self, decision: Any, observation: Observation, key: np.ndarray) -> Any:
    rng = np.random.default_rng([*map(int, key), _NOISE])
    if decision.close or rng.uniform() >= self.probability:
      return decision
    dx, dy, dz, sine, cosine = map(float, decision.command)
    axes = [0, 1, 3]
    scale = np.array([self.metres, self.metres, self.radians])
    here = np.asarray(observation.pose, np.float64)[axes]
    there = here + [dx, dy, np.arctan2(sine, cosine)] + rng.normal(size=3) * scale
    low, high = (bound[axes] for bound in observation.workspace)
    x, y, yaw = np.clip(there, low, high) - here
    yaw = np.clip(yaw, -_MOST_TURN, _MOST_TURN)
    command = np.array([x, y, dz, np.sin(yaw), np.cos(yaw)], np.float32)
    return Decision(command, close=False, evidence=decision.evidence)
