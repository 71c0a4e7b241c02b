"""Shards are whole or absent; a killed collection goes on where it was."""

import errno
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import check, files, finish, records, source, writer
from data_pipeline import plan as plan_lib
from tests.data_pipeline import synthetic

_ROOT = Path(writer.__file__).parents[1]
_PLAN = plan_lib.Plan("train", num_shards=3, frame_size=72, config={"seed": 1})


def _checksums(directory):
  return {
    str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in directory.rglob("*")
    if path.is_file()
  }


def _write_shard(directory, shard, num_attempts=4):
  rng = np.random.default_rng(shard)
  with writer.ShardWriter(directory, shard) as shard_writer:
    for i in range(num_attempts):
      attempt = synthetic.synthetic_attempt(rng, attempt_id=f"{shard}-{i}")
      shard_writer.write(attempt)


def _names(directory):
  return {path.name for path in directory.iterdir()}


def test_two_writes_give_the_same_files(finished, tmp_path):
  again = synthetic.write_synthetic_dataset(tmp_path)
  assert _checksums(again) == _checksums(finished)


def test_a_shard_appears_when_its_block_ends(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  shard_file = _PLAN.shard_file(1)
  with writer.ShardWriter(directory, 1) as shard_writer:
    shard_writer.write(synthetic.synthetic_attempt(np.random.default_rng(0)))
    assert shard_file not in _names(directory)
    assert writer.pending_shards(directory) == [0, 1, 2]
  assert _names(directory) == {"plan.json", "shards", shard_file}
  assert writer.pending_shards(directory) == [0, 2]


def test_nothing_remains_of_a_failed_block(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  with pytest.raises(KeyboardInterrupt), writer.ShardWriter(directory, 0) as one:
    one.write(synthetic.synthetic_attempt(np.random.default_rng(0)))
    raise KeyboardInterrupt
  assert _names(directory) == {"plan.json", "shards"}
  assert writer.pending_shards(directory) == [0, 1, 2]


def test_a_shard_without_its_entry_counts_as_missing(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  _write_shard(directory, 0)
  # As if killed between the two renames.
  plan_lib.shard_entry(directory, 0).unlink()
  assert 0 in writer.pending_shards(directory)
  _write_shard(directory, 0)
  assert 0 not in writer.pending_shards(directory)


def test_an_attempt_is_written_once_and_in_the_planned_size(tmp_path, rng):
  directory = plan_lib.begin(tmp_path, _PLAN)
  with writer.ShardWriter(directory, 0) as shard_writer:
    shard_writer.write(synthetic.synthetic_attempt(rng, attempt_id="a"))
    with pytest.raises(records.RecordError, match="'a' is in shard 0 already"):
      shard_writer.write(synthetic.synthetic_attempt(rng, attempt_id="a"))
    with pytest.raises(records.RecordError, match="images of 64 pixels, expected 72"):
      shard_writer.write(synthetic.synthetic_attempt(rng, frame_size=64))
  assert plan_lib.read_shard(directory, 0).num_attempts == 1


def test_an_empty_shard_is_refused(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  with pytest.raises(plan_lib.DatasetError, match="got no attempt"):
    with writer.ShardWriter(directory, 0):
      pass
  assert _names(directory) == {"plan.json", "shards"}


def test_an_unfinished_dataset_is_not_finalized_nor_opened(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  _write_shard(directory, 1)
  with pytest.raises(plan_lib.DatasetError, match=r"2 of 3 shards .* \[0, 2\]"):
    finish.finalize(directory)
  with pytest.raises(plan_lib.DatasetError, match="not finished.*run its collection"):
    source.open_dataset(directory)


def test_finalizing_twice_changes_nothing(breakable):
  before = _checksums(breakable)
  finish.finalize(breakable)
  assert _checksums(breakable) == before


def test_the_manifest_tells_counts_sizes_and_checksums(finished):
  manifest = plan_lib.read_manifest(finished)
  assert manifest.num_attempts == 24
  for shard in manifest.shards:
    path = finished / shard.file
    assert shard.num_bytes == path.stat().st_size
    assert shard.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_another_plan_does_not_go_on(tmp_path):
  plan_lib.begin(tmp_path, _PLAN)
  plan_lib.begin(tmp_path, _PLAN)
  other = plan_lib.Plan("train", num_shards=4, frame_size=72, config={"seed": 2})
  with pytest.raises(plan_lib.DatasetError) as caught:
    plan_lib.begin(tmp_path, other)
  assert "config.seed is 1 there and 2 here" in str(caught.value)
  assert "num_shards is 3 there and 4 here" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(plan_lib.DatasetError, match="choose a folder that can be"):
    plan_lib.begin(tmp_path / "file", _PLAN)


def test_a_shard_that_the_plan_lacks_is_refused(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  with pytest.raises(plan_lib.DatasetError, match="no shard 3, expected 0 to 2"):
    writer.ShardWriter(directory, 3)
  with pytest.raises(plan_lib.DatasetError, match="no dataset was begun"):
    writer.ShardWriter(tmp_path, 0)


@pytest.mark.parametrize(
  "change",
  [{"name": "Held-Out"}, {"version": "1"}, {"num_shards": 0}, {"frame_size": 0}],
)
def test_an_impossible_plan_is_refused(change):
  fields = {"name": "train", "num_shards": 1, "frame_size": 72, **change}
  with pytest.raises(plan_lib.DatasetError, match="expected"):
    plan_lib.Plan(**fields)


_COLLECTOR = """
import sys
import numpy as np
from data_pipeline import finish, writer
from tests.data_pipeline import synthetic
directory = sys.argv[1]
for shard in writer.pending_shards(directory):
  rng = np.random.default_rng(shard)
  with writer.ShardWriter(directory, shard) as shard_writer:
    for i in range(4):
      shard_writer.write(synthetic.synthetic_attempt(rng, attempt_id=f"{shard}-{i}"))
      print(shard, i, flush=True)
  print("closed", flush=True)
finish.finalize(directory)
"""


def _start(directory):
  """Starts a collector in a process of its own."""
  return subprocess.Popen(
    [sys.executable, "-c", _COLLECTOR, str(directory)],
    env={**os.environ, "PYTHONPATH": str(_ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )


def _collect(directory, kill_after=None):
  """Runs a collector, killed after some lines of its output."""
  with _start(directory) as process:
    if kill_after is not None:
      for _ in range(kill_after):
        process.stdout.readline()
      process.kill()
    process.communicate()
  return process.returncode


def test_a_collection_killed_again_and_again_ends_the_same(tmp_path):
  straight = plan_lib.begin(tmp_path / "straight", _PLAN)
  assert _collect(straight) == 0
  killed = plan_lib.begin(tmp_path / "killed", _PLAN)
  rng = random.Random(0)
  for _ in range(3):
    _collect(killed, kill_after=rng.randrange(1, 9))
    for shard in set(range(3)) - set(writer.pending_shards(killed)):
      entry = plan_lib.read_shard(killed, shard)
      assert files.sha256(killed / entry.file) == entry.sha256
  assert _collect(killed) == 0
  assert _checksums(killed) == _checksums(straight)


_FILLED_DISK = """
import resource, signal, sys
import numpy as np
from data_pipeline import plan, writer
from tests.data_pipeline import synthetic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
rng = np.random.default_rng(0)
try:
  with writer.ShardWriter(sys.argv[1], 1) as shard_writer:
    for _ in range(100):
      shard_writer.write(synthetic.synthetic_attempt(rng))
except plan.DatasetError as error:
  sys.exit("refused: " + str(error))
"""


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_finished(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  _write_shard(directory, 0)
  before = _checksums(directory)
  done = subprocess.run(
    [sys.executable, "-c", _FILLED_DISK, str(directory)],
    env={**os.environ, "PYTHONPATH": str(_ROOT)},
    stderr=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == 1
  assert "refused: cannot write shard" in done.stderr
  assert "finished shards are kept" in done.stderr
  assert _checksums(directory) == before


def test_the_first_of_two_writers_of_one_shard_counts(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  rng = np.random.default_rng(0)
  with writer.ShardWriter(directory, 0) as slow:
    slow.write(synthetic.synthetic_attempt(rng, attempt_id="slow"))
    # Begun later, with other attempts, and done while the first one still writes.
    with writer.ShardWriter(directory, 0) as fast:
      fast.write(synthetic.synthetic_attempt(rng, attempt_id="fast"))
    before = _checksums(directory)
    slow.write(synthetic.synthetic_attempt(rng, attempt_id="late"))
  assert fast.is_published and not slow.is_published
  leftover = {name: value for name, value in before.items() if ".tmp-" not in name}
  assert _checksums(directory) == leftover
  entry = plan_lib.read_shard(directory, 0)
  assert entry.num_attempts == 1
  assert files.sha256(directory / entry.file) == entry.sha256


def test_what_a_dead_writer_left_is_removed_and_a_living_one_is_not(tmp_path):
  directory = plan_lib.begin(tmp_path, _PLAN)
  path = directory / _PLAN.shard_file(0)
  dead = files.temporary_path(path)
  dead.write_bytes(b"half a shard")
  living, descriptor = files.hold_temporary(path)
  _write_shard(directory, 0)
  assert not dead.exists() and living.exists()
  os.close(descriptor)
  files.remove_temporaries(directory)
  assert not living.exists()


def test_file_systems_without_locks_are_written_to(tmp_path, monkeypatch):
  def without_locks(_, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")

  monkeypatch.setattr(files.fcntl, "flock", without_locks)
  directory = plan_lib.begin(tmp_path, plan_lib.Plan("train", 1, frame_size=72))
  other = files.temporary_path(directory / "train")
  other.write_bytes(b"perhaps of a living writer")
  _write_shard(directory, 0)
  assert finish.finalize(directory).num_attempts == 4
  assert other.exists()


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path, monkeypatch):
  directory = plan_lib.begin(tmp_path, _PLAN)

  def broken(_, operation):
    raise OSError(errno.EIO, "Input/output error")

  monkeypatch.setattr(files.fcntl, "flock", broken)
  with pytest.raises(plan_lib.DatasetError, match="Input/output error"):
    writer.ShardWriter(directory, 0)


@pytest.mark.parametrize("error", [RuntimeError("no room"), KeyboardInterrupt()])
def test_a_writer_that_could_not_begin_leaves_nothing(tmp_path, monkeypatch, error):
  directory = plan_lib.begin(tmp_path, _PLAN)
  descriptors = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []

  def fail(*_):
    raise error

  monkeypatch.setattr(writer, "ArrayRecordWriter", fail)
  with pytest.raises((plan_lib.DatasetError, KeyboardInterrupt)):
    writer.ShardWriter(directory, 0)
  assert _names(directory) == {"plan.json", "shards"}
  if descriptors:
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


def test_shares_of_workers_are_disjoint_and_complete(tmp_path):
  plan = plan_lib.Plan("train", num_shards=11, frame_size=72)
  directory = plan_lib.begin(tmp_path, plan)
  _write_shard(directory, 4)
  shares = [
    writer.pending_shards(directory, worker_index=i, worker_count=3) for i in range(3)
  ]
  assert shares == [[0, 3, 6, 9], [1, 7, 10], [2, 5, 8]]
  for index, count in ((3, 3), (-1, 3), (0, 0)):
    with pytest.raises(plan_lib.DatasetError, match=f"worker_index is {index}, expect"):
      writer.pending_shards(directory, worker_index=index, worker_count=count)


def test_of_two_that_write_the_same_file_first_one_does(tmp_path):
  path = tmp_path / "plan.json"
  assert files.write_first(path, b"one")
  assert not files.write_first(path, b"two")
  assert path.read_bytes() == b"one"
  assert _names(tmp_path) == {"plan.json"}


def test_processes_that_make_the_same_shards_at_once_do_no_harm(tmp_path):
  straight = plan_lib.begin(tmp_path / "straight", _PLAN)
  assert _collect(straight) == 0
  together = plan_lib.begin(tmp_path / "together", _PLAN)
  processes = [_start(together) for _ in range(3)]
  for process in processes:
    process.communicate()
  assert [process.returncode for process in processes] == [0, 0, 0]
  assert _checksums(together) == _checksums(straight)


@pytest.mark.slow
def test_a_collection_killed_at_twenty_random_moments_loses_nothing(tmp_path):
  plan = plan_lib.Plan("train", num_shards=40, frame_size=72)
  straight = plan_lib.begin(tmp_path / "straight", plan)
  assert _collect(straight) == 0
  killed = plan_lib.begin(tmp_path / "killed", plan)
  rng = random.Random(0)
  finished = set()
  for _ in range(20):
    process = _start(killed)
    process.stdout.readline()  # It writes: from here on it is killed at any moment.
    time.sleep(rng.uniform(0, 0.15))
    process.kill()
    process.communicate()
    now = set(range(40)) - set(writer.pending_shards(killed))
    assert finished <= now
    finished = now
    report = check.check_dataset(killed)
    assert report.problems == ()
    assert report.num_attempts == 4 * len(finished)
  assert _collect(killed) == 0
  assert _checksums(killed) == _checksums(straight)
  attempts = source.open_dataset(killed, verify="checksums").attempts
  seeds = zip(attempts.unit, attempts.scene_seed, attempts.attempt_seed, strict=True)
  assert len(attempts) == len(set(seeds)) == 160
