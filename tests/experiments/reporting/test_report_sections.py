"""What the report counts: made-up rows of known outcomes give the expected cells."""

import inspect

import numpy as np
import pytest

from envs import attempt, protocols
from envs.rollout import SceneTask
from envs.units import fleet_units
from experiments import evaluate, statistics, sweep
from experiments.configs import demo as demo_config
from experiments.evaluation import conditions, policies, policy_names, scores, trials
from experiments.reporting import breakdown as breakdown_lib
from experiments.reporting import content, pages, tables
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.reporting import words as words_lib


def evaluation_of(rows, names, **settings):
  """What the report reads of these rows."""
  section = demo_config.get_config().evaluate
  planned = evaluate.build_config(section).deciding()
  config = {
    "evaluate": {**planned, **settings},
    "policies": {name: {"version": "", "servo": {}} for name in names},
    "cell": {"frame_size": 72},
  }
  summary = {**scores.summarise(rows, names), "config": config}
  return evaluated_lib.from_summary(summary, rows)


def row_of(table, label):
  """The cells of the row that begins with a label."""
  (found,) = [row for row in table.rows if row[0] == label]
  return list(found)


def test_the_rows_that_evaluations_write_have_what_the_report_reads():
  scene = SceneTask(fleet_units(1, "held_out")[0], 7, 1, (3,), 4, "held_out", 72)
  trial = trials.Trial(policies.RANDOM, "with_replacement", "", 0, (scene,))
  made = attempt.Attempt(
    pregrasp_image=np.zeros((2, 2, 3), np.uint8),
    images=np.zeros((3, 2, 2, 3), np.uint8),
    poses=np.zeros((3, 4)),
    commands=np.zeros((3, 5)),
    success=True,
    gripper_reading=0.02,
    drop_test=True,
    simulator_truth=True,
    grasped="box-000001",
    unit="held_out-00",
    table_height=0.0,
    scene_seed=7,
    attempt_seed=0,
    objects=("box-000001",),
    evidence=({"action": "close", "p_null": 0.5, "p_best": 0.6},),
  )
  row = trials.row_of(trial, 0, made)
  assert set(evaluated_lib._ROW) <= set(row)
  assert breakdown_lib.closings([row | {"policy": "servo"}], "servo").probability == [
    0.5
  ]


def test_table_1_counts_failures_beside_those_of_the_paper(make_row):
  rows = [make_row("servo", i < 30, repetition=i // 4) for i in range(40)]
  rows += [
    make_row(
      "servo",
      i % 30 >= 12,  # of each bin: first 10 all fail, then 2 of the next 10
      protocol="without_replacement",
      repetition=i // 30,
      attempt=i % 30,
      remaining=0 if i == 28 else 1,
    )
    for i in range(120)
  ]
  table = tables.table_1(evaluation_of(rows, ["servo"]), "")
  assert row_of(table, "servo (ours)") == [
    "servo (ours)",
    pages.Stacked("20.0 %", ("N = 100",)),
    pages.Stacked("25.0 %", ("14 to 40 %", "N = 40")),
    pages.Stacked("10.0 %", ("N = 40",)),
    pages.Stacked("100.0 %", ("91 to 100 %", "N = 40")),
    pages.Stacked("17.5 %", ("N = 80",)),
    pages.Stacked("60.0 %", ("49 to 70 %", "N = 80")),
    pages.Stacked("17.5 %", ("N = 120",)),
    pages.Stacked("40.0 %", ("32 to 49 %", "N = 120")),
    pages.Stacked("1 of 4", ("after 29",)),
  ]
  assert row_of(table, "open loop")[:3] == [
    "open loop", pages.Stacked("43.0 %", ("N = 100",)), "not run",
  ]  # fmt: skip
  assert not [row for row in table.rows if row[0] == policy_names.label("oracle")]
  assert table.strong == [4]
  assert sum(columns for _, columns in table.groups) == len(table.header)
  assert tables.FIRST == protocols.FIRST
  bins = content.grasping(evaluation_of(rows, ["servo"]))["bins"]
  assert bins[0] == "50 bins of 4 attempts with 6 objects with replacement"


def test_an_exported_policy_stands_in_for_the_servo(make_row):
  rows = [
    make_row(name, i % 4 < hits, repetition=i // 8)
    for name, hits in (("random", 1), ("exported", 3), ("oracle", 4))
    for i in range(40)
  ]
  evaluation = evaluation_of(rows, ["random", "exported", "oracle"])
  table = tables.table_1(evaluation, "")
  found = row_of(table, "exported servo (ours)")
  assert [cell.top for cell in found[1:3]] == ["20.0 %", "25.0 %"]
  assert not [row for row in table.rows if row[0] == "servo (ours)"]
  assert table.rows[table.strong[0]] == found
  assert evaluation.paired["random"]["with_replacement"][0] == -0.5
  said = words_lib.comparisons(evaluation)
  assert len(said) == 2
  assert said[0].startswith("Exported servo (ours): 30 of 40")
  assert said[1].startswith("Against random") and said[1].endswith("it grasps better.")


def test_an_object_counts_for_each_of_its_properties(make_row):
  rows = [
    make_row("servo", True, target_properties=["rigid", "flat"]),
    make_row("servo", False, target_properties=["rigid"]),
    make_row("random", True, target_properties=["soft"]),
    make_row("servo", False, target="", target_properties=[], target_family=""),
  ]
  assert breakdown_lib.by_property(rows) == {
    "rigid": {"servo": statistics.rate(1, 2)},
    "flat": {"servo": statistics.rate(1, 1)},
    "soft": {"random": statistics.rate(1, 1)},
  }
  assert breakdown_lib.by_field(rows, "target_family") == {
    "box": {"servo": statistics.rate(1, 2), "random": statistics.rate(1, 1)}
  }
  evaluation = evaluation_of(rows, ["random", "servo"])
  found = content.grasping(evaluation)
  assert row_of(found["by_property"], "rigid") == [
    "rigid", "", pages.Stacked("50.0 %", ("9 to 91 %", "N = 2")),
  ]  # fmt: skip
  assert found["absent_properties"][:3] == ["heavy", "light", "large"]


def test_policies_in_the_same_bins_are_compared_in_words(make_row):
  rows = [
    make_row(name, i % 4 < hits, repetition=i // 4, unit=f"held_out-{i // 4}")
    for name, hits in (("servo", 3), ("servo:no_raise", 3), ("open_loop", 1))
    for i in range(80)
  ]
  for row in rows[:80:8]:  # so that the servo is not everywhere alike
    row["success"] = False
  evaluation = evaluation_of(rows, ["open_loop", "servo", "servo:no_raise"])
  worse, better = content.grasping(evaluation)["beside_ours"]
  assert worse.startswith("Open loop: -38 points") and "worse, with repl" in worse
  assert better.startswith("Servo, never raising: +12 points") and "better" in better


def cells_of(make_row, rates):
  """The cells of a sweep with 4 bins of 4 attempts, of which so many succeed."""
  rows = [
    make_row(policy, i % 4 < hits, condition=condition, repetition=i // 4)
    for (policy, condition), hits in rates.items()
    for i in range(16)
  ]
  return tuple(map(evaluated_lib.cell_of, sweep.summarise(rows)))


def test_curves_begin_where_nothing_is_changed(make_row):
  cells = cells_of(
    make_row,
    {
      ("servo", ""): 3,
      ("servo", "camera_shift=0.1"): 2,
      ("servo", "camera_shift=0.05"): 1,
      ("servo", "light=0.5"): 2,
      ("servo", "num_steps=10"): 4,
      ("open_loop", "camera_shift=0.05"): 1,  # which was not swept without
    },
  )
  curves = breakdown_lib.curves(cells, "with_replacement", usual_steps=5)

  def shares(name, policy):
    return [(amount, rate["rate"]) for amount, rate in curves[name][policy]]

  assert shares("camera_shift", "servo") == [(0, 0.75), (0.05, 0.25), (0.1, 0.5)]
  assert shares("camera_shift", "open_loop") == [(0.05, 0.25)]
  assert shares("light", "servo") == [(0.5, 0.5), (1, 0.75)]
  assert shares("num_steps", "servo") == [(5, 0.75), (10, 1.0)]
  assert breakdown_lib.curves(cells, "without_replacement", 5) == {}
  assert breakdown_lib.protocol_of(cells) == "with_replacement"


def test_networks_are_ordered_by_the_data_they_learned_from():
  hits = {"servo@10240": 3, "servo@900": 1, "servo@no_pregrasp": 2, "servo": 4}
  rates = {name: statistics.rate(k, 4) for name, k in hits.items()}
  found = breakdown_lib.by_data(rates)
  assert [(amount, rate["successes"]) for amount, rate in found] == [
    (900, 1),
    (10240, 3),
  ]


def test_every_cell_of_a_sweep_is_in_its_table(make_row):
  cells = cells_of(
    make_row,
    {("servo", ""): 3, ("servo", "camera_turn=0.087"): 1, ("servo@900", ""): 2},
  )
  settings = {"num_steps": 5, "with_replacement": {"repetitions": 4}}
  found = evaluated_lib.Sweep(settings, {}, {}, cells)
  shown = content.robustness(found)
  assert [(row[0].top, row[1].top) for row in shown["conditions"].rows] == [
    ("nothing changed", "75.0 %"),
    ("camera carried round the bin: 5 degrees", "25.0 %"),
  ]
  assert [row[2] for row in shown["conditions"].rows][1] == ""
  assert [label for label, _, _ in shown["legend"]] == ["servo (ours)"]
  assert len(shown["robustness"]) == 1


def test_only_decisions_to_close_are_held_against_outcomes(make_row):
  rows = [
    make_row(
      "servo", True, actions=["move", "close"], p_null=[0.1, 0.7], p_best=[1, 1]
    ),
    make_row("servo", False, actions=["close"], p_null=[0.4], p_best=[0.4]),
    make_row("servo", True, actions=["move"], p_null=[0.2], p_best=[0.9]),  # until T
    make_row("open_loop", True, actions=["close"], p_null=[0.9], p_best=[0.9]),
  ]
  told = breakdown_lib.closings(rows, "servo")
  assert told.attempts == 3
  assert told.label.tolist() == [True, False]
  assert told.probability.tolist() == [0.7, 0.4]
  means = breakdown_lib.along(rows, "servo", "p_null", True)
  assert {n: (m.value, m.number) for n, m in means.items()} == {
    1: (pytest.approx(0.15), 2),
    2: (0.7, 1),
  }
  assert means[1].half == pytest.approx(1.96 * 0.05)  # of 0.1 and 0.2: sd / sqrt(2)
  shown = content.predictor(evaluation_of(rows, ["servo", "open_loop"]))
  assert shown["table"].rows[1][:3] == ["2", pages.Stacked("1.00", ("± 0.00", "N = 1")),
    pages.Stacked("0.70", ("± 0.00", "N = 1"))]  # fmt: skip


def test_a_policy_that_predicts_nothing_has_no_such_section(make_row):
  evaluation = evaluation_of([make_row("random", True)], ["random"])
  assert content.predictor(evaluation) is None
  assert content.grasps(evaluation) is None


def test_grasps_are_of_the_object_that_was_nearest(make_row):
  def of(kind, across, success=True, **fields):
    return make_row(
      "servo", success, target_properties=[kind], target_across=across, **fields
    )

  rows = [
    of("rigid", -0.002), of("rigid", 0.012), of("rigid", 0.04, success=False),
    of("rigid", 0.05, grasped="box-000009"), of("soft", 0.044), of("soft", 0.01, False),
  ]  # fmt: skip
  found = breakdown_lib.grasps(rows, "servo")
  assert found.rigid.tolist() == [0.002, 0.012]
  assert found.soft.tolist() == [0.044]
  assert found.soft_attempts == 2
  rigid, soft = content.grasps(evaluation_of(rows, ["servo"]))["said"]
  assert "Of 2 rigid objects 1 were within 1 cm" in rigid
  assert (
    "Of 1 soft objects 0 were within 1 cm of the fingers' middle and 1 more" in soft
  )


@pytest.mark.parametrize("soft", [0, 2])
def test_without_soft_grasps_nothing_is_said_of_figure_9(make_row, soft):
  rows = [make_row("servo", True)]
  rows += [make_row("servo", False, target_properties=["soft"])] * soft
  shown = content.grasps(evaluation_of(rows, ["servo"]))
  assert shown == {"attempts": soft, "said": [], "drawing": ""}


# --- names --------------------------------------------------------------------------


def test_the_report_has_a_name_for_everything_there_is():
  assert set(names_lib.CONDITIONS) == set(conditions.NAMES)
  source = inspect.getsource(attempt.properties)
  for name in names_lib.PROPERTIES:
    assert f'"{name}"' in source


def test_what_changes_nothing_changes_nothing():
  robots = fleet_units(2, "held_out")
  for name, knob in names_lib.CONDITIONS.items():
    if name != "num_steps":
      condition = conditions.Condition(name, knob.nothing)
      assert condition.robots(robots) == robots
      assert condition.pushing.speed == 0


def test_amounts_are_said_in_units_that_people_use():
  assert names_lib.amount("camera_shift", 0.05) == "5 cm"
  assert names_lib.amount("camera_turn", 0.262) == "15 degrees"
  assert names_lib.amount("num_steps", 3) == "3"
