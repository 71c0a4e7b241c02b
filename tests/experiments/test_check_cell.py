"""The check of the cell: its arithmetic, a small run, and going on with it."""

import dataclasses
import json

import numpy as np
import pytest

from envs import objects, units
from envs.control import DivergedError
from envs.menagerie import MenagerieError
from experiments import check_cell, cli
from experiments.cell import cell_page, cell_tables
from experiments.evaluation import seeds

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
    "objects": "training:rigid" if policy == "oracle" else "training",
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
  table = cell_tables.rates(rows, lambda r: r["unit"])
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
  truth = cell_tables.rates(rows, lambda r: r["unit"], "simulator_truth")
  assert truth["training-00"][3]["successes"] == 1


def test_a_family_is_compared_with_its_share_of_what_lay_there():
  rows = [
    row(attempts=[HELD, UNSEEN, MISSED, EMPTY]),
    row(steps=10, attempts=[HELD, EMPTY]),
  ]
  table = cell_tables.families(rows)
  box, mug = table["box"], table["mug"]
  assert (box[3]["attempts"], box[3]["successes"]) == (8, 2)
  assert (mug[3]["attempts"], mug[3]["successes"]) == (4, 1)
  # Both are picked as often as they lie there: a quarter of the times.
  assert box[3]["relative"] == mug[3]["relative"] == pytest.approx(1.0)
  # Each number of steps is compared with itself alone.
  assert box[10]["relative"] == pytest.approx(1.5)
  assert mug[10]["relative"] == 0.0
  assert cell_tables.families([row(attempts=[EMPTY])])["box"][3]["relative"] is None


def test_errors_of_motions_are_summarised():
  table = cell_tables.reach(moved(2.0, -0.5))
  assert table["exact"]["position"]["max"] == pytest.approx(0.002)
  assert table["exact"]["position"]["median"] == pytest.approx(0.001)
  assert table["exact"]["yaw_deg"]["max"] == pytest.approx(0.5)
  assert table["noisy"]["motions"] == 2


def test_claims_hold_or_do_not():
  fair = [
    row(attempts=[HELD] * 6 + [EMPTY] * 24),
    row(policy="oracle", attempts=[HELD] * 38 + [EMPTY] * 2),
  ]
  summary = cell_tables.summarise(fair, moved(2.0, 0.5))
  assert all(claim["holds"] for claim in summary["checks"])
  text = cell_page.markdown(summary)
  assert "NO" not in text and "too few" not in text
  assert "Objects: `training:rigid`." in text
  assert "70 attempts in 2 scenes" in text
  assert summary["health"]["attempts_per_second"] == pytest.approx(70 / 4)

  unfair = [
    row(attempts=[FALSE] * 40, diverged=1),
    row(policy="oracle", attempts=[HELD, MISSED, EMPTY] * 10),
    row(attempts=[], error="ValueError: broken", scene_seed=7),
  ]
  summary = cell_tables.summarise(unfair, moved(4.0, 2.0))
  assert not any(claim["holds"] for claim in summary["checks"])
  text = cell_page.markdown(summary)
  assert "random training-00 7: ValueError: broken" in text
  assert "training-00 at T = 3" in text
  assert summary["detectors"]["table"]["drop test"]["recall"] == 0.5
  assert summary["health"]["diverged_share"] == pytest.approx(1 / 71)


def test_few_attempts_show_nothing_and_are_said_to():
  rows = [
    row(attempts=[HELD] * 6 + [EMPTY] * 24),
    row(unit="training-01", attempts=[EMPTY] * 29),
    row(policy="oracle", attempts=[HELD] * 3),
  ]
  summary = cell_tables.summarise(rows, moved(2.0, 0.5))
  held = {claim["claim"].split(":")[0]: claim for claim in summary["checks"]}
  every = held["random, every unit and T"]
  assert every["holds"] is None and "as few as 29" in every["found"]
  assert held["oracle, training, T = 3"]["holds"] is None
  assert held["random, training, T = 3"]["holds"] is True
  assert "| too few |" in cell_page.markdown(summary)
  # Another unit's few attempts do not excuse one that is shown to be unfair.
  rows.append(row(unit="training-02", attempts=[EMPTY] * 60))
  summary = cell_tables.summarise(rows, moved(2.0, 0.5))
  held = {claim["claim"].split(":")[0]: claim for claim in summary["checks"]}
  every = held["random, every unit and T"]
  assert every["holds"] is False
  assert "not training-02 at T = 3" in every["found"]


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
  assert {scene_purpose(t.scene.scene_seed) for t in large} == {seeds.Purpose.CHECK}


def scene_purpose(seed: int) -> seeds.Purpose:
  """The purpose in whose range a scene's seed lies."""
  first = {p: seeds.scene_seed(p, 0, 0, 0) for p in seeds.Purpose}
  return max((p for p in first if first[p] <= seed), key=lambda p: first[p])


def test_what_decides_a_check_is_remembered(tmp_path):
  config = dataclasses.replace(SMALL, arm="menagerie:kuka_iiwa_14")
  assert {t.scene.unit.arm for t in check_cell.plan(config)} == {config.arm}
  assert config.deciding()["arm"] == config.arm
  assert dataclasses.replace(SMALL, num_attempts=99).deciding() == SMALL.deciding()


def test_another_mesh_in_a_folder_is_another_check(tmp_path):
  pytest.importorskip("trimesh")
  write_tetrahedron(tmp_path / "one.obj")
  config = check_cell.CheckConfig(objects=f"{tmp_path}/?scale=fit")
  before = config.deciding()["objects_fingerprint"]
  objects.choose.cache_clear()
  write_tetrahedron(tmp_path / "two.obj", height=2.0)
  assert before and config.deciding()["objects_fingerprint"] != before


def write_tetrahedron(path, height=1.0):
  corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, height)]
  faces = [(1, 3, 2), (1, 2, 4), (2, 3, 4), (3, 1, 4)]
  lines = ["v {} {} {}".format(*corner) for corner in corners]
  lines += ["f {} {} {}".format(*face) for face in faces]
  path.write_text("\n".join(lines))


def test_robots_of_both_families_are_moved_differently(monkeypatch):
  monkeypatch.setattr(check_cell, "_GRID", (2, 1, 1))
  monkeypatch.setattr(check_cell, "_COMMANDS", 2)
  robot = units.sample_unit(0)
  twin = dataclasses.replace(robot, family="held_out")
  one, again, other = (check_cell.reach_unit(unit) for unit in (robot, robot, twin))
  assert one == again
  assert one["exact"] == pytest.approx(np.array(other["exact"]), abs=1e-6)
  assert np.abs(np.subtract(one["noisy"], other["noisy"])).min() > 1e-6


def test_an_arm_that_is_not_there_is_told_before_any_attempt(tmp_path):
  config = dataclasses.replace(SMALL, arm="menagerie:none")
  with pytest.raises(MenagerieError, match="menagerie:none"):
    check_cell.check(config, tmp_path)
  assert not (tmp_path / "rows.jsonl").exists()


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

  rows = cli.read_jsonl(tmp_path / "rows.jsonl")
  assert len(rows) == 12
  # One row is lost, one crashed, and the others must not be made again.
  rows[2]["error"] = "ValueError: broken"
  kept = [{**r, "seconds": 1234.0} for r in rows[1:]]
  cli.rewrite_jsonl(tmp_path / "rows.jsonl", kept)
  again = check_cell.check(SMALL, tmp_path)
  assert again["detectors"] == first["detectors"]
  assert again["random"] == first["random"]
  seconds = [r["seconds"] for r in cli.read_jsonl(tmp_path / "rows.jsonl")]
  assert sorted(s == 1234.0 for s in seconds) == [False] * 2 + [True] * 10

  other = dataclasses.replace(SMALL, num_objects=3)
  with pytest.raises(cli.UserError, match="num_objects"):
    check_cell.check(other, tmp_path)


def test_a_crash_is_a_row_and_not_the_end(monkeypatch):
  def broken(*_):
    raise ValueError("broken")

  monkeypatch.setattr(check_cell.rollout, "run_scene", broken)
  found = check_cell.run_task(check_cell.plan(SMALL)[0])
  assert "ValueError: broken" in found["error"] and found["attempts"] == []


def test_a_scene_that_is_given_up_counts_what_was_lost(monkeypatch):
  def diverges(*_):
    error = DivergedError("6 attempts diverged")
    error.count = 6
    raise error

  monkeypatch.setattr(check_cell.rollout, "run_scene", diverges)
  found = check_cell.run_task(check_cell.plan(SMALL)[0])
  assert found["diverged"] == 6 and "DivergedError" in found["error"]
  assert cell_tables.health([found])["diverged_share"] == 1.0


def test_wrong_settings_are_refused_at_once():
  with pytest.raises(cli.UserError, match="num_attempts"):
    check_cell.CheckConfig(num_attempts=0)
  with pytest.raises(cli.UserError, match="at most"):
    check_cell.CheckConfig(num_objects=1000)
  with pytest.raises(objects.ObjectsError, match="no_such"):
    check_cell.CheckConfig(objects="no_such")
