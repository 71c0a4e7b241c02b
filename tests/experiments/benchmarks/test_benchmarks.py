"""Benchmarks run, and their arithmetic is right; how fast is not a matter of tests."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from envs import fleet, objects
from experiments import cli
from experiments.benchmarks import full_bin, loader, simulation, torch_peer, training
from hand_eye import network
from tests.data_pipeline import synthetic


def test_parts_of_an_attempt_add_up():
  times = simulation.Times(
    whole=3.0, rendering=2.0, encoding=0.1, bare_physics=0.5, bare_rendering=1.9,
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
  written = json.loads((tmp_path / "simulation.json").read_text())
  assert written["one_process"] == result["one_process"]
  text = simulation.describe(result)
  assert "800,000 attempts of T = 2" in text
  assert result["cores"] == 1
  # No target is set for so few steps but that of the overhead.
  assert len(result["checks"]) == 3 and text.count(" over the floor: ") == 2


def test_targets_are_said_to_be_held_or_missed():
  fast = {"num_steps": 3, "attempts_per_second": 3.0, "overhead": 0.149}
  slow = {"num_steps": 10, "attempts_per_second": 1.19, "overhead": 0.15}
  found = simulation.checks([fast, slow])
  assert [check["holds"] for check in found] == [True, True, False, False]
  assert found[1] == {
    "claim": "T = 3: at least 3.0 attempts a second", "found": "3.00", "holds": True
  }  # fmt: skip


def test_objects_that_there_are_not_are_refused_before_anything_is_measured(tmp_path):
  with pytest.raises(objects.ObjectsError, match="teapot"):
    simulation.benchmark(
      tmp_path / "new", frame_size=48, num_scenes=1, selection="teapot"
    )
  assert not (tmp_path / "new").exists()


@pytest.mark.skipif(
  not hasattr(os, "sched_setaffinity") or not os.path.exists("/proc/self/task"),
  reason="needs Linux",
)
def test_what_is_measured_on_one_core_stays_there():
  cores = os.sched_getaffinity(0)
  seen, go_on, end = [], threading.Event(), threading.Event()

  def look():
    go_on.wait()
    seen.append(os.sched_getaffinity(0))
    end.wait()

  before = threading.Thread(target=look)  # One that was there already.
  before.start()
  with loader.one_core() as is_pinned:
    assert is_pinned
    later = threading.Thread(target=look)
    later.start()
    go_on.set()
    seen.append(os.sched_getaffinity(0))
    while len(seen) < 3:
      time.sleep(0.001)
  assert [len(allowed) for allowed in seen] == [1, 1, 1]
  end.set()
  assert os.sched_getaffinity(0) == cores


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_the_peak_of_memory_is_of_the_process_that_asks():
  ballast = np.ones(2**25)  # 256 MiB, which a new process must not be told of.
  program = "from experiments.benchmarks import loader; print(loader.peak_mib())"
  root = Path(loader.__file__).parents[2]
  done = subprocess.run(
    [sys.executable, "-c", program], cwd=root, capture_output=True, text=True,
    check=True, env={**os.environ, "PYTHONPATH": str(root)},
  )  # fmt: skip
  own = loader.peak_mib()
  assert own > ballast.nbytes / 2**20
  assert 20 < float(done.stdout) < own - 128


def test_the_loader_benchmark_measures_what_it_prints(tmp_path, monkeypatch):
  monkeypatch.setattr(fleet, "num_cores", lambda: 1)
  data = synthetic.write_synthetic_dataset(tmp_path / "data", num_attempts=64)
  result = loader.benchmark(data, tmp_path, seconds=0.1)
  rates = result["samples_per_second_one_core"]
  assert min(rates.values()) > 0
  floor = result["hand_eye_over"]["bare decode"]
  assert floor == pytest.approx(rates["hand_eye"] / rates["bare decode"])
  once, larger = result["fresh_process"]
  assert larger["attempts"] == loader.LARGER * once["attempts"]
  assert min(result["samples_per_second_by_workers"].values()) > 0
  assert {"0", "1"} <= result["samples_per_second_by_workers"].keys()
  assert json.loads((tmp_path / "loader.json").read_text()) == result
  assert "bare decode" in loader.describe(result)


def test_the_work_of_a_training_step_is_that_of_its_layers():
  config = network.preset("levine2016")
  sides = [(c["name"], c["count"], c["side"]) for c in training.convolutions(config)]
  assert sides == [
    ("stem", 1, 236), ("image", 6, 79), ("command", 6, 27),
    ("final", 1, 12), ("final", 1, 10), ("final", 1, 8),
  ]  # fmt: skip
  # 4.60 G multiply-adds in the image half and 0.173 in the other, of which the stem's
  # 0.77 have no gradient of their inputs: three times two of them, or two times two.
  expected = 6 * (4.60e9 + 0.173e9) - 2 * 236**2 * 36 * 6 * 64
  assert training.step_flops(config) == pytest.approx(expected, rel=2e-3)


def test_the_training_benchmark_measures_what_it_prints(tmp_path, monkeypatch):
  monkeypatch.setattr(torch_peer, "load", lambda: None)
  variants = {"hand_eye float32": {}, "hand_eye bfloat16": {"dtype": "bfloat16"}}
  monkeypatch.setattr(training, "VARIANTS", variants)
  monkeypatch.setitem(training._PRODUCT_SIZE, "cpu", 64)
  result = training.benchmark(
    tmp_path,
    presets=["small"],
    seconds=0.01,
    rounds=1,
    batch_size=4,
    dtypes=["float32"],
  )
  (one,) = result["networks"]
  (row,) = one["rows"]
  assert row["flop_per_second"] == pytest.approx(
    row["samples_per_second"] * one["flop_per_sample"]
  )
  peak = one["peak_flop_per_second"]["float32"]
  assert row["share_of_peak"] == pytest.approx(row["flop_per_second"] / peak)
  assert json.loads((tmp_path / "training.json").read_text()) == json.loads(
    json.dumps(result)
  )
  assert "PyTorch was left out" in training.describe(result)


def test_the_peer_is_the_same_network():
  pytest.importorskip("torch")
  config = network.preset("small", channels=8)
  batch = training.make_batch(config, 4)
  assert torch_peer.load().difference(config, batch) < 1e-3


def test_a_full_bin_is_measured_against_another_build(tmp_path, monkeypatch):
  monkeypatch.setattr(fleet, "num_cores", lambda: 2)
  rates = {Path(full_bin.__file__).parents[2]: 6.0, tmp_path: 2.0}
  asked = []

  def rate(build, *arguments):
    asked.append((build, *arguments))
    return rates[build]

  monkeypatch.setattr(full_bin, "rate", rate)
  (tmp_path / "envs").mkdir()
  (tmp_path / "envs" / "rollout.py").touch()
  result = full_bin.benchmark(
    tmp_path / "out", against=tmp_path, num_scenes=3, rounds=2, selection="box"
  )
  # In turns, both alike.
  assert asked == [(build, 2, 3, "box") for build in rates] * 2
  assert result["ratio"] == 3.0
  assert result == json.loads((tmp_path / "out" / "full_bin.json").read_text())
  assert "held: 3.00 times" in full_bin.describe(result)


def test_what_is_no_checkout_is_refused(tmp_path):
  with pytest.raises(cli.UserError, match="git worktree add"):
    full_bin.benchmark(
      tmp_path, against=tmp_path, num_scenes=1, rounds=1, selection="box"
    )


@pytest.mark.slow
def test_each_process_makes_its_scenes(monkeypatch):
  monkeypatch.setattr(full_bin, "NUM_OBJECTS", 1)
  monkeypatch.setattr(full_bin, "ATTEMPTS_PER_SCENE", 1)
  assert full_bin.rate(Path(full_bin.__file__).parents[2], 2, 1, "box") > 0
