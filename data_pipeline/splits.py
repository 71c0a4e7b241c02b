"""Parts of datasets: filtered by where attempts come from, or split to hold some out.

Always whole attempts: the samples of one attempt share its images and its label.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from data_pipeline import attempts as attempts_lib
from data_pipeline import plan as plan_lib
from data_pipeline.source import Dataset


@dataclasses.dataclass(frozen=True)
class Filter:
  """Which attempts to use; an empty field takes all.

  Attributes:
    units: names of robots.
    families: object families, at least one of which lay in the bin.
    rounds: numbers of collection rounds.
    policies: names of policies.
  """

  units: tuple[str, ...] = ()
  families: tuple[str, ...] = ()
  rounds: tuple[int, ...] = ()
  policies: tuple[str, ...] = ()

  def apply(self, dataset: Dataset) -> Dataset:
    """Returns the attempts that all fields allow, in their order.

    Raises:
      DatasetError: a name is of no attempt, or no attempt is left.
    """
    attempts = dataset.attempts
    columns: list[tuple[str, Sequence, set, Callable[[Sequence], np.ndarray]]] = [
      ("units", self.units, set(attempts.unit.names), attempts.unit.isin),
      (
        "families",
        self.families,
        set(attempts.families.names),
        attempts.families.contains,
      ),
      (
        "rounds",
        self.rounds,
        set(np.unique(attempts.round).tolist()),
        lambda values: np.isin(attempts.round, values),
      ),
      ("policies", self.policies, set(attempts.policy.names), attempts.policy.isin),
    ]
    keep = np.ones(len(dataset), bool)
    for name, wanted, known, matches in columns:
      if unknown := [value for value in wanted if value not in known]:
        raise plan_lib.DatasetError(
          f"the filter {name} names {unknown[0]!r}, of which there is no attempt; the "
          f"data has {_some(sorted(known))}"
        )
      if wanted:
        keep &= matches(wanted)
    if keep.all():
      return dataset
    if not keep.any():
      raise plan_lib.DatasetError(
        f"no attempt is left of {len(dataset)} with {self}; widen the filter"
      )
    return dataset.select(np.flatnonzero(keep))


# What no two parts of a split may share.
_PLURAL = {
  "unit": "units",
  "family": "families",
  "scene": "scenes",
  "attempt": "attempts",
}
SPLITS = tuple(_PLURAL)


def split(
  dataset: Dataset, by: str, held_out: float, seed: int
) -> tuple[Dataset, Dataset]:
  """Splits a dataset so that its parts share no unit, object family, scene or attempt.

  A network can learn to recognise a robot, a bin or an object, and its rate of
  success: what it knows of grasping shows on those that it never saw.

  Args:
    dataset: what to split.
    by: one of SPLITS. 'family' holds out object families: the second part has every
      attempt in whose bin one of them lay, and so more attempts than their share.
    held_out: share of the units (families, ...) that go into the second part,
      between 0 and 1; at least one goes into each part.
    seed: decides which.

  Returns:
    The rest, and the held-out part.

  Raises:
    DatasetError: there is only one unit (family, ...), the share is not between 0
      and 1, or one part would be empty.
  """
  if by not in SPLITS:
    raise plan_lib.DatasetError(
      f"a split by {by!r} is unknown, expected one of {SPLITS}"
    )
  attempts = dataset.attempts
  if by == "family":
    names = np.unique(np.array(attempts.families.names)[attempts.families.codes])
    is_held_out = attempts.families.contains(_choose(names, by, held_out, seed))
  else:
    groups = {
      "unit": lambda: np.asarray(attempts.unit),
      "scene": lambda: attempts_lib.scenes(attempts),
      "attempt": lambda: np.arange(len(dataset)),
    }[by]()
    is_held_out = np.isin(groups, _choose(np.unique(groups), by, held_out, seed))
  if is_held_out.all():
    raise plan_lib.DatasetError(
      f"a split by {by} with a share of {held_out} leaves nothing to learn from: every "
      "attempt has something that is held out; lower the share"
    )
  return (
    dataset.select(np.flatnonzero(~is_held_out)),
    dataset.select(np.flatnonzero(is_held_out)),
  )


def _choose(groups: np.ndarray, by: str, held_out: float, seed: int) -> np.ndarray:
  if len(groups) < 2 or not 0 < held_out < 1:
    raise plan_lib.DatasetError(
      f"cannot hold out a share of {held_out} of {len(groups)} {_PLURAL[by]}, expected "
      "a share between 0 and 1 of at least 2; collect more"
    )
  count = min(max(round(held_out * len(groups)), 1), len(groups) - 1)
  return np.random.default_rng(seed).permutation(groups)[:count]


def _some(values: list) -> str:
  shown = ", ".join(str(value) for value in values[:10])
  return shown + (" ..." if len(values) > 10 else "")
