"""The loss of Section 4.1 and the measures of a predictor of success.

`MetricSums` holds sums and counts only: those of two batches, or of two hosts, add up
to those of their union. AUC and calibration come from fixed histograms. For reports,
where all labels and scores are at hand, `auc_interval` is exact and has an interval.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import special, stats

NUM_BINS = 1000  # Of the probability histograms. Resolves AUC to about 1e-3.
CALIBRATION_BINS = 20


def cross_entropy(logits: chex.Array, success: chex.Array) -> chex.Array:
  """Returns the cross-entropy [B] of logits [B] and labels [B] in {0, 1}, in nats."""
  return optax.sigmoid_binary_cross_entropy(logits, success)


@chex.dataclass(frozen=True)
class MetricSums:
  """Sums over samples, to be added up and then summarised.

  float32 counts are exact up to 2^24 samples in a bin.

  loss: [] sum of the cross-entropy, nats.
  correct: [] number of samples on the right side of probability one half.
  positives: [NUM_BINS] successes by predicted probability.
  negatives: [NUM_BINS] failures by predicted probability.
  """

  loss: chex.Array
  correct: chex.Array
  positives: chex.Array
  negatives: chex.Array

  def __add__(self, other: "MetricSums") -> "MetricSums":
    return jax.tree.map(lambda a, b: a + b, self, other)

  def summary(self) -> dict[str, float]:
    """Returns the measures as floats.

    Keys: count, loss, accuracy, auc, calibration_error (expected calibration error
    over equal bins of probability), positive_rate. A measure without samples, or an
    AUC of one class, is NaN.
    """
    positives = np.asarray(self.positives, np.float64)
    negatives = np.asarray(self.negatives, np.float64)
    count = positives.sum() + negatives.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
      return {
        "count": float(count),
        "loss": float(np.float64(self.loss) / count),
        "accuracy": float(np.float64(self.correct) / count),
        "auc": _histogram_auc(positives, negatives),
        "calibration_error": _calibration_error(positives, negatives),
        "positive_rate": float(positives.sum() / count),
      }


def metric_sums(
  logits: chex.Array, success: chex.Array, weight: chex.Array | None = None
) -> MetricSums:
  """Returns the `MetricSums` of a batch.

  Args:
    logits: [B] float32.
    success: [B] float32 labels in {0, 1}.
    weight: [B] float32, 1 for samples and 0 for padding; all ones if absent.
  """
  chex.assert_equal_shape([logits, success])
  if weight is None:
    weight = jnp.ones_like(success)
  bins = jnp.clip((jax.nn.sigmoid(logits) * NUM_BINS).astype(int), 0, NUM_BINS - 1)
  empty = jnp.zeros((NUM_BINS,), jnp.float32)
  right = (logits >= 0) == (success >= 0.5)
  # `where`, so that a NaN in the padding stays there.
  return MetricSums(
    loss=jnp.sum(jnp.where(weight > 0, cross_entropy(logits, success), 0.0)),
    correct=jnp.sum(right * weight),
    positives=empty.at[bins].add(success * weight),
    negatives=empty.at[bins].add((1 - success) * weight),
  )


def _histogram_auc(positives: np.ndarray, negatives: np.ndarray) -> float:
  below = np.cumsum(negatives) - negatives
  wins = np.sum(positives * (below + negatives / 2))
  return float(wins / (positives.sum() * negatives.sum()))


def _calibration_error(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Mean distance of predicted probability and success rate, over bins of samples."""
  count = positives + negatives
  probability = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
  gap = (count * probability - positives).reshape(CALIBRATION_BINS, -1).sum(axis=1)
  return float(np.abs(gap).sum() / count.sum())


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
  """Returns the expected calibration error, over equal bins of probability.

  Args:
    labels: [N] bool or {0, 1}.
    probabilities: [N] in [0, 1].
  """
  labels = np.asarray(labels, np.float64)
  probabilities = np.asarray(probabilities, np.float64)
  if not len(labels):
    return float("nan")
  bins = (probabilities * CALIBRATION_BINS).astype(int).clip(max=CALIBRATION_BINS - 1)
  gap = np.bincount(bins, weights=probabilities - labels)
  return float(np.abs(gap).sum() / len(labels))


class Auc(NamedTuple):
  """An area under the ROC curve and its interval.

  value: the probability that a success has a higher score than a failure; ties count
    one half. NaN, as low and high, if one class is missing.
  low, high: ends of the confidence interval.
  """

  value: float
  low: float
  high: float


def auc_interval(
  labels: np.ndarray, scores: np.ndarray, confidence: float = 0.95
) -> Auc:
  """Returns the AUC of `scores` and its confidence interval.

  The variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988), from the midranks
  of Sun and Xu (2014); the interval is normal on the logit scale, which keeps it inside
  [0, 1]. Where scores separate the classes perfectly that variance is zero; the
  interval is then Clopper and Pearson's for as many pairs as can be drawn without using
  a sample twice.

  The samples are taken as independent. Those of one attempt are not: give one sample
  an attempt where the interval must be trusted.

  Args:
    labels: [N] bool or {0, 1}.
    scores: [N] finite numbers; probabilities or logits.
    confidence: coverage of the interval.

  Raises:
    ValueError: for shapes that differ or scores that are not finite.
  """
  labels = np.asarray(labels).astype(bool)
  scores = np.asarray(scores, np.float64)
  if labels.ndim != 1 or labels.shape != scores.shape:
    raise ValueError(
      f"labels have shape {labels.shape} and scores {scores.shape}, expected [N] both."
    )
  if not np.all(np.isfinite(scores)):
    raise ValueError(f"{np.sum(~np.isfinite(scores))} scores are not finite.")
  positives, negatives = scores[labels], scores[~labels]
  m, n = len(positives), len(negatives)
  if not m or not n:
    return Auc(np.nan, np.nan, np.nan)

  # The share of the other class that each sample beats: its mean is the AUC, and its
  # spread over the samples of a class is that class's part of the variance.
  ranks = stats.rankdata(np.concatenate([positives, negatives]))
  beaten = (ranks[:m] - stats.rankdata(positives)) / n
  beaten_by = 1.0 - (ranks[m:] - stats.rankdata(negatives)) / m
  value = float(np.mean(beaten))
  if value in (0.0, 1.0):
    tail = ((1.0 - confidence) / 2) ** (1.0 / min(m, n))
    return Auc(1.0, tail, 1.0) if value else Auc(0.0, 0.0, 1.0 - tail)
  if min(m, n) < 2:
    return Auc(value, 0.0, 1.0)  # One sample of a class has no spread to measure.

  variance = np.var(beaten, ddof=1) / m + np.var(beaten_by, ddof=1) / n
  half = (
    stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance) / (value * (1 - value))
  )
  low, high = special.expit(special.logit(value) + np.array([-half, half]))
  return Auc(value, float(low), float(high))
