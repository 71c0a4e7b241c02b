"""Intervals against SciPy, closed forms and the library's own exact figures."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from experiments import cli, statistics
from hand_eye import losses


# Newcombe (1998), Table I: the score method without continuity correction.
@pytest.mark.parametrize(
  ("successes", "attempts", "low", "high"),
  [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
   (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_wilson_equals_published_examples(successes, attempts, low, high):
  found = statistics.wilson(successes, attempts)
  assert found == pytest.approx((low, high), abs=1e-4)


def test_a_rate_is_an_entry_of_a_table():
  low, high = statistics.wilson(3, 12)
  assert statistics.rate(3, 12) == {
    "attempts": 12, "successes": 3, "rate": 0.25, "low": low, "high": high,
    "over": "attempts",
  }  # fmt: skip
  assert statistics.rate(0, 0)["rate"] == 0.0


def test_a_training_needs_no_simulator_for_its_statistics():
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys, experiments.statistics; print('mujoco' in sys.modules)",
    ],
    cwd=cli.CONFIGS.parents[1],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == "False"


def test_nothing_attempted_says_nothing():
  assert statistics.wilson(0, 0) == (0.0, 1.0)


def test_difference_equals_newcombes_published_example():
  # Newcombe (1998), Table II, (a): 56/70 against 48/80, method 10.
  gap, low, high = statistics.difference(56, 70, 48, 80)
  assert gap == pytest.approx(0.2)
  assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_an_interval_over_robots_is_students_t_of_their_rates():
  # The same number of attempts each: the rates of the robots are plain draws.
  counts = [(63, 100), (44, 100), (35, 100), (35, 100)]
  found = statistics.grouped_rate(counts)
  rates = np.array([k / n for k, n in counts])
  error = rates.std(ddof=1) / 2
  expected = stats.t.interval(0.95, 3, rates.mean(), error)
  assert (found["low"], found["high"]) == pytest.approx(expected)
  assert found["low"] < 0.25 and found["high"] > 0.64
  assert statistics.said_over(found) == "over 4 robots"
  # Over attempts it would promise too much.
  low, high = statistics.wilson(177, 400)
  assert high - low < 0.4 * (found["high"] - found["low"])


def test_an_interval_over_robots_covers_95_percent_where_one_over_attempts_does_not():
  rng = np.random.default_rng(0)
  covered = {"robots": 0, "attempts": 0}
  for _ in range(400):
    successes = rng.binomial(20, rng.beta(4, 4, 8))
    robots = statistics.grouped_rate([(int(k), 20) for k in successes])
    attempts = statistics.rate(int(successes.sum()), 160)
    covered["robots"] += robots["low"] < 0.5 < robots["high"]
    covered["attempts"] += attempts["low"] < 0.5 < attempts["high"]
  assert covered["robots"] > 370 and covered["attempts"] < 320


@pytest.mark.parametrize("counts", [[(3, 10)], [(0, 10)] * 4, [(5, 10)] * 3, []])
def test_robots_that_are_alike_have_the_interval_of_their_attempts(counts):
  found = statistics.grouped_rate(counts)
  expected = statistics.rate(sum(k for k, _ in counts), sum(n for _, n in counts))
  assert {name: found[name] for name in expected if name != "over"} == {
    name: value for name, value in expected.items() if name != "over"
  }
  assert found["over"] == ("robots" if len(counts) > 1 else "attempts")


def test_a_paired_difference_cancels_what_makes_a_robot_hard():
  rng = np.random.default_rng(0)
  ease = rng.integers(0, 9, 60)
  ours = [(int(k) + 1, 10) for k in ease]
  base = [(int(k), 10) for k in ease]
  gap, low, high = statistics.paired_difference(ours, base)
  assert (gap, low, high) == pytest.approx((0.1, 0.1, 0.1))
  with pytest.raises(ValueError, match="not paired"):
    statistics.paired_difference(ours, base[:-1])
  better = [(int(k), 10) for k in rng.integers(2, 9, 12)]
  worse = [(int(k), 10) for k in rng.integers(0, 6, 12)]
  rates = np.array(better)[:, 0] / 10 - np.array(worse)[:, 0] / 10
  expected = stats.t.interval(0.95, 11, rates.mean(), rates.std(ddof=1) / np.sqrt(12))
  assert statistics.paired_difference(better, worse)[1:] == pytest.approx(expected)


def test_auc_counts_ties_one_half():
  labels = np.array([1, 0, 1, 0], bool)
  assert statistics.auc(labels, np.array([0.9, 0.1, 0.5, 0.5])) == pytest.approx(
    3.5 / 4
  )


def test_auc_of_one_class_is_undefined():
  assert statistics.auc(np.ones(3, bool), np.arange(3.0)) is None
  assert statistics.auc(np.array([], bool), np.array([])) is None


def test_auc_and_interval_agree_with_the_exact_ones_for_independent_samples():
  rng = np.random.default_rng(0)
  labels = rng.random(600) < 0.3
  scores = labels * 0.8 + rng.normal(size=600)
  exact = losses.auc_interval(labels, scores)
  assert statistics.auc(labels, scores) == pytest.approx(exact.value)
  low, high = statistics.auc_interval(labels, scores, np.arange(600))
  assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.012)


def test_samples_of_one_attempt_do_not_narrow_the_interval():
  rng = np.random.default_rng(1)
  labels = rng.random(200) < 0.4
  scores = labels * 0.5 + rng.normal(size=200)
  once = statistics.auc_interval(labels, scores, np.arange(200))
  attempts = np.repeat(np.arange(200), 5)
  repeated = statistics.auc_interval(labels[attempts], scores[attempts], attempts)
  assert repeated == pytest.approx(once, abs=1e-9)


def test_too_few_attempts_have_no_interval():
  labels = np.array([1, 1, 0, 0], bool)
  assert statistics.auc_interval(labels, np.arange(4.0), np.array([0, 0, 1, 2])) == (
    None,
    None,
  )


def test_reliability_of_a_calibrated_predictor_lies_on_the_diagonal():
  rng = np.random.default_rng(2)
  probabilities = rng.random(20_000)
  labels = rng.random(20_000) < probabilities
  predicted, observed, counts, _ = statistics.reliability(labels, probabilities)
  assert counts.sum() == 20_000
  np.testing.assert_allclose(predicted, observed, atol=0.04)


def test_reliability_of_few_samples_has_no_empty_bin():
  _, _, counts, _ = statistics.reliability(np.array([1, 0]), np.array([0.2, 0.7]))
  assert counts.tolist() == [1, 1]
