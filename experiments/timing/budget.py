"""Divides the time between stages."""

import time
from collections.abc import Callable, Mapping


class Budget:
  """What is left of the time, and what of it the next stage may take.

  A stage may take its share of what is left for it and the stages after it: what one
  does not use goes to the later ones, and what one takes too long costs all of them.
  """

  def __init__(
    self,
    seconds: float,
    shares: Mapping[str, float],
    *,
    begin: float,
    clock: Callable[[], float] = time.monotonic,
  ):
    """The deadline is `seconds` after `begin`.

    Args:
      seconds: in all.
      shares: of the stages, in their order; they need not add up to one.
      begin: on the clock.
      clock: seconds.
    """
    self._deadline, self._clock = begin + seconds, clock
    self._shares = dict(shares)

  @property
  def left(self) -> float:
    """Seconds until the deadline; negative after it."""
    return self._deadline - self._clock()

  def limit(self, name: str) -> float:
    """Seconds that a stage may take if it begins now."""
    names = list(self._shares)
    following = [self._shares[one] for one in names[names.index(name) :]]
    return max(0.0, self.left) * following[0] / sum(following)
