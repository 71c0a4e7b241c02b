"""In which order samples come: shuffled, mixed by weight, shared among hosts.

Everything is a pure function of a position, so that a loader can go on anywhere. The
order is that of all hosts together: `share` gives each its rows of every batch.
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


def numbers_of(num_samples: int, *, seed: int, shuffle: bool) -> grain.MapDataset:
  """Returns the numbers of one epoch.

  Repeated, each epoch has another order if it is shuffled.
  """
  numbers = grain.MapDataset.range(num_samples).seed(seed)
  return numbers.shuffle() if shuffle else numbers


def share(
  numbers: grain.MapDataset,
  *,
  batch_size: int,
  host_index: int,
  host_count: int,
  drop_remainder: bool,
) -> grain.MapDataset:
  """Returns the numbers of one host's rows, of which each batch has `batch_size`.

  Batch k of all hosts, one after the other, is batch k of a single host that makes
  batches of `batch_size * host_count`. A last one that is not full is shared as evenly
  as can be, if it is not dropped.
  """
  return _Rows(numbers, batch_size, host_index, host_count, drop_remainder)


class _Rows(grain.MapDataset):
  """See `share`. A step of Grain's pipeline like its own slices, also with one host.

  The seed of what is drawn later depends on the number of steps before.
  """

  def __init__(
    self,
    numbers: grain.MapDataset,
    batch_size: int,
    host_index: int,
    host_count: int,
    drop_remainder: bool,
  ):
    super().__init__(numbers)
    self._numbers = numbers
    self._batch_size, self._all = batch_size, batch_size * host_count
    self._row = host_index * batch_size
    self._num_full, rest = divmod(len(numbers), self._all)
    rest = 0 if drop_remainder else rest
    self._rest_row = rest * host_index // host_count
    end = rest * (host_index + 1) // host_count
    self._length = self._num_full * batch_size + end - self._rest_row

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    batch, row = divmod(index, self._batch_size)
    row += self._row if batch < self._num_full else self._rest_row
    return self._numbers[batch * self._all + row]


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
  return grain.MapDataset.range(_FOREVER).map(pick).seed(seed)


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
