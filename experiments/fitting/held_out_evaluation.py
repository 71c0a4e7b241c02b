"""Evaluates the predictor on held-out samples: loss, accuracy and AUC by distance."""

import dataclasses
import functools
import io
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import samples as samples_lib
from data_pipeline import source
from experiments import cli, statistics
from experiments.datasets.distances import RANGES
from experiments.fitting import curriculum
from hand_eye import losses, training


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What the network said of N held-out samples, in the dataset's order.

  Attributes:
    label: bool[N], success of the attempt.
    probability: float32[N], predicted.
    step: int32[N], t.
    num_steps: int32[N], T.
    distance: float32[N], of the command, metres.
    attempt: int64[N], index into the held-out dataset.
    scene: int64[N], which samples come from the same bin.
    loss: mean cross-entropy, nats.
  """

  label: np.ndarray
  probability: np.ndarray
  step: np.ndarray
  num_steps: np.ndarray
  distance: np.ndarray
  attempt: np.ndarray
  scene: np.ndarray
  loss: float

  def row(self, *, intervals: bool) -> dict[str, Any]:
    """The figures of metrics.jsonl, with 95 % intervals of the AUCs if asked.

    The intervals come from redrawing scenes: attempts in one bin are not independent,
    and the samples of one attempt share its label. A figure that needs both outcomes
    is None without.
    """
    row: dict[str, Any] = {
      "loss": self.loss,
      "accuracy": float(np.mean((self.probability >= 0.5) == self.label)),
      "positive_rate": float(np.mean(self.label)),
      "calibration_error": losses.calibration_error(self.label, self.probability),
    }
    for name, _, low, high in RANGES:
      chosen = (self.distance >= low) & (self.distance < high)
      label, probability = self.label[chosen], self.probability[chosen]
      row[f"samples{name}"] = int(chosen.sum())
      row[f"auc{name}"] = statistics.auc(label, probability)
      if intervals:
        low_end, high_end = _interval(label, probability, self.scene[chosen])
        row[f"auc{name}_low"], row[f"auc{name}_high"] = low_end, high_end
    return row

  def save(self, path: Path) -> None:
    """Writes the arrays as an .npz, which appears when it is whole."""
    buffer = io.BytesIO()
    arrays = dataclasses.asdict(self)
    del arrays["loss"]
    np.savez_compressed(buffer, **arrays)
    cli.write_atomically(path, buffer.getvalue())


def check(dataset: source.Dataset, crop_size: int, batch_size: int) -> None:
  """Raises LoaderError if there is no held-out sample, or its frames are too small."""
  loader_lib.make_loader(dataset, _config(crop_size, batch_size, 1))


def make_evaluator(
  dataset: source.Dataset,
  frames: frames_lib.Frames,
  crop_size: int,
  batch_size: int,
  eval_step: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  num_threads: int = 1,
) -> Callable[[training.TrainState], Predictions]:
  """Returns a function of the state that predicts every sample once, in centre crops.

  `eval_step` is that of `training.make_eval_step` on `mesh`; it always sees full
  batches, so that it is compiled once. Several processes each read their share of the
  samples, with `num_threads`, and get the predictions of all.
  """
  config = _config(crop_size, batch_size, num_threads)
  samples = samples_lib.samples_of(dataset.attempts)
  num_batches = -(-len(samples) // batch_size)

  def evaluate(state: training.TrainState) -> Predictions:
    loader = loader_lib.make_loader(dataset, config, frames)
    batch: Mapping[str, Any] = {}
    parts, probabilities, states = [], [], []
    for _ in range(num_batches):
      rows = np.full(config.batch_size, _PADDING)
      if (following := next(loader, None)) is not None:
        batch = cast(Mapping[str, Any], following)
        # What stands in for a broken sample comes once more as itself.
        rows[: len(batch["success"])] = np.where(batch["replaced"], _REPLACED, _KEPT)
      # Other processes have the last few samples: this one repeats its own.
      inputs = {name: _pad(batch[name], config.batch_size) for name in _INPUTS}
      part, probability = eval_step(
        state,
        curriculum.to_device(inputs, mesh),
        training.shard_batch((rows == _KEPT).astype(np.float32), mesh),
      )
      parts.append(part)
      probabilities.append(np.asarray(jax.device_get(probability)))
      states.append(rows)

    # [processes, batches, rows of one] -> [batches, rows of all]
    of_all = np.moveaxis(multihost_utils.process_allgather(np.stack(states)), 0, 1)
    rows = of_all.reshape(num_batches, -1)
    is_sample = rows != _PADDING
    kept = rows[is_sample] == _KEPT
    return Predictions(
      label=samples.success[kept] > 0.5,
      probability=np.stack(probabilities)[is_sample][kept],
      step=samples.step[kept],
      num_steps=samples.num_steps[kept],
      distance=samples.distance[kept],
      attempt=samples.attempt[kept],
      scene=_scenes(dataset)[samples.attempt[kept]],
      loss=functools.reduce(operator.add, parts).summary()["loss"],
    )

  return evaluate


_INPUTS = ("pregrasp_image", "image", "command", "success")

# What a row of a batch is.
_PADDING, _REPLACED, _KEPT = np.arange(3, dtype=np.int8)


def _config(
  crop_size: int, batch_size: int, num_threads: int
) -> loader_lib.LoaderConfig:
  """Of this process's share of batches of `batch_size`."""
  return dataclasses.replace(
    loader_lib.evaluation_config(batch_size // jax.process_count(), crop_size),
    host_index=jax.process_index(),
    host_count=jax.process_count(),
    num_threads=num_threads,
  )


def _scenes(dataset: source.Dataset) -> np.ndarray:
  """int64[attempts]: a number for each bin, the same for attempts in the same one."""
  attempts = dataset.attempts
  pairs = zip(attempts.unit.tolist(), attempts.scene_seed.tolist(), strict=True)
  numbers: dict[tuple[str, int], int] = {}
  return np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], np.int64)


def _interval(
  label: np.ndarray, probability: np.ndarray, scene: np.ndarray
) -> tuple[float | None, float | None]:
  """The 95 % interval of an AUC; (None, None) with too few scenes of either label."""
  low, high = statistics.auc_interval(label, probability, scene)
  if low is None or high is None or low < high:
    return low, high
  # Both classes lie apart: redrawing says that this is certain, which it is not.
  _, first = np.unique(scene, return_index=True)
  exact = losses.auc_interval(label[first], probability[first])
  return exact.low, exact.high


def _pad(array: np.ndarray, size: int) -> np.ndarray:
  missing = size - len(array)
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
