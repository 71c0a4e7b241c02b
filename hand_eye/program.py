"""The compiled functions of an exported policy: never compiled again, and on time.

`runtime` loads them. Compiled ahead of time, they take the shapes and types of the
golden input and no others; how long they took before says what fits before a deadline.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hand_eye import policy_file

_WARM_UP = 3  # runs of each function; the slowest but the first predicts the next
_FORGET = 0.1  # share of a faster run in the prediction; a slower one counts at once

Clock = Callable[[], float]  # seconds that only grow


class RecompilationError(RuntimeError):
  """A compiled function was called with other shapes or types than it was made for."""


class NoTimeError(Exception):
  """There is no time for one iteration."""


class Program:
  """The compiled functions of a policy with their weights, and how long they take."""

  def __init__(
    self,
    functions: Mapping[str, Callable[..., Any]],
    weights: Mapping[str, Any],
    example: Sequence[np.ndarray],
    num_iterations: int,
    clock: Clock,
  ):
    """Compiles all functions for the shapes of an example's inputs, and warms them."""
    self.clock = clock
    self._weights = jax.device_put(weights)
    self._iterations = num_iterations
    self._seconds: dict[str, float] = {}
    self._fastest: dict[str, float] = {}
    self._compiled: dict[str, Callable[..., Any]] = {}
    self._compile("whole", functions, self._weights, *example)
    if "begin" in functions:
      state = self._compile("begin", functions, self._weights, *example)
      state = self._compile("iterate", functions, self._weights, state, *example)
      self._compile("finish", functions, state, *example)

  def whole(self, *inputs: np.ndarray) -> Mapping[str, Any]:
    """A decision in one call."""
    return self._run("whole", self._weights, *inputs)

  def until(self, end: float, *inputs: np.ndarray) -> Mapping[str, Any]:
    """A decision of as many iterations as are expected to end before `end`."""
    if "begin" not in self._compiled:
      raise RecompilationError(
        "this policy was loaded with deadlines=False, which compiles no function for"
        " decisions with a deadline: load it with deadlines=True."
      )
    needed = self.expected("begin", "iterate", "finish")
    left = end - self.clock()
    if left < needed:
      # One slow moment must not mean HOLD for ever, as nothing new would be measured.
      for name, seconds in self._seconds.items():
        faster = (1 - _FORGET) * seconds
        self._seconds[name] = max(self._fastest.get(name, 0.0), faster)
      raise NoTimeError(
        f"{1e3 * max(left, 0):.1f} ms are left, and one iteration needs"
        f" {1e3 * needed:.1f} ms"
      )
    state = self._run("begin", self._weights, *inputs)
    for done in range(self._iterations):
      if self.clock() + self.expected("iterate", "finish") > end:
        if done == 0:
          raise NoTimeError("encoding the images took until the deadline")
        break
      state = self._run("iterate", self._weights, state, *inputs)
    return self._run("finish", state, *inputs)

  def expected(self, *names: str) -> float:
    """Seconds that functions are expected to take, one after the other."""
    return sum(self._seconds.get(name, np.inf) for name in names)

  def _compile(
    self, name: str, functions: Mapping[str, Callable[..., Any]], *arguments: Any
  ) -> Any:
    # Compiled ahead of time, it takes these shapes and types and cannot take others.
    compiled = jax.jit(functions[name]).lower(*arguments).compile()
    self._compiled[name] = compiled
    for run in range(_WARM_UP):
      made = self._run(name, *arguments)
      if run == 0:
        self._seconds[name] = 0.0  # the first run also allocates
        self._fastest[name] = np.inf
    return made

  def _run(self, name: str, *arguments: Any) -> Any:
    start = self.clock()
    try:
      made = jax.block_until_ready(self._compiled[name](*arguments))
    except (TypeError, ValueError) as error:
      raise RecompilationError(
        f"{name} was compiled for other inputs ({policy_file.first_line(error)}):"
        " shapes and types of a loaded policy are static."
      ) from error
    seconds, before = self.clock() - start, self._seconds.get(name, 0.0)
    self._seconds[name] = max(seconds, before + _FORGET * (seconds - before))
    self._fastest[name] = min(seconds, self._fastest.get(name, np.inf))
    return made
