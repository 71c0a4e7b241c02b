"""Sums up the rows of python -m experiments.check_cell.

Pure: rows in, numbers out. A row is a scene, see `check_cell.run_task`.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.attempts import family_of
from experiments import statistics

Row = Mapping[str, Any]

LARGEST_MISS = 0.003  # m, without actuation noise
LARGEST_TURN = 1.0  # degrees
ORACLE_RATE = 0.90
DETECTION = 0.97  # precision and recall of the label
DIVERGED = 0.005
LEAST_ATTEMPTS = 30  # fewer say nothing of a rate


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
    name: {
      steps: statistics.rate(sum(found), len(found))
      for steps, found in by_steps.items()
    }
    for name, by_steps in counts.items()
  }


def families(rows: Iterable[Row]) -> dict[str, dict[int, dict[str, Any]]]:
  """{family: {T: how often it is picked, beside how much of it lay in the bins}}.

  An object-attempt is one object that lay in the bin in one attempt. `relative` is a
  family's share of all grasped objects by its share of all objects, at the same T: 1 is
  as often as the others.
  """
  lay: dict[int, collections.Counter[str]] = {}
  picked: dict[int, collections.Counter[str]] = {}
  for row in rows:
    steps = int(row["num_steps"])
    there = lay.setdefault(steps, collections.Counter())
    taken = picked.setdefault(steps, collections.Counter())
    for attempt in row["attempts"]:
      there.update(attempt["families"])
      if attempt["simulator_truth"]:
        taken[family_of(attempt["grasped"])] += 1
  table: dict[str, dict[int, dict[str, Any]]] = collections.defaultdict(dict)
  for steps in sorted(lay):
    mean = picked[steps].total() / max(lay[steps].total(), 1)
    for name in sorted(lay[steps]):
      entry = statistics.rate(picked[steps][name], lay[steps][name])
      relative = entry["rate"] / mean if mean else None
      table[name][steps] = {**entry, "relative": relative}
  return {name: table[name] for name in sorted(table)}


def health(rows: Sequence[Row]) -> dict[str, Any]:
  """Attempts, and what was lost: crashes, diverged attempts, strays."""
  attempts = sum(len(row["attempts"]) for row in rows)
  diverged = sum(row["diverged"] for row in rows)
  seconds = sum(row["seconds"] for row in rows)
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
    "attempts_per_second": attempts / seconds if seconds else 0.0,  # of one process
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
    "objects": {
      name: sorted({row["objects"] for row in made})
      for name, made in (("random", chance), ("oracle", oracle))
    },
    "detectors": {
      "attempts": len(attempts),
      "grasped": sum(bool(attempt["simulator_truth"]) for attempt in attempts),
      "table": statistics.detectors(attempts),
    },
    "health": health(rows),
  }
  summary["checks"] = checks(summary)
  return summary


def checks(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Every claim about the cell with what was found: [{claim, found, holds}].

  `holds` is None where there are fewer than LEAST_ATTEMPTS attempts to tell.
  """
  exact = summary["reach"]["exact"]
  found = [
    _check(
      f"without noise within {1000 * LARGEST_MISS:.0f} mm, {LARGEST_TURN:.0f} degree",
      f"{1000 * exact['position']['max']:.2f} mm, {exact['yaw_deg']['max']:.2f} degree",
      exact["position"]["max"] <= LARGEST_MISS
      and exact["yaw_deg"]["max"] <= LARGEST_TURN,
    )
  ]
  low, high = statistics.RANDOM_RANGE
  for group, by_steps in summary["random"]["groups"].items():
    for steps, entry in sorted(by_steps.items()):
      found.append(
        _rate_check(
          f"random, {group}, T = {steps}: {low:.0%} to {high:.0%}",
          entry,
          low <= entry["rate"] <= high,
        )
      )
  found.append(_units_check(summary["random"]["units"], low, high))
  for group, by_steps in summary["oracle"].items():
    for steps, entry in sorted(by_steps.items()):
      found.append(
        _rate_check(
          f"oracle, {group}, T = {steps}: above {ORACLE_RATE:.0%}",
          entry,
          entry["rate"] > ORACLE_RATE,
        )
      )
  label = summary["detectors"]["table"]["label (either)"]
  for name in ("precision", "recall"):
    value = label[name]
    found.append(
      _check(
        f"{name} of the label at least {DETECTION:.0%}",
        percent(value),
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


def share(row: Mapping[str, Any]) -> str:
  """A rate as '12.3 % (8 to 17) of 200'."""
  return (
    f"{100 * row['rate']:.1f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
    f" of {row['attempts']}"
  )


def percent(value: float | None) -> str:
  """0.234 -> '23.4 %'."""
  return "none" if value is None else f"{100 * value:.1f} %"


def _check(claim: str, found: str, holds: bool | None) -> dict[str, Any]:
  return {
    "claim": claim,
    "found": found,
    "holds": None if holds is None else bool(holds),
  }


def _rate_check(claim: str, entry: Mapping[str, Any], holds: bool) -> dict[str, Any]:
  enough = entry["attempts"] >= LEAST_ATTEMPTS
  return _check(claim, share(entry), holds if enough else None)


def _units_check(
  table: Mapping[str, Mapping[int, Any]], low: float, high: float
) -> dict[str, Any]:
  """Whether the interval of every unit at every T meets a range."""
  few, outside = [], []
  for name, by_steps in table.items():
    for steps, entry in sorted(by_steps.items()):
      if entry["attempts"] < LEAST_ATTEMPTS:
        few.append(entry["attempts"])
      # An interval that reaches into the range is no evidence against the unit.
      elif entry["high"] < low or entry["low"] > high:
        outside.append(f"{name} at T = {steps}")
  said = [f"not {', '.join(outside)}"] if outside else []
  if few:
    said.append(
      f"too few attempts {len(few)} times: as few as {min(few)}, expected"
      f" {LEAST_ATTEMPTS} of each unit at each T"
    )
  return _check(
    "random, every unit and T: interval meets that range",
    "; ".join(said) or "all do",
    False if outside else None if few else True,
  )
