"""Counts the rows of an evaluation and the cells of a sweep: by property, step, amount.

Rows are those of `trials.row_of`.
"""

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments import statistics
from experiments.evaluation import policy_names
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.statistics import Rate

Row = Mapping[str, Any]
# Rates by policy, for each value of something.
Matrix = dict[str, dict[str, Rate]]
# (amount, rate) in the order of amounts, for each policy.
Curve = dict[str, list[tuple[float, Rate]]]


def by_property(rows: Iterable[Row]) -> Matrix:
  """Success by what the object nearest to the closing fingers was like.

  An object has several properties and counts for each.
  """
  return _matrix(
    (name, row) for row in rows for name in row["target_properties"] if row["target"]
  )


def by_field(rows: Iterable[Row], field: str) -> Matrix:
  """Success by the value of a field, such as `unit`; '' is left out."""
  return _matrix((str(row[field]), row) for row in rows if row[field])


def _matrix(pairs: Iterable[tuple[str, Row]]) -> Matrix:
  found: dict[str, dict[str, list[Row]]] = {}
  for value, row in pairs:
    found.setdefault(value, {}).setdefault(row["policy"], []).append(row)
  return {
    value: {name: statistics.over_robots(rows) for name, rows in by.items()}
    for value, by in found.items()
  }


class Predictions(NamedTuple):
  """What was predicted of closing, of attempts that ended by that decision."""

  label: np.ndarray  # bool[N]
  probability: np.ndarray  # [N]
  attempts: int  # of the policy, with those that ended at step T


def closings(rows: Iterable[Row], policy: str) -> Predictions:
  """The last p_null of attempts whose last decision was to close.

  At step T the gripper closes without a decision: nothing was predicted there.
  """
  own = [row for row in rows if row["policy"] == policy]
  decided = [
    (bool(row["success"]), float(row["p_null"][-1]))
    for row in own
    if row["actions"] and row["actions"][-1] == "close" and row["p_null"]
  ]
  label, probability = zip(*decided, strict=True) if decided else ((), ())
  return Predictions(np.array(label, bool), np.array(probability, float), len(own))


class Mean(NamedTuple):
  """The mean of so many values, and half the width of its 95 % interval."""

  value: float
  half: float
  number: int


def along(
  rows: Iterable[Row], policy: str, field: str, success: bool
) -> dict[int, Mean]:
  """The mean of `p_best` or `p_null` by decision, from 1, of one kind of attempts.

  Later decisions are those of attempts that had not closed before.
  """
  found = collections.defaultdict(list)
  for row in rows:
    if row["policy"] == policy and bool(row["success"]) == success:
      for number, value in enumerate(row[field], start=1):
        found[number].append(float(value))
  return {number: _mean(found[number]) for number in sorted(found)}


def _mean(values: Sequence[float]) -> Mean:
  spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
  half = 1.96 * spread / math.sqrt(len(values))
  return Mean(float(np.mean(values)), half, len(values))


class Grasps(NamedTuple):
  """Successes whose nearest object is what hung in the gripper.

  rigid, soft: [N] how far the middle of the object was from the middle between the
  fingers when they closed, along the way that they close, m.
  """

  rigid: np.ndarray
  soft: np.ndarray
  soft_attempts: int  # that closed nearest to a soft object


def grasps(rows: Iterable[Row], policy: str) -> Grasps:
  """Where the fingers were when they closed on rigid and on soft objects (Figure 9)."""
  off: dict[str, list[float]] = {"rigid": [], "soft": []}
  soft = 0
  for row in rows:
    if row["policy"] != policy or not row["target"]:
      continue
    kind = "soft" if "soft" in row["target_properties"] else "rigid"
    soft += kind == "soft"
    if row["success"] and row["grasped"] == row["target"]:
      off[kind].append(abs(float(row["target_across"])))
  return Grasps(np.array(off["rigid"]), np.array(off["soft"]), soft)


def protocol_of(cells: Iterable[evaluated_lib.Cell]) -> str:
  """The protocol that curves show: with replacement where it was swept."""
  found = {cell["protocol"] for cell in cells}
  return evaluated_lib.WITH if evaluated_lib.WITH in found else evaluated_lib.WITHOUT


def curves(
  cells: Iterable[evaluated_lib.Cell], protocol: str, usual_steps: int
) -> dict[str, Curve]:
  """Success against the amount of each condition; without it, at what changes nothing.

  Args:
    usual_steps: T where it is not the condition.
  """
  own = [cell for cell in cells if cell["protocol"] == protocol]
  plain = {cell["policy"]: cell["rate"] for cell in own if not cell["condition"]}
  found: dict[str, dict[str, dict[float, Rate]]] = {}
  for cell in own:
    if cell["condition"]:
      by_policy = found.setdefault(cell["name"], {})
      by_policy.setdefault(cell["policy"], {})[cell["amount"]] = cell["rate"]
  for name, by_policy in found.items():
    nothing = names_lib.condition(name).nothing
    nothing = usual_steps if math.isnan(nothing) else nothing
    for policy, points in by_policy.items():
      if policy in plain:
        points.setdefault(nothing, plain[policy])
  return {
    name: {policy: sorted(points.items()) for policy, points in by_policy.items()}
    for name, by_policy in found.items()
  }


def by_data(rates: Mapping[str, Rate]) -> list[tuple[float, Rate]]:
  """(N, rate) of the policies servo@N, whose network learned from N attempts."""
  found = []
  for policy, rate in rates.items():
    name = policy_names.read(policy)
    if not name.variant and name.network.replace("_", "").isdigit():
      found.append((float(name.network), rate))
  return sorted(found, key=lambda point: point[0])
