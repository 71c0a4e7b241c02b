"""Evaluates the predictor on held-out samples: loss, accuracy and AUC by distance."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import source
from experiments import _batches, _edge, _stats
from experiments._distances import RANGES
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
      row[f"auc{name}"] = _stats.auc(label, probability)
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
    _edge.write_atomically(path, buffer.getvalue())


def check(dataset: source.Dataset, crop_size: int, batch_size: int) -> None:
  """Raises LoaderError if there is no held-out sample, or its frames are too small."""
  loader_lib.make_loader(dataset, loader_lib.evaluation_config(batch_size, crop_size))


def make_evaluator(
  dataset: source.Dataset,
  frames: frames_lib.Frames,
  crop_size: int,
  batch_size: int,
  eval_step: Callable[..., Any],
  mesh: jax.sharding.Mesh,
) -> Callable[[training.TrainState], Predictions]:
  """Returns a function of the state that predicts every sample once, in centre crops.

  `eval_step` is that of `training.make_eval_step` on `mesh`; it always sees full
  batches, so that it is compiled once. Of several processes each reads all samples and
  computes its share.
  """
  config = loader_lib.evaluation_config(batch_size, crop_size)

  def evaluate(state: training.TrainState) -> Predictions:
    batches: list[tuple[Mapping[str, Any], np.ndarray]] = []
    sums = None
    for batch in loader_lib.make_loader(dataset, config, frames):
      count = len(batch["success"])
      # What stands in for a broken sample comes once more as itself.
      kept = ~batch["replaced"]
      weight = np.pad(kept, (0, batch_size - count)).astype(np.float32)
      fields = cast(Mapping[str, np.ndarray], batch)
      padded = {name: _pad(fields[name], batch_size) for name in _INPUTS}
      padded, weight = _share((padded, weight), batch_size)
      part, probability = eval_step(
        state, _batches.to_device(padded, mesh), training.shard_batch(weight, mesh)
      )
      sums = part if sums is None else sums + part
      numbers = {k: v[kept] for k, v in fields.items() if k not in _INPUTS[:2]}
      batches.append((numbers, np.asarray(jax.device_get(probability))[:count][kept]))
    assert sums is not None, "make_loader refuses a dataset without samples"

    def joined(name: str) -> np.ndarray:
      return np.concatenate([batch[name] for batch, _ in batches])

    return Predictions(
      label=joined("success") > 0.5,
      probability=np.concatenate([probability for _, probability in batches]),
      step=joined("step"),
      num_steps=joined("num_steps"),
      distance=joined("distance"),
      attempt=joined("attempt"),
      scene=_scenes(dataset)[joined("attempt")],
      loss=sums.summary()["loss"],
    )

  return evaluate


_INPUTS = ("pregrasp_image", "image", "command", "success")


def _share(batch: Any, batch_size: int) -> Any:
  """This process's rows of a batch."""
  rows = batch_size // jax.process_count()
  begin = rows * jax.process_index()
  return jax.tree.map(lambda array: array[begin : begin + rows], batch)


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
  low, high = _stats.auc_interval(label, probability, scene)
  if low is None or high is None or low < high:
    return low, high
  # Both classes lie apart: redrawing says that this is certain, which it is not.
  _, first = np.unique(scene, return_index=True)
  exact = losses.auc_interval(label[first], probability[first])
  return exact.low, exact.high


def _pad(array: np.ndarray, size: int) -> np.ndarray:
  missing = size - len(array)
  return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
