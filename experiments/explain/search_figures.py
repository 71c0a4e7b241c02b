"""Figures of one decision: how the search narrowed, and where the ratio lies."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse

from experiments.pictures import plots
from experiments.pictures.plots import (
  COLOUR_A,
  COLOUR_B,
  COLOUR_LINE,
  SCORE_COLOURS,
  STYLE,
)
from hand_eye.servo import ServoConfig

_MOST = 1.25  # of the ratio's axis


def search(told: Mapping[str, Any], name: str) -> str:
  """The candidates of a decision by iteration: their probabilities, and where they lie.

  Args:
    told: the evidence of `hand_eye.decision.Decision`.
    name: of the figure on its page.
  """
  means, covariances = np.asarray(told["means"]), np.asarray(told["covariances"])
  scores = np.reshape(told["probabilities"], (len(means), -1))
  places = 100 * np.reshape(told["candidates"], (*scores.shape, 5))[..., :2]
  with plt.rc_context(STYLE):
    figure, (left, right) = plt.subplots(
      1, 2, figsize=(8.4, 3.5), gridspec_kw={"width_ratios": (1.1, 1)}
    )
    for i, row in enumerate(scores):
      # Beside each other in the order in which they were drawn: at random.
      spread = np.linspace(-0.3, 0.3, len(row))
      left.scatter(i + 1 + spread, row, c=SCORE_COLOURS(row), s=9)
      left.plot([i + 0.65, i + 1.35], [np.median(row)] * 2, color=COLOUR_A, lw=1.6)
    left.axhline(told["p_null"], color=COLOUR_B, linestyle="--", linewidth=1.2)
    left.annotate(
      "closing here", (1.0, told["p_null"]), xycoords=("axes fraction", "data"),
      xytext=(0, 3), textcoords="offset points", ha="right", color=COLOUR_B, fontsize=9,
    )  # fmt: skip
    left.set_xticks(range(1, len(scores) + 1))
    left.set(xlabel="iteration (line: median)", title="predicted success")
    colours = plt.get_cmap("viridis")(np.linspace(0.8, 0.3, len(means)))
    for i, colour in enumerate(colours):
      right.scatter(*places[i].T, color=colour, s=7, label=f"{i + 1}")
      right.add_patch(
        _ellipse(1e2 * means[i, :2], 1e4 * covariances[i, :2, :2], colour)
      )
    right.plot(0, 0, "+", color=COLOUR_B, markersize=9)
    best = 100 * np.asarray(told["best"])[:2]
    right.plot(*best, "o", markersize=9, markerfacecolor="none", color=COLOUR_B)
    right.set(
      xlabel="dx, cm", ylabel="dy, cm", aspect="equal", title="motions (ring: the best)"
    )
    right.legend(title="iteration", fontsize=8, title_fontsize=8, loc="best")
    figure.tight_layout()
    return plots.svg(figure, name, "Candidates by iteration of the search")


def _ellipse(mean: np.ndarray, covariance: np.ndarray, colour: Any) -> Ellipse:
  values, vectors = np.linalg.eigh(covariance)
  width, height = 4 * np.sqrt(np.maximum(values, 0))  # two standard deviations each way
  angle = np.rad2deg(np.arctan2(vectors[1, 0], vectors[0, 0]))
  middle = float(mean[0]), float(mean[1])
  return Ellipse(
    middle, width, height, angle=angle, fill=False, edgecolor=colour, lw=1.4
  )


def ratio(value: float, config: ServoConfig, name: str) -> str:
  """Where the ratio of Algorithm 1 lies: raise, move, or close.

  Args:
    value: p of closing here over p of the best candidate.
    config: its thresholds.
    name: of the figure on its page.
  """
  close = min(config.close_ratio, _MOST)
  bounds = (0.0, config.raise_ratio, close, _MOST)
  words = ("raise", "move", "close")
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.4, 0.7))
    spans = zip(words, bounds[:-1], bounds[1:], (0.25, 0.45, 0.25), strict=True)
    for word, low, high, alpha in spans:
      if high > low:
        axes.axvspan(low, high, color=COLOUR_LINE, alpha=2 * alpha)
        axes.text((low + high) / 2, 0.5, word, ha="center", va="center", fontsize=9)
    axes.axvline(min(value, _MOST), color=COLOUR_B, linewidth=3)
    axes.set(xlim=(0, _MOST), yticks=[], xlabel="ratio")
    axes.grid(visible=False)
    return plots.svg(figure, name, "Ratio against the thresholds")
