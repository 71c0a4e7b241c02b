"""Says in sentences what the numbers of a run show, and what they do not show."""

from collections.abc import Mapping

from experiments import statistics
from experiments.evaluation import policy_names
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import names as names_lib
from experiments.reporting.evaluated import Evaluation
from experiments.reporting.results import Rate, Results


def percent(value: float) -> str:
  """0.234 -> '23 %'."""
  return f"{100 * value:.0f} %"


def interval(low: float, high: float) -> str:
  """'95 % interval 12 to 31 %'."""
  return f"95 % interval {100 * low:.0f} to {100 * high:.0f} %"


def duration(seconds: float) -> str:
  """94.2 -> '1 min 34 s'."""
  minutes, rest = divmod(round(seconds), 60)
  return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def findings(results: Results, evaluation: Evaluation | None) -> list[str]:
  """What can be said of this run, most important first."""
  said = comparisons(evaluation) if evaluation else []
  said.append(prediction(results))
  if evaluation and (rate := evaluation.with_replacement.get(names_lib.RANDOM)):
    said.append(base_rate(rate))
  return [sentence for sentence in said if sentence]


def comparisons(evaluation: Evaluation) -> list[str]:
  """The servo against each baseline of Table 1; else all against random motions."""
  rates = evaluation.with_replacement
  known = [
    name for name in policy_names.KINDS if name in rates and rates[name].attempts
  ]
  own = policy_names.ours(known)
  if not own:
    base = rates.get(names_lib.RANDOM)
    others = [name for name in known if name != names_lib.RANDOM]
    said = [succeeded(name, rates[name]) for name in others]
    if base and base.attempts:
      for number, name in enumerate(others):
        said[number] += " " + against(rates[name], names_lib.RANDOM, base)
    return said
  ours = rates[own]
  said = [succeeded(own, ours)]
  for name in known:
    if name not in (*policy_names.OURS, "oracle"):
      pair = evaluation.paired.get(name, {}).get(evaluated_lib.WITH)
      said.append(against(ours, name, rates[name], pair))
  if len(said) == 1:
    said.append("No other policy was evaluated to compare it with.")
  return said


def succeeded(name: str, rate: Rate) -> str:
  label = policy_names.label(name)
  return (
    f"{label[0].upper()}{label[1:]}: {rate.successes} of {rate.attempts} attempts with"
    f" replacement succeeded, {percent(rate.rate)} ({interval(*rate.interval)})."
  )


def against(
  rate: Rate,
  base_name: str,
  base: Rate,
  paired: tuple[float, float, float] | None = None,
) -> str:
  """One policy's rate against another's, and what the interval allows to say.

  Args:
    paired: (difference, low, high) of the other's rate to this one in the same bins;
      without it, and where it has no width, they are taken as independent.
  """
  said = (
    f"Against {policy_names.label(base_name)} ({base.successes} of {base.attempts},"
    f" {percent(base.rate)}): "
  )
  if paired and paired[1] < paired[2]:
    gap, low, high = -paired[0], -paired[2], -paired[1]
    where = " in the same bins"
  else:
    gap, low, high = statistics.difference(
      rate.successes, rate.attempts, base.successes, base.attempts
    )
    where = ""
  said += f"{points(gap, low, high)}{where}"
  if low > 0:
    return said + "; it grasps better."
  if high < 0:
    return said + "; it grasps worse."
  return said + ", which includes zero: this run does not show that it grasps better."


def points(gap: float, low: float, high: float) -> str:
  """'+12 points (95 % interval -1 to +25)'."""
  return (
    f"{100 * gap:+.0f} points (95 % interval {100 * low:+.0f} to {100 * high:+.0f})"
  )


def beside_ours(name: str, paired: Mapping[str, tuple[float, float, float]]) -> str:
  """A policy, or the servo without one of its parts, against the servo.

  Args:
    paired: (difference, low, high) of its rate to the servo's, by protocol.
  """
  said = []
  for protocol, (gap, low, high) in paired.items():
    if low >= high:
      words = f"{100 * gap:+.0f} points, from bins too few or too alike for an interval"
    elif low > 0:
      words = f"{points(gap, low, high)}, better"
    elif high < 0:
      words = f"{points(gap, low, high)}, worse"
    else:
      words = f"{points(gap, low, high)}, no difference shown"
    said.append(f"{words}, {protocol.replace('_', ' ')}")
  label = policy_names.label(name)
  return f"{label[0].upper()}{label[1:]}: {'; '.join(said)}."


def prediction(results: Results) -> str:
  """Whether the network predicts held-out attempts better than chance."""
  final = results.final()
  auc, low, high = (final.get(k) for k in ("auc", "auc_low", "auc_high"))
  if auc is None:
    return ""
  said = f"On held-out attempts the network's predictions reach an AUC of {auc:.3f}"
  if low is None or high is None:
    return said + " (no interval was computed; 0.5 is chance)."
  said += f" (95 % interval {low:.3f} to {high:.3f}; 0.5 is chance):"
  if low > 0.5:
    said += " better than chance."
  elif high < 0.5:
    said += " worse than chance."
  else:
    said += " not shown to be better than chance."
  if final.get("evaluations", 1) > 1:
    said += (
      f" The weights are those of step {final['step']}, the best of"
      f" {final['evaluations']} evaluations on these attempts, which makes the figure a"
      " little too good."
    )
  return said


def base_rate(baseline: Rate | None) -> str:
  """Whether the cell is as hard for random commands as the paper's robots found it."""
  if baseline is None or not baseline.attempts:
    return ""
  low, high = statistics.RANDOM_RANGE
  words = f"{percent(low)} to {percent(high)} of the paper's robots (Section 5.2)"
  if low <= baseline.rate <= high:
    return f"Random commands succeed within the {words}."
  side = "less often" if baseline.rate < low else "more often"
  return f"Random commands succeed {side} than the {words}."


def learning(results: Results) -> str:
  """What the two loss curves say together."""
  train, held_out = results.split("train"), results.split("held_out")
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
