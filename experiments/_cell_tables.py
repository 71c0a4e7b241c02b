"""What the rows of python -m experiments.check_cell add up to, and in which words.

Pure: rows in, numbers and Markdown out. A row is a scene, see `check_cell.run_task`.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import _stats, evaluate

Row = Mapping[str, Any]

LARGEST_MISS = 0.003  # m, without actuation noise
LARGEST_TURN = 1.0  # degrees
RANDOM_RATES = (0.10, 0.30)  # Section 5.2
ORACLE_RATE = 0.90
DETECTION = 0.97  # precision and recall of the label
DIVERGED = 0.005


def reach(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Errors of motions of all units, exact and with the stated actuation noise.

  Args:
    results: of `check_cell.reach_unit`: errors [N, 4] (m, m, m, rad) by kind.
  """
  table: dict[str, Any] = {"units": [result["unit"] for result in results]}
  for kind in ("exact", "noisy"):
    errors = np.concatenate([np.asarray(r[kind]).reshape(-1, 4) for r in results])
    figures = {
      "position": np.linalg.norm(errors[:, :3], axis=1),
      "x": np.abs(errors[:, 0]),
      "y": np.abs(errors[:, 1]),
      "z": np.abs(errors[:, 2]),
      "yaw_deg": np.rad2deg(np.abs(errors[:, 3])),
    }
    table[kind] = {"motions": len(errors)} | {
      name: {
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
      }
      for name, values in figures.items()
    }
  return table


def rates(rows: Iterable[Row], key: Callable[[Row], str], field: str = "success"):
  """{key: {T: {attempts, successes, rate, low, high}}} of scenes' attempts."""
  counts: dict[str, dict[int, list[bool]]] = collections.defaultdict(
    lambda: collections.defaultdict(list)
  )
  for row in rows:
    outcomes = [bool(attempt[field]) for attempt in row["attempts"]]
    counts[key(row)][int(row["num_steps"])] += outcomes
  return {
    name: {steps: _rate(sum(found), len(found)) for steps, found in by_steps.items()}
    for name, by_steps in counts.items()
  }


def families(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
  """How often each family is picked, beside how much of it lay in the bins.

  An object-attempt is one object that lay in the bin in one attempt. `relative` is a
  family's share of all grasped objects by its share of all objects: 1 is as often as
  the others.
  """
  lay: collections.Counter[str] = collections.Counter()
  picked: collections.Counter[str] = collections.Counter()
  for row in rows:
    for attempt in row["attempts"]:
      lay.update(attempt["families"])
      if attempt["simulator_truth"]:
        picked[attempt["grasped"].rpartition("-")[0]] += 1
  mean = picked.total() / max(lay.total(), 1)
  table = {}
  for name in sorted(lay):
    entry = _rate(picked[name], lay[name])
    table[name] = {**entry, "relative": entry["rate"] / mean if mean else None}
  return table


def health(rows: Sequence[Row]) -> dict[str, Any]:
  """Attempts, and what was lost: crashes, diverged attempts, strays."""
  attempts = sum(len(row["attempts"]) for row in rows)
  diverged = sum(row["diverged"] for row in rows)
  return {
    "scenes": len(rows),
    "attempts": attempts,
    "units": len({row["unit"] for row in rows}),
    "families": len({f for r in rows for a in r["attempts"] for f in a["families"]}),
    "diverged": diverged,
    "diverged_share": diverged / max(attempts + diverged, 1),
    "strays": sum(row["strays"] for row in rows),
    "crashes": [
      f"{row['policy']} {row['unit']} {row['scene_seed']}: {row['error']}"
      for row in rows
      if row["error"]
    ],
    "longest_scene_s": max((row["seconds"] for row in rows), default=0.0),
  }


def summarise(rows: Sequence[Row], moved: Sequence[Mapping[str, Any]]):
  """Everything that cell.json holds."""
  chance = [row for row in rows if row["policy"] == "random"]
  oracle = [row for row in rows if row["policy"] == "oracle"]
  attempts = [attempt for row in rows for attempt in row["attempts"]]
  summary: dict[str, Any] = {
    "reach": reach(moved),
    "random": {
      "groups": rates(chance, lambda row: row["group"]),
      "units": rates(chance, lambda row: row["unit"]),
      "families": {
        group: families([row for row in chance if row["group"] == group])
        for group in dict.fromkeys(row["group"] for row in chance)
      },
    },
    "oracle": rates(oracle, lambda row: row["group"], "simulator_truth"),
    "detectors": {
      "attempts": len(attempts),
      "grasped": sum(bool(attempt["simulator_truth"]) for attempt in attempts),
      "table": evaluate.detectors(attempts),
    },
    "health": health(rows),
  }
  summary["checks"] = checks(summary)
  return summary


def checks(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Every claim about the cell with what was found: [{claim, found, holds}]."""
  exact = summary["reach"]["exact"]
  found = [
    _check(
      f"without noise within {1000 * LARGEST_MISS:.0f} mm, {LARGEST_TURN:.0f} degree",
      f"{1000 * exact['position']['max']:.2f} mm, {exact['yaw_deg']['max']:.2f} degree",
      exact["position"]["max"] <= LARGEST_MISS
      and exact["yaw_deg"]["max"] <= LARGEST_TURN,
    )
  ]
  low, high = RANDOM_RATES
  for group, by_steps in summary["random"]["groups"].items():
    for steps, entry in sorted(by_steps.items()):
      found.append(
        _check(
          f"random, {group}, T = {steps}: {low:.0%} to {high:.0%}",
          _share(entry),
          low <= entry["rate"] <= high,
        )
      )
  outside = [
    f"{name} at T = {steps}"
    for name, by_steps in summary["random"]["units"].items()
    for steps, entry in sorted(by_steps.items())
    # An interval that reaches into the range is no evidence against the unit.
    if entry["high"] < low or entry["low"] > high
  ]
  found.append(
    _check(
      "random, every unit: interval meets that range",
      f"not {', '.join(outside)}" if outside else "all do",
      not outside,
    )
  )
  for group, by_steps in summary["oracle"].items():
    for steps, entry in sorted(by_steps.items()):
      found.append(
        _check(
          f"oracle, {group}, T = {steps}: above {ORACLE_RATE:.0%}",
          _share(entry),
          entry["rate"] > ORACLE_RATE,
        )
      )
  label = summary["detectors"]["table"]["label (either)"]
  for name in ("precision", "recall"):
    value = label[name]
    found.append(
      _check(
        f"{name} of the label at least {DETECTION:.0%}",
        _percent(value),
        value is not None and value >= DETECTION,
      )
    )
  lost = summary["health"]
  found += [
    _check(
      f"diverged attempts below {DIVERGED:.1%}",
      f"{lost['diverged']} ({lost['diverged_share']:.2%})",
      lost["diverged_share"] < DIVERGED,
    ),
    _check("no crash", f"{len(lost['crashes'])}", not lost["crashes"]),
  ]
  return found


def markdown(summary: Mapping[str, Any]) -> str:
  """All tables, as cell.md."""
  reached, lost = summary["reach"], summary["health"]
  parts = ["# The cell, checked\n", _checks_table(summary["checks"])]
  parts.append(
    f"## Motions\n\n{len(reached['units'])} units: to a grid of workspace poses without"
    " actuation noise, and by commands with it.\n"
  )
  parts.append(_motions_table(reached))
  parts.append("## Random policy\n")
  by_unit = {**summary["random"]["groups"], **summary["random"]["units"]}
  parts.append(_rates_table("unit", by_unit))
  for group, table in summary["random"]["families"].items():
    parts.append(f"### Families of the group {group}\n")
    parts.append(_families_table(table))
  parts.append("## Oracle on rigid objects\n\nWhat really hung in the gripper.\n")
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
        (name, _percent(row["precision"]), _percent(row["recall"]))
        for name, row in detected["table"].items()
      ],
    )
  )
  parts.append(
    f"## Losses\n\n{lost['attempts']} attempts in {lost['scenes']} scenes,"
    f" {lost['units']} units, {lost['families']} families: {lost['diverged']} diverged"
    f" and were dropped, {lost['strays']} objects left the bin and were put back,"
    f" {len(lost['crashes'])} scenes crashed. The longest scene took"
    f" {lost['longest_scene_s']:.0f} s.\n"
  )
  parts += [f"- {crash}" for crash in lost["crashes"]]
  return "\n".join(parts)


def _checks_table(found: Sequence[Mapping[str, Any]]) -> str:
  rows = [(c["claim"], c["found"], "yes" if c["holds"] else "NO") for c in found]
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
    (name, *(_share(by_steps[t]) if t in by_steps else "" for t in steps))
    for name, by_steps in table.items()
  ]
  return _table((what, *(f"T = {t}" for t in steps)), rows)


def _families_table(table: Mapping[str, Mapping[str, Any]]) -> str:
  rows = []
  for name, row in table.items():
    relative = row["relative"]
    rows.append((name, _share(row), "" if relative is None else f"{relative:.2f}"))
  return _table(("family", "grasped of those that lay there", "by its share"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _rate(successes: int, attempts: int) -> dict[str, Any]:
  low, high = _stats.wilson(successes, attempts)
  return {
    "attempts": attempts,
    "successes": successes,
    "rate": successes / max(attempts, 1),
    "low": low,
    "high": high,
  }


def _share(row: Mapping[str, Any]) -> str:
  return (
    f"{100 * row['rate']:.1f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
    f" of {row['attempts']}"
  )


def _percent(value: float | None) -> str:
  return "none" if value is None else f"{100 * value:.1f} %"


def _check(claim: str, found: str, holds: bool) -> dict[str, Any]:
  return {"claim": claim, "found": found, "holds": bool(holds)}
