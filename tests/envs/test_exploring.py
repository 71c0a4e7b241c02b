"""A disturbed policy: how often, how far, and never out of the workspace."""

import numpy as np
import pytest

from envs import units
from envs.attempt import Decision, Observation
from envs.baselines import Exploring

_LOW, _HIGH = units.fleet_workspace()


class _Fixed:
  """Always moves alike, or closes."""

  def __init__(self, close=False):
    self.command = np.array([0.01, 0.0, -0.05, 0.0, 1.0], np.float32)
    self.close, self.calls = close, 0

  def __call__(self, observation, key):
    return Decision(self.command, self.close, {"p_best": 0.5})

  def decide_batch(self, observations, keys):
    self.calls += 1
    return [self(*one) for one in zip(observations, keys, strict=True)]


def _observation(pose=(0.56, 0.0, 0.05, 0.0)):
  image = np.zeros((8, 8, 3), np.uint8)
  return Observation(image, image, np.array(pose, np.float32), 1, 3, 0.0, (_LOW, _HIGH))


def _keys(count):
  return np.random.default_rng(0).integers(2**32, size=(count, 2), dtype=np.uint32)


def test_noise_comes_as_often_and_as_far_as_it_says():
  policy = Exploring(_Fixed(), probability=0.3, metres=0.01, radians=0.1)
  made = [policy(_observation(), key) for key in _keys(3000)]
  commands = np.stack([decision.command for decision in made])
  disturbed = np.any(commands != _Fixed().command, axis=1)
  assert disturbed.mean() == pytest.approx(0.3, abs=0.03)
  noisy = commands[disturbed]
  assert noisy[:, 0].std() == pytest.approx(0.01, rel=0.1)
  assert noisy[:, 0].mean() == pytest.approx(0.01, abs=0.002)
  yaw = np.arctan2(noisy[:, 3], noisy[:, 4])
  assert yaw.std() == pytest.approx(0.1, rel=0.1)
  assert np.all(noisy[:, 2] == np.float32(-0.05))  # height is the policy's
  assert made[0].evidence == {"p_best": 0.5}


def test_the_same_key_gives_the_same_noise_alone_or_together():
  inner = _Fixed()
  policy = Exploring(inner, 0.5, 0.02, 0.4)
  keys = _keys(20)
  alone = [policy(_observation(), key).command for key in keys]
  together = policy.decide_batch([_observation()] * 20, keys)
  assert inner.calls == 1
  np.testing.assert_array_equal(alone, [one.command for one in together])


def test_a_decision_to_close_stands():
  policy = Exploring(_Fixed(close=True), 1.0, 0.02, 0.4)
  assert all(policy(_observation(), key).close for key in _keys(20))


def test_noise_never_leads_out_of_the_workspace():
  policy = Exploring(_Fixed(), 1.0, 0.5, 3.0)
  corner = (_HIGH[0], _HIGH[1], 0.05, _HIGH[3])
  for key in _keys(200):
    command = policy(_observation(corner), key).command
    target = np.array(corner)[[0, 1, 3]]
    target = target + [command[0], command[1], np.arctan2(command[3], command[4])]
    assert np.all(target >= _LOW[[0, 1, 3]] - 1e-5)
    assert np.all(target <= _HIGH[[0, 1, 3]] + 1e-5)
