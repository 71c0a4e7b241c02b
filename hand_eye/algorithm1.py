"""Algorithm 1: closes, moves or raises, given the best motion and the null command.

Pure functions of probabilities and poses, without a network. `servo` joins them with
the network and the search.
"""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp

from hand_eye import cem, commands, limits
from hand_eye.decision import Action, Cause, Inputs


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
    max_step: longest motion of one decision, metres; a longer one is cut short there.
    max_turn: largest turn of one decision, radians, likewise.
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
  max_step: float = 0.6
  max_turn: float = math.pi

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
    for field, most in (("max_step", math.inf), ("max_turn", math.pi + 1e-6)):
      value = getattr(self, field)
      if not (0 < value <= most and value < math.inf):
        raise ValueError(
          f"{field} is {value!r}, expected a finite number > 0"
          f"{'' if most == math.inf else ' and at most pi'}."
        )


@chex.dataclass(frozen=True)
class ServoDecision:
  """What a decision function returns. N candidates over all I iterations.

  command: [5] the next motion, robot base frame; no motion with CLOSE and HOLD.
  action: [] int32, an `Action`.
  cause: [] int32, a `Cause`: of HOLD, or NONE.
  p_null: [] probability of success of closing here, once down at the table.
  p_best: [] probability of success of the best candidate.
  ratio: [] p_null / p_best, the p of Algorithm 1.
  best: [5] the best candidate, ending at the table.
  candidates: [N, 5] all candidates, ending at the table.
  probabilities: [N] their probabilities of success.
  means: [I, 3] of the Gaussians that they were drawn from, (dx, dy, dyaw).
  covariances: [I, 3, 3] of these Gaussians.
  iterations: [] int32, how many were made; the evidence of the others is zero.
  """

  command: chex.Array
  action: chex.Array
  cause: chex.Array
  p_null: chex.Array
  p_best: chex.Array
  ratio: chex.Array
  best: chex.Array
  candidates: chex.Array
  probabilities: chex.Array
  means: chex.Array
  covariances: chex.Array
  iterations: chex.Array


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


def conclude(
  search: cem.Search,
  null_score: chex.Array,
  inputs: Inputs,
  feasible: limits.FeasibleSet,
  height_key: chex.PRNGKey,
  config: ServoConfig,
) -> ServoDecision:
  """Algorithm 1 on what a search has found, and the limits of what may be sent.

  Args:
    search: over motions (dx, dy, dyaw) that end at the table.
    null_score: [] score of closing here, once down at the table.
    inputs: of this decision.
    feasible: where motions may end.
    height_key: consumed.
    config: the thresholds.
  """
  pose, table_height, is_last = inputs.pose, inputs.table_height, inputs.is_last

  def to_command(motion: chex.Array) -> chex.Array:
    return commands.from_search(motion, table_height - pose[2])

  p_null, p_best = jax.nn.sigmoid(null_score), jax.nn.sigmoid(search.best_score)
  made = jnp.arange(search.scores.shape[0]) < search.done
  finite = jnp.isfinite(null_score) & jnp.all(
    jnp.isfinite(search.scores) | ~made[:, None]
  )
  best = to_command(search.best)
  height = table_height + jax.random.uniform(
    height_key, minval=config.raise_low, maxval=config.raise_high
  )
  height = jnp.minimum(height, feasible.high[2])
  raised = best.at[2].set(height - pose[2])

  wanted = decide(p_null, p_best, is_last, config)
  may_close = limits.may_close(pose, feasible)
  # Where the gripper may not close, it goes on to where it may.
  wanted = jnp.where(
    (wanted == Action.CLOSE) & ~may_close & ~is_last, jnp.int32(Action.MOVE), wanted
  )
  motion = jnp.where(wanted == Action.RAISE, raised, best)
  motion = limits.bounded(motion, config.max_step, config.max_turn)
  safe = limits.is_safe(motion, pose, feasible, config.max_step, config.max_turn)
  closes = wanted == Action.CLOSE
  causes = [
    (search.done == 0, Cause.NO_TIME),
    (~finite | (wanted == Action.HOLD), Cause.NOT_FINITE),
    (~limits.is_feasible(search.best, pose, feasible), Cause.NOTHING_ALLOWED),
    (closes & ~may_close, Cause.MAY_NOT_CLOSE),
    (~closes & ~safe, Cause.UNSAFE),
  ]
  cause = jnp.select(
    [jnp.asarray(found) for found, _ in causes],
    [jnp.int32(code) for _, code in causes],
    jnp.int32(Cause.NONE),
  )
  action = jnp.where(cause == Cause.NONE, wanted, jnp.int32(Action.HOLD))
  stays = (action == Action.CLOSE) | (action == Action.HOLD)
  return ServoDecision(
    command=jnp.where(stays, jnp.asarray(commands.NULL_COMMAND), motion),
    action=action,
    cause=cause,
    p_null=p_null,
    p_best=p_best,
    ratio=p_null / jnp.maximum(p_best, jnp.finfo(jnp.float32).tiny),
    best=best,
    candidates=to_command(search.candidates.reshape(-1, 3)),
    probabilities=jax.nn.sigmoid(search.scores.reshape(-1)),
    means=search.means,
    covariances=search.covariances,
    iterations=search.done,
  )
