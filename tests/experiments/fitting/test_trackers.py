"""Where figures go besides metrics.jsonl: TensorBoard, Weights & Biases, MLflow."""

import sys

import numpy as np
import pytest

from experiments import cli
from experiments.fitting import trackers
from experiments.fitting.loop import LoggingOptions
from experiments.fitting.training_log import TrainingLog

_IMAGE = np.full((2, 3, 3), 200, np.uint8)
_CONFIG = {"train": {"batch_size": 16}, "network": {"preset": "small"}}


class Kept:
  """A tracker that keeps what it is told, and breaks where it is asked to."""

  def __init__(self, broken=""):
    self.broken, self.told, self.finished = broken, [], None

  def scalars(self, step, values):
    if self.broken:
      raise ConnectionError(self.broken)
    self.told.append((step, dict(values)))

  def image(self, step, name, image):
    self.told.append((step, name, image.shape))

  def close(self, *, finished):
    self.finished = finished


def a_run(workdir, started, begin=0, finish=True):
  """Logs two rows, and an image and the final row if it finishes."""
  log = TrainingLog(workdir, begin, started)
  row = {"step": begin + 1, "seconds": 2.0}
  log.write({**row, "split": "train", "phase": 0, "loss": 0.5, "auc": None})
  log.write({**row, "split": "held_out", "loss": 0.25})
  if finish:
    log.image(begin + 1, "held_out/sheet", _IMAGE)
    log.finish({"step": begin + 1, "split": "held_out", "final": True, "auc": 0.75})
  else:
    log.close()
  return log


def test_trackers_get_the_figures_of_both_splits_and_the_final_ones(tmp_path):
  kept = Kept()
  a_run(tmp_path, {"kept": kept}, begin=7)
  assert kept.told == [
    (8, {"train/loss": 0.5, "train/seconds": 2.0}),
    (8, {"held_out/loss": 0.25, "held_out/seconds": 2.0}),
    (8, "held_out/sheet", (2, 3, 3)),
    (8, {"final/auc": 0.75}),
  ]
  assert kept.finished is True


def test_a_tracker_that_fails_is_left_and_nothing_else(tmp_path, caplog):
  broken, kept = Kept("the network is down"), Kept()
  log = a_run(tmp_path, {"wandb": broken, "mlflow": kept})
  assert len(log.rows()) == 2 and cli.read_jsonl(log.path)[-1]["final"]
  assert len(kept.told) == 4
  (warning,) = caplog.messages
  assert "--log_to=wandb" in warning and "the network is down" in warning
  assert str(log.path) in warning


def test_unknown_trackers_and_missing_packages_are_named(monkeypatch):
  with pytest.raises(cli.UserError, match="--log_to=wandbb: expected some of tensorb"):
    LoggingOptions(("wandbb",))
  monkeypatch.setitem(sys.modules, "mlflow", None)
  with pytest.raises(cli.UserError, match=r"pip install 'hand_eye\[mlflow\]'"):
    LoggingOptions(("tensorboard", "mlflow"))


def test_a_folder_is_not_taken_for_a_package(tmp_path, monkeypatch):
  monkeypatch.delitem(sys.modules, "wandb", raising=False)
  monkeypatch.setattr(sys, "path", [str(tmp_path)])
  (tmp_path / "wandb").mkdir()  # As W&B leaves it behind.
  with pytest.raises(cli.UserError, match=r"pip install 'hand_eye\[wandb\]'"):
    trackers.check(["wandb"])


def test_tensorboard_has_event_files(tmp_path):
  a_run(tmp_path, trackers.start(["tensorboard"], tmp_path, 0, _CONFIG))
  (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
  data = events.read_bytes()
  for name in (b"train/loss", b"held_out/sheet", b"\x89PNG", b"final/auc"):
    assert name in data


@pytest.mark.slow  # A process of its own.
def test_wandb_has_the_run_and_goes_on_with_it(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_MODE", "offline")
  a_run(tmp_path, trackers.start(["wandb"], tmp_path, 0, _CONFIG), finish=False)
  a_run(tmp_path, trackers.start(["wandb"], tmp_path, 1, _CONFIG), begin=1)
  first, second = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
  assert first.name == second.name  # run-<id>.wandb: the service joins them.
  assert b"train/loss" in first.read_bytes()
  data = second.read_bytes()
  for name in (b"held_out/loss", b"held_out/sheet", b"final/auc", b"batch_size"):
    assert name in data
  assert list(second.parent.rglob("*.png"))


@pytest.mark.slow  # A database.
def test_mlflow_has_the_run_and_goes_on_with_it(tmp_path, monkeypatch):
  pytest.importorskip("mlflow")
  pytest.importorskip("sqlalchemy")
  from mlflow.tracking import MlflowClient

  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
  a_run(tmp_path, trackers.start(["mlflow"], tmp_path, 0, _CONFIG), finish=False)
  a_run(tmp_path, trackers.start(["mlflow"], tmp_path, 1, _CONFIG), begin=1)
  client = MlflowClient()
  (run,) = client.search_runs([client.get_experiment_by_name("hand_eye").experiment_id])
  assert run.info.status == "FINISHED"
  assert run.data.params == {"train.batch_size": "16", "network.preset": "small"}
  assert run.data.metrics["final/auc"] == 0.75
  losses = client.get_metric_history(run.info.run_id, "train/loss")
  assert [(one.step, one.value) for one in losses] == [(1, 0.5), (2, 0.5)]
  (image,) = client.list_artifacts(run.info.run_id, "held_out")
  assert image.path == "held_out/sheet.png"


@pytest.mark.slow
def test_a_service_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
  pytest.importorskip("mlflow")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
  with pytest.raises(cli.UserError, match="--log_to=mlflow cannot start: .*nowhere"):
    trackers.start(["mlflow"], tmp_path, 0, _CONFIG)
