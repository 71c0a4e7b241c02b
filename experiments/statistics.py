"""Rates and their intervals (Wilson, Newcombe, bootstrap), detectors, AUC."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

# {attempts, successes, rate, low, high}: a rate and its 95 % interval.
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
  """A rate with its `wilson` interval. The rate of nothing is 0."""
  return _rate(successes, attempts, wilson(successes, attempts))


def _rate(successes: int, attempts: int, interval: tuple[float, float]) -> Rate:
  return {
    "attempts": attempts,
    "successes": successes,
    "rate": successes / max(attempts, 1),
    "low": float(interval[0]),
    "high": float(interval[1]),
  }


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


def bootstrap_rate(
  counts: Sequence[tuple[int, int]], *, num_resamples: int = 10_000, seed: int = 0
) -> Rate:
  """A rate whose 95 % interval comes from redrawing groups of attempts.

  Attempts in one bin are not independent, so bins are redrawn, with all their attempts.
  Redrawing bins that are alike, or a single one, says nothing: the interval is then
  that of `wilson`.

  Args:
    counts: (successes, attempts) of each group.
  """
  table = np.asarray(counts, float).reshape(-1, 2)
  successes, attempts = (int(total) for total in table.sum(axis=0))
  low, high = _redrawn(_share, table, num_resamples, seed)
  bounds = (low, high) if low < high else wilson(successes, attempts)
  return _rate(successes, attempts, bounds)


def paired_difference(
  counts: Sequence[tuple[int, int]],
  base_counts: Sequence[tuple[int, int]],
  *,
  num_resamples: int = 10_000,
  seed: int = 0,
) -> tuple[float, float, float]:
  """Difference of two rates in the same bins, with its 95 % bootstrap interval.

  Bins are redrawn, each with the attempts of both policies: what makes a bin hard is
  hard for both and cancels.

  Args:
    counts, base_counts: (successes, attempts) of each bin, in the same order.

  Returns:
    (difference, low, high).

  Raises:
    ValueError: the policies were not in the same number of bins.
  """
  if len(counts) != len(base_counts) or not counts:
    raise ValueError(f"{len(counts)} bins against {len(base_counts)}: not paired")
  table = np.hstack([np.reshape(one, (-1, 2)) for one in (counts, base_counts)])
  table = table.astype(float)

  def gap(*columns: np.ndarray, axis: int = -1) -> Any:
    k, n, base_k, base_n = columns
    return _share(k, n, axis) - _share(base_k, base_n, axis)

  return float(gap(*table.T)), *_redrawn(gap, table, num_resamples, seed)


def _share(successes: np.ndarray, attempts: np.ndarray, axis: int = -1) -> Any:
  return successes.sum(axis) / np.maximum(attempts.sum(axis), 1)


def _redrawn(
  statistic: Callable[..., Any], table: np.ndarray, num_resamples: int, seed: int
) -> tuple[float, float]:
  """The 95 % percentile interval from redrawing groups [G, columns]."""
  if len(table) < 2:
    value = float(statistic(*table.T)) if len(table) else 0.0
    return value, value
  found = stats.bootstrap(
    table.T, statistic, paired=True, vectorized=True, method="percentile",
    n_resamples=num_resamples, rng=np.random.default_rng(seed),
  ).confidence_interval  # fmt: skip
  return float(found.low), float(found.high)


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
