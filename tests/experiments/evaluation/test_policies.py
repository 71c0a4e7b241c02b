"""Policies by name: one table, from which every program takes them."""

import numpy as np
import pytest

from envs import baselines
from experiments import check_cell, cli, evaluate, watch
from experiments.configs import demo as demo_config
from experiments.evaluation import policies, seeds

NONE = policies.Networks()


@pytest.fixture(autouse=True)
def nothing_made_before():
  policies._cached.cache_clear()
  yield
  policies._cached.cache_clear()


def in_this_process(function, tasks, **_):
  """A runner that keeps what a test has put in the place of something."""
  yield from ((i, function(task)) for i, task in enumerate(tasks))


@pytest.fixture
def config():
  config = demo_config.get_config()
  config.evaluate.update(
    {
      "policies": ("random", "mine"),
      "with_replacement": {"repetitions": 1, "num_attempts": 1, "num_objects": 2},
      "without_replacement": {"repetitions": 0, "num_attempts": 1, "num_objects": 1},
      "num_units": 1,
      "num_steps": 2,
      "video_size": 64,
    }
  )
  return config


class Straight(baselines.RandomPolicy):
  """Does what the random policy does, and says that it was asked."""

  asked = 0

  def __call__(self, observation, key):
    Straight.asked += 1
    return super().__call__(observation, key)


def test_a_policy_entered_in_the_table_is_evaluated_and_watched(
  config, tmp_path, monkeypatch
):
  with pytest.raises(cli.UserError, match="'mine'.*random.*servo.*oracle"):
    evaluate.build_config(config.evaluate)
  monkeypatch.setitem(policies.POLICIES, "mine", lambda spec: Straight())
  monkeypatch.setattr(Straight, "asked", 0)
  summary = evaluate.evaluate(config, NONE, tmp_path, in_this_process)["policies"]
  assert list(summary) == ["random", "mine"]
  assert [row["with_replacement"]["attempts"] for row in summary.values()] == [1, 1]
  rows = cli.read_jsonl(tmp_path / "rows.jsonl")
  assert [row["policy"] for row in rows] == ["random", "mine"]
  assert Straight.asked > 0

  before = Straight.asked
  spec = policies.choose("mine", config, NONE)
  scene = watch.plan_scene(config, num_attempts=1)
  path = watch.film(scene, spec, tmp_path, 64, lambda line: None)
  assert path.name.startswith("watch-mine-") and Straight.asked > before


def test_a_name_that_is_not_there_never_falls_through_to_a_network():
  with pytest.raises(cli.UserError, match="'mine' .*random, .*servo, .*oracle"):
    policies.make_policy(policies.PolicySpec("mine"))


def test_the_check_takes_its_policies_from_the_table():
  for name in ("random", "oracle"):
    assert check_cell._SPECS[name] == policies.PolicySpec(name)
  assert set(check_cell._SPECS) < set(policies.POLICIES)


def test_an_evaluation_has_the_scenes_that_it_always_had(config):
  """A change here makes results of earlier evaluations incomparable."""
  config.evaluate.policies = ("random",)
  config.evaluate.with_replacement.repetitions = 3
  settings = evaluate.build_config(config.evaluate)
  scenes = evaluate.plan_scenes(settings, "with_replacement", 72)
  assert [scene.scene_seed for scene in scenes] == [
    300010000000000000 + index for index in range(3)
  ]
  assert {scene.unit.name for scene in scenes} == {"held_out-1000"}
  assert seeds.scene_seed(seeds.Purpose.CHECK, 0, 0, 0) == 400000000000000000


def test_the_picture_of_the_units_shows_the_robots_of_the_evaluation(
  config, tmp_path, monkeypatch
):
  shown = []

  def tile(unit, selection, num_objects, size):
    shown.append((unit.name, unit.arm, selection, num_objects))
    image = np.zeros((size, size, 3), np.uint8)
    return evaluate.sheets.Tile(image, (unit.name,))

  monkeypatch.setattr(evaluate.video, "unit_tile", tile)
  config.evaluate.update(
    {"policies": ("random",), "arm": "menagerie:kuka_iiwa_14", "num_units": 2}
  )
  settings = evaluate.build_config(config.evaluate)
  evaluate._draw_units(settings, tmp_path / "units.png")
  assert {arm for _, arm, _, _ in shown} == {"menagerie:kuka_iiwa_14"}
  assert [name for name, *_ in shown[-2:]] == ["held_out-1000", "held_out-1001"]
  assert [one[2] for one in shown] == ["training"] * 7 + [settings.objects] * 2
  assert {one[3] for one in shown} == {2}
  assert (tmp_path / "units.png").is_file()
