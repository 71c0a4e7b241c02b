"""Training: the same seed gives the same weights, interrupted or not; it learns."""

import jax
import numpy as np
import pytest

from data_pipeline import loader as loader_lib
from experiments import cli, train
from experiments.configs import demo, levine2016
from experiments.fitting import curriculum, loop, train_config
from hand_eye import checkpoint
from tests.data_pipeline import synthetic

NETWORK = {
  "preset": "small",
  "channels": 8,
  "image_convs": 1,
  "command_convs": 1,
  "dense_units": (16,),
}


def train_section(**changes):
  """A short training: zero commands, then all, evaluated every four steps."""
  section = dict(
    demo.train().items(),
    phases=((6, 0.01), (6, 1.0)),
    batch_size=16,
    eval_batch_size=16,
    log_every=2,
    eval_every=4,
  )
  section["optimizer"] = dict(section["optimizer"].items(), warmup_steps=2)
  section.update(changes)
  return section


@pytest.fixture(scope="module")
def data(tmp_path_factory, compiled_once):
  """Folders of a training and a held-out dataset of synthetic attempts."""
  root = tmp_path_factory.mktemp("data")
  return (
    synthetic.write_synthetic_dataset(root, "train", num_attempts=48, seed=0),
    synthetic.write_synthetic_dataset(
      root, "held_out", num_attempts=24, first_unit=4, seed=1
    ),
  )


def run(data, workdir, on_batch=loop.unchanged, **changes):
  """The final row of metrics.jsonl."""
  config = {"network": NETWORK, "train": train_section(**changes)}
  made = train.train(
    config,
    [data[0]],
    [data[1]],
    workdir,
    log_options=loop.LoggingOptions(("tensorboard",)),
    on_batch=on_batch,
  )
  assert made.weights.step == made.metrics["step"]
  assert made.weights.config.channels == NETWORK["channels"]
  return made.metrics


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
  """The work folder of an uninterrupted run, and its final row."""
  workdir = tmp_path_factory.mktemp("run")
  return workdir, run(data, workdir)


def weights(workdir):
  policy = checkpoint.load_policy(workdir / "checkpoints", step="last")
  assert policy.step == 12
  return jax.tree.leaves((policy.params, policy.batch_stats))


def test_an_interrupted_run_ends_with_the_same_bits(data, finished, tmp_path):
  def die(step, batch, on_device):
    if step == 11:  # after the checkpoint of step 8, in the second phase
      raise KeyboardInterrupt
    return on_device

  with pytest.raises(KeyboardInterrupt):
    run(data, tmp_path, on_batch=die)
  assert not (tmp_path / "held_out_predictions.npz").exists()
  row = run(data, tmp_path)

  for mine, theirs in zip(weights(tmp_path), weights(finished[0]), strict=True):
    np.testing.assert_array_equal(mine, theirs)
  timeless = ("seconds", "samples_per_second", "wait_share", "rows")
  rows = [
    [{k: v for k, v in one.items() if k not in timeless} for one in read]
    for read in map(cli.read_jsonl, metrics_files(tmp_path, finished[0]))
  ]
  assert rows[0] == rows[1]
  assert row["auc"] == finished[1]["auc"]


def metrics_files(*workdirs):
  return [workdir / "metrics.jsonl" for workdir in workdirs]


def test_metrics_have_both_splits_and_the_curriculum(finished):
  rows = cli.read_jsonl(finished[0] / "metrics.jsonl")
  training = [row for row in rows if row["split"] == "train"]
  held_out = [
    row for row in rows if row["split"] == "held_out" and not row.get("final")
  ]
  assert [row["step"] for row in training] == [2, 4, 6, 8, 10, 12]
  assert [row["phase"] for row in training] == [0, 0, 0, 1, 1, 1]
  assert [row["step"] for row in held_out] == [4, 8, 12]
  (events,) = (finished[0] / "tensorboard").glob("events.out.tfevents.*")
  assert b"held_out/auc" in events.read_bytes()
  assert sum(bool(row.get("final")) for row in rows) == 1
  for row in training:
    assert 0.0 <= row["wait_share"] <= 1.0
    assert row["samples_per_second"] > 0


def test_the_final_row_is_that_of_the_best_checkpoint(finished):
  workdir, final = finished
  rows = cli.read_jsonl(workdir / "metrics.jsonl")
  best = max(
    (r for r in rows if r["split"] == "held_out" and not r.get("final")),
    key=lambda row: row["auc"],
  )
  assert final["auc"] == pytest.approx(best["auc"], abs=1e-6)
  assert final["auc_low"] <= final["auc"] <= final["auc_high"]
  assert f"step {final['step']}," in loop.describe(final)


def test_predictions_hold_every_held_out_sample_once(finished):
  with np.load(finished[0] / "held_out_predictions.npz") as arrays:
    assert arrays["label"].shape == (24 * 3,)
    pairs = set(zip(arrays["attempt"].tolist(), arrays["step"].tolist(), strict=True))
    assert len(pairs) == 24 * 3
    assert np.all((arrays["probability"] >= 0) & (arrays["probability"] <= 1))
    assert np.all(arrays["distance"][arrays["step"] == arrays["num_steps"]] == 0)


def test_a_finished_run_is_not_trained_again(data, finished):
  before = (finished[0] / "metrics.jsonl").read_text()
  assert run(data, finished[0])["auc"] == finished[1]["auc"]
  assert (finished[0] / "metrics.jsonl").read_text() == before


def test_another_config_in_the_same_workdir_is_refused(data, finished):
  with pytest.raises(cli.UserError, match="train.batch_size is 16, not 8"):
    run(data, finished[0], batch_size=8)


@pytest.mark.slow
def test_a_run_that_diverges_stops(data, tmp_path):
  optimizer = {"name": "sgd", "learning_rate": 1e30, "clip_norm": 0.0}
  with pytest.raises(loop.TrainingError, match=r"not finite at step \d+ .*attempts"):
    run(data, tmp_path, optimizer=optimizer, jitter={})


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"batch_size": 0}, "batch_size is 0"),
    ({"phases": ()}, "phases is ()"),
    ({"phases": ((3, 0.0),)}, "phases has (3, 0.0)"),
    ({"phases": 3}, "phases is 3"),
    ({"epochs": 3}, "unknown field 'epochs'"),
    ({"optimizer": {"rate": 1}}, "unknown field 'rate'"),
    ({"optimizer": {"name": "adamm"}}, "unknown optimizer 'adamm'"),
    ({"jitter": {"contrast": 2.0}}, "contrast is 2.0"),
  ],
)
def test_a_wrong_section_is_named_before_anything_is_written(
  data, tmp_path, changes, words
):
  with pytest.raises(cli.UserError) as caught:
    run(data, tmp_path / "run", **changes)
  assert words in str(caught.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("network", "words"),
  [
    ({"preset": "huge"}, "unknown preset 'huge'"),
    ({"preset": "small", "colour": 1}, "colour"),
    ({"preset": "levine2016"}, "frames of 72 pixels"),
  ],
)
def test_a_wrong_network_is_named(data, tmp_path, network, words):
  config = {"network": network, "train": train_section()}
  with pytest.raises(cli.UserError, match=words):
    train.train(config, [data[0]], [data[1]], tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_data_must_be_there_and_apart(data, tmp_path):
  with pytest.raises(cli.UserError, match="--data is needed"):
    train.open_data([], [data[1]], 72)
  with pytest.raises(cli.UserError, match="--held_out=.*does not exist"):
    train.open_data([data[0]], [tmp_path / "nothing"], 72)
  with pytest.raises(cli.UserError, match="shares 4 units"):
    train.open_data([data[0]], [data[0]], 72)
  merged, _ = train.open_data([data[0]], [data[1]], 72)
  assert len(merged) == 48


def test_an_empty_folder_is_no_dataset(tmp_path, data):
  (tmp_path / "empty").mkdir()
  with pytest.raises(Exception, match="no dataset in") as caught:
    train.open_data([tmp_path / "empty"], [data[1]], 72)
  assert cli.message_for_user(caught.value)


def test_each_phase_has_its_own_order_and_reach():
  settings = train_config.build_train(train_section())
  first, second = curriculum.loader_configs(settings, crop_size=64)
  assert first.seed != second.seed
  assert (first.max_distance, second.max_distance) == (0.01, 1.0)
  other = train_config.build_train(train_section(seed=1))
  seeds = {c.seed for c in curriculum.loader_configs(other, crop_size=64)}
  assert not seeds & {first.seed, second.seed}
  assert [settings.phase_at(step) for step in (0, 5, 6, 11, 12)] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("config", [demo, levine2016])
def test_the_shipped_configs_build(config):
  made = config.get_config()
  network = train_config.build_network(made.network)
  settings = train_config.build_train(made.train)
  assert network.name == made.network.preset
  assert settings.optimizer.decay_steps == settings.num_steps
  assert all(isinstance(c, loader_lib.LoaderConfig) for c in curriculum.loader_configs(
    settings, network.crop_size
  ))  # fmt: skip


@pytest.mark.slow
def test_a_synthetic_rule_is_learned(data, tmp_path):
  row = run(
    data, tmp_path, phases=((120, 0.01),), batch_size=32, eval_every=40, log_every=20
  )
  assert row["auc_zero"] > 0.95
  assert row["auc_zero_low"] > 0.5
