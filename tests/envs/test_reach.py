"""The motions to a chosen grasp, with an arm that is known to miss."""

import numpy as np
import pytest

from envs.attempt import Observation
from envs.baselines.reach import HOVER, Reach, nearest_turn
from envs.grasp_env import apply_command
from envs.units import sample_unit

TARGET = np.array([0.60, 0.05, 0.4])
START = np.array([0.50, -0.08, 0.07, -0.3])
BIAS = np.array([0.004, -0.003, 0.0, 0.03])


def observe(pose, step: int, num_steps: int) -> Observation:
  unit, image = sample_unit(0), np.zeros((8, 8, 3), np.uint8)
  raised = np.array(pose, np.float32)
  raised[2] += unit.table_height
  return Observation(
    image, image, raised, step, num_steps, unit.table_height, unit.workspace()
  )


def attempt(reach: Reach, num_steps: int, bias=BIAS, target=TARGET):
  """Poses [t, 4] above the floor, and the actions, of one attempt."""
  reach.begin()
  poses, actions = [START], []
  for step in range(1, num_steps):
    decision = reach(target, observe(poses[-1], step, num_steps))
    actions.append(decision.evidence["action"])
    if decision.close:
      break
    poses.append(apply_command(poses[-1], decision.command) + bias)
  return np.array(poses), actions


def test_with_time_it_goes_over_then_down_then_closes():
  poses, actions = attempt(Reach(), 10, bias=np.zeros(4))
  assert actions == ["above", "down", "close"]
  np.testing.assert_allclose(poses[1], [*TARGET[:2], HOVER, TARGET[2]], atol=1e-6)
  np.testing.assert_allclose(poses[2], [*TARGET[:2], 0.0, TARGET[2]], atol=1e-6)


@pytest.mark.parametrize("num_steps", [2, 3, 4, 5, 10])
def test_it_is_down_by_the_last_step(num_steps):
  poses, actions = attempt(Reach(), num_steps)
  assert poses[-1][2] == pytest.approx(0.0, abs=1e-6)
  assert actions.count("down") == 1
  assert set(actions[:-2]) <= {"above"}


def test_a_bias_is_corrected_within_an_attempt_and_remembered():
  reach = Reach()
  poses, actions = attempt(reach, 10)
  assert actions == ["above", "above", "down", "close"]
  assert np.abs(poses[-1] - [*TARGET[:2], 0.0, TARGET[2]]).max() < 0.01
  assert np.abs(poses[-1][:2] - TARGET[:2]).max() < 0.0015
  # A single motion misses by the bias, unless the arm has been seen to miss before.
  first, _ = attempt(Reach(), 2)
  later, _ = attempt(reach, 2)
  assert np.abs(first[-1][:2] - TARGET[:2]).max() == pytest.approx(0.004, abs=1e-6)
  assert np.abs(later[-1][:2] - TARGET[:2]).max() < 0.0012


def test_what_stops_the_fingers_is_noticed_and_not_learned_from():
  reach = Reach()
  reach(TARGET, observe(START, 1, 2))
  stopped = np.array([*TARGET[:2], 0.05, TARGET[2]])
  assert reach.blocked(observe(stopped, 2, 2))
  assert not reach.blocked(observe([*TARGET[:2], 0.002, TARGET[2]], 2, 2))
  reach(TARGET, observe(stopped, 2, 3))
  reach.begin()
  assert not reach.blocked(observe(stopped, 1, 2))


@pytest.mark.parametrize(
  ("wanted", "now", "expected"),
  [(80, -70, -100), (80, 70, 80), (-80, 110, 100), (0, 100, 0), (30, -100, 30)],
)
def test_of_equal_yaws_the_nearest_within_reach_is_taken(wanted, now, expected):
  seen = observe([0.5, 0.0, 0.1, np.deg2rad(now)], 1, 5)
  found = nearest_turn(np.array([0.5, 0.0, np.deg2rad(wanted)]), seen)
  assert np.rad2deg(found[2]) == pytest.approx(expected)
