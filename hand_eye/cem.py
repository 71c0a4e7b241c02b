"""The cross-entropy method (Section 4.2, Appendix A): the search of every decision.

It samples from a Gaussian, keeps the best few candidates, fits the Gaussian to them,
and so on. It takes a score function, not a network, and returns all its evidence.

`maximize` runs a whole search. A caller that may have to stop early runs the same one
step by step (`begin`, `step`), and one whose scores come from outside JAX splits a step
in two (`propose`, `update`).
"""

import dataclasses
import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

NUM_SAMPLES = 64
NUM_ELITES = 6
NUM_ITERATIONS = 3
NUM_REDRAWS = 8

ScoreFn = Callable[[chex.Array], chex.Array]


@chex.dataclass(frozen=True)
class Search:
  """A search after some of its I iterations, each of N candidates of D numbers.

  The Gaussian is kept as the candidates that it was fitted to. A random mixture of the
  elites' deviations has their covariance, so there is no matrix to factorise: exact
  where elites lie in a plane, and cheap on any device.

  done: [] int32, iterations made. What follows is zero from iteration `done` on.
  candidates: [I, N, D] all candidates; all feasible.
  scores: [I, N] their scores.
  means, covariances: [I, D] and [I, D, D] of the Gaussians that they were drawn from.

  best, best_score: [D] and [] of all candidates so far; the score is -inf before.
  mean: [D] of the Gaussian that comes next.
  spread: [M, D] deviations of the M elites from their mean, over sqrt(M - 1).
  std: [D] independent deviation on top.
  """

  done: chex.Array
  candidates: chex.Array
  scores: chex.Array
  means: chex.Array
  covariances: chex.Array
  best: chex.Array
  best_score: chex.Array
  mean: chex.Array
  spread: chex.Array
  std: chex.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropyMethod:
  """Maximises a function over the feasible points of R^D.

  Candidates that are not feasible are drawn again, as in Appendix A, but a fixed number
  of times, so that it compiles; what is then still outside is projected. So no point is
  scored that is not feasible. A score that is not finite counts as the lowest.

  Pure: all methods work under `jax.jit` and `jax.vmap`.

  Attributes:
    is_feasible: [N, D] -> [N] bool.
    project: [N, D] -> [N, D], moves points to feasible ones, best to the nearest, and
      leaves feasible points alone.
    initial_std: [D] or [], standard deviations of the first Gaussian, uncorrelated.
    min_std: [D] or [], added to each fitted Gaussian as an independent deviation: the
      floor that keeps the search alive where the elites agree.
    num_samples: N.
    num_elites: M, how many of the best candidates each Gaussian is fitted to.
    num_iterations: I.
    num_redraws: how often infeasible candidates are drawn again, before projection.

  Raises:
    ValueError: for sizes that make no sense.
  """

  is_feasible: ScoreFn
  project: ScoreFn
  initial_std: chex.Array
  min_std: chex.Array | float = 0.0
  num_samples: int = NUM_SAMPLES
  num_elites: int = NUM_ELITES
  num_iterations: int = NUM_ITERATIONS
  num_redraws: int = NUM_REDRAWS

  def __post_init__(self) -> None:
    if not 2 <= self.num_elites <= self.num_samples:
      raise ValueError(
        f"num_elites is {self.num_elites}, expected 2 to num_samples ="
        f" {self.num_samples}."
      )
    if self.num_iterations < 1:
      raise ValueError(f"num_iterations is {self.num_iterations}, expected >= 1.")
    if self.num_redraws < 0:
      raise ValueError(f"num_redraws is {self.num_redraws}, expected >= 0.")

  def maximize(
    self, score_fn: ScoreFn, key: chex.PRNGKey, initial: chex.Array
  ) -> Search:
    """Makes all iterations.

    Args:
      score_fn: [N, D] -> [N]. Called once an iteration.
      key: consumed.
      initial: [D] mean of the first Gaussian.
    """

    def body(_, search: Search) -> Search:
      return self.step(score_fn, key, search)

    return jax.lax.fori_loop(0, self.num_iterations, body, self.begin(initial))

  def begin(self, initial: chex.Array) -> Search:
    """Returns a search from `initial` [D], before its first iteration."""
    initial = jnp.asarray(initial, jnp.float32)
    chex.assert_rank(initial, 1)
    size, count = initial.size, self.num_iterations
    return Search(
      done=jnp.int32(0),
      candidates=jnp.zeros((count, self.num_samples, size)),
      scores=jnp.zeros((count, self.num_samples)),
      means=jnp.zeros((count, size)),
      covariances=jnp.zeros((count, size, size)),
      best=initial,
      best_score=jnp.float32(-jnp.inf),
      mean=initial,
      spread=jnp.zeros((self.num_elites, size)),
      std=jnp.broadcast_to(jnp.asarray(self.initial_std, jnp.float32), (size,)),
    )

  def step(self, score_fn: ScoreFn, key: chex.PRNGKey, search: Search) -> Search:
    """Makes one more iteration; the key is that of the whole search, each time."""
    candidates = self.propose(key, search)
    return self.update(search, candidates, score_fn(candidates))

  def propose(self, key: chex.PRNGKey, search: Search) -> chex.Array:
    """Returns the candidates [N, D] of the next iteration, all feasible."""
    key = jax.random.split(key, self.num_iterations)[search.done]
    keys = jax.random.split(key, self.num_redraws + 1)

    def redraw(candidates: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, None]:
      keep = self.is_feasible(candidates)[:, None]
      return jnp.where(keep, candidates, self._sample(key, search)), None

    candidates, _ = jax.lax.scan(redraw, self._sample(keys[0], search), keys[1:])
    keep = self.is_feasible(candidates)[:, None]
    return jnp.where(keep, candidates, self.project(candidates))

  def update(
    self, search: Search, candidates: chex.Array, scores: chex.Array
  ) -> Search:
    """Returns the search after its candidates [N, D] got their scores [N]."""
    chex.assert_shape(scores, (self.num_samples,))
    known = jnp.where(jnp.isfinite(scores), scores, -jnp.inf)  # broken ones last
    _, order = jax.lax.top_k(known, self.num_elites)
    elites, first = candidates[order], order[0]
    mean = elites.mean(axis=0)
    better = (known[first] > search.best_score) | (search.done == 0)
    covariance = search.spread.T @ search.spread + jnp.diag(jnp.square(search.std))
    return Search(
      done=search.done + 1,
      candidates=search.candidates.at[search.done].set(candidates),
      scores=search.scores.at[search.done].set(scores),
      means=search.means.at[search.done].set(search.mean),
      covariances=search.covariances.at[search.done].set(covariance),
      best=jnp.where(better, candidates[first], search.best),
      best_score=jnp.where(better, known[first], search.best_score),
      mean=mean,
      # The unbiased estimate: with six elites the other one shrinks too soon.
      spread=(elites - mean) / math.sqrt(self.num_elites - 1),
      std=jnp.broadcast_to(jnp.asarray(self.min_std, jnp.float32), search.std.shape),
    )

  def _sample(self, key: chex.PRNGKey, search: Search) -> chex.Array:
    mix_key, noise_key = jax.random.split(key)
    mix = jax.random.normal(mix_key, (self.num_samples, self.num_elites))
    noise = jax.random.normal(noise_key, (self.num_samples, search.mean.size))
    return search.mean + mix @ search.spread + noise * search.std
