"""Benchmarks run, and their arithmetic is right; how fast is not a matter of tests."""

import json

import pytest

from data_pipeline import testing
from envs import fleet
from experiments.benchmarks import loader, simulation


def test_parts_of_an_attempt_add_up():
  times = simulation.Times(
    whole=3.0, physics=0.5, rendering=2.0, encoding=0.1, bare_physics=0.5,
    bare_rendering=1.9,
  )  # fmt: skip
  row = simulation.row(3, 10, times)
  assert row["attempts_per_second"] == pytest.approx(10 / 3)
  assert row["rest_ms"] == pytest.approx(40.0)
  assert row["floor_ms"] == pytest.approx(240.0)
  assert row["overhead"] == pytest.approx(0.25)


def test_the_simulation_benchmark_measures_what_it_prints(tmp_path, monkeypatch):
  monkeypatch.setattr(fleet, "num_cores", lambda: 1)
  monkeypatch.setattr(simulation, "NUM_STEPS", (2, 3))
  monkeypatch.setattr(simulation, "ATTEMPTS_PER_SCENE", 2)
  result = simulation.benchmark(
    tmp_path, frame_size=48, num_scenes=1, selection="box,cylinder"
  )
  for row in result["one_process"]:
    parts = [row[f"{n}_ms"] for n in ("physics", "rendering", "encoding", "rest")]
    assert row["attempts"] == 2
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(row["whole_ms"])
  written = json.loads((tmp_path / "simulation.json").read_text())
  assert written["one_process"] == result["one_process"]
  text = simulation.describe(result)
  assert "800,000 attempts of T = 2" in text


def test_the_loader_benchmark_measures_what_it_prints(tmp_path):
  data = testing.write_synthetic_dataset(tmp_path / "data", num_attempts=64)
  result = loader.benchmark(data, tmp_path, seconds=0.1)
  rates = result["samples_per_second_one_core"]
  assert min(rates.values()) > 0
  floor = result["hand_eye_over"]["bare decode"]
  assert floor == pytest.approx(rates["hand_eye"] / rates["bare decode"])
  once, larger = result["fresh_process"]
  assert larger["attempts"] == loader.LARGER * once["attempts"]
  assert json.loads((tmp_path / "loader.json").read_text()) == result
  assert "bare decode" in loader.describe(result)
