"""Figures of a dataset: its commands, and where its attempts ended."""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from data_pipeline import samples, source
from experiments.pictures.plots import COLOUR_A, COLOUR_B, COLOUR_LINE, STYLE, svg

_MOST_POINTS = 2000
_BINS = 31


def commands(taken: samples.Samples) -> str:
  """Histograms of p_T - p_t, without the null commands of closing.

  Bars: all samples; line: the share of them whose attempt succeeded.
  """
  moving = taken.step < taken.num_steps
  values = np.column_stack(
    [
      100 * taken.command[moving, :3],
      np.degrees(np.arctan2(taken.command[moving, 3], taken.command[moving, 4])),
    ]
  )
  label = taken.success[moving] > 0.5
  titles = ("dx, cm", "dy, cm", "dz, cm", "turn, degrees")
  with plt.rc_context(STYLE):
    figure, panels = plt.subplots(1, 4, figsize=(10.4, 2.5), sharey=True)
    for axes, column, title in zip(panels, values.T, titles, strict=True):
      _histogram(axes, column, label)
      axes.set_title(title)
    panels[0].set_ylabel("samples")
    if moving.any():
      panels[0].legend(fontsize=9)
    figure.tight_layout()
    return svg(figure, "commands", "Histograms of the commands of all samples")


def _histogram(axes: Axes, values: np.ndarray, label: np.ndarray) -> None:
  if len(values):
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low - 1e-3, high + 1e-3, _BINS)
    axes.hist(values, edges.tolist(), color=COLOUR_LINE, label="all")
    axes.hist(values[label], edges.tolist(), color=COLOUR_A, label="successes")
  axes.set_axisbelow(True)
  axes.grid(axis="x", visible=False)


def ends(attempts: source.Attempts) -> str:
  """Where attempts closed, seen from above, successes and failures apart."""
  where = attempts.poses[np.cumsum(attempts.num_steps) - 1]
  chosen = np.random.default_rng(0).permutation(len(where))[:_MOST_POINTS]
  where, label = 100 * where[chosen, :2], attempts.success[chosen]
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    # Failures are drawn first and smaller: most attempts fail.
    axes.plot(
      *where[~label].T, "o", color=COLOUR_B, markersize=2.5, alpha=0.5, label="failure"
    )
    axes.plot(
      *where[label].T, "o", color=COLOUR_A, markersize=4, alpha=0.8, label="success"
    )
    axes.set(xlabel="x, cm, robot base frame", ylabel="y, cm")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return svg(figure, "ends", "Where the gripper closed, seen from above")


def readings(attempts: source.Attempts, threshold: float) -> str:
  """The gripper's readings, the threshold of the label among them."""
  values = 1000 * attempts.gripper_reading
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    _histogram(axes, values, attempts.success)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(bottom=0)
    axes.axvline(1000 * threshold, color=COLOUR_B, linewidth=1.4, linestyle="--")
    axes.set(xlabel="gripper reading after lifting, mm", ylabel="attempts")
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return svg(figure, "readings", "Histogram of the gripper's readings")
