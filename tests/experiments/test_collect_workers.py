"""Several collections fill one dataset without a word between them, killed or not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import check, files, writer
from data_pipeline import plan as plan_lib
from experiments import cli, collect
from experiments.configs import demo


def _config():
  config = demo.get_config()
  config.collect.update(
    {
      "num_attempts": 6,
      "num_units": 2,
      "attempts_per_scene": 1,
      "scenes_per_shard": 2,
      "num_objects": 2,
      "num_workers": 1,
    }
  )
  return config


def test_workers_make_what_one_would_have_made(tmp_path):
  alone = collect.collect(_config(), tmp_path / "alone", "train")
  for worker in (1, 0):
    shared = collect.collect(
      _config(), tmp_path / "shared", "train", worker_index=worker, worker_count=2
    )
    # Three shards: 0 and 2 are of worker 0, 1 is of worker 1, who comes first.
    assert writer.pending_shards(shared) == ([0, 2] if worker else [])
    assert plan_lib.is_declared_finished(shared) == (worker == 0)
  names = {path.name for path in alone.rglob("*") if path.is_file()}
  assert names == {path.name for path in shared.rglob("*") if path.is_file()}
  for path in alone.rglob("*"):
    if path.is_file():
      assert files.sha256(path) == files.sha256(shared / path.relative_to(alone))
  rows = cli.read_jsonl(shared.parent / "collection.jsonl")
  assert sorted(row["shard"] for row in rows) == [0, 1, 2]


def _start(workdir):
  """The program itself, in a process group of its own with its two workers."""
  given = {
    **{"num_attempts": 12, "num_units": 2, "attempts_per_scene": 1},
    **{"scenes_per_shard": 1, "num_objects": 2, "num_workers": 2},
  }
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.collect", f"--workdir={workdir}"),
      *(f"--config.collect.{name}={value}" for name, value in given.items()),
    ],
    cwd=_ROOT,
    env={**os.environ, "PYTHONPATH": str(_ROOT)},
    stderr=subprocess.PIPE,
    start_new_session=True,
  )


_ROOT = Path(collect.__file__).parents[1]


@pytest.mark.slow
def test_a_collection_whose_processes_are_killed_at_random_moments_loses_nothing(
  tmp_path,
):
  straight = _start(tmp_path / "straight")
  _, errors = straight.communicate()
  assert straight.returncode == 0, errors
  killed = tmp_path / "killed" / "train" / "1.0.0"
  rng = random.Random(0)
  finished, kills = set(), 0
  while len(finished) < 12 and kills < 8:
    before = set(killed.glob(".tmp-*"))
    process = _start(tmp_path / "killed")
    # It works once a file is under way; from here on any moment will do.
    while process.poll() is None and not set(killed.glob(".tmp-*")) - before:
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 1))
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      kills += 1
    process.communicate()
    now = set(range(12)) - set(writer.pending_shards(killed))
    assert finished <= now
    finished = now
    assert check.check_dataset(killed).problems == ()
    rows = cli.read_jsonl(killed.parent / "collection.jsonl")
    assert finished <= {row["shard"] for row in rows}
  assert kills
  last = _start(tmp_path / "killed")
  _, errors = last.communicate()
  assert last.returncode == 0, errors
  expected = tmp_path / "straight" / "train" / "1.0.0"
  assert _checksums(killed) == _checksums(expected)
  rows = cli.read_jsonl(killed.parent / "collection.jsonl")
  assert _by_shard(rows) == _by_shard(
    cli.read_jsonl(expected.parent / "collection.jsonl")
  )


def _checksums(directory):
  return {
    path.relative_to(directory): files.sha256(path)
    for path in directory.rglob("*")
    if path.is_file()
  }


def _by_shard(rows):
  """Of several rows of a shard the last one counts."""
  return {row["shard"]: _timeless(row) for row in rows}


def _timeless(row):
  return {name: row[name] for name in row if name not in ("seconds", "finished")}


def test_a_row_is_there_before_its_shard(tmp_path, monkeypatch):
  """Whoever is killed between the two has a row too many, and none too few."""
  publish = files.publish

  def killed(temporary, path):
    if "array_record" in path.name:
      raise KeyboardInterrupt
    publish(temporary, path)

  monkeypatch.setattr(files, "publish", killed)
  with pytest.raises(KeyboardInterrupt):
    collect.collect(_config(), tmp_path, "train")
  monkeypatch.undo()
  directory = collect.collect(_config(), tmp_path, "train")
  rows = cli.read_jsonl(directory.parent / "collection.jsonl")
  assert [row["shard"] for row in rows] == [0, 0, 1, 2]
  assert _timeless(rows[0]) == _timeless(rows[1])


def test_a_worker_that_is_not_there_is_named(tmp_path):
  with pytest.raises(plan_lib.DatasetError, match="worker_index is 2, expected 0 to 1"):
    collect.collect(_config(), tmp_path, "train", worker_index=2, worker_count=2)
