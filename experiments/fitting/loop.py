"""The training loop: curriculum, metrics, evaluation, checkpoints, resuming."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import plan as plan_lib
from data_pipeline import records, source
from experiments import cli
from experiments.datasets.distances import RANGES
from experiments.fitting import (
  curriculum,
  devices,
  held_out_evaluation,
  held_out_report,
  input_spec,
  stopping,
  training_log,
)
from experiments.fitting import meter as meter_lib
from experiments.fitting import trackers as trackers_lib
from experiments.fitting.train_config import TrainConfig
from hand_eye import architectures, checkpoint, optimizers, training
from hand_eye import network as network_lib


class TrainingError(RuntimeError):
  """Training cannot continue; the message names the step and the attempts."""


@dataclasses.dataclass(frozen=True)
class LoggingOptions:
  """What a run writes in addition to metrics.jsonl.

  Attributes:
    trackers: some of `trackers.NAMES`. Raises UserError if one cannot be had.
    profile: a profiler's trace of some steps, into the work folder's profile/.
  """

  trackers: tuple[str, ...] = ()
  profile: bool = False

  def __post_init__(self) -> None:
    trackers_lib.check(self.trackers)


METRICS_ONLY = LoggingOptions()


def unchanged(step: int, batch: loader_lib.Batch, on_device: training.Batch):
  """The `on_batch` that takes each batch as it is."""
  del step, batch
  return on_device


@dataclasses.dataclass(frozen=True)
class Trained:
  """What a training run made.

  Attributes:
    metrics: the final held-out row of metrics.jsonl, with intervals.
    weights: of the best checkpoint, with the network's config.
    checkpoints: their folder.
  """

  metrics: dict[str, Any]
  weights: checkpoint.PolicyWeights
  checkpoints: Path


class Fit:
  """A run of training. Making one checks the data, `run` writes."""

  def __init__(
    self,
    network: network_lib.NetworkConfig,
    settings: TrainConfig,
    train_set: source.Dataset,
    held_out_set: source.Dataset,
    loading: curriculum.Loading = curriculum.ONE_THREAD,
    log_options: LoggingOptions = METRICS_ONLY,
    inputs: input_spec.InputSpec = input_spec.WHOLE_IMAGES,
  ):
    """Raises LoaderError if a phase of the curriculum has no full batch of samples."""
    self._network, self._settings = network, settings
    self._log_options = log_options
    self._train_set, self._held_out_set = train_set, held_out_set
    self._inputs = inputs
    self._loading = loading
    self._cache_bytes = 0 if loading.num_workers else settings.cache_bytes
    self._phases = curriculum.loader_configs(settings, network.crop_size, loading)
    for phase in self._phases:
      loader_lib.make_loader(train_set, phase)
    held_out_evaluation.check(held_out_set, network.crop_size, settings.eval_batch_size)

  def run(
    self,
    workdir: Path,
    experiment: Mapping[str, Any],
    start: checkpoint.PolicyWeights | None = None,
    on_batch: Callable[
      [int, loader_lib.Batch, training.Batch], training.Batch
    ] = unchanged,
  ) -> Trained:
    """Trains from the last checkpoint to the end; see train.train.

    Args:
      workdir: of the run.
      experiment: stored with each checkpoint.
      start: weights to begin with where there is no checkpoint yet; None draws them.
      on_batch: `(step, batch, the same on the devices) -> what the step takes`.
    """
    settings, network = self._settings, self._network
    mesh = training.make_mesh()
    is_writer = jax.process_index() == 0
    predictor = architectures.build(network)
    optimizer = optimizers.make_optimizer(settings.optimizer)
    train_step = training.make_train_step(
      predictor,
      optimizer,
      ema_decay=settings.ema_decay,
      mesh=mesh,
      batch_norm=settings.batch_norm,
      auxiliary_weight=settings.auxiliary_weight,
      auxiliary_steps=settings.auxiliary_steps,
    )
    held_out_frames = self._inputs.load_frames(self._held_out_set, settings.cache_bytes)
    evaluate = held_out_evaluation.make_evaluator(
      self._held_out_set,
      held_out_frames,
      network.crop_size,
      settings.eval_batch_size,
      training.make_eval_step(predictor, mesh=mesh),
      mesh,
      # Threads of its own: workers would restart for each evaluation.
      num_threads=max(self._loading.num_threads, self._loading.num_workers),
    )
    frames = self._inputs.load_frames(self._train_set, self._cache_bytes)
    state = training.init_state(
      predictor, optimizer, jax.random.key(settings.seed), mesh=mesh
    )

    with checkpoint.Checkpointer(
      workdir / "checkpoints",
      network,
      purpose=self._inputs.purpose,
      experiment=experiment,
    ) as checkpointer:
      begin, data_state = 0, None
      if checkpointer.latest_step is not None:
        state, data_state, begin = checkpointer.restore(state)
        logging.info("continuing from step %d", begin)
      elif start is not None:
        state = training.start_from(state, start.params, start.batch_stats)
      names = self._log_options.trackers if is_writer else ()
      trackers = trackers_lib.start(names, workdir, begin, experiment)
      log = training_log.TrainingLog(workdir, begin, trackers, is_writer=is_writer)
      meter = meter_lib.Meter(settings, log.seconds, mesh)
      batches = curriculum.Batches(self._train_set, self._phases, settings, frames)
      batches.start(begin, data_state)
      trace = devices.Trace(
        workdir / "profile" if self._log_options.profile and is_writer else None, begin
      )

      with (
        cli.progress(
          settings.num_steps * settings.batch_size,
          "train",
          "samples",
          initial=begin * settings.batch_size,
          stream=None if is_writer else io.StringIO(),
        ) as bar,
        stopping.Signals() as signals,
        trace,
      ):
        for step in range(begin + 1, settings.num_steps + 1):
          trace.before(step)
          # No implicit transfers between host and devices within a step.
          with jax.transfer_guard("disallow"):
            batch, on_device = meter.fetch(batches)
            state, metrics = train_step(state, on_batch(step, batch, on_device))
          meter.add(step, batch, metrics)
          bar.update(settings.batch_size)

          last = step == settings.num_steps
          is_due = last or step % settings.eval_every == 0
          is_logged = is_due or step % settings.log_every == 0
          is_saved = settings.save_every > 0 and step % settings.save_every == 0
          stop_for = signals.agreed(is_meeting=is_logged)
          if is_logged or is_saved or stop_for:
            row = self._row(meter, batches, checkpointer)
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
          elif is_saved or stop_for:
            checkpointer.save(state, data_state=batches.state())
          if stop_for:
            batches.close()
            checkpointer.wait()
            raise stopping.Stopped(
              f"stopped by {stop_for} and saved at step {step} of"
              f" {settings.num_steps}; the same command continues"
            )
      batches.close()

    return self._finish(workdir, evaluate, state, log, held_out_frames)

  def _row(
    self,
    meter: meter_lib.Meter,
    batches: curriculum.Batches,
    checkpointer: checkpoint.Checkpointer,
  ) -> dict[str, Any]:
    """The training row of the window. Raises TrainingError if it is not finite."""
    try:
      return meter.row(batches.phase)
    except meter_lib.NonFiniteError as error:
      names = [_attempt_id(self._train_set, i) for i in error.attempts[:8]]
      more = len(error.attempts) - len(names)
      good = checkpointer.latest or "none yet"
      raise TrainingError(
        f"loss or gradient is not finite at step {error.step} (gradient norm"
        f" {error.gradient_norm}); its batch had attempts {', '.join(names)}"
        + (f" and {more} more" if more else "")
        + f". The last good checkpoint is {good}. Lower"
        " --config.train.optimizer.learning_rate and start in another --workdir"
      ) from error

  def _finish(
    self,
    workdir: Path,
    evaluate: Any,
    state: training.TrainState,
    log: training_log.TrainingLog,
    frames: frames_lib.Frames,
  ) -> Trained:
    """Evaluates the best checkpoint, the one that is exported, with intervals."""
    weights = checkpoint.load_policy(
      workdir / "checkpoints", step="best", purpose=self._inputs.purpose
    )
    predictions = evaluate(
      training.start_from(state, weights.params, weights.batch_stats)
    )
    rows = log.rows()
    final = {
      "step": weights.step,
      "seconds": rows[-1]["seconds"] if rows else 0.0,
      **_HELD_OUT,
      "final": True,
      "evaluations": sum(row["split"] == "held_out" for row in rows),
      **predictions.row(intervals=True),
    }
    if jax.process_index() == 0:
      predictions.save(workdir / "held_out_predictions.npz")
      images = held_out_report.write(
        workdir, self._held_out_set, frames, self._network.crop_size, predictions
      )
      for name, image in images.items():
        log.image(weights.step, f"held_out/{name}", image)
      log.finish(final)
    return Trained(final, weights, workdir / "checkpoints")


def _attempt_id(dataset: source.Dataset, index: int) -> str:
  try:
    return str(records.decode(dataset[index], images=False)["attempt_id"])
  except (plan_lib.DatasetError, records.RecordError):
    return f"number {index}"  # The message matters more than the name.


_HELD_OUT = {"split": "held_out"}


def describe(row: Mapping[str, Any]) -> str:
  """The final held-out row in a line or two, for the terminal."""
  lines = [
    f"Best checkpoint: step {row['step']}, the best of {row['evaluations']} held-out"
    f" evaluations; held-out loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}"
  ]
  for name, label, _, _ in RANGES:
    if not row[f"samples{name}"]:
      continue
    value, low, high = (row.get(f"auc{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
      words = "not defined (it needs successes and failures)"
    elif low is None:
      words = f"{value:.3f}, too few attempts for an interval"
    else:
      words = f"{value:.3f} (95 % interval over bins: {low:.3f} to {high:.3f})"
    lines.append(f"  AUC, {label}: {words}, {row[f'samples{name}']} samples")
  return "\n".join(lines)
