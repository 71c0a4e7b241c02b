"""Sentences about what the numbers of a run show, and what they do not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import statistics
from experiments.evaluation import policy_names
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.reporting.evaluated import Evaluation
from experiments.statistics import Rate

_NEAR, _OFF = 0.01, 0.03  # m, that an object's middle is off the fingers'


NOT_FINISHED = (
  "The final row of metrics.jsonl is missing: training has not ended, so there is no"
  " result of it yet. The same command continues it."
)


def percent(value: float) -> str:
  """0.234 -> '23 %'."""
  return f"{100 * value:.0f} %"


def interval(rate: Rate) -> str:
  """'95 % interval over 25 robots: 12 to 31 %'."""
  between = f"{100 * rate['low']:.0f} to {100 * rate['high']:.0f} %"
  return f"95 % interval {statistics.said_over(rate)}: {between}"


def capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def duration(seconds: float) -> str:
  """94.2 -> '1 min 34 s'."""
  minutes, rest = divmod(round(seconds), 60)
  return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def findings(final: Mapping[str, Any], evaluation: Evaluation | None) -> list[str]:
  """What can be said of this run, most important first."""
  said = comparisons(evaluation) if evaluation else []
  said.append(prediction(final))
  if evaluation and (rate := evaluation.with_replacement.get(names_lib.RANDOM)):
    said.append(base_rate(rate))
  return [sentence for sentence in said if sentence]


def comparisons(evaluation: Evaluation) -> list[str]:
  """The servo against each baseline of Table 1; else all against random motions."""
  rates = {n: r for n, r in evaluation.with_replacement.items() if r["attempts"]}
  known = policy_names.of_table(rates)
  if ours := policy_names.ours(known):
    said = [
      against(
        rates[ours], name, rates[name],
        evaluation.paired.get(name, {}).get(evaluated_lib.WITH),
      )
      for name in known
      if name not in (*policy_names.OURS, "oracle")
    ]  # fmt: skip
    none = "No other policy was evaluated to compare it with."
    return [succeeded(ours, rates[ours]), *(said or [none])]
  base = rates.get(names_lib.RANDOM)
  return [
    " ".join(
      [succeeded(name, rates[name])]
      + ([against(rates[name], names_lib.RANDOM, base)] if base else [])
    )
    for name in known
    if name != names_lib.RANDOM
  ]


def succeeded(name: str, rate: Rate) -> str:
  return (
    f"{capital(policy_names.label(name))}: {rate['successes']} of {rate['attempts']}"
    f" attempts with replacement succeeded, {percent(rate['rate'])}"
    f" ({interval(rate)})."
  )


def against(
  rate: Rate,
  base_name: str,
  base: Rate,
  paired: tuple[float, float, float] | None = None,
) -> str:
  """One policy's rate against another's, and what the interval allows to say.

  Args:
    paired: (difference, low, high) of the other's rate to this one in the same bins,
      over robots; without it, and where it has no width, attempts are taken as
      independent.
  """
  where, over = "", "attempts"
  if paired and paired[1] < paired[2]:
    gap, low, high = -paired[0], -paired[2], -paired[1]
    where, over = " in the same bins", "robots"
  else:
    gap, low, high = statistics.difference(
      rate["successes"], rate["attempts"], base["successes"], base["attempts"]
    )
  verdict = (
    "; it grasps better."
    if low > 0
    else "; it grasps worse."
    if high < 0
    else ", which includes zero: this run does not show that it grasps better."
  )
  return (
    f"Against {policy_names.label(base_name)} ({base['successes']} of"
    f" {base['attempts']}, {percent(base['rate'])}):"
    f" {points(gap, low, high, over)}{where}{verdict}"
  )


def points(gap: float, low: float, high: float, over: str) -> str:
  """'+12 points (95 % interval over robots: -1 to +25)'."""
  between = f"{100 * low:+.0f} to {100 * high:+.0f}"
  return f"{100 * gap:+.0f} points (95 % interval over {over}: {between})"


def beside_ours(name: str, paired: Mapping[str, tuple[float, float, float]]) -> str:
  """A policy, or the servo without one of its parts, against the servo.

  Args:
    paired: (difference, low, high) of its rate to the servo's, by protocol.
  """
  said = []
  for protocol, (gap, low, high) in paired.items():
    words = f"{100 * gap:+.0f} points, from robots too few or too alike for an interval"
    if low < high:
      verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
      words = f"{points(gap, low, high, 'robots')}, {verdict}"
    said.append(f"{words}, {protocol.replace('_', ' ')}")
  return f"{capital(policy_names.label(name))}: {'; '.join(said)}."


def prediction(final: Mapping[str, Any]) -> str:
  """Whether the network predicts held-out attempts better than chance."""
  auc, low, high = (final.get(k) for k in ("auc", "auc_low", "auc_high"))
  if auc is None:
    return ""
  said = f"On held-out attempts the network's predictions reach an AUC of {auc:.3f}"
  if low is None or high is None:
    return said + " (no interval was computed; 0.5 is chance)."
  verdict = (
    "better than chance"
    if low > 0.5
    else "worse than chance"
    if high < 0.5
    else "not shown to be better than chance"
  )
  said += (
    f" (95 % interval over bins: {low:.3f} to {high:.3f}; 0.5 is chance): {verdict}."
  )
  if final.get("evaluations", 1) > 1:
    said += (
      f" The weights are those of step {final['step']}, the best of"
      f" {final['evaluations']} evaluations on these attempts, which makes the figure a"
      " little too good."
    )
  return said


def base_rate(rate: Rate) -> str:
  """Whether the cell is as hard for random commands as the paper's robots found it."""
  if not rate["attempts"]:
    return ""
  low, high = statistics.RANDOM_RANGE
  side = (
    "less often than"
    if rate["rate"] < low
    else "more often than"
    if rate["rate"] > high
    else "within"
  )
  return (
    f"Random commands succeed {side} the {percent(low)} to {percent(high)} of the"
    " paper's robots (Section 5.2)."
  )


def learning(train: Sequence[Any], held_out: Sequence[Mapping[str, Any]]) -> str:
  """What the rows of both loss curves say together."""
  losses = [(row["loss"], row["step"]) for row in held_out if row.get("loss")]
  if len(losses) < 3 or not train:
    return ""
  best, step = min(losses)
  last = losses[-1][0]
  if last > best + 0.02 and step < losses[-1][1]:
    return (
      f"The held-out loss was lowest at step {step} ({best:.3f}) and ended at"
      f" {last:.3f}: the last part of the training overfitted."
    )
  return f"The held-out loss ended at {last:.3f}; its lowest was {best:.3f}."


def offsets(name: str, values: np.ndarray) -> str:
  """How many of the successes on a kind of objects were in the middle, how many off."""
  near, off = int(np.sum(values <= _NEAR)), int(np.sum(values > _OFF))
  return (
    f"Of {len(values)} {name} objects {near} were within {100 * _NEAR:.0f} cm of the"
    f" fingers' middle and {off} more than {100 * _OFF:.0f} cm off; the median is"
    f" {100 * np.median(values):.1f} cm."
  )
