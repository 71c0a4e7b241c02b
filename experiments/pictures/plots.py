"""The report's figures as inline SVG that follows the page's light or dark colours."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from markupsafe import Markup  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from experiments import statistics  # noqa: E402
from experiments.datasets.distances import RANGES

# Stand-ins that are replaced by the page's CSS variables in the finished SVG.
_INK, COLOUR_LINE, COLOUR_A, COLOUR_B, _C, _D, _SOFT = (
  "#010203", "#010204", "#010205", "#010206", "#010207", "#010208", "#010209",
)  # fmt: skip
_VARIABLES = {
  _INK: "var(--ink)", COLOUR_LINE: "var(--line)",
  COLOUR_A: "var(--a)", COLOUR_B: "var(--b)",
  _C: "var(--c)", _D: "var(--d)", _SOFT: "var(--soft)",
}  # fmt: skip

# By the names of the variables.
COLOURS = {
  variable.removeprefix("var(--").removesuffix(")"): stand_in
  for stand_in, variable in _VARIABLES.items()
}

# Figure 2 of the paper: red where a grasp is expected to fail, green to succeed.
SCORE_COLOURS = LinearSegmentedColormap.from_list(
  "score", ["#d7263d", "#f4a259", "#f2e86d", "#5bc27a", "#0f9d58"]
)

STYLE = {
  "svg.fonttype": "none",
  "font.family": "sans-serif",
  "font.size": 10,
  "text.color": _INK,
  "axes.labelcolor": _INK,
  "axes.edgecolor": COLOUR_LINE,
  "axes.titlesize": 10,
  "axes.titlelocation": "left",
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "grid.color": COLOUR_LINE,
  "grid.linewidth": 0.6,
  "xtick.color": _INK,
  "ytick.color": _INK,
  "legend.frameon": False,
  "figure.facecolor": "none",
  "axes.facecolor": "none",
  "savefig.facecolor": "none",
}


def learning_curves(
  train: Sequence[dict[str, Any]],
  held_out: Sequence[dict[str, Any]],
  boundaries: Sequence[int] = (),
) -> tuple[str, str]:
  """Two figures: loss of both splits; held-out AUC by how far commands reach.

  `boundaries` are the steps at which a phase of the curriculum ends.
  """
  with plt.rc_context(STYLE):
    loss_figure, left = plt.subplots(figsize=(5.2, 3.3))
    _curve(left, train, "loss", COLOUR_LINE, "training", raw=True)
    _curve(left, train, "loss", COLOUR_A, "training", smooth=True)
    _curve(left, held_out, "loss", COLOUR_B, "held out", marker="o")
    left.set_title("Cross-entropy")
    auc_figure, right = plt.subplots(figsize=(5.2, 3.3))
    right.axhline(0.5, color=_SOFT, linewidth=1.0, linestyle="--")
    for one, colour in zip(RANGES, (COLOUR_A, COLOUR_B, _C, _D), strict=True):
      _curve(right, held_out, f"auc{one.suffix}", colour, one.label, marker="o")
    right.set_title("AUC on held-out attempts (0.5 is chance)")
    for axes in (left, right):
      for step in boundaries:
        axes.axvline(step, color=_SOFT, linewidth=1.0, linestyle=":")
      axes.set_xlabel("training step")
      axes.margins(x=0.02)
      if axes.get_legend_handles_labels()[1]:
        axes.legend(
          fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2
        )
    return (
      svg(loss_figure, "loss", "Loss against training steps"),
      svg(auc_figure, "auc", "Held-out AUC against training steps"),
    )


def _curve(
  axes: Axes,
  rows: Sequence[dict[str, Any]],
  key: str,
  colour: str,
  label: str,
  *,
  smooth: bool = False,
  raw: bool = False,
  marker: str | None = None,
) -> None:
  points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
  if not points:
    return
  steps, values = np.array(points, float).T
  if smooth:
    width = max(1, len(values) // 20)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    values = np.convolve(padded, np.ones(width) / width, mode="valid")
  axes.plot(
    steps,
    values,
    color=colour,
    label=None if raw else label,
    linewidth=0.8 if raw else 1.8,
    marker=marker,
    markersize=3.5,
  )


def calibration(
  labels: np.ndarray,
  probabilities: np.ndarray,
  *,
  num_bins: int = 10,
  name: str = "calibration",
) -> str:
  """Reliability plot: predicted against observed success, with 95 % intervals."""
  found = statistics.reliability(labels, probabilities, num_bins)
  highest = max(found.predicted.max(), (found.observed + found.errors[1]).max())
  top = min(1.0, max(0.2, float(highest)) + 0.05)
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.4, 4.0))
    axes.plot([0, top], [0, top], color=_SOFT, linewidth=1.0, linestyle="--")
    axes.errorbar(
      found.predicted, found.observed, found.errors.clip(0), color=COLOUR_A,
      linewidth=1.6, marker="o", markersize=4,
    )  # fmt: skip
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.set_xlabel("predicted probability of success")
    axes.set_ylabel("observed success rate")
    return svg(figure, name, "Predicted against observed success")


def candidates(
  pregrasp_image: np.ndarray,
  image: np.ndarray,
  pixels: np.ndarray,
  probabilities: np.ndarray,
  *,
  start: np.ndarray | None = None,
  chosen: np.ndarray | None = None,
  name: str = "candidates",
) -> str:
  """Candidate commands over an image pair, coloured by predicted success (Figure 2).

  Args:
    pregrasp_image: [H, W, 3] uint8.
    image: [H, W, 3] uint8.
    pixels: [N, 2] where each candidate would put the gripper: (column, row).
    probabilities: [N].
    start: [2] where the gripper is; lines are drawn from it.
    chosen: [2] the candidate that was executed.
  """
  colours = SCORE_COLOURS(np.clip(probabilities, 0, 1))
  height, width = image.shape[:2]
  with plt.rc_context(STYLE):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 4.1))
    for axes, picture, title in (
      (left, pregrasp_image, "pregrasp image"),
      (right, image, "image, candidate commands"),
    ):
      axes.imshow(picture, interpolation="bicubic")
      axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), title=title)
      axes.axis("off")
    # The likeliest are drawn last, so that they lie on top.
    for index in np.argsort(probabilities, kind="stable"):
      if start is not None:
        right.plot(
          *np.stack([start, pixels[index]]).T,
          color=colours[index],
          linewidth=1,
          alpha=0.6,
        )
      right.plot(*pixels[index], "o", color=colours[index], markersize=4)
    if chosen is not None:
      _draw_ring(right, chosen)
    bar = figure.colorbar(
      plt.cm.ScalarMappable(cmap=SCORE_COLOURS),
      ax=[left, right],
      fraction=0.03,
      pad=0.02,
    )
    bar.set_label("predicted success")
    bar.outline.set_visible(False)
    return svg(figure, name, "Candidate commands coloured by predicted success")


def pictures(
  images: Sequence[np.ndarray],
  titles: Sequence[str],
  name: str,
  ring: np.ndarray | None = None,
) -> str:
  """Images uint8[H, W, 3] beside each other; `ring` marks a pixel [2] of the last."""
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(1, len(images), figsize=(8.4, 4.1))
    for one, picture, title in zip(axes, images, titles, strict=True):
      one.imshow(picture, interpolation="nearest")
      one.set_title(title)
      one.axis("off")
    if ring is not None:
      height, width = images[-1].shape[:2]
      _draw_ring(axes[-1], ring)
      axes[-1].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return svg(figure, name, " and ".join(titles))


def _draw_ring(axes: Axes, pixel: np.ndarray) -> None:
  axes.plot(
    *pixel, "o", markersize=11, markerfacecolor="none", markeredgecolor="white",
    markeredgewidth=2,
  )  # fmt: skip


def svg(figure: Figure, name: str, description: str, *, tight: bool = True) -> Markup:
  """The figure as an <svg> element; its ids are made unique by `name`.

  Args:
    tight: cut to what is drawn, else of the figure's own size.
  """
  buffer = io.StringIO()
  with plt.rc_context({"svg.hashsalt": name}):
    figure.savefig(
      buffer,
      format="svg",
      dpi=160,
      bbox_inches="tight" if tight else None,
      metadata={"Date": None},
    )
  plt.close(figure)
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
  svg = re.sub(r'((?:xlink:)?href)="#([^"]+)"', rf'\1="#{name}-\2"', svg)
  svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
  for stand_in, variable in _VARIABLES.items():
    svg = svg.replace(stand_in, variable)
  # The page decides on the width; the viewBox keeps the proportions.
  svg = re.sub(r'<svg([^>]*?) width="[^"]+"', r"<svg\1", svg, count=1)
  svg = re.sub(r'<svg([^>]*?) height="[^"]+"', r"<svg\1", svg, count=1)
  return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{description}"', 1))
