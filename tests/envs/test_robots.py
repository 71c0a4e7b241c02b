"""A robot of one's own behind the rules of an attempt."""

import numpy as np
import pytest

from envs import grasp_env, objects, robots, rollout, units
from envs.baselines import RandomPolicy
from tests.envs.puppet import Puppet


def filled(seed: int) -> grasp_env.GraspEnv:
  rng = np.random.default_rng(seed)
  things = objects.sample_objects(rng, 3, "training:rigid")
  env = grasp_env.GraspEnv(units.sample_unit(seed), things, 48)
  env.fill(rng)
  return env


def attempt(cell, number: int):
  rng = np.random.default_rng([7, number])
  return rollout.run_attempt(
    cell, RandomPolicy(), rng, num_steps=3, scene_seed=7, number=number
  )


def test_the_simulated_cell_behind_the_protocol_gives_the_same_attempts():
  direct, behind = filled(1), filled(1)
  cell = robots.RobotCell(robots.SimulatedRobot(behind, np.random.default_rng(0)))
  try:
    for number in range(2):
      one, other = attempt(direct, number), attempt(cell, number)
      np.testing.assert_array_equal(one.pregrasp_image, other.pregrasp_image)
      np.testing.assert_array_equal(one.images, other.images)
      np.testing.assert_array_equal(one.poses, other.poses)
      np.testing.assert_array_equal(one.commands, other.commands)
      assert one.gripper_reading == other.gripper_reading
      assert (one.success, one.drop_test) == (other.success, other.drop_test)
      assert one.unit == other.unit and other.objects == ()
  finally:
    direct.close()
    behind.close()


def test_the_label_comes_from_the_gripper_and_the_images():
  made = attempt(robots.RobotCell(Puppet()), 0)
  assert made.success and not made.drop_test and made.gripper_reading == 0.03
  assert not attempt(robots.RobotCell(Puppet(opening=0.001)), 0).success


@pytest.mark.parametrize(
  ("fault", "words"),
  [
    ({"frozen": True}, "camera stands still"),
    ({"stuck": True}, "ended .* m from where it was to end"),
    ({"jumps": True}, "pose jumped"),
    ({"opening": float("nan")}, "gripper reads nan"),
  ],
)
def test_bad_hardware_ends_the_attempt(fault, words):
  policy = RandomPolicy()
  cell = robots.RobotCell(Puppet(**fault))
  with pytest.raises(robots.RobotError, match=words):
    for number in range(5):
      rng = np.random.default_rng(number)
      rollout.run_attempt(cell, policy, rng, num_steps=4, scene_seed=0, number=number)


def test_what_is_no_robot_is_told_what_it_lacks():
  with pytest.raises(robots.RobotError, match="lacks approach, close, image"):
    robots.RobotCell(object())  # type: ignore[arg-type]
  with pytest.raises(robots.RobotError, match="workspace is"):
    robots.RobotCell(Puppet(workspace=((0, 0), (1, 1))))
