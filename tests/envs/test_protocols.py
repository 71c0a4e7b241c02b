"""The two protocols: which bins there are, and what outcomes add up to."""

import dataclasses

import numpy as np
import pytest

from envs import protocols, rollout, units
from envs.attempt import Decision
from envs.baselines import OraclePolicy


def plan(name, protocol, robots=2):
  return protocols.plan(
    name,
    protocol,
    units.fleet_units(robots, "held_out"),
    lambda repetition: 70 + repetition,
    num_steps=3,
    objects="box",
    frame_size=48,
  )


def test_every_repetition_is_a_bin_and_robots_take_turns():
  scenes = plan("without_replacement", protocols.Protocol(3, 30, 12))
  assert [scene.scene_seed for scene in scenes] == [70, 71, 72]
  assert [scene.unit.name[-2:] for scene in scenes] == ["00", "01", "00"]
  assert {scene.num_attempts for scene in scenes} == {30}
  assert {scene.num_objects for scene in scenes} == {12}
  assert not any(scene.replacement for scene in scenes)
  assert all(
    s.replacement for s in plan("with_replacement", protocols.Protocol(2, 9, 3))
  )
  with pytest.raises(ValueError, match="expected one of with_replacement"):
    plan("without", protocols.Protocol(1, 1, 1))


@pytest.mark.parametrize(
  ("sizes", "words"),
  [((-1, 1, 1), "repetitions"), ((1, 0, 1), "num_attempts"), ((1, 1, 41), "1 to 40")],
)
def test_sizes_that_make_no_sense_are_named(sizes, words):
  with pytest.raises(ValueError, match=words):
    protocols.Protocol(*sizes)


def test_when_a_bin_was_cleared():
  assert protocols.cleared_at([3, 2, 2, 0]) == 4
  assert protocols.cleared_at([0]) == 1
  assert protocols.cleared_at([2, 1]) is None
  assert protocols.cleared_at([]) is None


def task(**fields):
  one = rollout.SceneTask(
    unit=units.sample_unit(1, "held_out"),
    scene_seed=5,
    num_attempts=6,
    num_steps=(4,),
    num_objects=2,
    objects="box",
    frame_size=48,
  )
  return dataclasses.replace(one, **fields)


def test_a_bin_is_cleared_and_then_left():
  """The outcomes are known: the oracle picks up boxes."""
  (result,) = rollout.run_scenes([task(replacement=False)], [OraclePolicy()])
  held = [attempt.num_held for attempt in result.attempts]
  remaining = [len(a.objects) - a.num_held for a in result.attempts]
  assert sum(held) == 2
  assert protocols.cleared_at(remaining) == len(result.attempts) < 6
  assert [a.target.name in a.objects for a in result.attempts] == [True] * len(held)
  last = result.attempts[-1]
  assert last.success and abs(last.target.across) < 0.02


def test_scenes_side_by_side_are_the_scenes_alone():
  """Also where they end at different times, and where one robot is pushed about."""
  tasks = [
    task(num_attempts=2, num_steps=(2,)),
    task(num_attempts=1, scene_seed=6, pushing=rollout.Pushing(1, 0.5)),
    task(num_attempts=3, scene_seed=7, unit=units.sample_unit(2)),
  ]
  together = rollout.run_scenes(tasks, [OraclePolicy() for _ in tasks])
  for one, result in zip(tasks, together, strict=True):
    alone = rollout.run_scene(one, OraclePolicy())
    assert len(result.attempts) == one.num_attempts
    for a, b in zip(result.attempts, alone.attempts, strict=True):
      np.testing.assert_array_equal(a.images, b.images)
      np.testing.assert_array_equal(a.poses, b.poses)
      assert (a.success, a.target, a.grasped) == (b.success, b.target, b.grasped)


class Counts:
  """Goes nowhere; keeps how many robots it was asked for at once."""

  def __init__(self):
    self.asked = []

  def __call__(self, observation, key):
    return self.decide_batch([observation], [key])[0]

  def decide_batch(self, observations, keys):
    self.asked.append(len(observations))
    nowhere = np.array([0, 0, 0, 0, 1], np.float32)
    return [Decision(nowhere, close=False) for _ in observations]


def test_a_policy_that_decides_together_is_asked_once_for_all():
  policy = Counts()
  tasks = [task(num_attempts=n, num_steps=(3,), scene_seed=n) for n in (1, 2, 2)]
  rollout.run_scenes(tasks, [policy] * 3)
  # Two decisions an attempt; the first bin is done after one attempt.
  assert policy.asked == [3, 3, 2, 2]


def test_a_push_moves_objects_and_nothing_before_it():
  quiet = rollout.run_scene(task(num_attempts=1), Counts()).attempts[0]
  pushed = rollout.run_scene(
    task(num_attempts=1, pushing=rollout.Pushing(2, 0.6)), Counts()
  ).attempts[0]
  np.testing.assert_array_equal(quiet.images[:2], pushed.images[:2])
  assert np.any(quiet.images[2] != pushed.images[2])


def test_an_attempt_of_one_step_closes_on_the_table():
  (attempt,) = rollout.run_scene(
    task(num_attempts=1, num_steps=(1,)), Counts()
  ).attempts
  assert len(attempt.images) == 1 and not attempt.evidence
