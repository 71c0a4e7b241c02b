"""CEM against functions whose maximum is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import cem

pytestmark = pytest.mark.usefixtures("compiled_once")

PEAK = jnp.array([0.06, -0.04, 0.5])
SCALE = jnp.array([0.1, 0.1, 1.0])


def _quadratic(x):
  return -jnp.sum(jnp.square((x - PEAK) / SCALE), axis=-1)


def _anywhere(x):
  return jnp.ones(x.shape[:-1], bool)


def _maximize(score_fn, key=0, *, initial=None, **options):
  options = {
    "initial_std": SCALE,
    "is_feasible": _anywhere,
    "project": lambda x: x,
    **options,
  }
  initial = jnp.zeros(3) if initial is None else initial
  method = cem.CrossEntropyMethod(**options)
  run = jax.jit(lambda key: method.maximize(score_fn, key, initial))
  return run(jax.random.key(key))


def test_finds_the_peak_of_a_quadratic():
  run = jax.vmap(
    lambda key: _maximize(_quadratic, key, min_std=0.03 * SCALE, num_iterations=10).best
  )
  best = jax.jit(run)(jnp.arange(20))
  np.testing.assert_allclose(best / SCALE, jnp.tile(PEAK / SCALE, (20, 1)), atol=0.1)


def test_papers_three_iterations_come_near():
  run = jax.vmap(lambda key: _maximize(_quadratic, key).best)
  best = jax.jit(run)(jnp.arange(50))
  distance = jnp.linalg.norm((best - PEAK) / SCALE, axis=-1)
  assert np.median(distance) < 0.15


def test_finds_the_higher_of_two_peaks():
  def two_peaks(x):
    low = jnp.exp(-jnp.sum(jnp.square((x - PEAK) / SCALE), axis=-1) * 4)
    high = jnp.exp(-jnp.sum(jnp.square((x + PEAK) / SCALE), axis=-1) * 4)
    return jnp.maximum(0.5 * low, high)

  run = jax.vmap(
    lambda key: (
      _maximize(two_peaks, key, min_std=0.1 * SCALE, num_iterations=6).best_score
    )
  )
  assert np.mean(jax.jit(run)(jnp.arange(50)) > 0.9) > 0.9


def test_optimum_outside_ends_at_the_boundary():
  low, high = -0.03 * jnp.ones(3), 0.03 * jnp.ones(3)
  result = _maximize(
    _quadratic,
    is_feasible=lambda x: jnp.all((x >= low) & (x <= high), axis=-1),
    project=lambda x: jnp.clip(x, low, high),
    num_iterations=8,
  )
  np.testing.assert_allclose(result.best, [0.03, -0.03, 0.03], atol=2e-3)


@pytest.mark.parametrize("num_redraws", [0, 1, 8])
def test_infeasible_candidates_are_never_scored(num_redraws):
  """Also in a region so small, and so far off, that redrawing cannot reach it."""

  def run(key, centre):
    def is_feasible(x):
      return jnp.all(jnp.abs(x - centre) <= 0.01, axis=-1)

    def score(x):
      return jnp.where(is_feasible(x), _quadratic(x), jnp.inf)

    return _maximize(
      score,
      key,
      is_feasible=is_feasible,
      project=lambda x: jnp.clip(x, centre - 0.009, centre + 0.009),
      num_redraws=num_redraws,
    ).scores

  centres = jax.random.uniform(jax.random.key(1), (200, 3), minval=-1, maxval=1)
  scores = jax.jit(jax.vmap(run))(jnp.arange(200), centres)
  assert np.all(np.isfinite(scores))


def test_redrawing_keeps_candidates_off_the_boundary():
  """A half space: what is redrawn spreads inside instead of piling up at the wall."""
  result = _maximize(
    _quadratic,
    is_feasible=lambda x: x[..., 0] >= 0,
    project=lambda x: x.at[..., 0].max(0.0),
    num_redraws=20,
  )
  assert np.all(result.candidates[..., 0] > 0)


def test_best_is_the_best_of_all_iterations():
  # Without a slope to follow, later iterations are as likely worse as better.
  run = jax.vmap(lambda key: _maximize(lambda x: jnp.sin(1e4 * x.sum(-1)), key))
  results = jax.jit(run)(jnp.arange(20))
  iterations = set()
  for i in range(20):
    best = np.unravel_index(np.argmax(results.scores[i]), (3, 64))
    assert results.best_score[i] == results.scores[i].max()
    np.testing.assert_array_equal(results.best[i], results.candidates[i][best])
    iterations.add(int(best[0]))
  assert iterations == {0, 1, 2}


def test_evidence_is_consistent():
  result = _maximize(_quadratic, min_std=0.01)
  assert result.candidates.shape == (3, 64, 3) and result.scores.shape == (3, 64)
  assert result.means.shape == (3, 3) and result.covariances.shape == (3, 3, 3)
  np.testing.assert_allclose(result.scores, _quadratic(result.candidates), rtol=1e-5)
  for i in (1, 2):
    elites = result.candidates[i - 1][np.argsort(-result.scores[i - 1])[:6]]
    expected = np.cov(elites.T) + np.eye(3) * 0.01**2
    np.testing.assert_allclose(result.means[i], elites.mean(0), atol=1e-6)
    np.testing.assert_allclose(result.covariances[i], expected, atol=1e-6)


def test_floor_keeps_the_search_alive():
  flat = {"initial_std": jnp.zeros(3), "num_iterations": 10}
  stuck = _maximize(_quadratic, **flat)
  alive = _maximize(_quadratic, min_std=0.2 * SCALE, **flat)
  assert not np.any(stuck.best)
  assert alive.best_score > stuck.best_score / 4


def test_nan_scores_never_win():
  result = _maximize(lambda x: jnp.where(x[:, 0] > 0, jnp.nan, _quadratic(x)))
  assert np.isfinite(result.best_score) and result.best[0] <= 0
  assert np.all(np.isfinite(result.means))


def test_steps_are_the_whole_search():
  """In halves, with scores that come from outside."""
  method = cem.CrossEntropyMethod(
    is_feasible=_anywhere, project=lambda x: x, initial_std=SCALE, min_std=0.01
  )
  key = jax.random.key(3)
  run = jax.jit(lambda key: method.maximize(_quadratic, key, jnp.zeros(3)))
  propose, update = jax.jit(method.propose), jax.jit(method.update)
  search = method.begin(jnp.zeros(3))
  for _ in range(method.num_iterations):
    candidates = propose(key, search)
    search = update(search, candidates, np.asarray(_quadratic(candidates)))
  close = functools.partial(np.testing.assert_allclose, atol=1e-6)
  jax.tree.map(close, run(key), search)


def test_same_key_same_answer():
  run = jax.jit(lambda key: _maximize(_quadratic, key))
  one, same, other = (run(key) for key in (3, 3, 4))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert np.any(one.best != other.best)


def test_sizes_that_make_no_sense_are_refused():
  with pytest.raises(ValueError, match="num_elites is 65"):
    _maximize(_quadratic, num_elites=65)
  with pytest.raises(ValueError, match="num_iterations is 0"):
    _maximize(_quadratic, num_iterations=0)
