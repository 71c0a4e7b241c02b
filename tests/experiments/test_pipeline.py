"""Collecting, evaluating and the whole demo, at a size of seconds."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import plan, source
from envs import objects, protocols
from experiments import campaign, cli, collect, evaluate, statistics, train
from experiments.campaigns import settings
from experiments.configs import demo as demo_config
from experiments.evaluation import policies
from experiments.evaluation import seeds as seeds_lib
from experiments.fitting import train_config
from hand_eye import servo


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
  for round_ in config.campaign.rounds.values():
    round_.update({"num_attempts": 20, "num_steps": (2, 3), "units_at_once": (2, 4)})
    round_.train.phases = ((4, 0.01), (4, 1.0))
  config.evaluate.update(
    {
      "policies": ("random", "servo"),
      "with_replacement": {"repetitions": 2, "num_attempts": 2, "num_objects": 4},
      "without_replacement": {"repetitions": 1, "num_attempts": 2, "num_objects": 3},
      "num_units": 2,
      "num_steps": 3,
      "num_workers": 2,
      "num_videos": 1,
      "video_size": 96,
    }
  )
  return config


def networks(folder: Path) -> policies.Networks:
  return policies.Networks(servo=str(folder))


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


def test_a_collection_without_time_ends_with_what_there_is_and_can_go_on(tmp_path):
  config = tiny_config()
  config.collect.update(num_attempts=2, attempts_per_scene=1, scenes_per_shard=1)

  def first_alone(function, tasks, **_):
    yield 0, function(tasks[0])

  one = collect.collect(config, tmp_path, "train", runner=first_alone, seconds=1.0)
  assert len(source.open_dataset(one)) == 1
  collect.collect(config, tmp_path, "train", runner=first_alone)
  assert len(source.open_dataset(one)) == 2
  with pytest.raises(plan.DatasetError, match="shards .* are missing"):
    collect.collect(
      config, tmp_path / "none", "train", runner=lambda *_, **__: iter(()), seconds=1.0
    )


def test_units_and_scenes_of_different_purposes_never_mix():
  config = tiny_config()
  seeds, cameras = [], {"train": set(), "held_out": set(), "evaluate": set()}
  for seed in (0, 1, 5, 100):
    config.collect.seed = config.evaluate.seed = seed
    settings = cli.build(collect.CollectConfig, config.collect, "collect")
    evaluation = evaluate.build_config(config.evaluate)
    for round_number in (0, 1):
      for name, count in (("train", 20), ("held_out", 8)):
        scenes = collect.plan_scenes(settings, name, 72, round_number)
        assert sum(scene.num_attempts for scene in scenes) == count
        seeds += [scene.scene_seed for scene in scenes]
        cameras[name] |= {scene.unit.camera for scene in scenes}
    scenes = [
      scene
      for protocol in protocols.NAMES
      for scene in evaluate.plan_scenes(evaluation, protocol, 72)
    ]
    families = {
      name: set(objects.choose(selection).families)
      for name, selection in (
        ("train", settings.objects),
        ("held_out", settings.held_out_objects),
        ("evaluate", evaluation.objects),
      )
    }
    assert not families["train"] & (families["held_out"] | families["evaluate"])
    assert {scene.objects for scene in scenes} == {evaluation.objects}
    seeds += [scene.scene_seed for scene in scenes]
    cameras["evaluate"] |= {scene.unit.camera for scene in scenes}
  assert len(seeds) == len(set(seeds)) and max(seeds) < 2**63
  assert len(set.union(*cameras.values())) == sum(map(len, cameras.values()))


def test_seeds_out_of_range_are_refused():
  with pytest.raises(cli.UserError, match="round is 10000"):
    seeds_lib.scene_seed(seeds_lib.Purpose.TRAIN, 0, 10_000, 0)


def test_changing_one_dataset_leaves_the_other_resumable(tmp_path):
  config = tiny_config()
  config.collect.num_workers = 1
  directory = collect.collect(config, tmp_path, "held_out")
  config.collect.num_attempts = 99
  assert collect.collect(config, tmp_path, "held_out") == directory
  config.collect.num_held_out = 99
  with pytest.raises(plan.DatasetError, match="num_held_out"):
    collect.collect(config, tmp_path, "held_out")


def test_detectors_are_measured_against_the_truth():
  def row(reading, drop, truth):
    return {
      "gripper_reading": reading,
      "drop_test": drop,
      "success": reading > 0.01 or drop,
      "simulator_truth": truth,
    }

  rows = [row(0.03, True, True), row(0.0, True, True), row(0.0, True, False)]
  table = statistics.detectors([*rows, row(0.0, False, True)])
  half = {"agreement": 0.5}
  assert table["gripper reading"] == {"precision": 1.0, "recall": 1 / 3, **half}
  assert table["drop test"] == {"precision": 2 / 3, "recall": 2 / 3, **half}
  assert table["label (either)"] == {"precision": 2 / 3, "recall": 2 / 3, **half}
  assert set(statistics.detectors([])["drop test"].values()) == {None}


@pytest.mark.parametrize(
  ("section", "field", "value", "words"),
  [
    ("collect", "num_objects", 0, "num_objects is 0"),
    ("collect", "num_steps", (1,), "whole numbers from 2"),
    ("collect", "num_steps", (2.5, 3), "whole numbers from 2"),
    ("collect", "num_objects", 500, "at most 40"),
    ("evaluate", "policies", ("random", "random"), "random"),
    ("evaluate", "num_workers", -1, "at least 0"),
    ("evaluate", "policies", ("guess",), "guess.*oracle"),
    ("evaluate", "policies", ("servo:no_brakes",), "variants are.*servo:no_raise"),
    ("evaluate", "policies", ("random@1000",), "only the servo"),
    ("evaluate", "video_size", 65, "even"),
    ("evaluate", "with_replacement", {"repetitions": 1}, "num_attempts"),
    (
      "evaluate",
      "without_replacement",
      {"repetitions": 1, "num_attempts": 3, "num_objects": 41},
      "holds 1 to 40",
    ),
  ],
)
def test_bad_settings_are_one_clear_error(section, field, value, words):
  config = tiny_config()
  config[section][field] = value
  with pytest.raises(cli.UserError, match=words):
    if section == "evaluate":
      evaluate.build_config(config.evaluate)
    else:
      cli.build(collect.CollectConfig, config.collect, "collect")


def test_evaluation_without_a_checkpoint_says_what_makes_one(tmp_path):
  with pytest.raises(cli.UserError, match=r"experiments\.train"):
    evaluate.evaluate(tiny_config(), networks(tmp_path / "nowhere"), tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled_once):
  workdir = tmp_path_factory.mktemp("demo")
  campaign.campaign(tiny_config(), workdir)
  return workdir


def last_checkpoints(workdir):
  """Of the last round, whose network a campaign evaluates and exports."""
  return max((workdir / "train").glob("round_*")) / "checkpoints"


def test_the_demo_leaves_everything_it_promises(finished):
  page = (finished / "report.html").read_text(encoding="utf-8")
  gallery = json.loads((finished / "evaluate/videos/gallery.json").read_text())
  assert gallery and page.count("<video") == len(gallery)
  for policy in ("random", r"servo \(ours\)"):
    assert re.search(rf"<td[^>]*>{policy}</td>", page), policy
  assert (finished / "policy.hep").stat().st_size > 10_000
  assert (finished / "evaluate" / "units.png").is_file()
  videos = (finished / "evaluate" / "videos").glob("*.mp4")
  assert {video.name for video in videos} == {entry["file"] for entry in gallery}
  overlay = np.load(finished / "evaluate" / "overlay.npz")
  assert overlay["pixels"].shape == (192, 2)  # 3 iterations of 64 candidates
  rows = cli.read_jsonl(finished / "evaluate" / "rows.jsonl")
  table = [(row["policy"], row["protocol"]) for row in rows]
  assert len(table) == 12 and [
    len(list(same)) for _, same in itertools.groupby(table)
  ] == [4, 4, 2, 2]
  # Both policies met the same scenes.
  met = {
    policy: [(r["unit"], r["scene_seed"]) for r in rows if r["policy"] == policy]
    for policy in ("random", "servo")
  }
  assert met["random"] == met["servo"]
  summary = json.loads((finished / "evaluate" / "summary.json").read_text())
  found = summary["policies"]["servo"]
  assert found["with_replacement"]["attempts"] == 4
  assert found["without_replacement"]["first"]["10"]["attempts"] == 2


def test_evaluating_again_gives_the_same_rows(finished, tmp_path):
  rows = cli.read_jsonl(finished / "evaluate" / "rows.jsonl")
  # Half of the rows are there, one scene of them torn.
  cli.rewrite_jsonl(tmp_path / "rows.jsonl", rows[:3])
  trained = networks(last_checkpoints(finished))
  evaluate.evaluate(tiny_config(), trained, tmp_path)
  assert cli.read_jsonl(tmp_path / "rows.jsonl") == rows


def test_an_evaluation_of_other_settings_is_refused(finished):
  config = tiny_config()
  config.evaluate.num_steps = 4
  with pytest.raises(cli.UserError, match=r"evaluate\.num_steps"):
    evaluate.evaluate(
      config,
      networks(last_checkpoints(finished)),
      finished / "evaluate",
    )


@pytest.mark.parametrize("path", sorted(cli.CONFIGS.glob("[a-z]*.py")), ids=str)
def test_every_section_of_every_config_builds(path):
  config = cli.load_config(path)
  train_config.build_network(config.network)
  train_config.build_train(config.train)
  cli.build(collect.CollectConfig, config.collect, "collect")
  settings.build(config)
  evaluate.build_config(config.evaluate)
  cli.build(servo.ServoConfig, config.servo, "servo")


def test_an_evaluation_of_other_weights_is_refused(finished, tmp_path):
  config = tiny_config()
  config.train.seed = 1
  data = finished / "data"
  train.train(
    config,
    [data / "round_00" / "1.0.0"],
    [data / "held_out" / "1.0.0"],
    tmp_path / "run",
  )
  with pytest.raises(cli.UserError, match=r"policies\.servo"):
    evaluate.evaluate(
      config, networks(tmp_path / "run" / "checkpoints"), finished / "evaluate"
    )
