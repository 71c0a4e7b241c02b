"""Rates and their intervals (over attempts, over robots), detectors, AUC.

Attempts of one robot are not independent: each robot sees and grasps in its own way.
So statements about other robots have an interval over robots, each one a draw.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

# {attempts, successes, rate, low, high, over}: a rate and its 95 % interval, which is
# over 'attempts' or over `groups` many 'robots'.
Rate = dict[str, Any]

# Section 5.2: random commands of the paper's robots succeeded this often.
RANDOM_RANGE = (0.10, 0.30)


def wilson(successes: int, attempts: int) -> tuple[float, float]:
  """The 95 % Wilson score interval of a rate; (0, 1) when nothing was attempted."""
  if attempts == 0:
    return 0.0, 1.0
  interval = stats.binomtest(successes, attempts).proportion_ci(method="wilson")
  return float(interval.low), float(interval.high)


def rate(successes: int, attempts: int) -> Rate:
  """A rate with its `wilson` interval, over attempts. The rate of nothing is 0."""
  low, high = wilson(successes, attempts)
  share = successes / max(attempts, 1)
  return {
    "attempts": attempts, "successes": successes, "rate": share,
    "low": low, "high": high, "over": "attempts",
  }  # fmt: skip


def said_over(rate: Mapping[str, Any]) -> str:
  """What an interval is over: 'over 25 robots', 'over attempts'."""
  groups = f"{rate['groups']} " if "groups" in rate else ""
  return f"over {groups}{rate.get('over', 'attempts')}"


def over_robots(rows: Iterable[Mapping[str, Any]]) -> Rate:
  """The success of attempts with its interval over robots, see `grouped_rate`.

  Args:
    rows: of attempts: unit, success.
  """
  return grouped_rate(list(by_robot(rows).values()))


def by_robot(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
  """(successes, attempts) of each unit, sorted."""
  counts: dict[str, list[bool]] = {}
  for row in rows:
    counts.setdefault(row["unit"], []).append(bool(row["success"]))
  return {unit: (sum(one), len(one)) for unit, one in sorted(counts.items())}


def grouped_rate(counts: Sequence[tuple[int, int]]) -> Rate:
  """A rate with a 95 % interval over robots: Student's t of their contributions.

  It holds for few robots too, where redrawing them would promise too much, and is never
  narrower than over attempts. A single robot says nothing of others: the interval is
  then over attempts.

  Args:
    counts: (successes, attempts) of each robot.
  """
  counts = [(k, n) for k, n in counts if n]
  found = rate(sum(k for k, _ in counts), sum(n for _, n in counts))
  if len(counts) < 2:
    return found
  half = _half_width(_residuals(counts))
  return {
    **found,
    "low": max(0.0, min(found["low"], found["rate"] - half)),
    "high": min(1.0, max(found["high"], found["rate"] + half)),
    "over": "robots",
    "groups": len(counts),
  }


def _residuals(counts: Sequence[tuple[int, int]]) -> np.ndarray:
  """[G]: how far each group moves the rate of all from where it is."""
  successes, attempts = np.asarray(counts, float).T
  share = successes.sum() / attempts.sum()
  return (successes - share * attempts) / attempts.sum()


def _half_width(residuals: np.ndarray) -> float:
  """Of the 95 % interval of a sum over groups."""
  count = len(residuals)
  error = math.sqrt(count / (count - 1) * float(np.sum(residuals**2)))
  return float(stats.t.ppf(0.975, count - 1)) * error


def rates_by(values: np.ndarray, labels: np.ndarray) -> dict[str, Rate]:
  """The rate of labels bool[N] for each of the values [N], sorted."""
  found = {value: labels[values == value] for value in np.unique(values)}
  return {str(value): rate(int(one.sum()), len(one)) for value, one in found.items()}


def agreement(said: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
  """Precision and recall of answers bool[N], and how often they agree with the truth.

  None where there is nothing to divide by.
  """
  hits = int(np.sum(said & truth))
  return {
    "precision": hits / int(said.sum()) if said.any() else None,
    "recall": hits / int(truth.sum()) if truth.any() else None,
    "agreement": float(np.mean(said == truth)) if len(truth) else None,
  }


def detectors(
  rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float | None]]:
  """The `agreement` of the label's two detectors (Section 5.2), and of the label.

  Against the simulator's truth, which is never trained on.

  Args:
    rows: of attempts: gripper_reading (m), drop_test, success, simulator_truth.
  """
  from envs import success  # brings the simulator, which a training does without

  truth = np.array([bool(row["simulator_truth"]) for row in rows], bool)
  said = {
    "gripper reading": [
      success.reading_says_grasped(row["gripper_reading"]) for row in rows
    ],
    "drop test": [bool(row["drop_test"]) for row in rows],
    "label (either)": [bool(row["success"]) for row in rows],
  }
  return {name: agreement(np.array(one, bool), truth) for name, one in said.items()}


def difference(
  successes: int, attempts: int, base_successes: int, base_attempts: int
) -> tuple[float, float, float]:
  """Rate minus base rate with its 95 % interval (Newcombe 1998, method 10).

  Returns (difference, low, high). Both numbers of attempts must be positive.
  """
  share, base = successes / attempts, base_successes / base_attempts
  low, high = wilson(successes, attempts)
  base_low, base_high = wilson(base_successes, base_attempts)
  gap = share - base
  return (
    gap,
    gap - math.hypot(share - low, base_high - base),
    gap + math.hypot(high - share, base - base_low),
  )


class Reliability(NamedTuple):
  """Predicted against observed success, in B bins of equally many samples.

  errors: [2, B], the observed rate less its lower Wilson bound, and its upper bound
  less the rate.
  """

  predicted: np.ndarray  # [B] mean probability
  observed: np.ndarray  # [B] success rate
  counts: np.ndarray  # [B] samples
  errors: np.ndarray


def reliability(
  labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 10
) -> Reliability:
  """Bins labels [N], bool or 0/1, by their probabilities [N]; B <= num_bins."""
  order = np.argsort(probabilities, kind="stable")
  parts = [p for p in np.array_split(order, num_bins) if len(p)]
  rates = [rate(int(labels[p].sum()), len(p)) for p in parts]
  return Reliability(
    np.array([probabilities[p].mean() for p in parts]),
    np.array([one["rate"] for one in rates]),
    np.array([len(p) for p in parts]),
    np.array([(r["rate"] - r["low"], r["high"] - r["rate"]) for r in rates]).T,
  )


def paired_difference(
  counts: Sequence[tuple[int, int]], base_counts: Sequence[tuple[int, int]]
) -> tuple[float, float, float]:
  """Difference of two rates on the same robots, with its 95 % interval over robots.

  What makes a robot, or its bins, hard is hard for both and cancels.

  Args:
    counts, base_counts: (successes, attempts) of each robot, in the same order.

  Returns:
    (difference, low, high); without width for fewer than two robots.

  Raises:
    ValueError: the policies were not on the same number of robots.
  """
  if len(counts) != len(base_counts) or not counts:
    raise ValueError(f"{len(counts)} robots against {len(base_counts)}: not paired")
  own, base = (np.sum(one, axis=0) for one in (counts, base_counts))
  gap = float(own[0] / own[1] - base[0] / base[1])
  half = 0.0
  if len(counts) > 1:
    half = _half_width(_residuals(counts) - _residuals(base_counts))
  return gap, gap - half, gap + half


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
  """Area under the ROC curve, ties counted one half; None without both classes."""
  value = _weighted_auc(labels, scores, np.ones((1, len(labels))))[0]
  return None if np.isnan(value) else float(value)


def auc_interval(
  labels: np.ndarray,
  scores: np.ndarray,
  groups: np.ndarray,
  *,
  num_resamples: int = 1000,
  seed: int = 0,
) -> tuple[float | None, float | None]:
  """A 95 % interval of the AUC from redrawing groups (scenes) with replacement.

  Samples of one attempt share a label, attempts in one bin its objects: taken as
  independent they would promise too much.

  Args:
    labels: [N] bool.
    scores: [N].
    groups: [N] int, which samples belong together.

  Returns:
    (low, high); (None, None) where fewer than two groups have either label.
  """
  labels = np.asarray(labels, bool)
  unique, index = np.unique(groups, return_inverse=True)
  for label in (True, False):
    if len(np.unique(index[labels == label])) < 2:
      return None, None
  rng = np.random.default_rng(seed)
  values = []
  for _ in range(math.ceil(num_resamples / 100)):
    counts = rng.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), 100)
    values.append(_weighted_auc(labels, scores, counts[:, index]))
  low, high = np.nanquantile(np.concatenate(values)[:num_resamples], (0.025, 0.975))
  return float(low), float(high)


def _weighted_auc(
  labels: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """AUC [R] with weights [R, N]; NaN where a class has no weight."""
  labels = np.asarray(labels, bool)
  if not len(labels):
    return np.full(len(weights), np.nan)
  order = np.argsort(scores, kind="stable")
  ordered = np.asarray(scores)[order]
  starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
  weights = np.asarray(weights, float)[:, order]
  positives = np.add.reduceat(weights * labels[order], starts, axis=1)
  negatives = np.add.reduceat(weights * ~labels[order], starts, axis=1)
  below = np.cumsum(negatives, axis=1) - negatives
  wins = np.sum(positives * (below + negatives / 2), axis=1)
  with np.errstate(invalid="ignore", divide="ignore"):
    return wins / (positives.sum(axis=1) * negatives.sum(axis=1))
