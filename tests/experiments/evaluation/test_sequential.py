"""The paired sequential test: its error under equality, its power, its arithmetic."""

import numpy as np
import pytest

from experiments.evaluation.sequential import PairedTest, over_bins


def decided_at(p_first: float, p_second: float, most: int, rng) -> int | None:
  test = PairedTest()
  for first, second in rng.random((most, 2)) < (p_first, p_second):
    test.update(bool(first), bool(second))
    if test.decided:
      return test.pairs
  return None


def test_equal_policies_are_called_different_as_rarely_as_promised():
  rng = np.random.default_rng(0)
  wrong = [decided_at(0.5, 0.5, 300, rng) is not None for _ in range(400)]
  assert np.mean(wrong) <= 0.05


def test_power_and_what_stopping_saves():
  # 80 against 50 %: a fixed McNemar test has a power of 0.9 with about 50 pairs.
  rng = np.random.default_rng(1)
  found = [decided_at(0.8, 0.5, 150, rng) for _ in range(200)]
  stopped = [number for number in found if number is not None]
  assert len(stopped) >= 0.9 * len(found)
  assert np.median(stopped) < 60


def test_only_pairs_that_differ_count():
  test = PairedTest()
  for _ in range(1000):
    test.update(True, True)
    test.update(False, False)
  assert test.p_value == 1.0 and not test.decided
  for _ in range(8):
    test.update(True, False)
  # The mean over theta in [0, 1] of (2 theta)^8 is 2^8 / 9.
  assert test.evidence == pytest.approx(2**8 / 9)
  assert test.decided
  found = test.to_json("servo", "random")
  assert found["better"] == "servo" and found["pairs"] == 2008
  assert "servo is better after 2008 pairs" in test.in_words("servo", "random")


def test_attempts_in_one_bin_are_one_pair():
  rows = [
    {
      "protocol": "with_replacement",
      "condition": "",
      "repetition": bin_number,
      "policy": policy,
      "success": success,
    }
    for policy, outcomes in {"a": "110 100 111", "b": "100 001 000"}.items()
    for bin_number, outcome in enumerate(outcomes.split())
    for success in (digit == "1" for digit in outcome)
  ]
  test = over_bins(rows, "a", "b")
  assert (test.pairs, test.first, test.second) == (3, 2, 0)
