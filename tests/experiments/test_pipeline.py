"""Collecting, evaluating and the whole demo, at a size of seconds."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import source
from experiments import _edge, _stats, collect, demo, evaluate
from experiments.configs import demo as demo_config


def tiny_config():
  config = demo_config.get_config()
  config.network.channels = 8
  config.collect.update(
    {
      "num_attempts": 20,
      "num_held_out": 8,
      "num_units": 4,
      "num_held_out_units": 2,
      "attempts_per_scene": 3,
      "scenes_per_shard": 2,
      "num_objects": 5,
      "num_workers": 2,
    }
  )
  config.train.update(
    {"phases": ((4, 0.01), (4, 1.0)), "batch_size": 8, "eval_batch_size": 8}
  )
  config.train.update({"eval_every": 4, "log_every": 2})
  config.train.optimizer.warmup_steps = 2
  config.evaluate.update(
    {
      "num_attempts": 4,
      "num_units": 2,
      "attempts_per_scene": 2,
      "num_objects": 4,
      "num_steps": 3,
      "num_workers": 1,
      "num_videos": 1,
      "video_size": 96,
    }
  )
  return config


def file_hashes(folder: Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_one_seed_one_dataset_byte_for_byte_at_any_number_of_workers(tmp_path):
  config = tiny_config()
  first = collect.collect(config, tmp_path / "two", "train")
  config.collect.num_workers = 1
  second = collect.collect(config, tmp_path / "one", "train")
  assert file_hashes(first) == file_hashes(second)
  config.collect.seed = 1
  third = collect.collect(config, tmp_path / "other", "train")
  assert file_hashes(first) != file_hashes(third)


def test_a_collection_has_the_number_asked_for_and_can_go_on(tmp_path):
  config = tiny_config()
  config.collect.num_workers = 1
  directory = collect.collect(config, tmp_path, "train")
  dataset = source.open_dataset(directory)
  assert len(dataset) == 20
  assert len(set(dataset.attempts.unit)) == 4
  whole = file_hashes(directory)
  # As a collection that was killed leaves it: a shard and the manifest are missing.
  shard = sorted(directory.glob("*array_record-*"))[1]
  shard.unlink()
  (directory / "manifest.json").unlink()
  collect.collect(config, tmp_path, "train")
  assert file_hashes(directory) == whole


def test_units_and_scenes_of_the_two_datasets_never_mix():
  settings = _edge.build(collect.CollectConfig, tiny_config().collect, "collect")
  train = collect.plan_scenes(settings, "train", 72)
  held_out = collect.plan_scenes(settings, "held_out", 72)
  assert sum(scene.num_attempts for scene in train) == 20
  assert sum(scene.num_attempts for scene in held_out) == 8
  assert not {s.unit.name for s in train} & {s.unit.name for s in held_out}
  assert not {s.scene_seed for s in train} & {s.scene_seed for s in held_out}
  assert {s.object_group for s in held_out} == {"held_out"}


@pytest.mark.parametrize(
  ("section", "field", "value", "words"),
  [
    ("collect", "num_objects", 0, "num_objects is 0"),
    ("collect", "num_steps", (1,), "at least 2"),
    ("evaluate", "policies", ("oracle",), "oracle"),
    ("evaluate", "video_size", 65, "even"),
  ],
)
def test_bad_settings_are_one_clear_error(section, field, value, words):
  config = tiny_config()
  config[section][field] = value
  cls = {"collect": collect.CollectConfig, "evaluate": evaluate.EvaluateConfig}[section]
  with pytest.raises(_edge.UserError, match=words):
    _edge.build(cls, config[section], section)


def test_evaluation_without_a_checkpoint_says_what_makes_one(tmp_path):
  with pytest.raises(_edge.UserError, match=r"experiments\.train"):
    evaluate.evaluate(tiny_config(), tmp_path / "nowhere", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_summary_counts_and_intervals():
  rows = [{"policy": "a", "success": i < 3} for i in range(10)]
  rows += [{"policy": "b", "success": True}]
  summary = evaluate.summarise(rows, ["a", "b"])
  assert (summary["a"]["attempts"], summary["a"]["successes"]) == (10, 3)
  assert (summary["a"]["low"], summary["a"]["high"]) == _stats.wilson(3, 10)
  assert summary["b"]["rate"] == 1.0
  assert "30.0 %" in evaluate.describe(summary)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("demo")
  demo.demo(tiny_config(), workdir)
  return workdir


def test_the_demo_leaves_everything_it_promises(finished):
  page = (finished / "report.html").read_text(encoding="utf-8")
  assert "<video" in page and "random" in page and "servo" in page
  assert (finished / "policy.hep").stat().st_size > 10_000
  assert (finished / "evaluate" / "units.png").is_file()
  assert len(list((finished / "evaluate" / "videos").glob("*.mp4"))) == 1
  overlay = np.load(finished / "evaluate" / "overlay.npz")
  assert overlay["pixels"].shape == (192, 2)  # 3 iterations of 64 candidates
  rows = _edge.read_jsonl(finished / "evaluate" / "rows.jsonl")
  assert [row["policy"] for row in rows] == ["random"] * 4 + ["servo"] * 4
  # Both policies met the same scenes.
  scenes = [(row["unit"], row["scene_seed"]) for row in rows]
  assert scenes[:4] == scenes[4:]
  summary = json.loads((finished / "evaluate" / "summary.json").read_text())
  assert summary["policies"]["servo"]["attempts"] == 4


def test_evaluating_again_gives_the_same_rows(finished, tmp_path):
  rows = _edge.read_jsonl(finished / "evaluate" / "rows.jsonl")
  # Half of the rows are there, one scene of them torn.
  _edge.rewrite_jsonl(tmp_path / "rows.jsonl", rows[:3])
  evaluate.evaluate(tiny_config(), finished / "train" / "checkpoints", tmp_path)
  assert _edge.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_an_evaluation_of_other_settings_is_refused(finished):
  config = tiny_config()
  config.evaluate.num_steps = 4
  with pytest.raises(_edge.UserError, match=r"evaluate\.num_steps"):
    evaluate.evaluate(config, finished / "train" / "checkpoints", finished / "evaluate")
