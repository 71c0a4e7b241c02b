"""Says in sentences what the numbers of a run show, and what they do not show."""

from experiments import _stats
from experiments._results import BASELINE, Rate, Results


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


def findings(results: Results) -> list[str]:
  """What can be said of this run, most important first."""
  said = []
  baseline = results.policies.get(BASELINE)
  for name, rate in results.policies.items():
    if name != BASELINE and rate.attempts:
      said.append(compare(name, rate, baseline))
  said += [s for s in (prediction(results), base_rate(baseline)) if s]
  return said


def compare(name: str, rate: Rate, baseline: Rate | None) -> str:
  """One policy against the random one."""
  low, high = rate.interval
  said = (
    f"The {name} policy succeeded in {rate.successes} of {rate.attempts} attempts:"
    f" {percent(rate.rate)} ({interval(low, high)})."
  )
  if baseline is None or not baseline.attempts:
    return said + " No random policy was evaluated to compare it with."
  base_low, base_high = baseline.interval
  said += (
    f" Random: {baseline.successes} of {baseline.attempts}, {percent(baseline.rate)}"
    f" ({interval(base_low, base_high)})."
  )
  gap, gap_low, gap_high = _stats.difference(
    rate.successes, rate.attempts, baseline.successes, baseline.attempts
  )
  points = (
    f"the difference is {100 * gap:+.0f} points"
    f" (95 % interval {100 * gap_low:+.0f} to {100 * gap_high:+.0f})"
  )
  overlap = low <= base_high and base_low <= high
  if gap_low > 0 and not overlap:
    return said + f" It grasps better than random: {points}."
  if gap_high < 0:
    return said + f" It grasps worse than random: {points}."
  if gap_low > 0:
    return said + (
      f" The two intervals overlap, but {points}, which excludes zero: better than"
      " random, though not by a wide margin."
    )
  return said + (
    f" The two intervals overlap and {points}, which includes zero: this run does not"
    " show that it grasps better than random."
  )


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
  low, high = _stats.RANDOM_RANGE
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
