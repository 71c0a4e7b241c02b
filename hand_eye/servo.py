"""Continuous servoing: Algorithm 1 with the details of Appendix A.

A decision searches the motion v* with the highest predicted success, compares it with
closing here, and closes, moves, or moves above the objects. All of it is one compiled
call: the images are encoded once and each iteration of CEM scores its candidates
together.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hand_eye import cem, commands, decision, network
from hand_eye.decision import Action


@dataclasses.dataclass(frozen=True)
class ServoConfig:
  """Thresholds and sizes of the search. Defaults are the paper's where it has them.

  Attributes:
    close_ratio: close if closing here is at least this share as likely to succeed as
      the best motion (Algorithm 1, line 4).
    raise_ratio: raise if it is at most this share (line 6).
    raise_low, raise_high: heights above the table to raise to, metres; drawn uniformly.
    num_samples, num_elites, num_iterations: of CEM.
    num_redraws: how often candidates outside the workspace are drawn again.
    initial_std: of the first (dx, dy, dyaw), metres and radians. The paper does not
      say; this reaches most of a bin of 30 cm, and a quarter of a turn.
    min_std: floor of the fitted deviations, same units: below the accuracy of the arm
      there is nothing to be found.
  """

  close_ratio: float = 0.9
  raise_ratio: float = 0.5
  raise_low: float = 0.04
  raise_high: float = 0.10
  num_samples: int = cem.NUM_SAMPLES
  num_elites: int = cem.NUM_ELITES
  num_iterations: int = cem.NUM_ITERATIONS
  num_redraws: int = cem.NUM_REDRAWS
  initial_std: tuple[float, float, float] = (0.08, 0.08, 0.8)
  min_std: tuple[float, float, float] = (0.004, 0.004, 0.04)

  def __post_init__(self):
    for field in ("initial_std", "min_std"):
      value = tuple(getattr(self, field))
      object.__setattr__(self, field, value)  # JSON brings lists.
      if len(value) != 3 or not all(0 <= x < math.inf for x in value):
        raise ValueError(f"{field} is {value!r}, expected three numbers >= 0.")
    if not 0 <= self.raise_ratio < self.close_ratio:
      raise ValueError(
        f"raise_ratio is {self.raise_ratio!r} and close_ratio {self.close_ratio!r},"
        " expected 0 <= raise_ratio < close_ratio."
      )
    if not 0 <= self.raise_low <= self.raise_high < math.inf:
      raise ValueError(
        f"raise_low is {self.raise_low!r} and raise_high {self.raise_high!r}, expected"
        " 0 <= raise_low <= raise_high (m)."
      )


@chex.dataclass(frozen=True)
class ServoDecision:
  """What a decision function returns. N candidates over all iterations.

  command: [5] the next motion, robot base frame; no motion with CLOSE and HOLD.
  action: [] int32, an `Action`.
  p_null: [] probability of success of closing here, once down at the table.
  p_best: [] probability of success of the best candidate.
  ratio: [] p_null / p_best, the p of Algorithm 1.
  best: [5] the best candidate, ending at the table.
  samples: [N, 5] all candidates, ending at the table.
  probabilities: [N] their probabilities of success.
  """

  command: chex.Array
  action: chex.Array
  p_null: chex.Array
  p_best: chex.Array
  ratio: chex.Array
  best: chex.Array
  samples: chex.Array
  probabilities: chex.Array


DecisionFn = Callable[..., ServoDecision]


def decide(
  p_null: chex.Array, p_best: chex.Array, is_last: chex.Array, config: ServoConfig
) -> chex.Array:
  """Lines 4 to 10 of Algorithm 1, and the close that ends every attempt.

  Args:
    p_null: [...] probability of success of closing here.
    p_best: [...] probability of success of the best motion.
    is_last: [...] bool, whether t = T.
    config: the thresholds.

  Returns:
    [...] int32, an `Action`: HOLD if a probability is not finite, else CLOSE at T and
    from `close_ratio` up, RAISE from `raise_ratio` down, MOVE between them.
  """
  p_null, p_best = jnp.asarray(p_null), jnp.asarray(p_best)
  broken = ~(jnp.isfinite(p_null) & jnp.isfinite(p_best))
  close = is_last | (p_null >= config.close_ratio * p_best)
  go_up = p_null <= config.raise_ratio * p_best
  choices = [jnp.int32(action) for action in (Action.HOLD, Action.CLOSE, Action.RAISE)]
  return jnp.select([broken, close, go_up], choices, jnp.int32(Action.MOVE))


def centre_crop(image: chex.Array, size: int) -> chex.Array:
  """Returns the central [size, size, C] of an image [H, W, C]."""
  top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
  return image[top : top + size, left : left + size]


def make_decision_fn(
  predictor: network.Predictor, config: ServoConfig | None = None
) -> DecisionFn:
  """Builds the function that makes one decision; pure, for `jax.jit` and `jax.vmap`.

  Returns:
    `(params, batch_stats, pregrasp_image, image, pose, table_height, workspace,
    is_last, key) -> ServoDecision`, with

      params, batch_stats: weights of the predictor;
      pregrasp_image, image: [F, F, 3] uint8 camera frames, F = `frame_size`;
      pose: [4] measured pose;
      table_height: [] metres;
      workspace: `commands.Workspace`; poses that commands may lead to;
      is_last: [] bool, whether t = T;
      key: consumed.
  """
  config = config or ServoConfig()
  crop_size = predictor.config.crop_size

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
  ) -> ServoDecision:
    search_key, height_key = jax.random.split(key)
    pair = jnp.concatenate([pregrasp_image, image], axis=-1)
    features = predictor.encode(params, batch_stats, centre_crop(pair, crop_size)[None])

    def score(candidates: chex.Array) -> chex.Array:
      return predictor.score(params, batch_stats, features, candidates)

    def to_command(motion: chex.Array) -> chex.Array:
      return commands.from_search(motion, table_height - pose[2])

    found = cem.maximize(
      lambda motions: score(to_command(motions)),
      search_key,
      jnp.zeros(3),
      initial_std=jnp.asarray(config.initial_std),
      min_std=jnp.asarray(config.min_std),
      is_feasible=lambda motions: is_feasible(motions, pose, workspace),
      pull=lambda motions: pull(motions, pose, workspace),
      num_samples=config.num_samples,
      num_elites=config.num_elites,
      num_iterations=config.num_iterations,
      num_redraws=config.num_redraws,
    )
    best = to_command(found.best)
    # Appendix A: the network knows attempts that ended on the table, so closing here
    # is scored as going straight down and closing.
    null = commands.project_to_table(commands.NULL_COMMAND, pose, table_height)
    null_score = score(null[None])[0]
    p_null, p_best = jax.nn.sigmoid(null_score), jax.nn.sigmoid(found.best_score)
    action = decide(p_null, p_best, is_last, config)
    action = jnp.where(jnp.all(jnp.isfinite(best)), action, jnp.int32(Action.HOLD))

    height = table_height + jax.random.uniform(
      height_key, minval=config.raise_low, maxval=config.raise_high
    )
    height = jnp.minimum(height, workspace.high[2])
    raised = best.at[2].set(height - pose[2])
    stay = jnp.asarray(commands.NULL_COMMAND)
    return ServoDecision(
      command=jnp.stack([best, raised, stay, stay])[action],  # In order of `Action`.
      action=action,
      p_null=p_null,
      p_best=p_best,
      ratio=p_null / p_best,
      best=best,
      samples=to_command(found.samples.reshape(-1, 3)),
      probabilities=jax.nn.sigmoid(found.scores.reshape(-1)),
    )

  return decide_fn


def is_feasible(
  motion: chex.Array, pose: chex.Array, workspace: commands.Workspace
) -> chex.Array:
  """Returns [...] bool: do motions [..., 3] from `pose` [4] meet Appendix A's limits?

  The final x, y and yaw are inside the workspace, and the turn is at most 180 degrees.
  Heights are not searched. Motions are (dx, dy, dyaw), metres and radians.
  """
  low, high = _offset_limits(pose, workspace)
  inside = jnp.all((motion[..., :2] >= low) & (motion[..., :2] <= high), axis=-1)
  yaw = commands.wrap_angle(pose[3] + motion[..., 2])
  slack = 1e-5  # Wrapping costs the last digits of an angle at its limit.
  aligned = (yaw >= workspace.low[3] - slack) & (yaw <= workspace.high[3] + slack)
  return inside & aligned & (jnp.abs(motion[..., 2]) <= math.pi)


def pull(
  motion: chex.Array, pose: chex.Array, workspace: commands.Workspace
) -> chex.Array:
  """Returns feasible motions [..., 3], those that were not moved to the boundary.

  A turn of more than 180 degrees becomes the shorter one to the same yaw.
  """
  low, high = _offset_limits(pose, workspace)
  position = jnp.clip(motion[..., :2], low, high)
  yaw = commands.wrap_angle(pose[3] + motion[..., 2])
  ends = jnp.stack([workspace.low[3], workspace.high[3]])
  gaps = jnp.abs(commands.wrap_angle(yaw[..., None] - ends))
  nearest = ends[jnp.argmin(gaps, axis=-1)]
  outside = (yaw < ends[0]) | (yaw > ends[1])
  turn = jnp.where(outside, nearest - pose[3], motion[..., 2])
  return jnp.concatenate([position, commands.wrap_angle(turn)[..., None]], axis=-1)


def _offset_limits(
  pose: chex.Array, workspace: commands.Workspace
) -> tuple[chex.Array, chex.Array]:
  """Smallest and largest (dx, dy). As offsets, so that a pulled motion is at them."""
  return workspace.low[:2] - pose[:2], workspace.high[:2] - pose[:2]


def make_array_fn(
  predictor: network.Predictor, config: ServoConfig | None = None
) -> Callable[..., dict[str, chex.Array]]:
  """Builds the decision function with arrays in and a dict out, as policies call it.

  Returns:
    `(weights, pregrasp_image, image, pose, table_height, low, high, is_last, key) ->
    fields of ServoDecision by name`, where `weights` is {'params': ..., 'batch_stats':
    ...}, `low` and `high` [4] are the workspace's, and `key` is [2] uint32 key data.
  """
  decide_fn = make_decision_fn(predictor, config)

  def array_fn(
    weights, pregrasp_image, image, pose, table_height, low, high, is_last, key
  ):
    made = decide_fn(
      weights["params"],
      weights["batch_stats"],
      pregrasp_image,
      image,
      pose,
      table_height,
      commands.Workspace(low=low, high=high),
      is_last,
      jax.random.wrap_key_data(key, impl="threefry2x32"),
    )
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}

  return array_fn


class ServoPolicy:
  """The learned policy in process: `policy(observation, key) -> decision.Decision`.

  Args:
    predictor: the network.
    params, batch_stats: its weights, such as `checkpoint.load_policy` reads.
    config: thresholds and sizes of the search.
    workspace: poses that commands may lead to. If absent, each observation brings its
      own as `workspace`: (low [4], high [4]). If both are there, both hold.
  """

  def __init__(
    self,
    predictor: network.Predictor,
    params: network.ArrayTree,
    batch_stats: network.ArrayTree,
    *,
    config: ServoConfig | None = None,
    workspace: commands.Workspace | None = None,
  ):
    self._frame_size = predictor.config.frame_size
    self._bounds = None if workspace is None else (workspace.low, workspace.high)
    weights = jax.device_put({"params": params, "batch_stats": batch_stats})
    array_fn = jax.jit(make_array_fn(predictor, config))
    self._call = functools.partial(array_fn, weights)

  def __call__(
    self, observation: decision.Observation, key: np.ndarray
  ) -> decision.Decision:
    """Makes one decision, see `decision.answer`."""
    return decision.answer(
      self._call,
      observation,
      key,
      frame_size=self._frame_size,
      bounds=self._bounds,
    )
