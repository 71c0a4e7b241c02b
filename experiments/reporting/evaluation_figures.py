"""Figures of evaluations: curves of success, predictions along attempts, grasps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.pictures.plots import COLOUR_A, COLOUR_B, COLOURS, STYLE, svg
from experiments.reporting import breakdown as breakdown_lib
from experiments.reporting import names as names_lib
from experiments.statistics import Rate

_DASHES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": (0, (1, 1.5))}
_BIN = 0.005  # m, of distances
_MOST_BINS = 16


def robustness(
  name: str, curve: breakdown_lib.Curve, looks: Mapping[str, names_lib.Look]
) -> str:
  """Success of policies against the amount of one condition, with 95 % bands."""
  knob = names_lib.condition(name)
  with plt.rc_context(STYLE):
    figure, axes = _small()
    for policy, points in curve.items():
      amounts = [round(knob.scale * amount, 1) for amount, _ in points]
      _line(axes, amounts, [rate for _, rate in points], looks[policy])
    shown = sorted(
      {round(knob.scale * a, 1) for line in curve.values() for a, _ in line}
    )
    axes.set_xticks(shown, [f"{amount:g}" for amount in shown])
    axes.set(title=knob.label, xlabel=knob.unit)
    _percent(axes)
    words = f"Success against: {knob.label}"
    return svg(figure, f"robust-{name}", words, tight=False)


def data_amount(points: Sequence[tuple[float, Rate]]) -> str:
  """Success of the servo against the attempts that its network learned from."""
  with plt.rc_context(STYLE):
    figure, axes = _small()
    amounts = [amount for amount, _ in points]
    _line(
      axes, amounts, [rate for _, rate in points], names_lib.looks(["servo"])["servo"]
    )
    axes.set_xscale("log")
    axes.set_xticks(amounts, [f"{amount:,.0f}" for amount in amounts])
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set_xlabel("attempts learned from")
    _percent(axes)
    words = "Success against attempts learned from"
    return svg(figure, "data-amount", words, tight=False)


def _small() -> tuple[Figure, Axes]:
  """Of one size, whatever is written around it, so that several make a grid."""
  figure, axes = plt.subplots(figsize=(3.5, 2.5))
  figure.subplots_adjust(left=0.19, right=0.97, bottom=0.2, top=0.9)
  return figure, axes


def _line(
  axes: Axes, amounts: Sequence[float], rates: Sequence[Rate], look: names_lib.Look
) -> None:
  colour = COLOURS[look.colour]
  low, high = zip(*((rate["low"], rate["high"]) for rate in rates), strict=True)
  axes.fill_between(amounts, low, high, color=colour, alpha=0.13, linewidth=0)
  axes.plot(
    amounts,
    [rate["rate"] for rate in rates],
    color=colour,
    linestyle=_DASHES[look.dash],
    linewidth=1.8,
    marker="o",
    markersize=3.5,
  )


def _percent(axes: Axes) -> None:
  axes.set_ylim(0, 1)
  axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def along(
  field: str,
  title: str,
  successes: Mapping[int, breakdown_lib.Mean],
  failures: Mapping[int, breakdown_lib.Mean],
) -> str:
  """Mean prediction by decision, of attempts that succeeded and that failed."""
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(5.2, 3.3))
    for means, colour, dash, label in (
      (successes, COLOUR_A, "-", "attempts that succeeded"),
      (failures, COLOUR_B, _DASHES["dashed"], "attempts that failed"),
    ):
      if means:
        value, half, _ = np.array(list(means.values())).T
        numbers = list(means)
        axes.fill_between(
          numbers, value - half, value + half, color=colour, alpha=0.15, linewidth=0
        )
        axes.plot(
          numbers, value, color=colour, linestyle=dash, marker="o", markersize=3.5,
          linewidth=1.8, label=label,
        )  # fmt: skip
    last = max([*successes, *failures], default=1)
    axes.set(xlabel="decision", title=title, ylim=(0, 1), xticks=range(1, last + 1))
    axes.legend(
      fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2,
      handlelength=3,
    )  # fmt: skip
    return svg(figure, f"along-{field}", f"{title}, by decision")


def offsets(found: breakdown_lib.Grasps, half_opening: float) -> str:
  """How far off the fingers' middle objects were, soft and rigid ones.

  Args:
    half_opening: m, marked: there a finger is in the middle of the object.
  """
  longest = max([half_opening, *found.rigid, *found.soft])
  bins = min(int(np.ceil(longest / _BIN)) + 1, _MOST_BINS)
  edges = _BIN * np.arange(bins + 1)
  with plt.rc_context(STYLE):
    figure, axes = plt.subplots(figsize=(5.2, 3.3))
    for values, name, colour, filled in (
      (found.rigid, "rigid", COLOUR_A, True),
      (found.soft, "soft", COLOUR_B, False),
    ):
      if len(values):
        counts, _ = np.histogram(np.minimum(values, edges[-1] - 1e-9), edges)
        axes.stairs(
          counts / len(values), 100 * edges, color=colour, fill=filled,
          alpha=0.45 if filled else 1.0, linewidth=2.0, label=f"{name}, {len(values)}",
        )  # fmt: skip
    axes.axvline(
      100 * half_opening, color=COLOURS["soft"], linewidth=1.0, linestyle="--"
    )
    axes.set(xlabel="middle of the object off the fingers' middle, cm")
    axes.set_ylabel("share of successes")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_axisbelow(True)
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    return svg(figure, "offsets", "Where soft and rigid objects were between fingers")
