"""A dataset is checked when opened; what is broken is named, or left out."""

import json
import pickle

import numpy as np
import pytest

from data_pipeline import plan as plan_lib
from data_pipeline import records, source, splits
from tests.data_pipeline import synthetic

_SECOND = "train-train.array_record-00001-of-00002"


def _ids(dataset):
  return [records.decode(data, images=False)["attempt_id"] for data in dataset]


def test_attempts_come_in_the_order_they_were_written(dataset):
  assert _ids(dataset) == [f"train-{i:06d}" for i in range(24)]


def test_the_table_agrees_with_the_records(dataset):
  decoded = [records.decode(data, images=False) for data in dataset]
  attempts = dataset.attempts
  assert len(attempts) == len(dataset)
  np.testing.assert_array_equal(
    attempts.poses, np.concatenate([record["poses"] for record in decoded])
  )
  np.testing.assert_array_equal(attempts.num_steps, 3)
  for name in ("success", "unit", "scene_seed"):
    expected = [record[name] for record in decoded]
    assert getattr(attempts, name).tolist() == expected


def test_there_is_no_attempt_beyond_the_last(dataset):
  for index in (-1, 24):
    with pytest.raises(IndexError, match=f"attempt {index} of 24"):
      dataset[index]


def test_a_missing_dataset_is_named(tmp_path):
  with pytest.raises(plan_lib.DatasetError, match="no dataset in .*manifest.json"):
    source.open_dataset(tmp_path / "nowhere")


def test_a_truncated_shard_is_named_or_left_out(breakable):
  path = breakable / _SECOND
  size = path.stat().st_size
  path.write_bytes(path.read_bytes()[: size // 2])
  message = f"{_SECOND} has {size // 2} bytes, expected {size}"
  with pytest.raises(plan_lib.DatasetError, match=message):
    source.open_dataset(breakable)
  rest = source.open_dataset(breakable, on_bad_record="skip")
  assert _ids(rest) == [f"train-{i:06d}" for i in range(12)]
  assert len(rest.broken) == 1 and message in rest.broken[0]


def test_a_shard_cut_before_its_checksum_was_taken_is_named(breakable):
  """The size agrees, so that only ArrayRecord itself can tell."""
  path = breakable / _SECOND
  size = path.stat().st_size
  path.write_bytes(path.read_bytes()[: size // 2] + bytes(size - size // 2))
  with pytest.raises(
    plan_lib.DatasetError, match=f"{_SECOND} has 0 records, expected 12"
  ):
    source.open_dataset(breakable, verify="records")


def test_a_missing_shard_is_named(breakable):
  (breakable / _SECOND).unlink()
  with pytest.raises(plan_lib.DatasetError, match=f"{_SECOND} is missing"):
    source.open_dataset(breakable)


def test_a_flipped_byte_costs_one_attempt_and_is_named(breakable):
  path = breakable / _SECOND
  data = bytearray(path.read_bytes())
  data[20_000] ^= 1
  path.write_bytes(data)
  with pytest.raises(plan_lib.DatasetError, match=rf"record \d+ of .*{_SECOND}"):
    source.open_dataset(breakable, verify="records")
  rest = source.open_dataset(breakable, on_bad_record="skip", verify="records")
  assert len(rest) == 23
  assert len(rest.broken) == 1
  complete = {f"train-{i:06d}" for i in range(24)}
  assert len(complete - set(_ids(rest))) == 1


def test_verifying_finds_what_lies_outside_of_records(breakable):
  """The last block of a shard is padding, which no record's checksum covers."""
  path = breakable / _SECOND
  data = bytearray(path.read_bytes())
  padding = data.rindex(bytes(64))
  data[padding + 32] ^= 1
  path.write_bytes(data)
  with pytest.raises(plan_lib.DatasetError, match=f"{_SECOND} has the checksum"):
    source.open_dataset(breakable, verify="checksums")


def test_a_dataset_with_nothing_readable_is_refused(breakable):
  for path in breakable.glob("*.array_record-*"):
    path.unlink()
  with pytest.raises(plan_lib.DatasetError, match="no readable attempt"):
    source.open_dataset(breakable, on_bad_record="skip")


def test_another_schema_version_is_refused(breakable):
  path = breakable / "manifest.json"
  manifest = json.loads(path.read_text())
  manifest["plan"]["schema_version"] = 99
  path.write_text(json.dumps(manifest))
  message = "schema version 99, this program reads versions 1 and 2; .* newer version"
  with pytest.raises(plan_lib.DatasetError, match=message):
    source.open_dataset(breakable)
  manifest["plan"]["schema_version"] = 0
  path.write_text(json.dumps(manifest))
  with pytest.raises(plan_lib.DatasetError, match="version 0, .* older version"):
    source.open_dataset(breakable)


def test_a_broken_manifest_is_refused(breakable):
  path = breakable / "manifest.json"
  whole = path.read_text()
  path.write_text(whole[:-20])
  with pytest.raises(plan_lib.DatasetError, match="not readable JSON"):
    source.open_dataset(breakable)
  for content, words in (
    ("{}", "not a manifest"),
    ("null", "expected a JSON object"),
    ('{"plan": {"schema_version": 1, "name": "a"}, "shards": []}', "not a plan"),
  ):
    path.write_text(content)
    with pytest.raises(plan_lib.DatasetError, match=words):
      source.open_dataset(breakable)
  path.write_text(whole.replace('"shards": [', '"shards": [null, '))
  with pytest.raises(plan_lib.DatasetError, match="not a manifest"):
    source.open_dataset(breakable)


def test_selected_attempts_keep_their_table(dataset):
  selected = dataset.select(np.array([20, 3]))
  assert _ids(selected) == ["train-000020", "train-000003"]
  np.testing.assert_array_equal(
    selected.attempts.poses,
    np.concatenate([dataset.attempts.poses[60:63], dataset.attempts.poses[9:12]]),
  )
  assert selected.attempts.unit.tolist() == ["unit-0", "unit-3"]
  assert selected.fingerprint != dataset.fingerprint


def test_merged_datasets_follow_each_other(dataset, tmp_path):
  other = source.open_dataset(
    synthetic.write_synthetic_dataset(tmp_path, "more", num_attempts=6, seed=1)
  )
  merged = source.merge([dataset.select(np.arange(2)), other])
  assert _ids(merged) == _ids(dataset)[:2] + _ids(other)
  np.testing.assert_array_equal(merged.attempts.poses[6:], other.attempts.poses)


def test_an_attempt_is_merged_once_only(dataset, tmp_path):
  halves = [dataset.select(np.arange(12)), dataset.select(np.arange(12, 24))]
  assert len(source.merge(halves)) == 24
  with pytest.raises(plan_lib.DatasetError) as caught:
    source.merge([*halves, dataset.select(np.array([3, 20]))])
  assert "2 attempts of the datasets to merge are there twice" in str(caught.value)
  assert "is of dataset 0 and again of dataset 2" in str(caught.value)
  # The same scenes with another policy are other attempts.
  other = synthetic.write_synthetic_dataset(tmp_path, policy="servo")
  assert len(source.merge([dataset, source.open_dataset(other)])) == 48


def test_parts_are_counted_though_their_attempts_are_filtered_away(dataset):
  one, other = dataset.select(np.arange(12)), dataset.select(np.arange(12, 24))
  merged = source.merge([one, other])
  assert merged.num_parts == 2
  rest = merged.select(np.arange(5))
  assert rest.num_parts == 2 and set(rest.part) == {0}
  again = source.merge([rest, merged.select(np.arange(20, 24))])
  assert again.num_parts == 4 and set(again.part) == {0, 3}


def test_an_attempt_is_decoded_or_named(tmp_path, monkeypatch):
  encode = records.encode
  monkeypatch.setattr(
    records, "encode", lambda attempt: synthetic.with_cut_image(encode(attempt), 2)
  )
  directory = synthetic.write_synthetic_dataset(tmp_path, num_attempts=4, num_shards=1)
  dataset = source.open_dataset(directory, verify="checksums")
  assert dataset.decoded(3, images=False)["attempt_id"] == "train-000003"
  with pytest.raises(plan_lib.DatasetError, match=r"record 3 of .*not a readable JPEG"):
    dataset.decoded(3, images=True)


def test_datasets_of_two_frame_sizes_do_not_merge(dataset, tmp_path):
  other = synthetic.write_synthetic_dataset(tmp_path, num_attempts=2, frame_size=40)
  with pytest.raises(plan_lib.DatasetError, match=r"\[40, 72\] pixels, expected one"):
    source.merge([dataset, source.open_dataset(other)])


def test_no_unit_is_in_both_parts_of_a_split(dataset):
  rest, held_out = splits.split(dataset, "unit", 0.25, seed=0)
  assert len(rest) == 18 and len(held_out) == 6
  assert not set(rest.attempts.unit) & set(held_out.attempts.unit)
  again = splits.split(dataset, "unit", 0.25, seed=0)[1]
  assert again.fingerprint == held_out.fingerprint
  with pytest.raises(plan_lib.DatasetError, match="of 1 units"):
    splits.split(held_out, "unit", 0.5, seed=0)


def test_a_dataset_can_be_sent_to_another_process(dataset):
  dataset[0]
  copy = pickle.loads(pickle.dumps(dataset))
  assert list(copy) == list(dataset)
  assert copy.fingerprint == dataset.fingerprint


def test_more_shards_than_may_be_open_are_read(tmp_path, monkeypatch):
  monkeypatch.setattr("data_pipeline.shards._MOST_OPEN", 2)
  directory = synthetic.write_synthetic_dataset(tmp_path, num_shards=6)
  dataset = source.open_dataset(directory)
  order = np.random.default_rng(0).permutation(24)
  found = [records.decode(dataset[i], images=False)["attempt_id"] for i in order]
  assert found == [f"train-{i:06d}" for i in order]
  assert len(dataset.records._readers) == 2


def test_an_unknown_choice_is_refused(finished):
  with pytest.raises(ValueError, match="verify is 'all', expected one of"):
    source.open_dataset(finished, verify="all")
  with pytest.raises(ValueError, match="on_bad_record is 'ignore'"):
    source.open_dataset(finished, on_bad_record="ignore")
