"""Measures against their definitions, and the interval against its own promise."""

import jax
import numpy as np
import pytest

from hand_eye import losses


def _samples(count, seed=0, shift=1.0):
  rng = np.random.default_rng(seed)
  success = (rng.random(count) < 0.3).astype(np.float32)
  logits = (rng.normal(size=count) + shift * success - 0.8).astype(np.float32)
  return logits, success


def _auc_by_pairs(labels, scores):
  positives, negatives = scores[labels > 0][:, None], scores[labels == 0]
  return np.mean((positives > negatives) + 0.5 * (positives == negatives))


def test_cross_entropy_is_that_of_the_probability():
  logits, success = _samples(100)
  p = np.asarray(jax.nn.sigmoid(logits))
  expected = -np.log(np.where(success > 0, p, 1 - p))
  np.testing.assert_allclose(losses.cross_entropy(logits, success), expected, rtol=1e-4)


def test_summary_is_that_of_the_definitions():
  logits, success = _samples(2000)
  found = losses.metric_sums(logits, success).summary()
  assert found["count"] == 2000
  np.testing.assert_allclose(found["positive_rate"], success.mean())
  np.testing.assert_allclose(found["accuracy"], np.mean((logits >= 0) == success))
  np.testing.assert_allclose(
    found["loss"], np.mean(losses.cross_entropy(logits, success)), rtol=1e-5
  )
  np.testing.assert_allclose(found["auc"], _auc_by_pairs(success, logits), atol=1e-3)


def test_calibration_error_of_known_cases():
  logits = np.full(1000, np.log(0.2 / 0.8), np.float32)
  right = (np.arange(1000) < 200).astype(np.float32)
  wrong = (np.arange(1000) < 700).astype(np.float32)
  assert losses.metric_sums(logits, right).summary()["calibration_error"] < 1e-3
  error = losses.metric_sums(logits, wrong).summary()["calibration_error"]
  np.testing.assert_allclose(error, 0.5, atol=1e-3)


def test_sums_of_parts_add_up_to_those_of_the_whole():
  logits, success = _samples(300)
  parts = losses.metric_sums(logits[:100], success[:100]) + losses.metric_sums(
    logits[100:], success[100:]
  )
  whole = losses.metric_sums(logits, success)
  for name in ("loss", "correct", "positives", "negatives"):
    np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5)


def test_padding_does_not_count_not_even_nan():
  logits, success = _samples(100)
  padded = np.concatenate([logits, [9.0, np.nan]]).astype(np.float32)
  weight = np.concatenate([np.ones(100), [0, 0]]).astype(np.float32)
  found = losses.metric_sums(padded, np.concatenate([success, [0, 1]]), weight)
  expected = losses.metric_sums(logits, success).summary()
  for name, value in found.summary().items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5)


def test_one_class_has_no_auc():
  summary = losses.metric_sums(np.zeros(5, np.float32), np.ones(5, np.float32))
  assert np.isnan(summary.summary()["auc"])
  assert np.all(np.isnan(losses.auc_interval(np.ones(5), np.zeros(5))))


def test_exact_auc_counts_ties_one_half():
  labels = np.random.default_rng(0).random(200) < 0.4
  scores = np.round(np.random.default_rng(1).normal(size=200) + labels, 1)
  found = losses.auc_interval(labels, scores)
  np.testing.assert_allclose(found.value, _auc_by_pairs(labels, scores))
  assert found.low < found.value < found.high


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_interval_covers_the_truth_as_often_as_it_says(shift):
  truth = _auc_by_pairs(*_samples(8000, seed=99, shift=shift)[::-1])
  hits = [
    low <= truth <= high
    for _, low, high in (
      losses.auc_interval(*_samples(150, seed=seed, shift=shift)[::-1])
      for seed in range(400)
    )
  ]
  assert 0.91 <= np.mean(hits) <= 0.985


def test_interval_of_perfect_separation_is_not_a_point():
  few = losses.auc_interval([0, 0, 0, 1, 1], [1, 2, 3, 4, 5])
  many = losses.auc_interval(np.arange(200) >= 100, np.arange(200))
  assert few.value == many.value == few.high == 1.0
  assert few.low < 0.2 and 0.9 < many.low < 1.0
  reverse = losses.auc_interval([0, 0, 0, 1, 1], [5, 4, 3, 2, 1])
  np.testing.assert_allclose([reverse.low, reverse.high], [0, 1 - few.low])


def test_wrong_input_is_refused():
  with pytest.raises(ValueError, match="shape"):
    losses.auc_interval(np.zeros(3), np.zeros(4))
  with pytest.raises(ValueError, match="1 scores are not finite"):
    losses.auc_interval(np.zeros(3), np.array([0, np.nan, 1]))


def test_calibration_error_is_that_of_the_definition():
  logits, success = _samples(4000, shift=3.0)
  probability = np.asarray(jax.nn.sigmoid(logits))
  expected = 0.0
  for low in np.arange(20) / 20:
    inside = (probability >= low) & (probability < low + 0.05)
    if inside.any():
      gap = probability[inside].mean() - success[inside].mean()
      expected += inside.mean() * abs(gap)
  found = losses.calibration_error(success, probability)
  np.testing.assert_allclose(found, expected, rtol=1e-3)
  # That of the histograms knows a probability to a thousandth.
  summary = losses.metric_sums(logits, success).summary()
  np.testing.assert_allclose(summary["calibration_error"], found, atol=1e-3)
  assert losses.calibration_error(np.ones(3), np.ones(3)) == 0.0
  assert np.isnan(losses.calibration_error(np.ones(0), np.ones(0)))
