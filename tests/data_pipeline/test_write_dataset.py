"""Datasets of attempts made elsewhere."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipeline import plan, records, schema, source
from data_pipeline.write_dataset import write_dataset
from tests.data_pipeline.synthetic import synthetic_attempt


def bare(seed: int) -> dict:
  """An attempt with what a real robot knows."""
  attempt = dict(synthetic_attempt(np.random.default_rng(seed)))
  for name in (*schema.OPTIONAL, "attempt_id", "attempt_seed", "policy", "software"):
    del attempt[name]
  return attempt


def test_attempts_without_a_simulator_make_a_dataset(tmp_path):
  directory = write_dataset(tmp_path, "mine", map(bare, range(5)), num_shards=2)
  dataset = source.open_dataset(directory)
  assert len(dataset) == 5
  record = dataset.decoded(0, images=False)
  assert record["unknown"] == sorted(schema.OPTIONAL)
  assert record["objects"] == [] and record["grasped"] == ""
  assert len(set(dataset.attempts.scene_seed)) == 5
  (episode,) = list(tfds.builder_from_directory(directory).as_data_source("train"))[:1]
  assert len(episode["unknown"]) == 4
  with pytest.raises(plan.DatasetError, match="holds attempts already"):
    write_dataset(tmp_path, "mine", map(bare, range(5)), num_shards=2)


def test_a_broken_attempt_leaves_nothing(tmp_path):
  broken = {**bare(1), "poses": np.zeros((1, 3), np.float32)}
  with pytest.raises(schema.RecordError, match="poses"):
    write_dataset(tmp_path, "mine", [bare(0), broken])
  assert not list(tmp_path.rglob("*.array_record*"))
  assert len(source.open_dataset(write_dataset(tmp_path, "mine", [bare(0)]))) == 1


def test_no_attempts_are_refused(tmp_path):
  with pytest.raises(plan.DatasetError, match="at least one"):
    write_dataset(tmp_path, "mine", [])


def test_what_is_known_stays_known():
  attempt = synthetic_attempt(np.random.default_rng(3))
  decoded = records.decode(records.encode(attempt), images=False)
  assert "unknown" not in decoded and decoded["objects"] == attempt["objects"]


def test_datasets_of_the_first_schema_are_read(tmp_path):
  directory = write_dataset(
    tmp_path, "old", [synthetic_attempt(np.random.default_rng(0))]
  )
  for path in (directory / "plan.json", directory / "manifest.json"):
    content = json.loads(path.read_text())
    content.get("plan", content)["schema_version"] = 1
    path.write_text(json.dumps(content))
  assert len(source.open_dataset(directory)) == 1
