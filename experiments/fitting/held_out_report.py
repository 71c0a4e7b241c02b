"""What the held-out predictions say by unit, object family and step; pictures of them.

Writes into the work folder:

  held_out.json          figures overall and by group
  reliability.png        predicted against observed success
  reliability_unit.png   the same for each unit; _family for each object family, _step
                         for each step t
  most_wrong.png         the attempts whose outcome surprised the network most
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipeline import frames as frames_lib
from data_pipeline import source, transforms
from experiments import cli, statistics
from experiments.fitting.held_out_evaluation import Predictions
from experiments.pictures import sheets
from hand_eye import losses

NUM_WRONG = 12
_TILE = 176  # pixels, at least, of one image
_INK, _GREY, _BLUE = "#14141a", "#9a9aa4", "#2b6cb0"


def write(
  workdir: Path,
  dataset: source.Dataset,
  frames: frames_lib.Frames,
  crop_size: int,
  predictions: Predictions,
) -> dict[str, np.ndarray]:
  """Writes the files; returns the pictures, uint8[H, W, 3] each, by name."""
  figures = groups(dataset.attempts, predictions)
  cli.write_json(workdir / "held_out.json", figures)
  images = {
    "reliability": reliability(predictions),
    **{
      f"reliability_{by}": reliability_by_group(
        predictions,
        {f"t = {k}" if by == "step" else k: mask for k, mask in masks.items()},
      )
      for by, masks in _masks(dataset.attempts, predictions).items()
    },
    "most_wrong": most_wrong(dataset, frames, crop_size, predictions),
  }
  for name, image in images.items():
    sheets.write_png(workdir / f"{name}.png", image)
  return images


def groups(attempts: source.Attempts, predictions: Predictions) -> dict[str, Any]:
  """Figures of all samples, and by unit, by family in the bin and by step t.

  An attempt counts for every family that lay in its bin.
  """
  everything = np.ones(len(predictions.label), bool)
  return {
    "all": _figures(predictions, everything),
    **{
      by: {name: _figures(predictions, mask) for name, mask in masks.items()}
      for by, masks in _masks(attempts, predictions).items()
    },
  }


def _masks(
  attempts: source.Attempts, predictions: Predictions
) -> dict[str, dict[str, np.ndarray]]:
  """{what by: {group: bool[N]}}, which samples are in it."""
  rows = predictions.attempt
  units, families = np.asarray(attempts.unit), attempts.families
  present = sorted({name for names in families for name in names})
  return {
    "unit": {str(u): (units == u)[rows] for u in np.unique(units)},
    "family": {name: families.contains([name])[rows] for name in present},
    "step": {str(t): predictions.step == t for t in np.unique(predictions.step)},
  }


def _figures(predictions: Predictions, mask: np.ndarray) -> dict[str, Any]:
  label, probability = predictions.label[mask], predictions.probability[mask]
  if not len(label):
    return {"samples": 0}
  return {
    "samples": len(label),
    "attempts": len(np.unique(predictions.attempt[mask])),
    "positive_rate": float(label.mean()),
    "mean_probability": float(probability.mean()),
    "loss": float(_cross_entropy(label, probability).mean()),
    "accuracy": float(((probability >= 0.5) == label).mean()),
    "auc": statistics.auc(label, probability),
    "calibration_error": losses.calibration_error(label, probability),
  }


def _cross_entropy(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Nats [N]. Of a probability that was rounded to 0 or 1, what float32 can tell."""
  right = np.where(label, probability, 1.0 - probability).astype(np.float64)
  return -np.log(np.maximum(right, np.finfo(np.float32).tiny))


def reliability(predictions: Predictions) -> np.ndarray:
  """uint8[H, W, 3]: predicted against observed success, with 95 % intervals."""
  label, probability = predictions.label, predictions.probability
  # A figure and canvas of its own: nothing of pyplot's state is touched.
  figure = Figure(figsize=(4.6, 4.4), dpi=120, layout="constrained")
  axes = figure.subplots()
  _draw_reliability(axes, label, probability, num_bins=10)
  error = losses.calibration_error(label, probability)
  axes.set_title(
    f"Held out: {len(label)} samples, calibration error {error:.3f}",
    loc="left",
    fontsize=10,
    color=_INK,
  )
  axes.set_xlabel("predicted success (grey: how often)")
  axes.set_ylabel("observed success, 95 % interval")
  return _pixels(figure)


def reliability_by_group(
  predictions: Predictions, masks: Mapping[str, np.ndarray]
) -> np.ndarray:
  """uint8[H, W, 3]: a small plot like that of `reliability` for each bool[N]."""
  columns = min(4, len(masks))
  rows = math.ceil(len(masks) / columns)
  figure = Figure(figsize=(2.4 * columns, 2.5 * rows), dpi=100)
  panels = figure.subplots(rows, columns, squeeze=False)
  for axes in panels.flat[len(masks) :]:
    axes.set_axis_off()
  for axes, (name, mask) in zip(panels.flat, masks.items(), strict=False):
    label, probability = predictions.label[mask], predictions.probability[mask]
    title = f"{name}: no samples"
    if len(label):
      # A dozen samples in a bin at least, where there are so many.
      _draw_reliability(axes, label, probability, min(10, max(2, len(label) // 12)))
      error = losses.calibration_error(label, probability)
      title = f"{name}: {len(label)}, error {error:.3f}"
    axes.set_title(title, loc="left", fontsize=8, color=_INK)
    axes.tick_params(labelsize=7)
  figure.tight_layout()
  return _pixels(figure)


def _draw_reliability(
  axes: Any, label: np.ndarray, probability: np.ndarray, num_bins: int
) -> None:
  found = statistics.reliability(label, probability, num_bins)
  highest = max(found.predicted.max(), (found.observed + found.errors[1]).max())
  top = min(1.0, 1.1 * max(0.2, float(highest)))
  axes.plot([0, top], [0, top], color=_GREY, linewidth=1, linestyle="--")
  axes.errorbar(
    found.predicted, found.observed, found.errors.clip(0), color=_BLUE, marker="o",
    markersize=4, capsize=2,
  )  # fmt: skip
  often, edges = np.histogram(probability, bins=np.linspace(0, top, 41))
  axes.stairs(
    0.2 * top * often / max(often.max(), 1), edges, fill=True, color=_GREY, alpha=0.4
  )
  axes.set(xlim=(0, top), ylim=(0, top))


def _pixels(figure: Figure) -> np.ndarray:
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def most_wrong(
  dataset: source.Dataset,
  frames: frames_lib.Frames,
  crop_size: int,
  predictions: Predictions,
  count: int = NUM_WRONG,
) -> np.ndarray:
  """uint8[H, W, 3]: what the network saw where it was most wrong, one an attempt.

  Half of them failures that it expected to succeed, half the other way round, where
  there are so many. A tile has the pregrasp image and that of step t side by side.
  """
  surprise = _cross_entropy(predictions.label, predictions.probability)
  order = np.argsort(-surprise, kind="stable")
  _, first = np.unique(predictions.attempt[order], return_index=True)
  order = order[np.sort(first)]
  halves = [
    order[predictions.label[order] == kind][: -(-count // 2)] for kind in (0, 1)
  ]
  chosen = np.concatenate(halves)
  chosen = chosen[np.argsort(-surprise[chosen], kind="stable")][:count]
  tiles = []
  for sample in chosen:
    attempt, step = int(predictions.attempt[sample]), int(predictions.step[sample])
    pair = frames.pair(attempt, step)
    offset = transforms.centre_offsets(1, dataset.frame_size, crop_size)[0]
    crops = [transforms.crop(image, offset, crop_size) for image in pair]
    enlarge = max(1, -(-_TILE // crop_size))
    image = np.concatenate(crops, axis=1).repeat(enlarge, 0).repeat(enlarge, 1)
    outcome = "succeeded" if predictions.label[sample] else "failed"
    tiles.append(
      sheets.Tile(
        image,
        (
          f"{predictions.probability[sample]:.3f} predicted, it {outcome}",
          f"{dataset.attempts.unit.tolist()[attempt]}, t = {step} of"
          f" {predictions.num_steps[sample]}, {100 * predictions.distance[sample]:.1f}"
          " cm to go",
        ),
      )
    )
  return sheets.sheet(tiles, columns=3)
