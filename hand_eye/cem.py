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
  project: Callable[[chex.Array], chex.Array],
  min_std: chex.Array | float = 0.0,
  num_samples: int = NUM_SAMPLES,
  num_elites: int = NUM_ELITES,
  num_iterations: int = NUM_ITERATIONS,
  num_redraws: int = NUM_REDRAWS,
) -> CemResult:
  """Maximises `score_fn` over the feasible points.

  Candidates that are not feasible are drawn again, as in Appendix A, but a fixed number
  of times, so that the function compiles; what is then still outside is projected. So
  `score_fn` never sees a point that is not feasible.

  What is not finite counts as the lowest score. Pure: works under `jax.jit` and
  `jax.vmap`. `begin` and `iterate` are its parts, for callers that may have to stop
  between two iterations; `draw` and `take` those of `iterate`, for scores that no
  function of JAX computes.

  Args:
    score_fn: [N, D] -> [N]. Called once an iteration.
    key: consumed.
    initial: [D] mean of the first Gaussian.
    initial_std: [D] its standard deviations, without correlation.
    is_feasible: [N, D] -> [N] bool.
    project: [N, D] -> [N, D], moves points to feasible ones, best to the nearest, and
      leaves feasible points alone.
    min_std: [] or [D] added to each fitted Gaussian as an independent deviation: the
      floor that keeps the search alive where the elites agree.
    num_samples: N.
    num_elites: how many of the best samples each Gaussian is fitted to.
    num_iterations: I.
    num_redraws: how often infeasible candidates are drawn again, before projection.

  Raises:
    ValueError: for sizes that make no sense.
  """
  search = begin(
    initial,
    initial_std=initial_std,
    num_samples=num_samples,
    num_elites=num_elites,
    num_iterations=num_iterations,
  )

  def once(search: Search, key: chex.PRNGKey) -> tuple[Search, None]:
    after = iterate(
      score_fn,
      key,
      search,
      is_feasible=is_feasible,
      project=project,
      min_std=min_std,
      num_redraws=num_redraws,
    )
    return after, None

  search, _ = jax.lax.scan(once, search, jax.random.split(key, num_iterations))
  return result(search)


@chex.dataclass(frozen=True)
class Search:
  """A search between two iterations. I iterations of N samples of D numbers.

  The Gaussian is kept as the samples that it was fitted to. A random mixture of the
  elites' deviations has their covariance, so there is no matrix to factorise: exact
  where elites lie in a plane, and cheap on any device.

  mean: [D] of the Gaussian that comes next.
  spread: [M, D] deviations of the M elites from their mean, over sqrt(M - 1).
  std: [D] independent deviation on top.
  done: [] int32, iterations made.
  best, best_score: [D] and [] of all samples so far; the score is -inf before.
  samples, scores, means, covariances: as in `CemResult`; zero from iteration `done` on.
  """

  mean: chex.Array
  spread: chex.Array
  std: chex.Array
  done: chex.Array
  best: chex.Array
  best_score: chex.Array
  samples: chex.Array
  scores: chex.Array
  means: chex.Array
  covariances: chex.Array


def begin(
  initial: chex.Array,
  *,
  initial_std: chex.Array,
  num_samples: int = NUM_SAMPLES,
  num_elites: int = NUM_ELITES,
  num_iterations: int = NUM_ITERATIONS,
) -> Search:
  """Returns a search before its first iteration; arguments as of `maximize`."""
  if not 2 <= num_elites <= num_samples:
    raise ValueError(
      f"num_elites is {num_elites}, expected 2 to num_samples = {num_samples}."
    )
  if num_iterations < 1:
    raise ValueError(f"num_iterations is {num_iterations}, expected >= 1.")
  initial = jnp.asarray(initial, jnp.float32)
  chex.assert_rank(initial, 1)
  size = initial.size
  return Search(
    mean=initial,
    spread=jnp.zeros((num_elites, size)),
    std=jnp.broadcast_to(jnp.asarray(initial_std, jnp.float32), (size,)),
    done=jnp.int32(0),
    best=initial,
    best_score=jnp.float32(-jnp.inf),
    samples=jnp.zeros((num_iterations, num_samples, size)),
    scores=jnp.zeros((num_iterations, num_samples)),
    means=jnp.zeros((num_iterations, size)),
    covariances=jnp.zeros((num_iterations, size, size)),
  )


def iterate(
  score_fn: Callable[[chex.Array], chex.Array],
  key: chex.PRNGKey,
  search: Search,
  *,
  is_feasible: Callable[[chex.Array], chex.Array],
  project: Callable[[chex.Array], chex.Array],
  min_std: chex.Array | float = 0.0,
  num_redraws: int = NUM_REDRAWS,
) -> Search:
  """Returns the search after one more iteration; arguments as of `maximize`.

  The key is this iteration's: `maximize` splits its own into one for each.
  """
  samples = draw(
    key, search, is_feasible=is_feasible, project=project, num_redraws=num_redraws
  )
  return take(search, samples, score_fn(samples), min_std=min_std)


def draw(
  key: chex.PRNGKey,
  search: Search,
  *,
  is_feasible: Callable[[chex.Array], chex.Array],
  project: Callable[[chex.Array], chex.Array],
  num_redraws: int = NUM_REDRAWS,
) -> chex.Array:
  """Returns the candidates [N, D] of the next iteration, all feasible.

  Drawn, drawn again where not feasible, and projected after that; arguments as of
  `iterate`.
  """
  if num_redraws < 0:
    raise ValueError(f"num_redraws is {num_redraws}, expected >= 0.")

  def redraw(candidates, key):
    keep = is_feasible(candidates)[:, None]
    return jnp.where(keep, candidates, _sample(key, search)), None

  keys = jax.random.split(key, num_redraws + 1)
  candidates, _ = jax.lax.scan(redraw, _sample(keys[0], search), keys[1:])
  return jnp.where(is_feasible(candidates)[:, None], candidates, project(candidates))


def take(
  search: Search,
  samples: chex.Array,
  scores: chex.Array,
  *,
  min_std: chex.Array | float = 0.0,
) -> Search:
  """Returns the search after the candidates [N, D] of `draw` got their scores [N]."""
  num_samples, size = search.samples.shape[1:]
  chex.assert_shape(scores, (num_samples,))
  known = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)  # broken ones last
  _, order = jax.lax.top_k(known, search.spread.shape[0])
  mean, spread = _fit(samples[order])
  first = order[0]
  better = (known[first] > search.best_score) | (search.done == 0)
  covariance = search.spread.T @ search.spread + jnp.diag(jnp.square(search.std))
  return Search(
    mean=mean,
    spread=spread,
    std=jnp.broadcast_to(jnp.asarray(min_std, jnp.float32), (size,)),
    done=search.done + 1,
    best=jnp.where(better, samples[first], search.best),
    best_score=jnp.where(better, known[first], search.best_score),
    samples=search.samples.at[search.done].set(samples),
    scores=search.scores.at[search.done].set(scores),
    means=search.means.at[search.done].set(search.mean),
    covariances=search.covariances.at[search.done].set(covariance),
  )


def result(search: Search) -> CemResult:
  """Returns what a search has found so far."""
  return CemResult(
    best=search.best,
    best_score=search.best_score,
    samples=search.samples,
    scores=search.scores,
    means=search.means,
    covariances=search.covariances,
  )


def _sample(key: chex.PRNGKey, search: Search) -> chex.Array:
  num_samples, size = search.samples.shape[1:]
  mix_key, noise_key = jax.random.split(key)
  mix = jax.random.normal(mix_key, (num_samples, search.spread.shape[0]))
  noise = jax.random.normal(noise_key, (num_samples, size))
  return search.mean + mix @ search.spread + noise * search.std


def _fit(elites: chex.Array) -> tuple[chex.Array, chex.Array]:
  """Mean [D] and spread [M, D] of elites [M, D], see `Search`."""
  mean = elites.mean(axis=0)
  # The unbiased estimate: with six elites the other one shrinks too soon.
  return mean, (elites - mean) / math.sqrt(len(elites) - 1)
