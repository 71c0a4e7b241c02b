"""Continuous servoing: Algorithm 1 with the details of Appendix A.

A decision searches the motion v* with the highest predicted success, compares it with
closing here, and closes, moves, or moves above the objects. All of it is one compiled
call: the images are encoded once and each iteration of CEM scores its candidates
together.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hand_eye import cem, commands, decision, limits, network
from hand_eye import constraints as constraints_lib
from hand_eye.algorithm1 import ServoConfig, ServoDecision, conclude, decide
from hand_eye.constraints import Constraints

__all__ = [
  "ArrayFns",
  "Parts",
  "ServoConfig",
  "ServoDecision",
  "ServoPolicy",
  "centre_crop",
  "decide",
  "make_array_fns",
  "make_decision_fn",
  "make_parts",
]


DecisionFn = Callable[..., ServoDecision]


def centre_crop(image: chex.Array, size: int) -> chex.Array:
  """Returns the central [size, size, C] of an image [H, W, C]."""
  top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
  return image[top : top + size, left : left + size]


class Parts(NamedTuple):
  """A decision in parts, for callers that may have to stop between two iterations.

  All are pure. `weights` is {'params': ..., 'batch_stats': ...}; `allowed` is a
  `limits.FeasibleSet`; a state is a dict of arrays. In turn:

    begin: `(weights, pregrasp_image, image, pose, table_height) -> state`: the image
      half of the network, and the score of closing here;
    iterate: `(weights, state, pose, table_height, allowed, key) -> state`: one
      iteration of CEM;
    finish: `(state, pose, table_height, allowed, is_last, key) -> ServoDecision` on
      what was found so far.

  `iterate` and `finish` are given the same key, that of the decision; as many
  iterations as the configuration has give the decision of `whole`.

    whole: `(weights, pregrasp_image, image, pose, table_height, allowed, is_last, key)
      -> ServoDecision`, all in one.

  And what is left of `begin` and `iterate` where something else computes the network,
  such as `engine`:

    start: `(pregrasp_image, image, pose, table_height) -> dict` of `images`
      [1, S, S, 6] uint8 to encode, `null` [1, 5], the command of closing here, to
      score, and `search`;
    draw: `(search, pose, table_height, allowed, key) -> dict` of `motions` [N, 3] and,
      to score, the same as `candidates` [N, 5];
    take: `(search, motions, scores) -> search`, with scores [N], logits.
  """

  begin: Callable[..., dict[str, Any]]
  iterate: Callable[..., dict[str, Any]]
  finish: DecisionFn
  whole: DecisionFn
  start: Callable[..., dict[str, Any]]
  draw: Callable[..., dict[str, chex.Array]]
  take: Callable[..., dict[str, chex.Array]]


def make_parts(
  predictor: network.Predictor, config: ServoConfig | None = None
) -> Parts:
  """Builds the parts of a decision and the whole; arguments as `make_decision_fn`."""
  config = config or ServoConfig()
  crop_size = predictor.config.crop_size

  def encode(weights, images):
    return predictor.encode(weights["params"], weights["batch_stats"], images)

  def score(weights, features, candidates):
    return predictor.score(
      weights["params"], weights["batch_stats"], features, candidates
    )

  def start(pregrasp_image, image, pose, table_height):
    pair = jnp.concatenate([pregrasp_image, image], axis=-1)
    # Appendix A: the network knows attempts that ended on the table, so closing here
    # is scored as going straight down and closing.
    null = commands.project_to_table(commands.NULL_COMMAND, pose, table_height)
    search = cem.begin(
      jnp.zeros(3),
      initial_std=jnp.asarray(config.initial_std),
      num_samples=config.num_samples,
      num_elites=config.num_elites,
      num_iterations=config.num_iterations,
    )
    return {
      "images": centre_crop(pair, crop_size)[None],
      "null": null[None],
      "search": _fields(search),
    }

  def begin(weights, pregrasp_image, image, pose, table_height):
    given = start(pregrasp_image, image, pose, table_height)
    features = encode(weights, given["images"])
    return {
      "features": features,
      "null_score": score(weights, features, given["null"])[0],
      "search": given["search"],
    }

  def keys_of(key):
    search_key, height_key = jax.random.split(key)
    return jax.random.split(search_key, config.num_iterations), height_key

  def draw(search, pose, table_height, allowed, key):
    now = cem.Search(**search)
    motions = cem.draw(
      keys_of(key)[0][now.done],
      now,
      is_feasible=lambda motions: limits.is_feasible(motions, pose, allowed),
      project=lambda motions: limits.project(motions, pose, allowed),
      num_redraws=config.num_redraws,
    )
    candidates = commands.from_search(motions, table_height - pose[2])
    return {"motions": motions, "candidates": candidates}

  def take(search, motions, scores):
    min_std = jnp.asarray(config.min_std)
    return _fields(cem.take(cem.Search(**search), motions, scores, min_std=min_std))

  def iterate(weights, state, pose, table_height, allowed, key):
    drawn = draw(state["search"], pose, table_height, allowed, key)
    scores = score(weights, state["features"], drawn["candidates"])
    return {**state, "search": take(state["search"], drawn["motions"], scores)}

  def finish(state, pose, table_height, allowed, is_last, key):
    return conclude(
      cem.Search(**state["search"]),
      state["null_score"],
      pose,
      table_height,
      allowed,
      is_last,
      keys_of(key)[1],
      config,
    )

  def whole(
    weights, pregrasp_image, image, pose, table_height, allowed, is_last, key
  ) -> ServoDecision:
    state = begin(weights, pregrasp_image, image, pose, table_height)

    def once(search, _):
      # Closed over, the features are no part of what the loop carries.
      now = {**state, "search": search}
      after = iterate(weights, now, pose, table_height, allowed, key)
      return after["search"], None

    search, _ = jax.lax.scan(once, state["search"], length=config.num_iterations)
    found = {**state, "search": search}
    return finish(found, pose, table_height, allowed, is_last, key)

  return Parts(begin, iterate, finish, whole, start, draw, take)


def make_decision_fn(
  predictor: network.Predictor, config: ServoConfig | None = None
) -> DecisionFn:
  """Builds the function that makes one decision; pure, for `jax.jit` and `jax.vmap`.

  Returns:
    `(params, batch_stats, pregrasp_image, image, pose, table_height, workspace,
    is_last, key, constraints=None) -> ServoDecision`, with

      params, batch_stats: weights of the predictor;
      pregrasp_image, image: [F, F, 3] uint8 camera frames, F = `frame_size`;
      pose: [4] measured pose;
      table_height: [] metres;
      workspace: `commands.Workspace`; poses that commands may lead to;
      is_last: [] bool, whether t = T;
      key: consumed;
      constraints: what `Constraints.arrays` gives, or None.
  """
  whole = make_parts(predictor, config).whole

  def decide_fn(
    params,
    batch_stats,
    pregrasp_image,
    image,
    pose,
    table_height,
    workspace,
    is_last,
    key,
    constraints=None,
  ) -> ServoDecision:
    given = [] if constraints is None else [constraints]
    return whole(
      {"params": params, "batch_stats": batch_stats},
      pregrasp_image,
      image,
      pose,
      table_height,
      limits.feasible_set(workspace, *given),
      is_last,
      key,
    )

  return decide_fn


class ArrayFns(NamedTuple):
  """`Parts` with arrays in and dicts of arrays out: what is exported.

  In order: `whole(weights, *inputs)`, `begin(weights, *inputs)`, `iterate(weights,
  state, *inputs)`, `finish(state, *inputs)`, `start(*inputs)`, `draw(search, *inputs)`
  and `take(search, motions, scores)`, where the inputs are always those of
  `decision.INPUTS` in their order.
  """

  whole: Callable[..., dict[str, chex.Array]]
  begin: Callable[..., dict[str, Any]]
  iterate: Callable[..., dict[str, Any]]
  finish: Callable[..., dict[str, chex.Array]]
  start: Callable[..., dict[str, Any]]
  draw: Callable[..., dict[str, chex.Array]]
  take: Callable[..., dict[str, chex.Array]]


def make_array_fns(
  predictor: network.Predictor,
  config: ServoConfig | None = None,
  *,
  workspace: commands.Workspace | None = None,
  constraints: Constraints | None = None,
) -> ArrayFns:
  """Builds the functions of a decision with arrays in and dicts out.

  Args:
    predictor, config: as of `make_decision_fn`.
    workspace, constraints: hold inside the functions, beside those among their inputs.
  """
  parts = make_parts(predictor, config)

  def situation(
    pregrasp_image,
    image,
    pose,
    table_height,
    low,
    high,
    is_last,
    key,
    grasp_in,
    keep_out,
    yaw_range,
  ) -> _Situation:
    box = commands.Workspace(low=low, high=high)
    if workspace is not None:
      box = commands.Workspace(
        low=jnp.maximum(low, workspace.low), high=jnp.minimum(high, workspace.high)
      )
    given = [{"grasp_in": grasp_in, "keep_out": keep_out, "yaw_range": yaw_range}]
    if constraints is not None:
      given.append(limits.fixed(constraints))
    return _Situation(
      images=(pregrasp_image, image),
      pose=pose,
      table_height=table_height,
      allowed=limits.feasible_set(box, *given),
      is_last=is_last,
      key=jax.random.wrap_key_data(key, impl="threefry2x32"),
    )

  def whole(weights, *inputs):
    now = situation(*inputs)
    made = parts.whole(
      weights,
      *now.images,
      now.pose,
      now.table_height,
      now.allowed,
      now.is_last,
      now.key,
    )
    return _fields(made)

  def begin(weights, *inputs):
    now = situation(*inputs)
    return parts.begin(weights, *now.images, now.pose, now.table_height)

  def iterate(weights, state, *inputs):
    now = situation(*inputs)
    return parts.iterate(
      weights, state, now.pose, now.table_height, now.allowed, now.key
    )

  def finish(state, *inputs):
    now = situation(*inputs)
    made = parts.finish(
      state, now.pose, now.table_height, now.allowed, now.is_last, now.key
    )
    return _fields(made)

  def start(*inputs):
    now = situation(*inputs)
    return parts.start(*now.images, now.pose, now.table_height)

  def draw(search, *inputs):
    now = situation(*inputs)
    return parts.draw(search, now.pose, now.table_height, now.allowed, now.key)

  return ArrayFns(whole, begin, iterate, finish, start, draw, parts.take)


class _Situation(NamedTuple):
  images: tuple[chex.Array, chex.Array]
  pose: chex.Array
  table_height: chex.Array
  allowed: limits.FeasibleSet
  is_last: chex.Array
  key: chex.PRNGKey


def _fields(struct: Any) -> dict[str, chex.Array]:
  """The fields of a dataclass by name; exported functions know no other class."""
  return {f.name: getattr(struct, f.name) for f in dataclasses.fields(struct)}


class ServoPolicy:
  """The learned policy in process: `policy(observation, key) -> decision.Decision`.

  Args:
    predictor: the network.
    params, batch_stats: its weights, such as `checkpoint.load_policy` reads.
    config: thresholds and sizes of the search.
    workspace: poses that commands may lead to. If absent, each observation brings its
      own as `workspace`: (low [4], high [4]). If both are there, both hold.
    constraints: a person's own limits.
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
    whole = make_array_fns(predictor, config).whole
    self._call = functools.partial(jax.jit(whole), weights)
    axes = (None, *(0 for _ in decision.INPUTS))
    self._many = functools.partial(jax.jit(jax.vmap(whole, axes)), weights)

  def __call__(
    self, observation: decision.Observation, key: np.ndarray
  ) -> decision.Decision:
    """Makes one decision, see `decision.answer`."""
    # Images move in and a command out, whatever the process guards.
    with jax.transfer_guard("allow"):
      return decision.answer(self._call, observation, key, **self._checks)

  def decide_batch(
    self, observations: Sequence[decision.Observation], keys: Sequence[np.ndarray]
  ) -> list[decision.Decision]:
    """Decides for several robots.

    Batched, it is compiled for powers of two, and the rest of a batch is filled up;
    scores agree with those of single decisions to rounding, not to the last bit.

    Args:
      observations, keys: as of a single decision, one each a robot.

    Raises:
      ObservationError: as a single decision.
    """
    if not self._batched:
      return [self(*one) for one in zip(observations, keys, strict=True)]
    answers: list[Any] = [
      decision.as_inputs(observation, key, **self._checks)
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
        made = self._many(*(np.stack(column) for column in zip(*rows, strict=True)))
        arrays = {name: np.asarray(array) for name, array in made.items()}
      for row, i in enumerate(asked):
        one = {name: array[row] for name, array in arrays.items()}
        answers[i] = decision.in_words(one, decision.is_last(observations[i]))
    return answers
