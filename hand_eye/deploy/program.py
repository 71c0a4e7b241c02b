"""The compiled functions of an exported policy: never compiled again, and on time.

`runtime` loads them. They are compiled ahead of time for the shapes and types of the
golden input. From how long they took before follows how many iterations fit before a
deadline. An engine may compute the network in their place.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from hand_eye.decision import Inputs
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


class Pace:
  """How long things are expected to take, by name, from how long they took."""

  def __init__(self) -> None:
    self._expected: dict[str, float] = {}
    self._fastest: dict[str, float] = {}

  def add(self, name: str, seconds: float) -> None:
    """A run took so long. Slower ones count at once, faster ones little by little."""
    before = self._expected.get(name, 0.0)
    self._expected[name] = max(seconds, before + _FORGET * (seconds - before))
    self._fastest[name] = min(seconds, self._fastest.get(name, np.inf))

  def expected(self, *names: str) -> float:
    """Seconds, one after the other; infinite for what never ran."""
    return sum(self._expected.get(name, np.inf) for name in names)

  def forget(self) -> None:
    """Nothing ran, for lack of time: expects less, but no less than the fastest runs.

    Else one slow moment would mean HOLD for ever, as nothing new would be measured.
    """
    for name, seconds in self._expected.items():
      self._expected[name] = max(self._fastest[name], (1 - _FORGET) * seconds)


class Program:
  """The compiled functions of a policy with their weights, and how long they take."""

  def __init__(
    self,
    functions: Mapping[str, Function],
    weights: Mapping[str, Any],
    example: Inputs,
    num_iterations: int,
    clock: Clock,
    engine: Engine | None = None,
  ):
    """Compiles all functions for the shapes of an example's inputs, and warms them.

    Args:
      functions: those of `export.array_functions`: `whole`, and the others for
        deadlines and engines.
      weights: of the network.
      example: inputs of a decision.
      num_iterations: of the search, all of them.
      clock: seconds that only grow.
      engine: computes the network instead, for one command, and for as many as are
        proposed. What is searched, allowed and answered stays with the functions.
    """
    self.clock, self.pace = clock, Pace()
    self._weights = jax.device_put(weights)
    self._iterations = num_iterations
    self._compiled: dict[str, Function] = {}
    if engine is None:
      whole = _compiled(functions["whole"], self._weights, *example)
      self._add("whole", whole, self._weights, *example)
    if "begin" in functions:
      self._add_parts(functions, example, engine)

  def whole(self, inputs: Inputs) -> Mapping[str, Any]:
    """A decision of all iterations."""
    if "whole" not in self._compiled:
      return self.until(np.inf, inputs)
    return self._run("whole", self._weights, *inputs)

  def until(self, end: float, inputs: Inputs) -> Mapping[str, Any]:
    """A decision of as many iterations as are expected to end before `end`."""
    if "begin" not in self._compiled:
      raise RecompilationError(
        "this policy was loaded with deadlines=False, which compiles no function for"
        " decisions with a deadline: load it with deadlines=True."
      )
    needed, left = self.needs, end - self.clock()
    if not left >= needed:  # nor where the deadline is NaN
      self.pace.forget()
      raise NoTimeError(
        f"{1e3 * max(0.0, left):.1f} ms are left, and one iteration needs"
        f" {1e3 * needed:.1f} ms"
      )
    state = self._run("begin", inputs)
    for done in range(self._iterations):
      if self.clock() + self.pace.expected("iterate", "finish") > end:
        if done == 0:
          raise NoTimeError("encoding the images took until the deadline")
        break
      state = self._run("iterate", inputs, state)
    return self._run("finish", inputs, state)

  @property
  def needs(self) -> float:
    """Seconds that a decision of one iteration is expected to take."""
    return self.pace.expected("begin", "iterate", "finish")

  def _add_parts(
    self, functions: Mapping[str, Function], example: Inputs, engine: Engine | None
  ) -> None:
    """Makes of the parts of a decision what `until` runs: begin, iterate, finish.

    A state is {'search', 'features', 'null_score'}.
    """
    first = _compiled(functions["begin"], *example)
    given = first(*example)
    propose = _compiled(functions["propose"], given["search"], *example)
    proposed = propose(given["search"], *example)
    if engine is None:
      encode, score = self._network(functions, given, proposed)
    else:
      encode, score = _on_the_host(engine)
    seen = encode(given["images"], given["null"])
    scores = score(seen["features"], proposed["commands"])
    found = (given["search"], proposed["motions"], scores)
    update = _compiled(functions["update"], *found, *example)
    last = (given["search"], seen["null_score"])
    decide = _compiled(functions["finish"], *last, *example)

    def begin(inputs: Inputs) -> dict[str, Any]:
      given = first(*inputs)
      return {"search": given["search"], **encode(given["images"], given["null"])}

    def iterate(inputs: Inputs, state: Mapping[str, Any]) -> dict[str, Any]:
      proposed = propose(state["search"], *inputs)
      scores = score(state["features"], proposed["commands"])
      search = update(state["search"], proposed["motions"], scores, *inputs)
      return {**state, "search": search}

    def finish(inputs: Inputs, state: Mapping[str, Any]) -> Mapping[str, Any]:
      return decide(state["search"], state["null_score"], *inputs)

    state = self._add("begin", begin, example)
    state = self._add("iterate", iterate, example, state)
    self._add("finish", finish, example, state)

  def _network(
    self, functions: Mapping[str, Function], given: Any, proposed: Any
  ) -> tuple[Function, Function]:
    """`encode(images, null)` and `score(features, commands)` by the policy's own."""
    weights, to_encode = self._weights, (given["images"], given["null"])
    encode = _compiled(functions["encode"], weights, *to_encode)
    features = encode(weights, *to_encode)["features"]
    score = _compiled(functions["score"], weights, features, proposed["commands"])
    return (
      lambda images, null: encode(weights, images, null),
      lambda features, commands: score(weights, features, commands),
    )

  def _add(self, name: str, function: Function, *arguments: Any) -> Any:
    """Keeps a compiled function and warms it; returns what it gives."""
    self._compiled[name] = function
    jax.block_until_ready(function(*arguments))  # the first run also allocates
    for _ in range(_WARM_UP - 1):
      made = self._run(name, *arguments)
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
    self.pace.add(name, self.clock() - start)
    return made


def _on_the_host(engine: Engine) -> tuple[Function, Function]:
  """`encode(images, null)` and `score(features, commands)` by an engine."""

  def encode(images: Any, null: Any) -> dict[str, Any]:
    features = engine.encode(np.asarray(images))
    null_score = engine.score(features, np.asarray(null))[0]
    return {"features": features, "null_score": null_score}

  def score(features: Any, commands: Any) -> np.ndarray:
    return engine.score(features, np.asarray(commands))

  return encode, score


def _compiled(function: Function, *arguments: Any) -> Function:
  """Compiled ahead of time, it takes these shapes and types and cannot take others."""
  return jax.jit(function).lower(*arguments).compile()
