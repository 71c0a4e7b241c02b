"""The compiled functions of an exported policy: never compiled again, and on time.

`runtime` loads them. Compiled ahead of time, they take the shapes and types of the
golden input and no others; how long they took before says what fits before a deadline.
An engine may compute the network in their place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from hand_eye.deploy import policy_file

_WARM_UP = 3  # runs of each function; the slowest but the first predicts the next
_FORGET = 0.1  # share of a faster run in the prediction; a slower one counts at once

Clock = Callable[[], float]  # seconds that only grow
Function = Callable[..., Any]


class RecompilationError(RuntimeError):
  """A compiled function was called with other shapes or types than it was made for."""


class NoTimeError(Exception):
  """There is no time for one iteration."""


class Engine(Protocol):
  """Computes the network in place of the compiled functions, on the host.

  It holds its weights, and computes for the numbers of commands that it was made for.
  """

  def encode(self, images: np.ndarray) -> np.ndarray:
    """uint8 [1, S, S, 6], the pregrasp image's RGB and the image's -> features."""

  def score(self, features: np.ndarray, commands: np.ndarray) -> np.ndarray:
    """Features of `encode` and float32 [N, 5] -> logits [N] float32."""


class Program:
  """The compiled functions of a policy with their weights, and how long they take."""

  def __init__(
    self,
    functions: Mapping[str, Function],
    weights: Mapping[str, Any],
    example: Sequence[np.ndarray],
    num_iterations: int,
    clock: Clock,
  ):
    """Compiles all functions for the shapes of an example's inputs, and warms them.

    Args:
      functions: `whole`, and for deadlines `begin`, `iterate` and `finish`, with the
        arguments of `servo.ArrayFns`.
      weights: their first argument.
      example: inputs, as `decision.INPUTS`.
      num_iterations: of the search, all of them.
      clock: seconds that only grow.
    """
    self.clock = clock
    self._weights = jax.device_put(weights)
    self._iterations = num_iterations
    self._seconds: dict[str, float] = {}
    self._fastest: dict[str, float] = {}
    self._compiled: dict[str, Function] = {}
    self._compile(functions, example)

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
    if not left >= needed:  # nor where the deadline is NaN
      # One slow moment must not mean HOLD for ever, as nothing new would be measured.
      for name, seconds in self._seconds.items():
        faster = (1 - _FORGET) * seconds
        self._seconds[name] = max(self._fastest.get(name, 0.0), faster)
      raise NoTimeError(
        f"{1e3 * max(0.0, left):.1f} ms are left, and one iteration needs"
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
    self, functions: Mapping[str, Function], example: Sequence[np.ndarray]
  ) -> None:
    whole = _compiled(functions["whole"], self._weights, *example)
    self._add("whole", whole, self._weights, *example)
    if "begin" in functions:
      begin = _compiled(functions["begin"], self._weights, *example)
      state = self._add("begin", begin, self._weights, *example)
      iterate = _compiled(functions["iterate"], self._weights, state, *example)
      state = self._add("iterate", iterate, self._weights, state, *example)
      self._add(
        "finish", _compiled(functions["finish"], state, *example), state, *example
      )

  def _add(self, name: str, function: Function, *arguments: Any) -> Any:
    """Keeps a compiled function and warms it; returns what it gives."""
    self._compiled[name] = function
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


class EngineProgram(Program):
  """A program whose network an engine computes, between functions of the policy.

  What is searched, what is allowed and what is answered is the policy's, as ever.
  """

  def __init__(
    self,
    functions: Mapping[str, Function],
    weights: Mapping[str, Any],
    example: Sequence[np.ndarray],
    num_iterations: int,
    clock: Clock,
    engine: Engine,
  ):
    """Compiles and warms what is left of the functions.

    Args:
      functions: all of `servo.ArrayFns`.
      weights, example, num_iterations, clock: as of `Program`.
      engine: for one command, and for as many as `draw` gives.
    """
    self._engine = engine
    super().__init__(functions, weights, example, num_iterations, clock)

  def whole(self, *inputs: np.ndarray) -> Mapping[str, Any]:
    return self.until(np.inf, *inputs)

  def _compile(
    self, functions: Mapping[str, Function], example: Sequence[np.ndarray]
  ) -> None:
    start = _compiled(functions["start"], *example)
    given = start(*example)
    draw = _compiled(functions["draw"], given["search"], *example)
    drawn = draw(given["search"], *example)
    scores = np.zeros(len(drawn["candidates"]), np.float32)
    take = _compiled(functions["take"], given["search"], drawn["motions"], scores)
    # `finish` takes the features of `begin`, too, but does not read them.
    begun = jax.eval_shape(functions["begin"], self._weights, *example)
    unread = np.zeros(begun["features"].shape, begun["features"].dtype)
    found = {**given, "null_score": np.float32(0), "features": unread}
    finish = _compiled(functions["finish"], _found(found), *example)

    def begin(_: Any, *inputs: np.ndarray) -> dict[str, Any]:
      given = start(*inputs)
      features = self._engine.encode(np.asarray(given["images"]))
      null_score = self._engine.score(features, np.asarray(given["null"]))[0]
      return {"engine": features, "null_score": null_score, "search": given["search"]}

    def iterate(_: Any, state: dict[str, Any], *inputs: np.ndarray) -> dict[str, Any]:
      drawn = draw(state["search"], *inputs)
      scores = self._engine.score(state["engine"], np.asarray(drawn["candidates"]))
      return {**state, "search": take(state["search"], drawn["motions"], scores)}

    def end(state: dict[str, Any], *inputs: np.ndarray) -> Mapping[str, Any]:
      return finish(_found({**state, "features": unread}), *inputs)

    state = self._add("begin", begin, self._weights, *example)
    state = self._add("iterate", iterate, self._weights, state, *example)
    self._add("finish", end, state, *example)


def _found(state: Mapping[str, Any]) -> dict[str, Any]:
  """What `finish` takes of a state."""
  return {name: state[name] for name in ("features", "null_score", "search")}


def _compiled(function: Function, *arguments: Any) -> Function:
  """Compiled ahead of time, it takes these shapes and types and cannot take others."""
  return jax.jit(function).lower(*arguments).compile()
