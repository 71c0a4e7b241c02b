"""The check of the cell: its arithmetic, a small run, and going on with it."""

import dataclasses
import json

import numpy as np
import pytest

from envs import units
from experiments import _cell_tables, _edge, _seeds, check_cell

SMALL = check_cell.CheckConfig(
  num_attempts=12,
  num_units=1,
  num_held_out_units=1,
  attempts_per_scene=1,
  num_objects=2,
  objects="box,cylinder",
  frame_size=48,
  num_workers=1,
)


def attempt(success: bool, truth: bool, reading: float, drop: bool, grasped=""):
  return {
    "success": success,
    "simulator_truth": truth,
    "gripper_reading": reading,
    "drop_test": drop,
    "grasped": grasped,
    "families": ["box", "box", "mug"],
  }


HELD = attempt(True, True, 0.03, True, "box-000001")
UNSEEN = attempt(True, True, 0.002, True, "box-000002")
MISSED = attempt(False, True, 0.002, False, "mug-000001")
EMPTY = attempt(False, False, 0.001, False)
FALSE = attempt(True, False, 0.001, True)


def row(policy="random", unit="training-00", steps=3, attempts=(), **changes):
  return {
    "policy": policy,
    "group": "training",
    "unit": unit,
    "scene_seed": 1,
    "num_steps": steps,
    "attempts": list(attempts),
    "diverged": 0,
    "strays": 0,
    "error": "",
    "seconds": 2.0,
    **changes,
  }


def moved(millimetres: float, degrees: float):
  exact = [[0.001 * millimetres, 0.0, 0.0, np.deg2rad(degrees)], [0.0] * 4]
  return [{"unit": "training-00", "exact": exact, "noisy": exact}]


def test_rates_are_counted_by_unit_and_by_number_of_steps():
  rows = [
    row(attempts=[HELD, EMPTY, EMPTY]),
    row(attempts=[FALSE]),
    row(steps=10, attempts=[HELD]),
    row(unit="training-01", attempts=[EMPTY]),
  ]
  table = _cell_tables.rates(rows, lambda r: r["unit"])
  assert (
    table["training-00"][3]["successes"],
    table["training-00"][3]["attempts"],
  ) == (
    2,
    4,
  )
  assert table["training-00"][10]["rate"] == 1.0
  assert table["training-01"][3]["rate"] == 0.0
  assert 0.0 < table["training-00"][3]["low"] < 0.5 < table["training-00"][3]["high"]
  truth = _cell_tables.rates(rows, lambda r: r["unit"], "simulator_truth")
  assert truth["training-00"][3]["successes"] == 1


def test_a_family_is_compared_with_its_share_of_what_lay_there():
  table = _cell_tables.families([row(attempts=[HELD, UNSEEN, MISSED, EMPTY])])
  assert table["box"]["attempts"] == 8 and table["box"]["successes"] == 2
  assert table["mug"]["attempts"] == 4 and table["mug"]["successes"] == 1
  # Both are picked as often as they lie there: a quarter of the times.
  assert table["box"]["relative"] == table["mug"]["relative"] == pytest.approx(1.0)
  only_box = _cell_tables.families([row(attempts=[HELD, EMPTY])])
  assert only_box["box"]["relative"] == pytest.approx(1.5)
  assert only_box["mug"]["relative"] == 0.0


def test_errors_of_motions_are_summarised():
  table = _cell_tables.reach(moved(2.0, -0.5))
  assert table["exact"]["position"]["max"] == pytest.approx(0.002)
  assert table["exact"]["position"]["median"] == pytest.approx(0.001)
  assert table["exact"]["yaw_deg"]["max"] == pytest.approx(0.5)
  assert table["noisy"]["motions"] == 2


def test_claims_hold_or_do_not():
  fair = [
    row(attempts=[HELD] * 2 + [EMPTY] * 8),
    row(policy="oracle", attempts=[HELD] * 19 + [EMPTY]),
  ]
  summary = _cell_tables.summarise(fair, moved(2.0, 0.5))
  assert all(claim["holds"] for claim in summary["checks"])
  assert "NO" not in _cell_tables.markdown(summary)

  unfair = [
    row(attempts=[FALSE] * 40, diverged=1),
    row(policy="oracle", attempts=[HELD, MISSED, EMPTY]),
    row(attempts=[], error="ValueError: broken", scene_seed=7),
  ]
  summary = _cell_tables.summarise(unfair, moved(4.0, 2.0))
  assert not any(claim["holds"] for claim in summary["checks"])
  text = _cell_tables.markdown(summary)
  assert "random training-00 7: ValueError: broken" in text
  assert "training-00 at T = 3" in text
  assert summary["detectors"]["table"]["drop test"]["recall"] == 0.5
  assert summary["health"]["diverged_share"] == pytest.approx(1 / 44)


def test_the_plan_mixes_everything_and_grows_at_its_ends():
  small = check_cell.plan(check_cell.CheckConfig(num_attempts=100))
  assert sum(t.scene.num_attempts for t in small) == pytest.approx(100, abs=20)
  assert {t.policy for t in small[:8]} == {"random", "oracle"}
  assert {t.scene.num_steps for t in small[:8]} == {(3,), (10,)}
  assert {t.group for t in small[:8]} == {"training", "held_out"}
  large = check_cell.plan(check_cell.CheckConfig(num_attempts=10_000))
  assert {t.key for t in small} < {t.key for t in large}
  assert len({t.key for t in large}) == len(large)
  assert len({t.scene.unit.name for t in large}) == 20
  for one in large:
    assert one.scene.objects.startswith(one.group)
    assert one.scene.unit.family == one.group
    assert one.policy == "random" or one.scene.objects.endswith(":rigid")
  # Round 0 belongs to evaluations.
  evaluated = {
    _seeds.scene_seed(_seeds.Purpose.EVALUATE, 0, 0, i) for i in range(len(large))
  }
  assert not evaluated & {t.scene.scene_seed for t in large}


def test_the_grid_has_the_workspace_corners():
  low, high = (b.astype(float) for b in units.sample_unit(0).workspace())
  grid = check_cell._grid(low, high, (3, 3, 5))
  assert len(grid) == 3 * 3 * 3 * 5
  assert any(np.allclose(pose, low) for pose in grid)
  assert any(np.allclose(pose, high) for pose in grid)


def test_a_small_check_goes_on_where_it_was(tmp_path):
  first = check_cell.check(SMALL, tmp_path)
  assert first["health"]["attempts"] == 12
  assert first["reach"]["exact"]["position"]["max"] < 0.003
  assert first["checks"][0]["holds"]
  assert (tmp_path / "cell.md").read_text().startswith("# The cell, checked")
  assert json.loads((tmp_path / "cell.json").read_text())["health"]["crashes"] == []

  rows = _edge.read_jsonl(tmp_path / "rows.jsonl")
  assert len(rows) == 12
  # One row is lost, one crashed, and the others must not be made again.
  rows[2]["error"] = "ValueError: broken"
  kept = [{**r, "seconds": 1234.0} for r in rows[1:]]
  _edge.rewrite_jsonl(tmp_path / "rows.jsonl", kept)
  again = check_cell.check(SMALL, tmp_path)
  assert again["detectors"] == first["detectors"]
  assert again["random"] == first["random"]
  seconds = [r["seconds"] for r in _edge.read_jsonl(tmp_path / "rows.jsonl")]
  assert sorted(s == 1234.0 for s in seconds) == [False] * 2 + [True] * 10

  other = dataclasses.replace(SMALL, num_objects=3)
  with pytest.raises(_edge.UserError, match="num_objects"):
    check_cell.check(other, tmp_path)


def test_a_crash_is_a_row_and_not_the_end(monkeypatch):
  def broken(*_):
    raise ValueError("broken")

  monkeypatch.setattr(check_cell.rollout, "run_scene", broken)
  found = check_cell.run_task(check_cell.plan(SMALL)[0])
  assert "ValueError: broken" in found["error"] and found["attempts"] == []


def test_wrong_settings_are_refused_at_once():
  with pytest.raises(_edge.UserError, match="num_attempts"):
    check_cell.CheckConfig(num_attempts=0)
  with pytest.raises(_edge.UserError, match="at most"):
    check_cell.CheckConfig(num_objects=1000)
  with pytest.raises(ValueError, match="no_such"):
    check_cell.CheckConfig(objects="no_such")
