"""What the report says of an evaluation: Table 1 of the paper, comparisons, objects."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.evaluation import policy_names
from experiments.reporting import blocks
from experiments.reporting import breakdown as breakdown_lib
from experiments.reporting import commands as commands_lib
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.reporting import words as words_lib
from experiments.reporting.evaluated import Evaluation
from experiments.reporting.results import Rate

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
FEW_BINS = 10  # A bootstrap over fewer promises too much.


def sections(evaluation: Evaluation | None, workdir: Path) -> list[blocks.Section]:
  """Those of how often it grasps and what."""
  heading = "How often it grasps"
  command = commands_lib.evaluate(workdir, evaluation)
  if evaluation is None:
    return [blocks.Section(heading, [blocks.Missing("Evaluation", command)])]
  parts: list[blocks.Block] = [table_1(evaluation)]
  absent = [name for name in _rows(evaluation) if name not in evaluation.policies]
  if evaluation.others:
    named = ", ".join(map(policy_names.label, evaluation.others))
    words = f"Not in this report, as the last evaluation did not name them: {named}"
    parts.append(blocks.Missing(words, command))
  elif absent:
    named = ", ".join(map(policy_names.label, absent))
    parts.append(
      blocks.Text(f"Not evaluated here: {named} (--policies names them).", "soft")
    )
  parts += _all_policies(evaluation)
  parts += _detectors(evaluation)
  return [blocks.Section(heading, parts), _objects(evaluation)]


def table_1(evaluation: Evaluation) -> blocks.Table:
  """The paper's failure rates beside ours, with 95 % intervals."""
  rows = []
  for name in _rows(evaluation):
    theirs = _PAPER.get(name)
    ours = [
      evaluation.with_replacement.get(name),
      *(evaluation.without.get(name, {}).get(n) for n in FIRST),
    ]
    cells: list[blocks.Cell] = [policy_names.label(name)]
    for column, rate in enumerate(ours):
      cells.append(
        blocks.Stacked(f"{theirs[column]:.1f} %", (f"N = {_PAPER_ATTEMPTS[column]}",))
        if theirs
        else ""
      )
      cells.append(failures(rate) if rate else _NOT_RUN)
    cells.append(_cleared(evaluation.cleared.get(name, [])))
    rows.append(cells)
  return blocks.Table(
    ("failures", *("paper", "ours") * 4, "ours"),
    rows,
    numbers=range(1, 10),
    caption=_caption(evaluation),
    groups=(
      ("", 1),
      ("with replacement", 2),
      *((f"without, first {n}", 2) for n in FIRST),
      ("bins cleared", 1),
    ),
    strong=[i for i, name in enumerate(_rows(evaluation)) if name in policy_names.OURS],
  )


def _rows(evaluation: Evaluation) -> list[str]:
  """The policies of the paper, run or not, and the others of Table 1 that were run."""
  ours = policy_names.ours(evaluation.policies) or policy_names.OURS[0]
  wanted = {*_PAPER, *evaluation.policies} - {*policy_names.OURS} | {ours}
  return [
    name for name in policy_names.KINDS if name in wanted | {*evaluation.policies}
  ]


def failures(rate: Rate) -> blocks.Cell:
  """'52.5 %' over '46 to 59 %' and 'N = 200'."""
  if not rate.attempts:
    return "no attempts"
  low, high = rate.interval
  return blocks.Stacked(
    f"{100 * (1 - rate.rate):.1f} %",
    (f"{100 * (1 - high):.0f} to {100 * (1 - low):.0f} %", f"N = {rate.attempts}"),
  )


def _cleared(attempts: Sequence[int | None]) -> blocks.Cell:
  if not attempts:
    return _NOT_RUN
  done = sorted(number for number in attempts if number)
  after = (f"after {', '.join(map(str, done))}",) if done else ()
  return blocks.Stacked(f"{len(done)} of {len(attempts)}", after)


def _caption(evaluation: Evaluation) -> str:
  """What differs between the paper's table and ours."""
  ours = [
    f"{_bins(evaluation, name)} {words}"
    for name, words in (
      (evaluated_lib.WITH, "with replacement"),
      (evaluated_lib.WITHOUT, "without"),
    )
    if evaluation.bins(name)
  ]
  settings = evaluation.settings
  few = 0 < evaluation.bins(evaluated_lib.WITHOUT) < FEW_BINS
  too_few = ", so few that they are too narrow" if few else ""
  return (
    "Table 1: failure rates with 95 % intervals (Wilson; without replacement, from"
    f" redrawing the bins{too_few}). The two are not the same experiment. The paper:"
    " real robots, household objects, 1 bin of 100 attempts with replacement, 4 bins of"
    " 30 without, one of which its method cleared within 30 attempts; its one depth"
    " camera stands beside our ideal and our noisy one. Ours: simulated,"
    f" {' and '.join(ours)}; objects {settings.get('objects')},"
    f" {settings.get('num_units')} units, T = {settings.get('num_steps')}, objects and"
    " units held out from the training."
  )


def _bins(evaluation: Evaluation, protocol: str) -> str:
  one = evaluation.settings[protocol]
  return (
    f"{one['repetitions']} bins of {one['num_attempts']} attempts with"
    f" {one['num_objects']} objects"
  )


def _all_policies(evaluation: Evaluation) -> list[blocks.Block]:
  """Success of every policy that was run, and variants of the servo against it."""
  parts: list[blocks.Block] = []
  if rates := evaluation.with_replacement:
    caption = (
      "Success with replacement. The units are others than those that chose the"
      " checkpoint. Intervals (Wilson) take attempts as independent, though several"
      " share a bin."
    )
    rows = [(policy_names.label(name), rate) for name, rate in rates.items()]
    parts.append(rates_table("policy", rows, caption))
  said = [
    words_lib.beside_ours(name, evaluation.paired[name])
    for name in evaluation.policies
    if evaluation.paired.get(name)
  ]
  if policy_names.ours(evaluation.policies) and said:
    heading = "Against the servo, in the same bins from the same seeds"
    parts += [blocks.Heading(heading), blocks.Bullets(said)]
  return parts


def rates_table(
  name: str, rows: Iterable[tuple[str, Rate]], caption: str = ""
) -> blocks.Table:
  """Rates with their intervals, as numbers and as bars."""
  cells: list[list[blocks.Cell]] = []
  for label, rate in rows:
    low, high = rate.interval
    cells.append(
      [
        label,
        f"{100 * rate.rate:.1f} %" if rate.attempts else "none",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        blocks.Bar(rate.rate if rate.attempts else low, low, high),
        f"{rate.successes:,}",
        f"{rate.attempts:,}",
      ]
    )
  header = (name, "success", "95 % interval", "0 to 100 %", "successes", "attempts")
  return blocks.Table(header, cells, numbers=(1, 2, 4, 5), caption=caption)


def _detectors(evaluation: Evaluation) -> list[blocks.Block]:
  def share(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %"

  cells = [
    (name, share(values.get("precision")), share(values.get("recall")))
    for name, values in evaluation.detectors.items()
  ]
  header = ("against the simulator's truth", "precision", "recall")
  table = blocks.Table(header, cells, numbers=(1, 2))
  summary = "How far the labels can be trusted"
  return [blocks.Details(summary, [table])] if cells else []


# --- by object and unit -------------------------------------------------------------


def _objects(evaluation: Evaluation) -> blocks.Section:
  heading = "Which objects, which robots"
  rows = evaluation.rows
  if not rows:
    words = "evaluate/rows.jsonl has no rows of these policies."
    return blocks.Section(heading, [blocks.Text(words, "missing")])
  found = breakdown_lib.by_property(rows)
  known = [name for name in names_lib.PROPERTIES if name in found]
  absent = [name for name in names_lib.PROPERTIES if name not in found]
  caption = (
    "Success, 95 % interval (Wilson) and attempts, by a property of the object that was"
    " nearest to the fingers when they closed; an object with two properties counts"
    " twice. Both protocols together. What a policy chose to grasp is part of its"
    " figure: the rows do not compare equal tasks."
  )
  parts: list[blocks.Block] = [
    matrix("property", {name: found[name] for name in known}, evaluation, caption)
  ]
  if absent:
    words = f"No gripper closed nearest to an object that is {' or '.join(absent)}."
    parts.append(blocks.Text(words, "soft"))
  by_unit = breakdown_lib.by_field(rows, "unit")
  parts.append(
    matrix(
      "unit",
      dict(sorted(by_unit.items())),
      evaluation,
      "Success by unit, none of them trained with. Both protocols together.",
    )
  )
  by_family = dict(sorted(breakdown_lib.by_field(rows, "target_family").items()))
  table = matrix("nearest object", by_family, evaluation)
  parts.append(blocks.Details("By family of objects", [table]))
  return blocks.Section(heading, parts)


def matrix(
  what: str,
  found: Mapping[str, Mapping[str, Rate]],
  evaluation: Evaluation,
  caption: str = "",
) -> blocks.Table:
  """A row a value, a column a policy of Table 1 (all policies where there is none)."""
  main = [name for name in policy_names.KINDS if name in evaluation.policies]
  columns = main or evaluation.policies
  rows = [
    [value, *(success(by_policy.get(name)) for name in columns)]
    for value, by_policy in found.items()
  ]
  header = (what, *map(policy_names.label, columns))
  return blocks.Table(header, rows, numbers=range(1, len(header)), caption=caption)


def success(rate: Rate | None) -> blocks.Cell:
  """'47.5 %' over '41 to 54 %' and 'N = 200'; '' where there was no attempt."""
  if rate is None or not rate.attempts:
    return ""
  low, high = rate.interval
  return blocks.Stacked(
    f"{100 * rate.rate:.1f} %",
    (f"{100 * low:.0f} to {100 * high:.0f} %", f"N = {rate.attempts}"),
  )
