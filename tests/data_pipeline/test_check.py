"""A check names everything that is broken; quarantine makes the rest usable again."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipeline import check, files, finish, records, source, writer
from data_pipeline import index as index_lib
from data_pipeline import plan as plan_lib
from tests.data_pipeline import synthetic

_SECOND = "train-train.array_record-00001-of-00002"


def _texts(directory):
  return [str(problem) for problem in check.check_dataset(directory).problems]


def test_a_sound_dataset_has_no_problem(finished):
  seen = []
  report = check.check_dataset(finished, num_threads=2, on_shard=lambda: seen.append(1))
  assert (report.num_attempts, report.problems, report.pending) == (24, (), ())
  assert len(seen) == report.num_shards == 2


def _flip(path, position=20_000):
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_a_flipped_byte_is_named_by_record_and_checksum(breakable):
  _flip(breakable / _SECOND)
  report = check.check_dataset(breakable)
  assert report.num_attempts == 23
  assert report.broken_shards == (1,)
  checksum, record = report.problems
  assert checksum.record is None and "has the checksum" in checksum.reason
  assert record.file == _SECOND and record.record is not None
  assert f"{_SECOND}, record {record.record}: " in str(record)


def test_a_truncated_and_a_missing_shard_are_named(breakable):
  path = breakable / _SECOND
  size = path.stat().st_size
  path.write_bytes(path.read_bytes()[: size // 2])
  assert _texts(breakable) == [f"{_SECOND}: has {size // 2} bytes, expected {size}"]
  path.unlink()
  assert _texts(breakable) == [f"{_SECOND}: is missing"]


def _write(root, attempts, num_shards=2, *, is_finished=True):
  """Writes attempts, in pairs a shard."""
  plan = plan_lib.Plan("train", num_shards=num_shards, frame_size=24)
  directory = plan_lib.begin(root, plan)
  for shard in range(num_shards):
    with writer.ShardWriter(directory, shard) as shard_writer:
      for attempt in attempts[2 * shard : 2 * shard + 2]:
        shard_writer.write(attempt)
  if is_finished:
    finish.finalize(directory)
  return directory


@pytest.fixture
def attempts(rng):
  return [
    synthetic.synthetic_attempt(rng, 24, success=i % 2 == 0, attempt_id=f"id-{i}")
    for i in range(4)
  ]


def _tampered(encode, change):
  """An encoder that writes attempt id-2 wrong, with checksums that agree."""

  def encode_wrong(attempt):
    data = encode(attempt)
    if attempt["attempt_id"] != "id-2":
      return data
    example = records.tf_example_pb2.Example.FromString(data)
    change(example.features.feature)
    return example.SerializeToString(deterministic=True)

  return encode_wrong


def _cut_image(feature):
  images = feature["steps/observation/image"].bytes_list
  images.value[1] = images.value[1][:100]


def _infinite_pose(feature):
  feature["steps/observation/pose"].float_list.value[2] = np.inf


def _unlike_label(feature):
  feature["steps/reward"].float_list.value[2] = 0.0


def _long_command(feature):
  feature["steps/action"].float_list.value[4] = 3.0


def _no_end(feature):
  feature["steps/is_last"].int64_list.value[2] = 0


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    (_cut_image, "not a readable JPEG"),
    (_infinite_pose, "poses of step 1 is .*inf.*, expected finite numbers"),
    (_unlike_label, r"steps/reward is \[0.0, 0.0, 0.0\], expected \[0.0, 0.0, 1.0\]"),
    (_long_command, "command of step 1 has"),
    (_no_end, r"steps/is_last is \[0, 0, 0\]"),
  ],
)
def test_what_was_written_wrong_is_named(
  attempts, tmp_path, monkeypatch, change, reason
):
  monkeypatch.setattr(records, "encode", _tampered(records.encode, change))
  directory = _write(tmp_path, attempts)
  problem = check.check_dataset(directory).problems[0]
  assert (problem.file, problem.record, problem.shard) == (_SECOND, 0, 1)
  assert re.search(reason, problem.reason), problem.reason


def test_an_attempt_that_is_there_twice_is_named(attempts, tmp_path):
  attempts[3] = {
    **attempts[3],
    **{name: attempts[0][name] for name in ("unit", "scene_seed", "attempt_seed")},
  }
  directory = _write(tmp_path / "triple", attempts, is_finished=False)
  first = "train-train.array_record-00000-of-00002"
  with pytest.raises(plan_lib.DatasetError) as caught:
    finish.finalize(directory)
  assert f"1 attempts of {directory} are there twice" in str(caught.value)
  assert f"in {_SECOND} and before in {first}" in str(caught.value)
  assert _texts(directory) == [
    f"{_SECOND}, record 1: has the same (unit, scene_seed, attempt_seed) as record 0 "
    f"of {first}, expected each attempt once"
  ]
  attempts[3] = {**attempts[3], "attempt_seed": 5, "attempt_id": "id-1"}
  (text,) = _texts(_write(tmp_path / "name", attempts))
  assert f"{_SECOND}, record 1: has the same attempt_id as record 1 of {first}" in text


def _rewrite(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_a_stale_manifest_costs_no_shard(breakable):
  """Only the manifest is out of date: the shard fits its own entry."""
  before = _everything(breakable)

  def lie(content):
    content["shards"][1]["sha256"] = "0" * 64

  _rewrite(breakable / "manifest.json", lie)
  report = check.check_dataset(breakable)
  assert report.broken_shards == () and report.num_attempts == 24
  (problem,) = report.problems
  assert problem.file == _SECOND and "say different things" in problem.reason
  finish.quarantine(breakable, report.broken_shards)
  assert _everything(breakable) == before


def test_a_shard_that_was_made_again_and_not_declared_is_named(breakable):
  before = _everything(breakable)
  _flip(breakable / _SECOND)
  finish.quarantine(breakable, [1])
  _collect_again(breakable, is_finished=False)
  (problem,) = check.check_dataset(breakable).problems
  assert (problem.file, problem.shard) == (_SECOND, None)
  assert "run the collection again to declare it" in problem.reason
  finish.finalize(breakable)
  assert check.check_dataset(breakable).problems == ()
  shutil.rmtree(breakable / "quarantine")
  assert _everything(breakable) == before


def test_what_is_said_of_the_whole_is_held_against_the_records(breakable):
  before = _everything(breakable)
  manifest = plan_lib.read_manifest(breakable)
  path = plan_lib.dataset_index(breakable)
  table = index_lib.read(path, manifest.index)
  label = table.success.copy()
  label[20] = ~label[20]
  lie = index_lib.write(path, dataclasses.replace(table, success=label))
  plan_lib.write_manifest(breakable, dataclasses.replace(manifest, index=lie))
  _rewrite(breakable / "manifest.json", lambda c: c.update(num_attempts=23))

  def shorten(content):
    content["splits"][0]["shardLengths"][0] = "11"

  _rewrite(breakable / "dataset_info.json", shorten)
  report = check.check_dataset(breakable)
  assert [str(problem) for problem in report.problems] == [
    "dataset_info.json: gives shards of [11, 12] attempts, expected [12, 12]",
    "manifest.json: says 23 attempts, expected 24, as its shards have",
    f"index.npz: says other things than the records of {_SECOND}",
  ]
  assert report.broken_shards == ()
  finish.quarantine(breakable, ())
  assert _everything(breakable) == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"splits": [{"name": "train"}]}'])
def test_a_damaged_tfds_file_is_named(breakable, content):
  (breakable / "dataset_info.json").write_text(content)
  (problem,) = check.check_dataset(breakable).problems
  assert problem.file == "dataset_info.json" and "not what TFDS" in problem.reason


def _everything(directory):
  return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_an_index_that_lies_is_named(breakable):
  path = plan_lib.shard_index(breakable, 1)
  entry = plan_lib.read_shard(breakable, 1)
  table = index_lib.read(path, entry.index)
  lie = dataclasses.replace(table, success=~table.success)
  wrong = dataclasses.replace(entry, index=index_lib.write(path, lie))
  plan_lib.write_shard(breakable, 1, wrong)
  texts = _texts(breakable)
  assert any("00001.index.npz: says other things than the records" in t for t in texts)
  assert any("the manifest say different things" in t for t in texts)


def test_a_missing_index_or_tfds_file_is_named_and_mended(breakable):
  before = _everything(breakable)
  plan_lib.dataset_index(breakable).unlink()
  plan_lib.shard_index(breakable, 0).write_bytes(b"?")
  (breakable / "features.json").unlink()
  report = check.check_dataset(breakable)
  assert report.broken_shards == () and len(report.problems) == 3
  finish.quarantine(breakable, report.broken_shards)
  assert _everything(breakable) == before


def _collect_again(directory, *, is_finished=True):
  """Makes the pending shards of the synthetic dataset again, and finishes it."""
  rng = np.random.default_rng(0)
  attempts = [
    synthetic.synthetic_attempt(
      rng,
      success=(i // 4) % 2 == 0,
      unit=f"unit-{i % 4}",
      attempt_id=f"train-{i:06d}",
    )
    for i in range(24)
  ]
  for shard in writer.pending_shards(directory):
    with writer.ShardWriter(directory, shard) as shard_writer:
      for attempt in attempts[12 * shard : 12 * shard + 12]:
        shard_writer.write(attempt)
  if is_finished:
    finish.finalize(directory)


def test_quarantine_leaves_a_dataset_that_can_be_used_and_completed(
  breakable, dataset, caplog
):
  _flip(breakable / _SECOND)
  finish.quarantine(breakable, check.check_dataset(breakable).broken_shards)
  moved = {path.name for path in (breakable / "quarantine").iterdir()}
  assert moved == {_SECOND, "00001.json", "00001.index.npz"}

  rest = source.open_dataset(breakable, verify="checksums")
  assert len(rest) == 12 and rest.broken == ()
  assert "lacks 1 of its 2 shards" in caplog.text and _SECOND in caplog.text
  report = check.check_dataset(breakable)
  assert report.problems == () and report.pending == (1,)
  tfds_source = tfds.builder_from_directory(breakable).as_data_source("train")
  assert len(tfds_source) == 12 and tfds_source[11]["attempt_id"] == b"train-000011"

  assert writer.pending_shards(breakable) == [1]
  _collect_again(breakable)
  assert source.open_dataset(breakable).fingerprint == dataset.fingerprint
  for path in dataset.records.paths[0].parent.glob("*"):
    if path.is_file():
      assert files.sha256(path) == files.sha256(breakable / path.name), path.name


def test_a_collection_that_ran_out_of_time_is_a_dataset_and_can_be_completed(
  attempts, tmp_path, caplog
):
  directory = _write(tmp_path, attempts, is_finished=False)
  missing = plan_lib.shard_entry(directory, 1)
  kept = missing.read_bytes()
  missing.unlink()
  finish.finalize(directory, partly=True)
  assert len(source.open_dataset(directory)) == 2
  assert "lacks 1 of its 2 shards" in caplog.text
  missing.write_bytes(kept)
  finish.finalize(directory, partly=True)
  assert not plan_lib.read_manifest(directory).quarantined
  for shard in range(2):
    plan_lib.shard_entry(directory, shard).unlink()
  with pytest.raises(plan_lib.DatasetError, match="2 of 2 shards .* are missing"):
    finish.finalize(directory, partly=True)


def test_a_second_quarantine_keeps_the_first(breakable):
  for _ in range(2):
    _flip(breakable / _SECOND)
    finish.quarantine(breakable, [1])
    _collect_again(breakable)
  moved = {path.name for path in (breakable / "quarantine").iterdir()}
  assert {_SECOND, f"{_SECOND}.1"} <= moved


def test_an_unfinished_dataset_is_checked_as_far_as_it_goes(tmp_path, rng):
  plan = plan_lib.Plan("train", num_shards=3, frame_size=24)
  directory = plan_lib.begin(tmp_path, plan)
  for shard in (0, 2):
    with writer.ShardWriter(directory, shard) as shard_writer:
      shard_writer.write(synthetic.synthetic_attempt(rng, 24))
  _flip(directory / plan.shard_file(2), 500)
  report = check.check_dataset(directory)
  assert report.pending == (1,) and report.broken_shards == (2,)
  assert report.num_attempts == 1
  assert finish.quarantine(directory, report.broken_shards) is None
  assert writer.pending_shards(directory) == [1, 2]
  assert not (directory / "manifest.json").exists()


@pytest.mark.parametrize(
  ("content", "reason"),
  [
    ({"file": "x"}, "is not the entry of a shard"),
    (None, "holds 'None', expected a JSON object"),
    ([1], "expected a JSON object"),
  ],
)
def test_a_damaged_entry_is_a_broken_shard(breakable, content, reason):
  plan_lib.shard_entry(breakable, 0).write_text(json.dumps(content))
  problem, *_ = check.check_dataset(breakable).problems
  assert problem.file == "shards/00000.json" and problem.shard == 0
  assert reason in problem.reason
