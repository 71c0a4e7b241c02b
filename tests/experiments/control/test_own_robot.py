"""A robot of one's own collects and evaluates; its faults lose nothing."""

import json

import numpy as np
import pytest

from data_pipeline import source
from envs.baselines import RandomPolicy
from envs.robots import RobotCell
from experiments import cli
from experiments.control import own_robot
from hand_eye.decision import hold
from tests.envs.puppet import Puppet


class Flaky(Puppet):
  """Loses its arm in every `every`-th attempt, for ever after `breaks`."""

  resets, every, breaks = 0, 3, 10**9

  def reset(self):
    self.resets += 1

  def move(self, pose):
    if self.resets % self.every == 0 or self.resets > self.breaks:
      raise OSError("no answer from the arm")
    super().move(pose)


def collect(robot, folder, **more):
  return own_robot.collect(
    RobotCell(robot),
    RandomPolicy(),
    folder,
    "train",
    policy_name="random",
    num_steps=(3,),
    **{"num_attempts": 10, "say": lambda line: None, **more},
  )


def test_spoilt_attempts_are_counted_and_nothing_else_is_lost(tmp_path):
  dataset = source.open_dataset(collect(Flaky(), tmp_path))
  assert len(dataset) == 10
  (row,) = cli.read_jsonl(tmp_path / "train" / "collection.jsonl")
  assert set(row["spoilt"]) == {"OSError: no answer from the arm"}
  record = dataset.decoded(0, images=False)
  assert record["unit"] == "puppet" and "simulator_truth" in record["unknown"]


def test_a_robot_that_breaks_keeps_what_was_made_and_continues(tmp_path):
  robot = Flaky()
  robot.breaks = 6
  with pytest.raises(cli.UserError, match="spoilt 5 attempts in a row.*no answer"):
    collect(robot, tmp_path, num_attempts=24)
  dataset = source.open_dataset(collect(Flaky(), tmp_path, num_attempts=24))
  assert 16 < len(dataset) < 24  # the shard that broke off is kept, shorter


def test_two_policies_are_compared_until_it_is_decided(tmp_path):
  class Seer(RandomPolicy):
    def __call__(self, observation, key):
      robot.opening = 0.03
      return super().__call__(observation, key)

  class Blind(RandomPolicy):
    def __call__(self, observation, key):
      robot.opening = 0.0
      return super().__call__(observation, key)

  robot = Puppet()
  said: list[str] = []
  policies = {"seer": Seer(), "blind": Blind()}
  for _ in range(2):  # the second time from the rows alone
    summary = own_robot.evaluate(
      RobotCell(robot),
      policies,
      tmp_path,
      num_attempts=50,
      num_steps=2,
      say=said.append,
    )
    assert summary["comparison"]["better"] == "seer"
    assert summary["comparison"]["pairs"] == 8
    assert summary["rates"]["blind"]["attempts"] == 8
  assert len(cli.read_jsonl(tmp_path / "rows.jsonl")) == 16
  assert json.loads((tmp_path / "summary.json").read_text())["robot"] == "puppet"
  assert any("seer is better after 8 pairs" in line for line in said)


def test_names_that_are_no_robots_are_refused():
  for name in ("nowhere:robot", "envs.robots", "envs.robots:nothing"):
    with pytest.raises(cli.UserError, match="expected module:factory"):
      own_robot.load(name)


def test_images_are_compared_small():
  from envs.robots import small

  assert small(np.zeros((288, 288, 3), np.uint8)).shape == (144, 144, 3)
  assert small(np.zeros((72, 72, 3), np.uint8)).shape == (72, 72, 3)


def test_a_policy_that_holds_ends_the_attempt():
  robot = Puppet()
  made: list[str] = []
  attempts = own_robot.Attempts(RobotCell(robot), (3,), 0, made.append)
  with pytest.raises(cli.UserError, match="the policy holds: the frame is old"):
    attempts.make(lambda observation, key: hold("the frame is old"), 0)
  assert len(attempts.spoilt) == own_robot.MOST_FAILURES
  assert robot.at[2] > 0.03  # it has not gone down
