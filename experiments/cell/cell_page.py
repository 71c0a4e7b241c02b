"""The tables of python -m experiments.check_cell as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.cell.cell_tables import percent, share


def markdown(summary: Mapping[str, Any]) -> str:
  """All tables, as cell.md."""
  reached, lost = summary["reach"], summary["health"]
  parts = ["# The cell, checked\n", _checks_table(summary["checks"])]
  parts.append(
    f"## Motions\n\n{len(reached['units'])} units: to a grid of workspace poses without"
    " actuation noise, and by commands with it.\n"
  )
  parts.append(_motions_table(reached))
  parts.append(f"## Random policy\n\n{_objects(summary, 'random')}\n")
  by_unit = {**summary["random"]["groups"], **summary["random"]["units"]}
  parts.append(_rates_table("unit", by_unit))
  for group, table in summary["random"]["families"].items():
    parts.append(f"### Families of the group {group}\n")
    parts.append(_families_table(table))
  parts.append(
    f"## Oracle\n\nWhat really hung in the gripper. {_objects(summary, 'oracle')}\n"
  )
  parts.append(_rates_table("group", summary["oracle"]))
  detected = summary["detectors"]
  parts.append(
    f"## Detectors\n\n{detected['attempts']} attempts of both policies, in"
    f" {detected['grasped']} of which something hung in the gripper.\n"
  )
  parts.append(
    _table(
      ("detector", "precision", "recall"),
      [
        (name, percent(row["precision"]), percent(row["recall"]))
        for name, row in detected["table"].items()
      ],
    )
  )
  parts.append(
    f"## Losses\n\n{lost['attempts']} attempts in {lost['scenes']} scenes,"
    f" {lost['units']} units, {lost['families']} families: {lost['diverged']} diverged"
    f" and were dropped, {lost['strays']} objects left the bin and were put back,"
    f" {len(lost['crashes'])} scenes crashed. The longest scene took"
    f" {lost['longest_scene_s']:.0f} s; one process made"
    f" {lost['attempts_per_second']:.2f} attempts a second.\n"
  )
  parts += [f"- {crash}" for crash in lost["crashes"]]
  return "\n".join(parts)


def _objects(summary: Mapping[str, Any], policy: str) -> str:
  names = (f"`{name}`" for name in summary["objects"][policy])
  return f"Objects: {', '.join(names) or 'none'}."


def _checks_table(found: Sequence[Mapping[str, Any]]) -> str:
  words = {True: "yes", False: "NO", None: "too few"}
  rows = [(c["claim"], c["found"], words[c["holds"]]) for c in found]
  return _table(("claim", "found", "holds"), rows)


def _motions_table(reached: Mapping[str, Any]) -> str:
  units = {"position": "mm", "x": "mm", "y": "mm", "z": "mm", "yaw_deg": "degrees"}
  rows = []
  for kind in ("exact", "noisy"):
    for name, unit in units.items():
      scale = 1000 if unit == "mm" else 1
      values = [scale * reached[kind][name][k] for k in ("median", "p95", "max")]
      label = f"{name.removesuffix('_deg')}, {unit}"
      rows.append((kind, label, *(f"{value:.2f}" for value in values)))
  return _table(("motions", "error", "median", "95th percentile", "largest"), rows)


def _rates_table(what: str, table: Mapping[str, Mapping[int, Any]]) -> str:
  steps = sorted({t for by_steps in table.values() for t in by_steps})
  rows = [
    (name, *(share(by_steps[t]) if t in by_steps else "" for t in steps))
    for name, by_steps in table.items()
  ]
  return _table((what, *(f"T = {t}" for t in steps)), rows)


def _families_table(table: Mapping[str, Mapping[int, Any]]) -> str:
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
  return _table(("family", *head), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
