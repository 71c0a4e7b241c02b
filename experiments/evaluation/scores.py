"""Sums up the rows of an evaluation: both protocols of Section 6."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envs import protocols, success
from experiments import cli, statistics
from experiments.evaluation import policy_names

Row = Mapping[str, Any]


def summarise(rows: Sequence[Row], policies: Sequence[str]) -> dict[str, Any]:
  """The content of summary.json that follows from rows.

  Args:
    rows: of rows.jsonl, see `trials.row_of`; those under a condition are left out.
    policies: names, in the order of the table.

  Returns:
    policies: {name: {with_replacement: a rate with its interval over robots,
      without_replacement: {first: {10: the same, ...},
      cleared_at: [attempt or None, one a repetition]},
      grades: {grade: attempts with replacement}, see `envs.success.GRADES`, where a
      simulator knows}}; rates are of success;
    paired: {name: {protocol: (difference to the rate of the `reference`, low, high)}},
      for those that were in the same bins; the interval is over robots;
    detectors: how far labels can be trusted;
    rows: {name: the `cli.tally` of the rows that this was made of}.
  """
  plain = [row for row in rows if not row["condition"]]
  summary: dict[str, Any] = {name: {} for name in policies}
  bins = {
    name: {p: by_bin(plain, name, p) for p in protocols.NAMES} for name in policies
  }
  for name in policies:
    with_, without = (bins[name][protocol] for protocol in protocols.NAMES)
    if with_:
      summary[name]["with_replacement"] = statistics.over_robots(_all(with_))
      counts = collections.Counter(row.get("grade") for row in _all(with_))
      if grades := {grade: counts[grade] for grade in success.GRADES if any(counts)}:
        summary[name]["grades"] = grades
    if without:
      summary[name]["without_replacement"] = _without(without)
  return {
    "policies": summary,
    "paired": _paired(bins, reference(policies)),
    "detectors": statistics.detectors(plain),
    "rows": {
      name: cli.tally(row for row in plain if row["policy"] == name)
      for name in policies
    },
  }


def by_bin(rows: Iterable[Row], policy: str, protocol: str) -> dict[int, list[Row]]:
  """Rows of a policy under a protocol by repetition, attempts in order."""
  found = collections.defaultdict(list)
  for row in rows:
    if row["policy"] == policy and row["protocol"] == protocol:
      found[row["repetition"]].append(row)
  return {
    repetition: sorted(found[repetition], key=lambda row: row["attempt"])
    for repetition in sorted(found)
  }


def _all(bins: Mapping[int, Sequence[Row]]) -> list[Row]:
  return [row for rows in bins.values() for row in rows]


def reference(policies: Sequence[str]) -> str:
  """The policy that the others are compared with: the servo, else the last."""
  return policy_names.ours(policies) or [*policies[-1:], ""][0]


def _without(bins: Mapping[int, Sequence[Row]]) -> dict[str, Any]:
  first = {}
  for count in protocols.FIRST:
    first[str(count)] = statistics.over_robots(
      row for rows in bins.values() for row in rows[:count]
    )
  return {
    "first": first,
    "cleared_at": [
      protocols.cleared_at([row["remaining"] for row in rows]) for rows in bins.values()
    ],
  }


def _paired(bins: Mapping[str, Mapping[str, Any]], base: str) -> dict[str, Any]:
  table: dict[str, Any] = {}
  for name, by_protocol in bins.items():
    if name == base:
      continue
    for protocol, own in by_protocol.items():
      others = bins[base][protocol]
      if own and list(own) == list(others):
        counts, base_counts = (
          list(statistics.by_robot(_all(one)).values()) for one in (own, others)
        )
        found = statistics.paired_difference(counts, base_counts)
        table.setdefault(name, {})[protocol] = found
  return table


def describe(summary: Mapping[str, Any]) -> str:
  """The result tables for the terminal: success with, failures without replacement."""
  parts = []
  policies = summary["policies"]
  if rows := _of(policies, "with_replacement"):
    cells = [
      (name, str(one["attempts"]), f"{100 * one['rate']:.1f} %",
       f"{100 * one['low']:.1f} to {100 * one['high']:.1f} %")
      for name, one in rows.items()
    ]  # fmt: skip
    header = ("policy", "attempts", "success", f"95 % interval {_over(rows)}")
    parts.append(cli.table(header, cells, (1, 2, 3)))
  if rows := _of(policies, "grades"):
    shares = [
      (name, *(f"{100 * count / sum(one.values()):.1f} %" for count in one.values()))
      for name, one in rows.items()
    ]
    titles = ("simulator's truth", *success.GRADES)
    parts.append(cli.table(titles, shares, range(1, len(titles))))
  if rows := _of(policies, "without_replacement"):
    failed = [
      (
        name,
        *(_failures(one["first"][str(n)]) for n in protocols.FIRST),
        f"{sum(bool(at) for at in one['cleared_at'])} of {len(one['cleared_at'])}",
      )
      for name, one in rows.items()
    ]
    first = ("policy", *(f"first {n}" for n in protocols.FIRST), "cleared")
    table = cli.table(first, failed, range(1, len(first)))
    over = _over(
      {name: one["first"][str(protocols.FIRST[0])] for name, one in rows.items()}
    )
    parts.append(f"Without replacement: failures (95 % interval {over})\n\n{table}")
  return "\n\n".join(parts)


def _of(policies: Mapping[str, Any], protocol: str) -> dict[str, Any]:
  return {name: one[protocol] for name, one in policies.items() if protocol in one}


def _over(rates: Mapping[str, Mapping[str, Any]]) -> str:
  return " or ".join(sorted({statistics.said_over(rate) for rate in rates.values()}))


def _failures(rate: Mapping[str, Any]) -> str:
  low, high = 1 - rate["high"], 1 - rate["low"]
  return f"{100 * (1 - rate['rate']):.1f} % ({100 * low:.0f} to {100 * high:.0f})"
