"""Policies by name: one table, from which every program takes them."""

import numpy as np
import pytest

from envs import attempt
from experiments import check_cell, cli, evaluate, watch
from experiments.configs import demo as demo_config
from experiments.evaluation import policies, policy_names, seeds
from hand_eye import servo

NONE = policies.Networks()


@pytest.fixture
def config():
  config = demo_config.get_config()
  config.evaluate.update(
    {
      "policies": ("random",),
      "with_replacement": {"repetitions": 1, "num_attempts": 1, "num_objects": 2},
      "without_replacement": {"repetitions": 0, "num_attempts": 1, "num_objects": 1},
      "num_units": 1,
      "num_steps": 2,
      "video_size": 64,
    }
  )
  return config


_MINE = """
from envs import baselines

class Straight(baselines.RandomPolicy):
  "Does what the random policy does, and counts."
  asked = 0

  def __call__(self, observation, key):
    self.asked += 1
    decision = super().__call__(observation, key)
    evidence = {**decision.evidence, "action": f"no {self.asked}"}
    return decision._replace(evidence=evidence)

make, number = Straight, 3
"""


def test_a_policy_of_ones_own_is_evaluated_by_workers_and_watched(
  config, tmp_path, monkeypatch
):
  (tmp_path / "mine.py").write_text(_MINE)
  monkeypatch.syspath_prepend(tmp_path)
  config.evaluate.update({"policies": ("random", "mine:make"), "num_workers": 2})
  summary = evaluate.evaluate(config, NONE, tmp_path / "run")["policies"]
  assert list(summary) == ["random", "mine:make"]
  first, own = cli.read_jsonl(tmp_path / "run" / "rows.jsonl")
  assert own["policy"] == "mine:make" and own["actions"] == ["no 1"]
  assert len(own["policy_version"]) == 12
  assert own["scene_seed"] == first["scene_seed"]

  spec = policies.choose("mine:make", config, NONE)
  one, other = policies.make_policy(spec), policies.make_policy(spec)
  assert one is not other  # each cell has its own
  lines = []
  scene = watch.plan_scene(config, num_attempts=1, num_steps=2)
  path = watch.film(scene, spec, tmp_path, 64, lines.append)
  assert path.name.startswith("watch-mine-make-") and "no 1" in lines[0]


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("mine", "'mine' is not known; expected one of random, .*module:factory"),
    ("servo:mine", "variants are servo:best_of_64"),
    ("random@1000", "only the servo takes a label"),
    ("servo@", "only the servo takes a label"),
    ("nowhere.mine:make", "No module named 'nowhere'; expected module:factory"),
    ("json:nothing", "no attribute 'nothing'; expected module:factory"),
    ("math:pi", "is 3.14.*, expected a function"),
  ],
)
def test_a_name_that_is_not_there_gets_one_line(config, name, words):
  with pytest.raises(cli.UserError, match=words):
    policies.choose(name, config, NONE)
  with pytest.raises(cli.UserError, match=words):
    policies.make_policy(policies.PolicySpec(name))


@pytest.mark.parametrize(
  ("name", "label", "slug"),
  [
    ("servo", "servo (ours)", "servo"),
    ("servo:no_raise", "servo, never raising", "servo-no_raise"),
    (
      "open_loop:calibration_error",
      "open loop, realistic calibration",
      "open_loop-calibration_error",
    ),
    ("servo@1_000", "servo, network 1_000", "servo-1_000"),
    ("servo:no_raise@all", "servo, never raising, network all", "servo-no_raise-all"),
    ("hand_designed_noisy", "hand-designed, noisy depth", "hand_designed_noisy"),
    ("lab.grasps:make", "lab.grasps:make", "lab.grasps-make"),
  ],
)
def test_names_have_a_label_and_fit_into_file_names(name, label, slug):
  assert policy_names.label(name) == label
  assert policy_names.slug(name) == slug


def test_every_kind_can_be_made():
  assert set(policies.POLICIES) == set(policy_names.KINDS)


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


def test_the_servo_decides_for_several_robots_in_one_call():
  """Else evaluations would still run, one decision at a time."""
  assert issubclass(servo.ServoPolicy, attempt.BatchedPolicy)


def test_the_table_has_baselines_in_all_forms_and_no_ablations():
  names = ["servo", "servo:no_raise", "open_loop:calibration_error", "random", "mine:a"]
  assert policy_names.of_table(names) == [
    "random",
    "open_loop:calibration_error",
    "servo",
  ]
