"""The check as a program; training on data that is broken, mixed or chosen."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipeline import frames as frames_lib
from data_pipeline import plan as plan_lib
from data_pipeline import samples, source
from data_pipeline.splits import Filter
from experiments import check_data, cli, train
from experiments.datasets import options as options_lib
from experiments.fitting import held_out_evaluation
from hand_eye import training
from tests.data_pipeline import synthetic

_ROOT = Path(check_data.__file__).parents[1]


@pytest.fixture
def data(tmp_path):
  """A dataset of 24 attempts in 3 shards, 72 pixels."""
  return synthetic.write_synthetic_dataset(tmp_path / "data", num_shards=3)


@pytest.fixture
def held_out(tmp_path):
  return synthetic.write_synthetic_dataset(
    tmp_path / "data", "held_out", num_attempts=8, first_unit=4, seed=1
  )


def _flip(directory, shard, position=20_000):
  path = sorted(directory.glob("*.array_record-*"))[shard]
  content = bytearray(path.read_bytes())
  content[position] ^= 1
  path.write_bytes(content)
  return path


def _check(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "experiments.check_data", *arguments],
    cwd=_ROOT,
    env={**os.environ, "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
  )


def test_the_program_names_what_is_broken_moves_it_and_then_is_content(data):
  path = _flip(data, 1)
  done = _check(f"--data={data}", "--quarantine")
  assert done.returncode == 1, done.stderr
  assert f"broken: {path.name}, record " in done.stdout
  assert "23 attempts are sound; 2 problems in 1 of 3 shards" in done.stdout
  assert "moved 1 shards into" in done.stdout
  assert (data / "quarantine" / path.name).is_file() and not path.exists()
  done = _check(f"--data={data}")
  assert done.returncode == 0, done.stdout
  assert "16 attempts are sound; 0 problems in 0 of 3 shards" in done.stdout
  assert "1 shards are not there yet or in quarantine: [1]" in done.stdout


def test_without_quarantine_nothing_is_moved(data):
  path = _flip(data, 0)
  (checked,) = check_data.check_data([data])
  assert not checked.is_repaired and path.exists()
  assert "--quarantine moves them away" in check_data.describe(checked)


def test_where_no_shard_is_broken_nothing_is_moved(data):
  plan_lib.dataset_index(data).write_bytes(b"?")
  (seen,) = check_data.check_data([data])
  assert "run the collection again to repair the rest" in check_data.describe(seen)
  (checked,) = check_data.check_data([data], quarantine=True)
  assert checked.is_repaired and checked.num_moved == 0
  text = check_data.describe(checked)
  assert "none was moved" in text and "run the collection again" not in text
  assert check_data.check_data([data])[0].report.problems == ()


def test_of_an_unfinished_dataset_broken_shards_are_moved_only(data):
  (data / "manifest.json").unlink()
  path = _flip(data, 1)
  (checked,) = check_data.check_data([data], quarantine=True)
  assert checked.num_moved == 1 and not checked.is_repaired and not path.exists()
  assert "moved 1 shards into" in check_data.describe(checked)
  # And of what is outside of shards nothing is mended before it is finished.
  plan_lib.shard_index(data, 0).unlink()
  (checked,) = check_data.check_data([data], quarantine=True)
  assert checked.num_moved == 0 and not checked.is_repaired
  assert "run the collection again to repair the rest" in check_data.describe(checked)


def test_what_is_no_dataset_is_named(tmp_path):
  with pytest.raises(cli.UserError, match="--data is needed"):
    check_data.check_data([])
  with pytest.raises(cli.UserError, match="does not exist"):
    check_data.check_data([tmp_path / "nothing"])
  with pytest.raises(plan_lib.DatasetError, match="no dataset was begun"):
    check_data.check_data([tmp_path])


def test_broken_records_are_named_or_left_out_before_training(data, held_out):
  path = _flip(data, 1)
  with pytest.raises(plan_lib.DatasetError, match=rf"record \d+ of .*{path.name}"):
    train.open_data([data], [held_out], 72)
  options = options_lib.DataOptions(on_bad_record="skip")
  opened, _ = train.open_data([data], [held_out], 72, options)
  assert len(opened) == 23 and path.name in opened.broken[0]
  options = options_lib.DataOptions(verify="index")
  assert len(train.open_data([data], [held_out], 72, options)[0]) == 24


def test_what_stands_in_for_a_broken_held_out_sample_is_not_evaluated(held_out):
  """Records that break after the dataset was opened: 24 samples, 3 of them broken."""
  opened = source.open_dataset(held_out, on_bad_record="skip")
  frames = frames_lib.DecodedFrames(opened)
  _flip(held_out, 1, 5000)
  weights = []

  class Sums:
    def __add__(self, _):
      return self

    def summary(self):
      return {"loss": 0.5}

  def eval_step(_, batch, weight):
    weights.append(np.asarray(weight))
    return Sums(), np.asarray(batch.command[:, 0])

  evaluate = held_out_evaluation.make_evaluator(
    opened, frames, 64, 10, eval_step, training.make_mesh(jax.devices()[:1])
  )
  found = evaluate(None)
  (broken,) = set(range(8)) - set(found.attempt.tolist())
  pairs = list(zip(found.attempt.tolist(), found.step.tolist(), strict=True))
  assert pairs == [(a, t) for a in range(8) if a != broken for t in (1, 2, 3)]
  every = np.concatenate(weights)
  gone = np.arange(30) // 3 == broken
  np.testing.assert_array_equal(every, (np.arange(30) < 24) & ~gone)
  expected = samples.samples_of(opened.attempts).command[:, 0]
  np.testing.assert_array_equal(found.probability, expected[~gone[:24]])


def test_large_datasets_are_opened_by_their_index(data, held_out, monkeypatch):
  _flip(data, 1)
  monkeypatch.setattr(options_lib, "_SMALL", 1000)
  assert len(train.open_data([data], [held_out], 72)[0]) == 24


@pytest.mark.parametrize(
  ("entries", "folders", "weights"),
  [
    (["a", "b"], ["a", "b"], ()),
    (["a:0.5", "b:0.5"], ["a", "b"], (0.5, 0.5)),
    (["runs/a:3", Path("b:1")], ["runs/a", "b"], (3.0, 1.0)),
    (["odd:name"], ["odd:name"], ()),
    (["odd:name:2"], ["odd:name"], (2.0,)),
  ],
)
def test_folders_may_have_weights(entries, folders, weights):
  assert options_lib.parse_mixture(entries) == (folders, weights)


@pytest.mark.parametrize(
  "entries", [["a:0.5", "b"], ["a:0", "b:1"], ["a:-1"], ["a:inf"]]
)
def test_weights_that_are_none_are_named(entries):
  with pytest.raises(cli.UserError, match="--data.*weight"):
    options_lib.parse_mixture(entries)


def test_filters_are_read():
  assert options_lib.parse_filter([]) == Filter()
  assert options_lib.parse_filter(["unit=a, b", "round=0,2", "family=box"]) == Filter(
    units=("a", "b"), rounds=(0, 2), families=("box",)
  )


@pytest.mark.parametrize(
  ("entries", "words"),
  [
    (["colour=red"], "--only=colour=red: expected NAME=VALUE"),
    (["unit="], "--only=unit=: expected NAME=VALUE"),
    (["round=last"], "whole numbers of rounds"),
    (["unit=a", "unit=b"], "given twice"),
  ],
)
def test_filters_that_are_none_are_named(entries, words):
  with pytest.raises(cli.UserError, match=words):
    options_lib.parse_filter(entries)


@pytest.mark.parametrize("text", ["unit", "unit:2", "sample:0.5", "unit:half"])
def test_splits_that_are_none_are_named(text):
  with pytest.raises(cli.UserError, match=f"--split={text}: expected one of unit"):
    options_lib.parse_split(text)


def test_a_part_of_the_data_can_be_chosen_and_held_out(data, held_out):
  options = options_lib.DataOptions(
    only=("unit=unit-0,unit-1,unit-2",), split="unit:0.34"
  )
  rest, held = train.open_data([data], [], 72, options)
  units = set(rest.attempts.unit), set(held.attempts.unit)
  assert [len(part) for part in units] == [2, 1]
  assert set.union(*units) == {"unit-0", "unit-1", "unit-2"}
  with pytest.raises(cli.UserError, match="--held_out and --split exclude"):
    train.open_data([data], [held_out], 72, options)


@pytest.mark.slow
def test_a_mixture_is_trained_on_and_resumed(data, held_out, tmp_path):
  from experiments.configs import demo

  more = synthetic.write_synthetic_dataset(
    tmp_path / "data", "more", num_attempts=12, policy="servo", round_number=1, seed=2
  )
  config = demo.get_config()
  config.network.update({"channels": 8, "image_convs": 1})
  config.train.update({"phases": ((4, 1.0),), "batch_size": 8, "eval_batch_size": 8})
  config.train.update({"eval_every": 2, "log_every": 2})
  config.train.optimizer.warmup_steps = 1
  mixed = [f"{data}:0.75", f"{more}:0.25"]
  made = train.train(config, mixed, [held_out], tmp_path / "run")
  assert np.isfinite(made.metrics["loss"])
  again = train.train(config, mixed, [held_out], tmp_path / "run")
  assert again.metrics["auc"] == made.metrics["auc"]
  with pytest.raises(cli.UserError, match="data.mixture is"):
    train.train(config, [f"{data}:0.5", f"{more}:0.5"], [held_out], tmp_path / "run")


def test_the_default_reads_the_datasets_in_the_order_given(data, held_out):
  opened, _ = train.open_data([data], [held_out], 72)
  assert opened.fingerprint == source.open_dataset(data).fingerprint
