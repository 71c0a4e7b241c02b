"""What files say of a campaign, and what is wrong with its fleet."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipeline import plan as plan_lib
from experiments import cli
from experiments.campaigns import alarms, charts, view
from experiments.campaigns.state import Reader, RoundState, Scene, State, Update


def scene(unit="a", successes=1, **fields):
  made = Scene(
    round=0, policy="random", version="", unit=unit, attempts=4, successes=successes,
    diverged=0, brightness=120.0, contrast=40.0, finished=100.0,
  )  # fmt: skip
  return dataclasses.replace(made, **fields)


def state(scenes, planned=10_000, now=101.0):
  rounds = (RoundState(0, planned, planned, tuple(scenes), 0, Update(steps=10)),)
  return State(rounds, batch_size=64, now=now)


def fleet(rates, per_unit=50, seed=0):
  """Scenes of robots with a rate each, in turns."""
  rng = np.random.default_rng(seed)
  return [
    scene(unit=unit, successes=int(rng.binomial(4, rate)), finished=float(i))
    for i in range(per_unit)
    for unit, rate in rates.items()
  ]


def test_a_healthy_fleet_raises_no_alarm_whatever_its_luck():
  rates = {f"u{i}": 0.2 + 0.02 * (i % 5) for i in range(14)}
  for seed in range(20):
    assert alarms.find(state(fleet(rates, seed=seed))) == []


def test_a_robot_that_gets_worse_is_named():
  good = fleet({"a": 0.6, "b": 0.6})
  worse = fleet({"a": 0.1, "b": 0.6}, per_unit=16, seed=1)
  (alarm,) = alarms.find(state([*good, *worse]))
  assert (alarm.kind, alarm.where) == ("success", "a")
  assert "before in" in alarm.text


def test_a_robot_that_never_was_good_is_named():
  (alarm,) = alarms.find(state(fleet({"a": 0.05, "b": 0.6, "c": 0.6})))
  assert (alarm.kind, alarm.where) == ("success", "a")
  assert "the other robots" in alarm.text


def test_random_attempts_are_not_compared_with_those_of_the_network():
  learned = [
    dataclasses.replace(s, policy="servo") for s in fleet({"a": 0.8, "b": 0.8})
  ]
  assert alarms.find(state([*learned, *fleet({"a": 0.2, "b": 0.2})])) == []


@pytest.mark.parametrize(
  "fields", [{"brightness": 0.0, "contrast": 0.0}, {"contrast": 0.5}], ids=str
)
def test_a_camera_that_went_black_is_named_until_it_sees_again(fields):
  scenes = [scene("a"), scene("b"), scene("b", **fields)]
  (alarm,) = alarms.find(state(scenes))
  assert (alarm.kind, alarm.where) == ("camera", "b")
  assert alarms.find(state([*scenes, scene("b")])) == []


def test_diverging_physics_are_named():
  scenes = [scene("a", diverged=1) for _ in range(6)] + [scene("b") for _ in range(6)]
  (alarm,) = alarms.find(state(scenes))
  assert (alarm.kind, alarm.where) == ("physics", "a")


def test_a_fleet_that_stands_still_is_noticed():
  scenes = [scene(finished=float(10 * i)) for i in range(10)]
  assert alarms.find(state(scenes, now=100.0)) == []
  (alarm,) = alarms.find(state(scenes, now=1000.0))
  assert alarm.kind == "stalled"
  assert alarms.find(state(scenes, planned=40, now=1000.0)) == []  # all are there


def test_rates_and_the_time_left():
  scenes = [scene(finished=float(i)) for i in range(101)]
  now = state(scenes, planned=804)
  assert now.attempts_per_second() == pytest.approx(4.0)
  assert now.seconds_left() is None  # how fast it trains is not known yet
  update = Update(steps=100, step=50, samples_per_second=32.0)
  rounds = (dataclasses.replace(now.rounds[0], update=update),)
  left = dataclasses.replace(now, rounds=rounds).seconds_left()
  assert left == pytest.approx(400 / 4.0 + 50 * 64 / 32.0)


def _write(workdir, rows, finished):
  """A campaign of one round on the disk."""
  plan = {
    "rounds": [
      {"name": "round_00", "num_attempts": 16, "num_random": 16, "num_steps": 20}
    ],
    "batch_size": 8,
  }
  cli.write_atomically(workdir / "campaign.json", json.dumps(plan))
  directory = workdir / "data" / "round_00" / "1.0.0"
  (directory / "shards").mkdir(parents=True, exist_ok=True)
  cli.JsonLines(directory.parent / "collection.jsonl").write_all(rows)
  for shard in finished:
    plan_lib.write_shard(directory, shard, plan_lib.Shard(f"s{shard}", 4, 1000, "0"))


def _row(shard, unit="a", successes=1):
  one = {
    "unit": unit, "attempts": 4, "successes": successes, "diverged": 0, "strays": 0,
    "brightness": 120.0, "contrast": 40.0,
  }  # fmt: skip
  return {
    "shard": shard, "policy": "random", "policy_version": "", "finished": 100.0 + shard,
    "scenes": [one],
  }  # fmt: skip


def test_only_shards_that_are_on_the_disk_count_and_each_once(tmp_path):
  _write(tmp_path, [_row(0), _row(1, successes=0), _row(1, successes=3)], finished=[1])
  reader = Reader(tmp_path)
  (round_,) = reader.read().rounds
  assert (round_.total.attempts, round_.total.successes) == (4, 3)
  assert round_.num_bytes == 1000 and not round_.is_collected
  # What comes later is read by the same reader.
  _write(tmp_path, [_row(2, unit="b")], finished=[0, 2])
  (round_,) = reader.read().rounds
  assert {unit: r.attempts for unit, r in round_.by("unit").items()} == {"a": 8, "b": 4}


def test_a_torn_row_and_a_replaced_file_do_no_harm(tmp_path):
  path = tmp_path / "train" / "round_00" / "metrics.jsonl"
  _write(tmp_path, [], finished=[])
  reader = Reader(tmp_path)
  row = {"step": 5, "seconds": 1.0, "split": "train", "samples_per_second": 9.0}
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(row) + "\n" + '{"step": 10')
  assert reader.read().rounds[0].update.step == 5
  cli.rewrite_jsonl(path, [row, {**row, "step": 8}])
  assert reader.read().rounds[0].update.step == 8


def test_the_page_shows_rounds_robots_and_alarms(tmp_path):
  scenes = [*fleet({"training-00": 0.2, "training-01": 0.3}), scene("x", contrast=0.0)]
  update = Update(steps=40, step=20, aucs=((10, 0.61), (20, 0.7)))
  rounds = (
    RoundState(0, 10_000, 10_000, tuple(scenes), 10**6, update),
    RoundState(1, 100, 0, (), 0, Update(steps=10)),
  )
  page = view.page(State(rounds, 64, 101.0), 15.0, "demo")
  assert 'http-equiv="refresh" content="15"' in page
  for words in ("training-01", "x's camera is black", "held-out AUC", "404 of"):
    assert words in page, words
  assert "refresh" not in view.page(State(rounds, 64, 101.0), 0.0, "demo")
  assert "404/10,000" in view.table(State(rounds, 64, 101.0))


def test_a_chart_stays_inside_its_frame():
  drawn = charts.chart(
    [charts.Line([(0, -50), (10, 500)])],
    x_label="x",
    y_label="y",
    y_range=(0, 100),
    marks=[charts.Mark(5, "<b>")],
    description="d",
  )
  points = drawn.split('points="')[1].split('"')[0].split()
  for point in points:
    x, y = map(float, point.split(","))
    assert 0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT
  assert "&lt;b&gt;" in drawn
