"""A paired test of two policies that may be evaluated after every attempt.

Only pairs with different outcomes are informative (McNemar). If neither policy is
better, each wins such a pair with probability one half. The test statistic is the
likelihood ratio of a coin of unknown bias, uniform over [0, 1], to a fair one: a
nonnegative martingale of mean 1 if the coin is fair. By Ville's inequality, the
probability that it ever reaches 1 / alpha is at most alpha, so one may stop then
(Robbins, Statistical methods related to the law of the iterated logarithm, 1970; as an
e-process: Ramdas, Grunwald, Vovk and Shafer, Game-theoretic statistics and
safe anytime-valid inference, 2023).
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

ALPHA = 0.05  # the risk of ever calling equal policies different


@dataclasses.dataclass
class PairedTest:
  """Pairs so far: of attempts, or of bins where several attempts share one.

  Attributes:
    pairs: how many.
    first, second: pairs in which that policy was ahead.
    alpha: the risk of ever calling equal policies different.
    evidence: the largest value of the process so far.
  """

  pairs: int = 0
  first: int = 0
  second: int = 0
  alpha: float = ALPHA
  evidence: float = 1.0

  def update(self, first: bool, second: bool) -> None:
    """Takes a pair: whether each policy succeeded, or was ahead of the other."""
    self.pairs += 1
    self.first += first and not second
    self.second += second and not first
    self.evidence = max(self.evidence, math.exp(self._log_ratio()))

  @property
  def decided(self) -> bool:
    """Whether the policies differ, at the risk `alpha`."""
    return self.evidence >= 1 / self.alpha

  @property
  def p_value(self) -> float:
    """Valid at any time: at most alpha with a probability of at most alpha."""
    return min(1.0, 1 / self.evidence)

  def to_json(self, first: str, second: str) -> dict[str, Any]:
    return {
      "policies": [first, second],
      "pairs": self.pairs,
      "ahead": [self.first, self.second],
      "evidence": self.evidence,
      "p_value": self.p_value,
      "decided": self.decided,
      "better": (first if self.first > self.second else second)
      if self.decided
      else None,
    }

  def in_words(self, first: str, second: str) -> str:
    found = self.to_json(first, second)
    verdict = (
      f"{found['better']} is better" if self.decided else "the difference is undecided"
    )
    return (
      f"{verdict} after {self.pairs} pairs: {first} was ahead in {self.first}, {second}"
      f" in {self.second} (p = {self.p_value:.2g}, valid whenever one stops)"
    )

  def _log_ratio(self) -> float:
    """Log of B(a + 1, b + 1) 2^(a + b), the mixture's ratio after a and b wins."""
    a, b = self.first, self.second
    log_beta = math.lgamma(a + 1) + math.lgamma(b + 1) - math.lgamma(a + b + 2)
    return log_beta + (a + b) * math.log(2)


def from_json(found: Mapping[str, Any]) -> PairedTest:
  """What `PairedTest.to_json` wrote."""
  first, second = found["ahead"]
  return PairedTest(found["pairs"], first, second, evidence=found["evidence"])


def over_bins(rows: Iterable[Mapping[str, Any]], first: str, second: str) -> PairedTest:
  """Compares two policies by the bins that both attempted, in the order of the rows.

  Attempts in one bin depend on each other, so that a bin is one pair: who succeeded in
  it more often.
  """
  ahead: dict[tuple, collections.Counter[str]] = {}
  for row in rows:
    key = (row["protocol"], row["condition"], row["repetition"])
    ahead.setdefault(key, collections.Counter())[row["policy"]] += row["success"]
  test = PairedTest()
  for wins in ahead.values():
    if first in wins and second in wins:
      test.update(wins[first] > wins[second], wins[second] > wins[first])
  return test
