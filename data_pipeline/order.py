"""In which order samples come: shuffled, shared among hosts, mixed by weight.

Everything is a pure function of a position, so that a loader can go on anywhere.
"""

import fractions
import functools
import math
from collections.abc import Sequence

import grain
import numpy as np

from data_pipeline.loader_config import LoaderError

# Endless, as far as anybody will train.
_FOREVER = 2**48

# Weights are taken as fractions, of whole numbers up to this, of the largest of them.
_FINEST = 10_000


def numbers_of(
  num_samples: int,
  *,
  seed: int,
  shuffle: bool,
  host_index: int,
  host_count: int,
) -> grain.MapDataset:
  """Returns the numbers of one epoch of one host's samples.

  Repeated, each epoch has another order if it is shuffled.
  """
  numbers = grain.MapDataset.range(num_samples).seed(seed)
  if shuffle:
    numbers = numbers.shuffle()
  return numbers[host_index::host_count]


def mix(
  parts: Sequence[grain.MapDataset],
  members: Sequence[np.ndarray],
  weights: Sequence[float],
  seed: int,
) -> grain.MapDataset:
  """Returns an endless sequence that takes from each part by its weight.

  Any stretch of the sequence has each part's share to within one sample for each
  part; no part waits for another to end its epoch.

  Args:
    parts: numbers of the samples within each part, endlessly repeated.
    members: int64[...] for each part: its samples, as numbers among all.
    weights: above 0; only their ratios count.
    seed: of what is drawn from the sequence later.
  """
  pick = functools.partial(
    _pick, parts=parts, members=members, weights=whole_weights(weights)
  )
  return grain.MapDataset.range(_FOREVER).seed(seed).map(pick)


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
  """Returns whole numbers in the same ratios.

  Raises:
    LoaderError: a weight is so small beside the largest that it would become 0.
  """
  largest = max(weights)
  exact = [fractions.Fraction(w / largest).limit_denominator(_FINEST) for w in weights]
  for weight, share in zip(weights, exact, strict=True):
    if not share:
      raise LoaderError(
        f"mixture has the weight {weight} beside {largest}, expected at least 1/"
        f"{_FINEST} of the largest; leave that dataset out, or raise its weight"
      )
  scale = math.lcm(*(weight.denominator for weight in exact))
  return tuple(int(weight * scale) for weight in exact)


def turn(position: int, weights: Sequence[int]) -> tuple[int, int]:
  """Returns whose turn it is at a position, and how many turns that part had before.

  The first part takes its share of all positions, evenly spread; the second its
  share of what that leaves; and so on.
  """
  total = sum(weights)
  for part, weight in enumerate(weights):
    before = _ceil_ratio(position * weight, total)
    if _ceil_ratio((position + 1) * weight, total) > before:
      return part, before
    position -= before
    total -= weight
  raise AssertionError("the last part takes whatever is left")


def _ceil_ratio(numerator: int, denominator: int) -> int:
  return -(-numerator // denominator)


def _pick(
  position: int,
  *,
  parts: Sequence[grain.MapDataset],
  members: Sequence[np.ndarray],
  weights: Sequence[int],
) -> int:
  part, index = turn(int(position), weights)
  return int(members[part][parts[part][index]])
