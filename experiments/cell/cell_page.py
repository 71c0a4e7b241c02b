"""The results of python -m experiments.check_cell as Markdown."""

from collections.abc import Mapping
from typing import Any

from experiments.cell.cell_tables import percent, share
from experiments.reporting import pages
from experiments.reporting.pages import Table

_UNITS = {"position": "mm", "x": "mm", "y": "mm", "z": "mm", "yaw_deg": "degrees"}
_WORDS = {True: "yes", False: "NO", None: "too few"}


def markdown(summary: Mapping[str, Any]) -> str:
  """All tables, as cell.md."""
  random = summary["random"]
  return pages.markdown(
    "cell.md.j2",
    "The cell, checked",
    "",
    {
      "summary": summary,
      "lost": summary["health"],
      "checks": Table(
        ("claim", "found", "holds"),
        [(c["claim"], c["found"], _WORDS[c["holds"]]) for c in summary["checks"]],
      ),
      "motions": _motions(summary["reach"]),
      "random": _rates("unit", {**random["groups"], **random["units"]}),
      "families": {group: _families(one) for group, one in random["families"].items()},
      "oracle": _rates("group", summary["oracle"]),
      "detectors": Table(
        ("detector", "precision", "recall"),
        [
          (name, percent(row["precision"]), percent(row["recall"]))
          for name, row in summary["detectors"]["table"].items()
        ],
      ),
    },
  )


def _motions(reached: Mapping[str, Any]) -> Table:
  rows = []
  for kind in ("exact", "noisy"):
    for name, unit in _UNITS.items():
      scale = 1000 if unit == "mm" else 1
      values = [scale * reached[kind][name][k] for k in ("median", "p95", "max")]
      label = f"{name.removesuffix('_deg')}, {unit}"
      rows.append((kind, label, *(f"{value:.2f}" for value in values)))
  return Table(("motions", "error", "median", "95th percentile", "largest"), rows)


def _rates(what: str, table: Mapping[str, Mapping[int, Any]]) -> Table:
  steps = sorted({t for by_steps in table.values() for t in by_steps})
  rows = [
    (name, *(share(by_steps[t]) if t in by_steps else "" for t in steps))
    for name, by_steps in table.items()
  ]
  return Table((what, *(f"T = {t}" for t in steps)), rows)


def _families(table: Mapping[str, Mapping[int, Any]]) -> Table:
  steps = sorted({t for by_steps in table.values() for t in by_steps})
  rows = []
  for name, by_steps in table.items():
    cells = [name]
    for t in steps:
      relative = by_steps.get(t, {}).get("relative")
      cells.append(share(by_steps[t]) if t in by_steps else "")
      cells.append("" if relative is None else f"{relative:.2f}")
    rows.append(cells)
  head = [
    w for t in steps for w in (f"grasped of those there, T = {t}", "by its share")
  ]
  return Table(("family", *head), rows)
