"""Trials and sweeps: rows that do not depend on how they came about."""

import csv
import os
import signal
import time

import pytest

from envs import fleet, units
from experiments import cli, statistics, sweep
from experiments.configs import demo as demo_config
from experiments.evaluation import conditions, policies, scores, trials

NONE = policies.Networks()


@pytest.fixture
def config():
  config = demo_config.get_config()
  config.evaluate.update({"num_units": 2, "num_steps": 2})
  config.sweep.update(
    {
      "policies": ("random", "oracle"),
      "with_replacement": {"repetitions": 2, "num_attempts": 1, "num_objects": 2},
      "without_replacement": {"repetitions": 1, "num_attempts": 2, "num_objects": 2},
      "conditions": ("camera_shift=0.05", "push=0.3"),
    }
  )
  return config


def rows_of(folder):
  return cli.read_jsonl(folder / "rows.jsonl")


def test_a_stopped_sweep_goes_on_to_the_same_rows(config, tmp_path):
  whole = sweep.sweep(config, NONE, tmp_path / "whole")
  rows = rows_of(tmp_path / "whole")
  assert len(rows) == 3 * 2 * (2 + 2)
  # As a sweep leaves it that was killed: some trials are there, one of them torn.
  half = tmp_path / "half"
  half.mkdir()
  (half / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
  kept = [row for row in rows if row["condition"] != "push=0.3"][:-1]
  cli.rewrite_jsonl(half / "rows.jsonl", kept)
  with open(half / "rows.jsonl", "a") as stream:
    stream.write('{"trial": "torn')
  assert sweep.sweep(config, NONE, half) == whole
  assert rows_of(half) == rows
  assert (half / "rows.csv").read_text() == (
    tmp_path / "whole" / "rows.csv"
  ).read_text()

  table = list(csv.DictReader(open(half / "rows.csv")))
  assert len(table) == len(rows)
  assert {row["condition"] for row in table} == {"", "camera_shift=0.05", "push=0.3"}
  assert table[0]["software.mujoco"] == cli.versions()["mujoco"]
  assert table[0]["config.objects"] == demo_config.HELD_OUT
  assert table[0]["config.num_objects"] == "2"
  assert {row["unit"] for row in table} == {"held_out-1000", "held_out-1001"}
  by_cell = {(c["policy"], c["protocol"], c["condition"]): c for c in whole}
  assert len(by_cell) == 12
  one = by_cell["oracle", "with_replacement", "push=0.3"]
  assert (one["name"], one["amount"], one["attempts"]) == ("push", 0.3, 2)


def test_policies_can_join_a_finished_sweep_but_not_change(config, tmp_path):
  config.sweep.conditions = ()
  config.sweep.policies = ("random",)
  sweep.sweep(config, NONE, tmp_path)
  before = rows_of(tmp_path)
  config.sweep.policies = ("oracle",)
  cells = sweep.sweep(config, NONE, tmp_path)
  assert {cell["policy"] for cell in cells} == {"oracle"}
  rows = rows_of(tmp_path)
  assert [row for row in rows if row["policy"] == "random"] == before
  config.evaluate.num_steps = 3
  with pytest.raises(cli.UserError, match=r"evaluate\.num_steps"):
    sweep.sweep(config, NONE, tmp_path)
  assert rows_of(tmp_path) == rows


def test_a_condition_that_is_given_twice_is_swept_once(config, tmp_path):
  config.sweep.policies = ("random",)
  config.sweep.conditions = ("push=0.3", "push=0.30", "")
  cells = sweep.sweep(config, NONE, tmp_path)
  found = [(c["condition"], c["protocol"], c["attempts"]) for c in cells]
  assert found == [
    (condition, *counted)
    for condition in ("", "push=0.3")
    for counted in (("with_replacement", 2), ("without_replacement", 2))
  ]


def test_the_table_has_what_is_nested_in_a_row():
  servo = {"initial_std": [0.04, 0.6], "close_ratio": None}
  assert sweep.as_csv([{"attempt": 1, "config": {"servo": servo}}]) == (
    "attempt,config.servo.initial_std,config.servo.close_ratio\n1,0.04;0.6,\n"
  )


def test_a_sweep_of_nothing_is_described():
  assert sweep.describe([]) == ""


def test_a_worker_that_is_killed_is_named_and_its_trial_made_again(
  config, tmp_path, caplog
):
  config.sweep.policies = ("random",)
  expected = sweep.sweep(config, NONE, tmp_path / "quiet")

  def deadly(function, tasks, **options):
    """Kills the worker of the second trial while it is at it, once."""
    flag = tmp_path / "killed"
    wrapped = [(task, str(flag) if i == 1 else "") for i, task in enumerate(tasks)]
    yield from fleet.map_unordered(die_once, wrapped, **options)

  assert sweep.sweep(config, NONE, tmp_path / "killing", deadly) == expected
  assert rows_of(tmp_path / "killing") == rows_of(tmp_path / "quiet")
  (line,) = [r.getMessage() for r in caplog.records if "worker died" in r.getMessage()]
  assert "exit code -9" in line and "random / without_replacement / bin 0" in line


def die_once(task):
  trial, flag = task
  if flag and not os.path.exists(flag):
    open(flag, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
  return trials.run_trial(trial)


def always_dies(task):
  if task == 1:
    os.kill(os.getpid(), signal.SIGKILL)
  time.sleep(0.05)
  return task


def test_a_task_that_kills_every_worker_ends_the_run_and_is_named():
  deaths = []
  with pytest.raises(fleet.WorkerDiedError, match="task 1 of 3"):
    list(
      fleet.map_unordered(
        always_dies, [0, 1, 2], num_workers=2, retries=2, on_death=deaths.append
      )
    )
  assert [(d.index, d.exit_code, d.number) for d in deaths] == [(1, -9, 1), (1, -9, 2)]


def fails(task):
  raise ValueError(f"task {task} is wrong")


def test_an_error_in_a_worker_arrives_with_its_traceback():
  with pytest.raises(ValueError, match="task 5 is wrong") as caught:
    list(fleet.map_unordered(fails, [5, 5], num_workers=2))
  assert "in fails" in "".join(caught.value.__notes__)


@pytest.mark.slow
def test_a_sweep_on_ray_has_the_rows_of_a_local_one(config, tmp_path):
  pytest.importorskip("ray", reason="pip install -c constraints.txt -e .[cluster]")
  from experiments.evaluation import cluster

  local = sweep.sweep(config, NONE, tmp_path / "local")
  runner = cluster.runner(cluster.LOCAL)
  import ray

  try:
    assert sweep.sweep(config, NONE, tmp_path / "ray", runner) == local
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "local")
    flag = tmp_path / "killed"
    # Ray ships functions of modules by name, and this one is not on the workers' path.
    answers = cluster.map_unordered(
      _once(str(flag)), ["a", "b"], retries=1, on_death=lambda death: flag.touch()
    )
    assert sorted(answers) == [(0, "a"), (1, "b")] and flag.exists()
  finally:
    ray.shutdown()


def _once(flag):
  def dies(task):
    import os
    import signal

    if task == "b" and not os.path.exists(flag):
      os.kill(os.getpid(), signal.SIGKILL)
    return task

  return dies


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("camera_shift", "NAME=AMOUNT"),
    ("camera_shift=far", "could not convert"),
    ("gravity=2", "'gravity' is not known; expected one of camera_shift"),
    ("wear=9", "at most"),
    ("num_steps=2.5", "whole number"),
    ("push=-1", "0 or more"),
    ("camera_turn=-1", "0 or more"),
    ("camera_turn=nan", "finite"),
    ("num_steps=inf", "finite"),
  ],
)
def test_conditions_that_make_no_sense_are_named(text, words):
  with pytest.raises(cli.UserError, match=words):
    conditions.parse(text)


def test_what_conditions_change():
  robot = units.sample_unit(1, "held_out")
  moved = conditions.parse("camera_shift=0.1").robots([robot])[0]
  assert moved.camera != robot.camera and moved.known_camera == robot.camera
  assert conditions.NOTHING.robots([robot]) == [robot]
  assert conditions.parse("push=0.3").pushing.speed == 0.3
  assert conditions.parse("num_steps=7").num_steps(5) == 7
  assert conditions.parse("wear=2").num_steps(5) == 5
  texts = {str(conditions.parse(f"camera_turn=0.26179{end}")) for end in (93, 94)}
  assert texts == {"camera_turn=0.2617993", "camera_turn=0.2617994"}


def row(policy, protocol, repetition, attempt, success, remaining=1):
  return {
    "policy": policy, "protocol": protocol, "condition": "", "repetition": repetition,
    "attempt": attempt, "success": success, "remaining": remaining,
    "gripper_reading": 0.02 * success, "drop_test": success,
    "simulator_truth": success, "unit": f"held_out-{repetition}",
  }  # fmt: skip


def test_the_summary_of_known_outcomes():
  rows = [row("a", "with_replacement", 0, i, i < 3) for i in range(10)]
  rows += [row("servo", "with_replacement", 0, i, True) for i in range(10)]
  # A bin of three is cleared by the fourth attempt, another one of two never.
  left = [(True, 2), (False, 2), (True, 1), (True, 0)]
  rows += [
    row("servo", "without_replacement", 0, i, *one) for i, one in enumerate(left)
  ]
  rows += [row("servo", "without_replacement", 1, i, False, 2) for i in range(30)]
  rows += [{**row("servo", "with_replacement", 0, 0, False), "condition": "wear=2"}]
  summary = scores.summarise(rows, ["a", "servo"])
  found = summary["policies"]["a"]["with_replacement"]
  assert (found["attempts"], found["successes"]) == (10, 3)
  assert (found["low"], found["high"]) == statistics.wilson(3, 10)
  assert "without_replacement" not in summary["policies"]["a"]
  assert summary["policies"]["servo"]["with_replacement"]["rate"] == 1.0
  without = summary["policies"]["servo"]["without_replacement"]
  assert without["cleared_at"] == [4, None]
  first = without["first"]["10"]
  assert (first["successes"], first["attempts"]) == (3, 14)
  # Two robots, 3 of 4 and 0 of 10: the interval is over robots, not over attempts.
  assert (first["low"], first["high"], first["groups"]) == (0.0, 1.0, 2)
  assert without["first"]["30"]["attempts"] == 34
  gap, low, high = summary["paired"]["a"]["with_replacement"]
  assert (gap, low, high) == pytest.approx((-0.7, -0.7, -0.7))
  text = scores.describe(summary)
  assert "30.0 %" in text and "1 of 2" in text
