"""The training loop: curriculum, metrics, evaluation, checkpoints, resuming."""

import dataclasses
import math
import time
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import source
from experiments import _edge, _held_out
from experiments._distances import RANGES
from experiments._train_config import TrainConfig
from hand_eye import checkpoint, losses, training
from hand_eye import network as network_lib


class TrainingError(RuntimeError):
  """Training cannot go on; the message says at which step and with which attempts."""


@dataclasses.dataclass(frozen=True)
class Loading:
  """How batches are made.

  Attributes:
    mixture: share of each dataset in them; empty for as many samples as each has.
    num_threads: threads that make them; does not change them.
    num_workers: processes that make them; does not change them. With any, images are
      not kept in memory, of which each would have its own copy.
  """

  mixture: tuple[float, ...] = ()
  num_threads: int = 1
  num_workers: int = 0


ONE_THREAD = Loading()


class Fit:
  """A run of training. Making one checks the data, `run` writes."""

  def __init__(
    self,
    network: network_lib.NetworkConfig,
    settings: TrainConfig,
    train_set: source.Dataset,
    held_out_set: source.Dataset,
    loading: Loading = ONE_THREAD,
  ):
    """Raises LoaderError if a phase of the curriculum has no full batch of samples."""
    self._network, self._settings = network, settings
    self._train_set, self._held_out_set = train_set, held_out_set
    self._cache_bytes = 0 if loading.num_workers else settings.cache_bytes
    self._phases = loader_configs(settings, network.crop_size, loading)
    for phase in self._phases:
      loader_lib.make_loader(train_set, phase)

  def run(self, workdir: Path, experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Trains from the last checkpoint (or from nothing) to the end; see train.train."""
    settings, network = self._settings, self._network
    mesh = training.make_mesh()
    predictor = network_lib.build_predictor(network)
    optimizer = training.make_optimizer(settings.optimizer)
    train_step = training.make_train_step(
      predictor, optimizer, ema_decay=settings.ema_decay, mesh=mesh
    )
    evaluate = _held_out.make_evaluator(
      self._held_out_set,
      frames_lib.load_frames(self._held_out_set, settings.cache_bytes),
      network.crop_size,
      settings.eval_batch_size,
      training.make_eval_step(predictor, mesh=mesh),
    )
    frames = frames_lib.load_frames(self._train_set, self._cache_bytes)
    state = training.init_state(
      predictor, optimizer, jax.random.key(settings.seed), mesh=mesh
    )
    checkpoints = workdir / "checkpoints"
    log = _edge.JsonLines(workdir / "metrics.jsonl")

    with checkpoint.Checkpointer(
      checkpoints, network, experiment=experiment
    ) as checkpointer:
      begin, data_state = 0, None
      if checkpointer.latest_step is not None:
        state, data_state, begin = checkpointer.restore(state)
        logging.info("continuing from step %d", begin)
      done = _rewind(log, begin)
      meter = _Meter(settings, done, mesh)
      batches = _Batches(self._train_set, self._phases, settings, frames)
      batches.start(begin, data_state)

      with _edge.progress(
        settings.num_steps * settings.batch_size,
        "train",
        "samples",
        initial=begin * settings.batch_size,
      ) as bar:
        for step in range(begin + 1, settings.num_steps + 1):
          batch, on_device = meter.fetch(batches)
          state, metrics = train_step(state, on_device)
          meter.add(step, batch, metrics)
          bar.update(settings.batch_size)

          last = step == settings.num_steps
          is_due = last or step % settings.eval_every == 0
          if is_due or step % settings.log_every == 0:
            row = meter.row(batches.phase)
            log.write(row)
            bar.set_postfix_str(
              f"loss {row['loss']:.3f}, waiting {100 * row['wait_share']:.0f} %",
              refresh=False,
            )
          if is_due:
            row = evaluate(state).row(intervals=False)
            log.write({"step": step, "seconds": meter.seconds, **_HELD_OUT, **row})
            checkpointer.save(state, score=row["auc"], data_state=batches.state())
            meter.restart()

    return self._finish(workdir, evaluate, state, log)

  def _finish(
    self, workdir: Path, evaluate: Any, state: training.TrainState, log: Any
  ) -> dict[str, Any]:
    """Evaluates the best checkpoint, the one that is exported, with intervals."""
    weights = checkpoint.load_policy(workdir / "checkpoints", step="best")
    predictions = evaluate(
      dataclasses.replace(
        state, ema_params=weights.params, ema_batch_stats=weights.batch_stats
      )
    )
    rows = [row for row in _edge.read_jsonl(log.path) if not row.get("final")]
    final = {
      "step": weights.step,
      "seconds": rows[-1]["seconds"] if rows else 0.0,
      **_HELD_OUT,
      "final": True,
      "evaluations": sum(row["split"] == "held_out" for row in rows),
      **predictions.row(intervals=True),
    }
    predictions.save(workdir / "held_out_predictions.npz")
    _edge.rewrite_jsonl(log.path, [*rows, final])
    return final


_HELD_OUT = {"split": "held_out"}


def describe(row: Mapping[str, Any]) -> str:
  """The final held-out row in a line or two, for the terminal."""
  lines = [
    f"Best checkpoint: step {row['step']}, the best of {row['evaluations']} held-out"
    f" evaluations; held-out loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}"
  ]
  for name, label, _, _ in RANGES:
    value, low, high = (row.get(f"auc{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
      words = "not defined (it needs successes and failures)"
    elif low is None:
      words = f"{value:.3f}, too few attempts for an interval"
    else:
      words = f"{value:.3f} (95 % interval {low:.3f} to {high:.3f})"
    lines.append(f"  AUC, {label}: {words}, {row[f'samples{name}']} samples")
  return "\n".join(lines)


def loader_configs(
  settings: TrainConfig, crop_size: int, loading: Loading = ONE_THREAD
) -> list[loader_lib.LoaderConfig]:
  """One loader a phase; each has an order and augmentation of its own."""
  return [
    loader_lib.LoaderConfig(
      batch_size=settings.batch_size,
      crop_size=crop_size,
      seed=settings.seed * len(settings.phases) + phase,
      mirror_probability=settings.mirror_probability,
      jitter=settings.jitter,
      max_distance=longest,
      mixture=loading.mixture,
      num_threads=loading.num_threads,
      num_workers=loading.num_workers,
    )
    for phase, (_, longest) in enumerate(settings.phases)
  ]


class _Batches:
  """The batches of the whole curriculum, one phase after the other."""

  def __init__(
    self,
    dataset: source.Dataset,
    phases: list[loader_lib.LoaderConfig],
    settings: TrainConfig,
    frames: frames_lib.Frames,
  ):
    self._dataset, self._phases = dataset, phases
    self._settings, self._frames = settings, frames
    self._loader: loader_lib.Loader
    self._step = 0
    self.phase = -1

  def start(self, step: int, state: Mapping[str, Any] | None) -> None:
    """Goes to where `step` steps were taken; `state` is that of `self.state()`."""
    self._step = step
    self._enter(self._settings.phase_at(step))
    if state is not None and state["phase"] == self.phase:
      self._loader.set_state(state["loader"].encode())

  def state(self) -> dict[str, Any]:
    """What `start` needs, as JSON."""
    return {"phase": self.phase, "loader": self._loader.get_state().decode()}

  def __next__(self) -> loader_lib.Batch:
    phase = self._settings.phase_at(self._step)
    if phase != self.phase:
      self._enter(phase)
    self._step += 1
    return next(self._loader)

  def _enter(self, phase: int) -> None:
    if self.phase >= 0:
      self._loader.close()  # Its threads and workers.
    self.phase = phase
    self._loader = loader_lib.make_loader(
      self._dataset, self._phases[phase], self._frames
    )


class _Meter:
  """Adds up the metrics of a window of steps, and where the time went.

  At most one step is under way while the next batch is fetched, so that the rate on
  the progress bar is that of finished steps.
  """

  def __init__(
    self, settings: TrainConfig, seconds_before: float, mesh: jax.sharding.Mesh
  ):
    self._settings, self._mesh = settings, mesh
    self._before = seconds_before
    self._total = _edge.Stopwatch()
    self._watcher = futures.ThreadPoolExecutor(1)
    self._previous: futures.Future[float] | None = None
    self.restart()

  @property
  def seconds(self) -> float:
    """Of the whole run, parts before an interruption included."""
    return round(self._before + self._total.seconds, 2)

  def restart(self) -> None:
    """Begins a window; what lies between (an evaluation) is not counted."""
    self._window = _edge.Stopwatch()
    self._waited = 0.0
    self._steps: list[int] = []
    self._attempts: list[np.ndarray] = []
    self._replaced = 0
    self._metrics: list[training.TrainMetrics] = []

  def fetch(self, batches: _Batches) -> tuple[loader_lib.Batch, training.Batch]:
    """The next batch, here and on the device, where it travels during the step before.

    Waiting is what passes after the device has run dry.
    """
    begin = time.perf_counter()
    batch = next(batches)
    on_device = _to_device(batch, self._mesh)
    end = time.perf_counter()
    if self._previous is None:
      self._waited += end - begin
    else:
      self._waited += max(0.0, end - max(begin, self._previous.result()))
    return batch, on_device

  def add(
    self, step: int, batch: loader_lib.Batch, metrics: training.TrainMetrics
  ) -> None:
    self._steps.append(step)
    self._attempts.append(batch["attempt"])
    self._replaced += int(batch["replaced"].sum())
    self._metrics.append(metrics)
    self._previous = self._watcher.submit(_when_ready, metrics.gradient_norm)

  def row(self, phase: int) -> dict[str, Any]:
    """The training row of the window, which ends here.

    Raises TrainingError if a loss or a gradient in it was not finite.
    """
    metrics = jax.device_get(self._metrics)
    for step, attempts, one in zip(self._steps, self._attempts, metrics, strict=True):
      if not one.finite:
        raise TrainingError(
          f"loss or gradient is not finite at step {step} (gradient norm"
          f" {one.gradient_norm}, attempts {sorted(set(attempts.tolist()))[:8]} ...);"
          " nothing was saved since the last evaluation. Lower"
          " --config.train.optimizer.learning_rate and start in another --workdir"
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


def _to_device(batch: loader_lib.Batch, mesh: jax.sharding.Mesh) -> training.Batch:
  return training.shard_batch(
    training.Batch(
      pregrasp_image=batch["pregrasp_image"],
      image=batch["image"],
      command=batch["command"],
      success=batch["success"],
    ),
    mesh,
  )


def _rewind(log: _edge.JsonLines, step: int) -> float:
  """Drops rows of steps that will be taken again. Returns the seconds spent before."""
  rows = [
    row
    for row in _edge.read_jsonl(log.path)
    if row["step"] <= step and not row.get("final")
  ]
  _edge.rewrite_jsonl(log.path, rows)
  return float(rows[-1]["seconds"]) if rows else 0.0
