"""Continuous servoing: Algorithm 1 with the details of Appendix A.

A decision searches the motion v* with the highest predicted success, compares it with
closing here, and closes, moves, or moves above the objects. `Servo.decide` is all of it
as one pure function: the images are encoded once and each iteration of CEM scores its
candidates together. `ServoPolicy` is the policy in process.
"""

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hand_eye import cem, commands, decision, limits, network
from hand_eye import constraints as constraints_lib
from hand_eye.algorithm1 import ServoConfig, ServoDecision, conclude, decide
from hand_eye.constraints import Constraints
from hand_eye.decision import Inputs

__all__ = [
  "Servo",
  "ServoConfig",
  "ServoDecision",
  "ServoPolicy",
  "centre_crop",
  "decide",
]

Weights = Any  # {'params': ..., 'batch_stats': ...}


def centre_crop(image: chex.Array, size: int) -> chex.Array:
  """Returns the central [size, size, C] of an image [H, W, C]."""
  top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
  return image[top : top + size, left : left + size]


class Servo:
  """Decisions of a network, as pure functions of its weights and `decision.Inputs`.

  `decide` makes a whole decision. The other methods are its parts, for callers that may
  have to stop between two iterations, or compute the network elsewhere:

    given = servo.begin(inputs)
    seen = servo.encode(weights, given["images"], given["null"])
    search = given["search"]
    as often as the configuration or the time says:
      proposed = servo.propose(inputs, search)
      scores = servo.score(weights, seen["features"], proposed["commands"])
      search = servo.update(search, proposed["motions"], scores)
    made = servo.finish(inputs, search, seen["null_score"])
  """

  def __init__(
    self,
    predictor: network.Predictor,
    config: ServoConfig | None = None,
    *,
    workspace: commands.Workspace | None = None,
    constraints: Constraints | None = None,
  ):
    """
    Args:
      predictor: the network.
      config: thresholds and sizes of the search.
      workspace, constraints: hold in addition to those among the inputs.
    """
    self._predictor, self._config = predictor, config or ServoConfig()
    self._workspace, self._constraints = workspace, constraints

  def decide(self, weights: Weights, inputs: Inputs) -> ServoDecision:
    """Makes one decision: one search, and Algorithm 1 on what it found."""
    given = self.begin(inputs)
    seen = self.encode(weights, given["images"], given["null"])

    def score_fn(motions: chex.Array) -> chex.Array:
      return self.score(weights, seen["features"], _to_commands(motions, inputs))

    search_key, _ = _keys(inputs)
    search = self._method(inputs).maximize(score_fn, search_key, jnp.zeros(3))
    return self.finish(inputs, search, seen["null_score"])

  def begin(self, inputs: Inputs) -> dict[str, Any]:
    """Returns what is to be computed first.

    images: [1, S, S, 6] uint8, to encode; null: [1, 5], the command of closing here, to
    score; search: a `cem.Search` over motions (dx, dy, dyaw) that end at the table.
    """
    pair = jnp.concatenate([inputs.pregrasp_image, inputs.image], axis=-1)
    # Appendix A: the network knows attempts that ended on the table, so closing here
    # is scored as going straight down and closing.
    null = commands.project_to_table(
      commands.NULL_COMMAND, inputs.pose, inputs.table_height
    )
    return {
      "images": centre_crop(pair, self._predictor.config.crop_size)[None],
      "null": null[None],
      "search": self._method(inputs).begin(jnp.zeros(3)),
    }

  def encode(
    self, weights: Weights, images: chex.Array, null: chex.Array
  ) -> dict[str, Any]:
    """Returns the `features` of an image pair, and `null_score` [] of closing here."""
    params, batch_stats = weights["params"], weights["batch_stats"]
    features = self._predictor.encode(params, batch_stats, images)
    return {"features": features, "null_score": self.score(weights, features, null)[0]}

  def score(
    self, weights: Weights, features: Any, candidates: chex.Array
  ) -> chex.Array:
    """Returns the logits [N] of commands [N, 5]."""
    params, batch_stats = weights["params"], weights["batch_stats"]
    return self._predictor.score(params, batch_stats, features, candidates)

  def propose(self, inputs: Inputs, search: cem.Search) -> dict[str, chex.Array]:
    """Returns the next candidates: `motions` [N, 3], and as `commands` [N, 5]."""
    search_key, _ = _keys(inputs)
    motions = self._method(inputs).propose(search_key, search)
    return {"motions": motions, "commands": _to_commands(motions, inputs)}

  def update(
    self, inputs: Inputs, search: cem.Search, motions: chex.Array, scores: chex.Array
  ) -> cem.Search:
    """Returns the search after motions [N, 3] of `propose` got their scores [N]."""
    return self._method(inputs).update(search, motions, scores)

  def finish(
    self, inputs: Inputs, search: cem.Search, null_score: chex.Array
  ) -> ServoDecision:
    """Decides on what the search has found so far."""
    _, height_key = _keys(inputs)
    feasible = self._feasible(inputs)
    return conclude(search, null_score, inputs, feasible, height_key, self._config)

  def _method(self, inputs: Inputs) -> cem.CrossEntropyMethod:
    feasible, config = self._feasible(inputs), self._config
    return cem.CrossEntropyMethod(
      is_feasible=lambda motions: limits.is_feasible(motions, inputs.pose, feasible),
      project=lambda motions: limits.project(motions, inputs.pose, feasible),
      initial_std=jnp.asarray(config.initial_std),
      min_std=jnp.asarray(config.min_std),
      num_samples=config.num_samples,
      num_elites=config.num_elites,
      num_iterations=config.num_iterations,
      num_redraws=config.num_redraws,
    )

  def _feasible(self, inputs: Inputs) -> limits.FeasibleSet:
    low, high = inputs.low, inputs.high
    if self._workspace is not None:
      low = jnp.maximum(low, self._workspace.low)
      high = jnp.minimum(high, self._workspace.high)
    given = [{name: getattr(inputs, name) for name in constraints_lib.INPUTS}]
    if self._constraints is not None:
      given.append(limits.fixed(self._constraints))
    return limits.feasible_set(commands.Workspace(low=low, high=high), *given)


def _keys(inputs: Inputs) -> tuple[chex.PRNGKey, chex.PRNGKey]:
  """The key of the search, and that of the height to raise to."""
  search, height = jax.random.split(
    jax.random.wrap_key_data(inputs.key, impl="threefry2x32")
  )
  return search, height


def _to_commands(motions: chex.Array, inputs: Inputs) -> chex.Array:
  return commands.from_search(motions, inputs.table_height - inputs.pose[2])


class ServoPolicy:
  """The learned policy in process: `policy(observation, key) -> decision.Decision`.

  Args:
    predictor: the network.
    params, batch_stats: its weights, such as `checkpoint.load_policy` reads.
    config: thresholds and sizes of the search.
    workspace: poses that commands may lead to. If absent, each observation brings its
      own as `workspace`: (low [4], high [4]). If both are there, both hold.
    constraints: the user's own limits.
    batched: whether decisions for several robots are one call of the device. On CPUs,
      where that takes no less time, they are not unless it is said.
  """

  def __init__(
    self,
    predictor: network.Predictor,
    params: network.ArrayTree,
    batch_stats: network.ArrayTree,
    *,
    config: ServoConfig | None = None,
    workspace: commands.Workspace | None = None,
    constraints: Constraints | None = None,
    batched: bool | None = None,
  ):
    self._batched = jax.default_backend() != "cpu" if batched is None else batched
    bounds = None if workspace is None else (workspace.low, workspace.high)
    self._checks: dict[str, Any] = {
      "frame_size": predictor.config.frame_size,
      "bounds": bounds,
      "constraints": constraints_lib.ensure(constraints),
    }
    weights = jax.device_put({"params": params, "batch_stats": batch_stats})
    decide = Servo(predictor, config).decide
    self._decide = functools.partial(jax.jit(decide), weights)
    together = jax.vmap(decide, in_axes=(None, 0))
    self._decide_batch = functools.partial(jax.jit(together), weights)

  def __call__(
    self, observation: decision.Observation, key: np.ndarray
  ) -> decision.Decision:
    """Makes one decision, see `decision.answer`."""
    # Images move in and a command out, whatever the process guards.
    with jax.transfer_guard("allow"):
      return decision.answer(self._decide, observation, key, **self._checks)

  def decide_batch(
    self, observations: Sequence[decision.Observation], keys: Sequence[np.ndarray]
  ) -> list[decision.Decision]:
    """Decides for several robots.

    Batched, it is compiled for powers of two, and the rest of a batch is filled up;
    scores agree with those of single decisions to rounding, not to the last bit.

    Args:
      observations, keys: as for a single decision, one for each robot.

    Raises:
      ObservationError: as a single decision.
    """
    if not self._batched:
      return [self(*one) for one in zip(observations, keys, strict=True)]
    answers: list[Any] = [
      decision.inputs_of(observation, key, **self._checks)
      for observation, key in zip(observations, keys, strict=True)
    ]
    asked = [
      i for i, made in enumerate(answers) if not isinstance(made, decision.Decision)
    ]
    if asked:
      size = 1 << (len(asked) - 1).bit_length()
      rows = [answers[i] for i in asked]
      rows += rows[:1] * (size - len(rows))
      with jax.transfer_guard("allow"):
        made = self._decide_batch(jax.tree.map(lambda *each: np.stack(each), *rows))
        arrays = {name: np.asarray(array) for name, array in made.items()}
      for row, i in enumerate(asked):
        one = {name: array[row] for name, array in arrays.items()}
        answers[i] = decision.in_words(one, decision.is_last(observations[i]))
    return answers
