"""Shows a run's metrics in TensorBoard, Weights & Biases and MLflow.

Each service is configured as its own users do it: `wandb login` and WANDB_* variables,
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME. A run that is continued goes on there as
the same run: its ids are in the work folder's trackers.json.
"""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from experiments import cli

_IDS = "trackers.json"
_PROJECT = "hand_eye"


class Tracker(Protocol):
  """A service that shows the metrics of one run."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Takes metrics of a step by name, `train/loss`."""

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Takes uint8[H, W, 3]."""

  def close(self, *, finished: bool) -> None:
    """Writes what is left. A run that has not finished may be continued."""


def check(names: Sequence[str]) -> None:
  """Raises UserError if a tracker is unknown, or its package is not installed."""
  for name in names:
    if name not in _TRACKERS:
      raise cli.UserError(f"--log_to={name}: expected some of {', '.join(_TRACKERS)}")
    package, _ = _TRACKERS[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # A mere folder of that name has none.
      raise cli.UserError(
        f"--log_to={name} needs the package {package}: pip install 'hand_eye[{name}]'"
      )


def start(
  names: Sequence[str], workdir: Path, begin: int, config: Mapping[str, Any]
) -> dict[str, Tracker]:
  """Starts the trackers of a run, or continues them after `begin` steps.

  Args:
    names: of `tensorboard`, `wandb` and `mlflow`.
    workdir: of the run; its last two parts are the run's name.
    begin: steps that were taken before.
    config: what the run depends on, in sections.

  Raises:
    UserError: see `check`; or a service cannot be reached or lets nobody in.
  """
  check(names)
  started: dict[str, Tracker] = {}
  for name in dict.fromkeys(names):
    try:
      started[name] = _TRACKERS[name][1](workdir, begin, config)
    except Exception as error:  # Each service has errors of its own.
      for tracker in started.values():
        tracker.close(finished=False)
      raise cli.UserError(
        f"--log_to={name} cannot start: {error}; fix that, or leave {name} out"
      ) from error
  return started


class TensorBoard:
  """Event files in the work folder's tensorboard/."""

  def __init__(self, workdir: Path, begin: int, config: Mapping[str, Any]):
    from tensorboardX import SummaryWriter

    del config
    # Of steps that will be taken again, TensorBoard drops what it had.
    self._events = SummaryWriter(
      str(workdir / "tensorboard"), purge_step=begin + 1, flush_secs=10
    )

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._events.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._events.add_image(name, image, step, dataformats="HWC")

  def close(self, *, finished: bool) -> None:
    del finished
    self._events.close()


class WeightsAndBiases:
  """A run of Weights & Biases; its files are in the work folder's wandb/."""

  def __init__(self, workdir: Path, begin: int, config: Mapping[str, Any]):
    import wandb

    del begin  # Steps that are taken again are drawn again, at the same place.
    before = _ids(workdir).get("wandb")
    self._image = wandb.Image
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", _PROJECT),
      name=os.environ.get("WANDB_NAME", _run_name(workdir)),
      id=before or os.environ.get("WANDB_RUN_ID"),
      resume="allow" if before else None,
      dir=str(workdir),
      config=dict(config),
      settings=wandb.Settings(console="off"),
    )
    # Its own steps only count up, ours go back where a run is continued.
    self._run.define_metric("step", hidden=True)
    self._run.define_metric("*", step_metric="step")
    _remember(workdir, "wandb", self._run.id)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log({**values, "step": step})

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._run.log({name: self._image(image), "step": step})

  def close(self, *, finished: bool) -> None:
    self._run.finish(exit_code=0 if finished else 1)


class MLflow:
  """A run of MLflow; without MLFLOW_TRACKING_URI in ./mlflow.db."""

  def __init__(self, workdir: Path, begin: int, config: Mapping[str, Any]):
    from mlflow import entities
    from mlflow.tracking import MlflowClient

    del begin  # MLflow keeps both values of a step that is taken again.
    self._metric = entities.Metric
    self._client = MlflowClient()
    self._run_id = _ids(workdir).get("mlflow")
    if self._run_id:
      self._client.update_run(self._run_id, status="RUNNING")
      return
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    experiment = self._client.get_experiment_by_name(name)
    run = self._client.create_run(
      experiment.experiment_id if experiment else self._client.create_experiment(name),
      run_name=_run_name(workdir),
    )
    self._run_id = run.info.run_id
    params = [entities.Param(key, value) for key, value in _flat(config).items()]
    self._client.log_batch(self._run_id, params=params)
    _remember(workdir, "mlflow", self._run_id)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    now = int(1000 * time.time())
    metrics = [self._metric(key, value, now, step) for key, value in values.items()]
    self._client.log_batch(self._run_id, metrics=metrics)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    del step
    self._client.log_image(self._run_id, image, artifact_file=f"{name}.png")

  def close(self, *, finished: bool) -> None:
    self._client.set_terminated(self._run_id, "FINISHED" if finished else "KILLED")


# The package that each needs, and what starts it. Their extras have the same names.
_TRACKERS: Mapping[str, tuple[str, Callable[..., Tracker]]] = {
  "tensorboard": ("tensorboardX", TensorBoard),
  "wandb": ("wandb", WeightsAndBiases),
  "mlflow": ("mlflow", MLflow),
}
NAMES = tuple(_TRACKERS)


def _run_name(workdir: Path) -> str:
  return "/".join(workdir.resolve().parts[-2:])


def _ids(workdir: Path) -> dict[str, str]:
  return cli.read_json(workdir / _IDS)


def _remember(workdir: Path, name: str, run_id: str) -> None:
  cli.write_json(workdir / _IDS, {**_ids(workdir), name: run_id})


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
  """{'section.field': text}, as MLflow takes parameters: at most 500 characters."""
  found: dict[str, str] = {}
  for name, value in config.items():
    if isinstance(value, Mapping):
      found |= _flat(value, f"{prefix}{name}.")
    else:
      found[prefix + str(name)] = str(value)[:500]
  return found
