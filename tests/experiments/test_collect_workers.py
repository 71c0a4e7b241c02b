"""Several collections fill one dataset without a word between them."""

import pytest

from data_pipeline import files, writer
from data_pipeline import plan as plan_lib
from experiments import _edge, collect
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
  rows = _edge.read_jsonl(shared.parent / "collection.jsonl")
  assert sorted(row["shard"] for row in rows) == [0, 1, 2]


def test_a_worker_that_is_not_there_is_named(tmp_path):
  with pytest.raises(plan_lib.DatasetError, match="worker_index is 2, expected 0 to 1"):
    collect.collect(_config(), tmp_path, "train", worker_index=2, worker_count=2)
