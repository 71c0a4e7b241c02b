"""The cross-entropy method (Section 4.2, Appendix A) as a pure function.

Maximises a function by sampling from a Gaussian, keeping the best few samples and
fitting the Gaussian to them, a few times over. It takes a score function, not a
network, and returns all that it saw.
"""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

NUM_SAMPLES = 64
NUM_ELITES = 6
NUM_ITERATIONS = 3
NUM_REDRAWS = 8


@chex.dataclass(frozen=True)
class CemResult:
  """What `maximize` found and what it saw. I iterations of N samples of D numbers.

  best: [D] the sample with the highest score of all iterations.
  best_score: [] its score.
  samples: [I, N, D] all samples; all feasible.
  scores: [I, N] their scores.
  means: [I, D] means of the Gaussians that they were drawn from.
  covariances: [I, D, D] covariances of these Gaussians.
  """

  best: chex.Array
  best_score: chex.Array
  samples: chex.Array
  scores: chex.Array
  means: chex.Array
  covariances: chex.Array


def maximize(
  score_fn: Callable[[chex.Array], chex.Array],
  key: chex.PRNGKey,
  initial: chex.Array,
  *,
  initial_std: chex.Array,
  is_feasible: Callable[[chex.Array], chex.Array],
  pull: Callable[[chex.Array], chex.Array],
  min_std: chex.Array | float = 0.0,
  num_samples: int = NUM_SAMPLES,
  num_elites: int = NUM_ELITES,
  num_iterations: int = NUM_ITERATIONS,
  num_redraws: int = NUM_REDRAWS,
) -> CemResult:
  """Maximises `score_fn` over the feasible points.

  Candidates that are not feasible are drawn again, as in Appendix A, but a fixed number
  of times, so that the function compiles; what is then still outside is pulled in. So
  `score_fn` never sees a point that is not feasible.

  A NaN counts as the lowest score. Pure: works under `jax.jit` and `jax.vmap`.

  Args:
    score_fn: [N, D] -> [N]. Called once an iteration.
    key: consumed.
    initial: [D] mean of the first Gaussian.
    initial_std: [D] its standard deviations, without correlation.
    is_feasible: [N, D] -> [N] bool.
    pull: [N, D] -> [N, D], moves points to feasible ones, best to the nearest, and
      leaves feasible points alone.
    min_std: [] or [D] added to each fitted Gaussian as an independent deviation: the
      floor that keeps the search alive where the elites agree.
    num_samples: N.
    num_elites: how many of the best samples each Gaussian is fitted to.
    num_iterations: I.
    num_redraws: how often infeasible candidates are drawn again before the pull.

  Raises:
    ValueError: for sizes that make no sense.
  """
  if not 2 <= num_elites <= num_samples:
    raise ValueError(
      f"num_elites is {num_elites}, expected 2 to num_samples = {num_samples}."
    )
  if num_iterations < 1 or num_redraws < 0:
    raise ValueError(
      f"num_iterations is {num_iterations}, expected >= 1; num_redraws is"
      f" {num_redraws}, expected >= 0."
    )
  initial = jnp.asarray(initial, jnp.float32)
  chex.assert_rank(initial, 1)
  initial_std = jnp.broadcast_to(jnp.asarray(initial_std, jnp.float32), initial.shape)
  min_std = jnp.broadcast_to(jnp.asarray(min_std, jnp.float32), initial.shape)
  first = _Gaussian(
    mean=initial, spread=jnp.zeros((num_elites, initial.size)), std=initial_std
  )

  def sample(key: chex.PRNGKey, gaussian: _Gaussian) -> chex.Array:
    def redraw(candidates, key):
      keep = is_feasible(candidates)[:, None]
      return jnp.where(keep, candidates, gaussian.draw(key, num_samples)), None

    keys = jax.random.split(key, num_redraws + 1)
    candidates = gaussian.draw(keys[0], num_samples)
    candidates, _ = jax.lax.scan(redraw, candidates, keys[1:])
    return jnp.where(is_feasible(candidates)[:, None], candidates, pull(candidates))

  def iterate(gaussian: _Gaussian, key: chex.PRNGKey):
    samples = sample(key, gaussian)
    scores = score_fn(samples)
    chex.assert_shape(scores, (num_samples,))
    _, best = jax.lax.top_k(_nan_last(scores), num_elites)
    fitted = _fit(samples[best], min_std)
    return fitted, (samples, scores, gaussian.mean, gaussian.covariance())

  keys = jax.random.split(key, num_iterations)
  _, (samples, scores, means, covariances) = jax.lax.scan(iterate, first, keys)
  best = jnp.argmax(_nan_last(scores))
  return CemResult(
    best=samples.reshape(-1, initial.size)[best],
    best_score=scores.reshape(-1)[best],
    samples=samples,
    scores=scores,
    means=means,
    covariances=covariances,
  )


@chex.dataclass(frozen=True)
class _Gaussian:
  """A Gaussian kept as the samples that it was fitted to.

  A random mixture of the elites' deviations has their covariance, so there is no matrix
  to factorise: exact where elites lie in a plane, and cheap on any device.

  mean: [D].
  spread: [M, D] deviations of the elites from their mean, over sqrt(M - 1).
  std: [D] independent deviation on top.
  """

  mean: chex.Array
  spread: chex.Array
  std: chex.Array

  def draw(self, key: chex.PRNGKey, num_samples: int) -> chex.Array:
    mix_key, noise_key = jax.random.split(key)
    mix = jax.random.normal(mix_key, (num_samples, self.spread.shape[0]))
    noise = jax.random.normal(noise_key, (num_samples, self.mean.size))
    return self.mean + mix @ self.spread + noise * self.std

  def covariance(self) -> chex.Array:
    return self.spread.T @ self.spread + jnp.diag(jnp.square(self.std))


def _fit(elites: chex.Array, min_std: chex.Array) -> _Gaussian:
  mean = elites.mean(axis=0)
  # The unbiased estimate: with six elites the other one shrinks too soon.
  spread = (elites - mean) / math.sqrt(len(elites) - 1)
  return _Gaussian(mean=mean, spread=spread, std=min_std)


def _nan_last(scores: chex.Array) -> chex.Array:
  return jnp.where(jnp.isnan(scores), -jnp.inf, scores)
