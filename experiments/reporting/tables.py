"""The tables of the report."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments import statistics
from experiments.datasets.distances import RANGES
from experiments.evaluation import policy_names
from experiments.reporting import breakdown
from experiments.reporting import names as names_lib
from experiments.reporting.evaluated import Evaluation, Setup, Sweep
from experiments.reporting.pages import Bar, Stacked, Table
from experiments.statistics import Rate

# Table 1 of the paper: failures in percent, with replacement (N = 100) and over the
# first 10, 20 and 30 attempts without (N = 40, 80, 120).
_PAPER = {
  "random": (69.0, 67.5, 70.0, 72.5),
  "hand_designed": (35.0, 32.5, 35.0, 50.8),
  "hand_designed_noisy": (35.0, 32.5, 35.0, 50.8),
  "open_loop": (43.0, 27.5, 38.7, 33.7),
  "servo": (20.0, 10.0, 17.5, 17.5),
  "exported": (20.0, 10.0, 17.5, 17.5),
}
FIRST = (10, 20, 30)
_PAPER_ATTEMPTS = (100, 40, 80, 120)
_NOT_RUN = "not run"


def table_1(evaluation: Evaluation, caption: str) -> Table:
  """The paper's failure rates beside ours, with 95 % intervals."""
  names, rows = policies_of_table_1(evaluation), []
  for name in names:
    theirs = _PAPER.get(name)
    ours = [
      evaluation.with_replacement.get(name),
      *(evaluation.without.get(name, {}).get(n) for n in FIRST),
    ]
    cells: list[str | Stacked | Bar] = [policy_names.label(name)]
    for column, rate in enumerate(ours):
      attempts = f"N = {_PAPER_ATTEMPTS[column]}"
      cells += [
        Stacked(f"{theirs[column]:.1f} %", (attempts,)) if theirs else "",
        share(rate, failures=True) if rate else _NOT_RUN,
      ]
    rows.append([*cells, _cleared(evaluation.cleared.get(name, []))])
  return Table(
    ("failures", *("paper", "ours") * 4, "ours"),
    rows,
    numbers=range(1, 10),
    caption=caption,
    groups=(
      ("", 1),
      ("with replacement", 2),
      *((f"without, first {n}", 2) for n in FIRST),
      ("bins cleared", 1),
    ),
    strong=[i for i, name in enumerate(names) if name in policy_names.OURS],
  )


def policies_of_table_1(evaluation: Evaluation) -> list[str]:
  """The policies of the paper, run or not, and the others of Table 1 that were run."""
  ours = policy_names.ours(evaluation.policies) or policy_names.SERVO
  wanted = {*_PAPER} - {*policy_names.OURS} | {ours, *evaluation.policies}
  return policy_names.of_table(wanted)


def share(rate: Rate | None, *, failures: bool = False) -> str | Stacked:
  """'47.5 %' over '41 to 54 %' and 'N = 200, 25 robots'; '' without an attempt."""
  if not rate or not rate["attempts"]:
    return ""
  value, low, high = rate["rate"], rate["low"], rate["high"]
  if failures:
    value, low, high = 1 - value, 1 - high, 1 - low
  between = f"{100 * low:.0f} to {100 * high:.0f} %"
  count = f"N = {rate['attempts']}"
  count += f", {rate['groups']} robots" if "groups" in rate else ""
  return Stacked(f"{100 * value:.1f} %", (between, count))


def _cleared(attempts: Sequence[int | None]) -> str | Stacked:
  if not attempts:
    return _NOT_RUN
  done = sorted(number for number in attempts if number)
  after = (f"after {', '.join(map(str, done))}",) if done else ()
  return Stacked(f"{len(done)} of {len(attempts)}", after)


def rates(
  names: str | Sequence[str],
  rows: Iterable[tuple[str | Sequence[str], Rate]],
  caption: str = "",
  counted: str = "attempts",
) -> Table:
  """Rates with their intervals, as numbers and as bars.

  Args:
    names: of the columns that label a row; each row has as many labels.
  """
  labelled = (names,) if isinstance(names, str) else tuple(names)
  rows = list(rows)
  over = " or ".join(sorted({statistics.said_over(rate) for _, rate in rows}))
  cells = [
    [
      *((label,) if isinstance(label, str) else label),
      f"{100 * rate['rate']:.1f} %" if rate["attempts"] else "none",
      f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} %",
      Bar(rate["rate"], rate["low"], rate["high"]) if rate["attempts"] else "",
      f"{rate['successes']:,}",
      f"{rate['attempts']:,}",
    ]
    for label, rate in rows
  ]
  header = ("success", f"95 % interval {over}", "0 to 100 %", "successes", counted)
  first = len(labelled)
  return Table((*labelled, *header), cells, [first + i for i in (0, 1, 3, 4)], caption)


def matrix(
  what: str,
  found: Mapping[str, Mapping[str, Rate]],
  evaluation: Evaluation,
  caption: str = "",
) -> Table:
  """A row a value, a column a policy of Table 1 (all policies where there is none)."""
  columns = policy_names.of_table(evaluation.policies)
  columns = columns or evaluation.policies
  rows = [
    [value, *(share(by_policy.get(name)) for name in columns)]
    for value, by_policy in found.items()
  ]
  header = (what, *map(policy_names.label, columns))
  return Table(header, rows, range(1, len(header)), caption)


def detectors(found: Mapping[str, Mapping[str, float | None]]) -> Table:
  """Precision and recall of the ways to label an attempt."""
  rows = [
    (name, known(one.get("precision")), known(one.get("recall")))
    for name, one in found.items()
  ]
  return Table(("against the simulator's truth", "precision", "recall"), rows, (1, 2))


def known(value: float | None) -> str:
  return "undefined" if value is None else f"{100 * value:.1f} %"


def conditions(sweep: Sweep) -> Table:
  """Every cell of the sweep."""
  rows = []
  for protocol in dict.fromkeys(cell["protocol"] for cell in sweep.cells):
    own = [cell for cell in sweep.cells if cell["protocol"] == protocol]
    by_policy = {(cell["condition"], cell["policy"]): cell["rate"] for cell in own}
    for cell in {cell["condition"]: cell for cell in own}.values():
      label = "nothing changed"
      if cell["name"]:
        amount = names_lib.amount(cell["name"], cell["amount"])
        label = f"{names_lib.condition(cell['name']).label}: {amount}"
      shares = (share(by_policy.get((cell["condition"], n))) for n in sweep.policies)
      rows.append([Stacked(label, (protocol.replace("_", " "),)), *shares])
  header = ("success", *map(policy_names.label, sweep.policies))
  return Table(header, rows, range(1, len(header)))


def along(means: Mapping[tuple[str, bool], Mapping[int, breakdown.Mean]]) -> Table:
  """Predictions by decision: {('p_best' or 'p_null', succeeded): by number}."""

  def cell(mean: breakdown.Mean | None) -> str | Stacked:
    below = (f"± {mean.half:.2f}", f"N = {mean.number}") if mean else ()
    return Stacked(f"{mean.value:.2f}", below) if mean else ""

  columns = [(f, ended) for ended in (True, False) for f in ("p_best", "p_null")]
  numbers = sorted({number for one in means.values() for number in one})
  return Table(
    ("decision", *("best motion", "closing here") * 2),
    [[str(n), *(cell(means[one].get(n)) for one in columns)] for n in numbers],
    numbers=range(5),
    groups=(("", 1), ("attempts that succeeded", 2), ("that failed", 2)),
  )


def ranges(final: Mapping[str, Any]) -> Table:
  """AUC by how far commands reach, of the final held-out row."""
  rows = []
  for suffix, label, _, _ in RANGES:
    auc, low, high = (final.get(f"auc{suffix}{end}") for end in ("", "_low", "_high"))
    if auc is not None:
      known = low is not None and high is not None
      count = final.get(f"samples{suffix}")
      between = f"{low:.3f} to {high:.3f}" if known else ""
      rows.append((label, f"{auc:.3f}", between, f"{count:,}" if count else ""))
  return Table(
    ("commands", "AUC", "95 % interval over bins", "held-out samples"), rows, (1, 2, 3)
  )


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
  """(name, value) of what a JSON object says plainly."""
  return [
    (
      name.replace("_", " "),
      ", ".join(map(str, value)) if isinstance(value, list) else str(value),
    )
    for name, value in values.items()
    if isinstance(value, str | int | float)
    or isinstance(value, list)
    and all(isinstance(one, str | int) for one in value)
  ]


def setup(found: Setup) -> Table:
  """The settings and policies of an evaluation or a sweep."""

  def words(value: Any) -> str:
    if isinstance(value, Mapping):
      return ", ".join(f"{key.replace('_', ' ')} {v}" for key, v in value.items())
    return str(value)

  given = {**found.settings, **found.cell}
  rows = [(name.replace("_", " "), words(value)) for name, value in given.items()]
  for name, spec in found.specs.items():
    said = (spec.get("version") or "without a network", words(spec.get("servo") or {}))
    rows.append((f"policy {name}", "; ".join(filter(None, said))))
  if isinstance(found, Sweep):
    rows.append(("conditions", ", ".join(found.conditions) or "none"))
  return Table(("", ""), [row for row in rows if row[1]], wrap=(1,))
