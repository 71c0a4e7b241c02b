"""Metrics of a window of training steps, and how the time was spent."""

import math
import time
from concurrent import futures
from typing import Any

import jax
import numpy as np

from data_pipeline import loader as loader_lib
from experiments import cli
from experiments.fitting import curriculum
from experiments.fitting.train_config import TrainConfig
from hand_eye import losses, training


class NonFiniteError(ArithmeticError):
  """The loss or the gradient of a step is not finite.

  Attributes:
    step: which.
    attempts: of this host's samples in its batch, indices into the dataset, sorted.
    gradient_norm: of the step.
  """

  def __init__(self, step: int, attempts: list[int], gradient_norm: float):
    super().__init__(f"loss or gradient is not finite at step {step}")
    self.step, self.attempts, self.gradient_norm = step, attempts, gradient_norm


class Meter:
  """Adds up the metrics of a window of steps, and where the time went.

  At most one step is under way while the next batch is fetched, so that the rate on
  the progress bar is that of finished steps.
  """

  def __init__(
    self, settings: TrainConfig, seconds_before: float, mesh: jax.sharding.Mesh
  ):
    self._settings, self._mesh = settings, mesh
    self._before = seconds_before
    self._total = cli.Stopwatch()
    self._watcher = futures.ThreadPoolExecutor(1)
    self._previous: futures.Future[float] | None = None
    self.restart()

  @property
  def seconds(self) -> float:
    """Of the whole run, parts before an interruption included."""
    return round(self._before + self._total.seconds, 2)

  def restart(self) -> None:
    """Begins a window; what lies between (an evaluation) is not counted."""
    self._window = cli.Stopwatch()
    self._waited = 0.0
    self._steps: list[int] = []
    self._attempts: list[np.ndarray] = []
    self._replaced = 0
    self._metrics: list[training.TrainMetrics] = []

  def fetch(
    self, batches: curriculum.Batches
  ) -> tuple[loader_lib.Batch, training.Batch]:
    """The next batch, here and on the device, where it travels during the step before.

    Waiting is what passes after the device has run dry.
    """
    begin = time.perf_counter()
    batch = next(batches)
    on_device = curriculum.to_device(batch, self._mesh)
    end = time.perf_counter()
    if self._previous is None:
      self._waited += end - begin
    else:
      self._waited += max(0.0, end - max(begin, self._previous.result()))
    return batch, on_device

  def add(
    self, step: int, batch: loader_lib.Batch, metrics: training.TrainMetrics
  ) -> None:
    """Enters a step that was started."""
    self._steps.append(step)
    self._attempts.append(batch["attempt"])
    self._replaced += int(batch["replaced"].sum())
    self._metrics.append(metrics)
    self._previous = self._watcher.submit(_when_ready, metrics.gradient_norm)

  def row(self, phase: int) -> dict[str, Any]:
    """The training row of the window, which ends here.

    Raises:
      NonFiniteError: a loss or a gradient in it was not finite.
    """
    metrics = jax.device_get(self._metrics)
    for step, attempts, one in zip(self._steps, self._attempts, metrics, strict=True):
      if not one.finite:
        raise NonFiniteError(
          step, sorted(set(attempts.tolist())), float(one.gradient_norm)
        )
    sums: losses.MetricSums = metrics[0].sums
    for one in metrics[1:]:
      sums = sums + one.sums
    seconds = max(self._window.seconds, 1e-9)
    figures = sums.summary()
    row = {
      "step": self._steps[-1],
      "seconds": self.seconds,
      "split": "train",
      "phase": phase,
      **{
        name: None if math.isnan(figures[name]) else figures[name]
        for name in ("loss", "accuracy", "auc", "positive_rate")
      },
      "auxiliary": float(np.mean([one.auxiliary for one in metrics])),
      "gradient_norm": float(np.mean([one.gradient_norm for one in metrics])),
      "samples_per_second": len(metrics) * self._settings.batch_size / seconds,
      "wait_share": min(1.0, self._waited / seconds),
    }
    if self._replaced:
      row["replaced"] = self._replaced  # samples whose records are broken
    self.restart()
    return row


def _when_ready(array: jax.Array) -> float:
  """Waits for a step of the device; the time at which it was done."""
  jax.block_until_ready(array)
  return time.perf_counter()
