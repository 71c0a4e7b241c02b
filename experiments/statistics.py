"""Counted outcomes: rates, their intervals (Wilson, Newcombe), detectors, AUC."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

Z95 = float(stats.norm.ppf(0.975))
# Section 5.2: random commands of the paper's robots succeeded this often.
RANDOM_RANGE = (0.10, 0.30)


def wilson(successes: int, attempts: int) -> tuple[float, float]:
  """The 95 % Wilson score interval of a rate; (0, 1) when nothing was attempted."""
  if attempts == 0:
    return 0.0, 1.0
  share, square = successes / attempts, Z95**2
  centre = (share + square / (2 * attempts)) / (1 + square / attempts)
  half = (
    Z95
    * math.sqrt(share * (1 - share) / attempts + square / (4 * attempts**2))
    / (1 + square / attempts)
  )
  return max(0.0, centre - half), min(1.0, centre + half)


def rate(successes: int, attempts: int) -> dict[str, Any]:
  """{attempts, successes, rate, low, high}, the interval as of `wilson`.

  The rate of nothing is 0, and its interval all there is.
  """
  low, high = wilson(successes, attempts)
  return {
    "attempts": attempts,
    "successes": successes,
    "rate": successes / max(attempts, 1),
    "low": low,
    "high": high,
  }


def detectors(
  rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float | None]]:
  """Precision and recall of the label's two detectors (Section 5.2), and of the label.

  Against the simulator's truth, which is never trained on.

  Args:
    rows: of attempts: gripper_reading (m), drop_test, success, simulator_truth.

  Returns:
    {detector: {precision, recall}}; None where there is nothing to divide by.
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
  table = {}
  for name, values in said.items():
    answers = np.array(values, bool)
    hits = int(np.sum(answers & truth))
    table[name] = {
      "precision": hits / int(answers.sum()) if answers.any() else None,
      "recall": hits / int(truth.sum()) if truth.any() else None,
    }
  return table


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


def reliability(
  labels: np.ndarray, probabilities: np.ndarray, num_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Predicted against observed success in bins that hold equally many samples.

  Args:
    labels: [N] bool or 0/1.
    probabilities: [N] in [0, 1].

  Returns:
    (mean probability [B], success rate [B], samples [B]), B <= num_bins.
  """
  order = np.argsort(probabilities, kind="stable")
  parts = [p for p in np.array_split(order, num_bins) if len(p)]
  return (
    np.array([probabilities[p].mean() for p in parts]),
    np.array([labels[p].mean() for p in parts]),
    np.array([len(p) for p in parts]),
  )


def bootstrap_rate(
  counts: Sequence[tuple[int, int]], *, num_resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
  """{attempts, successes, rate, low, high}; 95 % from redrawing groups of attempts.

  Attempts in one bin are not independent, so bins are redrawn, with all their attempts.
  Redrawing bins that are alike, or a single one, says nothing: the interval is then
  that of `wilson`.

  Args:
    counts: (successes, attempts) of each group.
  """
  table = np.asarray(counts, float).reshape(-1, 2)
  successes, attempts = (int(total) for total in table.sum(axis=0))
  rates = _redrawn(table, num_resamples, seed)
  low, high = np.nanquantile(rates, (0.025, 0.975)) if attempts else (0.0, 0.0)
  if low >= high:
    low, high = wilson(successes, attempts)
  return {
    "attempts": attempts,
    "successes": successes,
    "rate": successes / max(attempts, 1),
    "low": float(low),
    "high": float(high),
  }


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
  both = [np.asarray(one, float).reshape(-1, 2) for one in (counts, base_counts)]
  first, second = (_redrawn(table, num_resamples, seed) for table in both)
  low, high = np.nanquantile(first - second, (0.025, 0.975))
  rates = [table[:, 0].sum() / max(table[:, 1].sum(), 1) for table in both]
  return float(rates[0] - rates[1]), float(low), float(high)


def _redrawn(table: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
  """[R] rates of groups [G, 2] redrawn with replacement; the same groups for a seed."""
  count = max(len(table), 1)
  weights = np.random.default_rng(seed).multinomial(
    count, np.full(count, 1 / count), num_resamples
  )
  drawn = weights[:, : len(table)] @ table
  with np.errstate(invalid="ignore"):
    return drawn[:, 0] / drawn[:, 1]


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
