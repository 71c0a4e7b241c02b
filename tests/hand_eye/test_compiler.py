"""Canaries: what XLA compiles computes what the same program does step by step.

jaxlib 0.10.2 compiles some reductions on CPUs to kernels that give another result
(jax #39103) or end the process (#39257, #40412); later versions have faults of their
own. None was seen in our programs. No pin of jax may move unless these tests pass.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hand_eye import cem, losses, network, optimizers

BATCH = 8


@pytest.fixture(autouse=True)
def optimized():
  """As outside of tests, which leave most optimizations out."""
  before = jax.config.read("jax_disable_most_optimizations")
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", before)


def assert_compiles(function, *arguments, tolerance=2e-4):
  """The largest difference is small against the largest value of each array."""
  with jax.disable_jit():
    eager = function(*arguments)
  compiled = jax.jit(function)(*arguments)
  chex.assert_trees_all_equal_shapes_and_dtypes(eager, compiled)
  for expected, found in zip(
    jax.tree.leaves(eager), jax.tree.leaves(compiled), strict=True
  ):
    expected, found = np.asarray(expected), np.asarray(found)
    assert np.isfinite(found).all()
    scale = max(float(np.abs(expected).max()), 1e-6)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tolerance * scale)


def parts(preset):
  sizes = {"channels": 8, "image_convs": 1, "command_convs": 1}
  predictor = network.build(network.preset(preset, **sizes))
  params, batch_stats = predictor.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  side = predictor.config.crop_size
  images = rng.integers(0, 256, (BATCH, side, side, 6)).astype(np.float32)
  commands = (rng.normal(size=(BATCH, 5)) / 10).astype(np.float32)
  return predictor, params, batch_stats, jnp.asarray(images), jnp.asarray(commands)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_forward(train):
  predictor, params, batch_stats, images, commands = parts("small")

  def forward(params, batch_stats, images, commands):
    return predictor.apply(params, batch_stats, images, commands, train=train)

  assert_compiles(forward, params, batch_stats, images, commands)


@pytest.mark.slow
def test_gradient_and_optimizer_step():
  predictor, params, batch_stats, images, commands = parts("small")
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig())
  success = (jnp.arange(BATCH) % 3 == 0).astype(jnp.float32)

  def loss(params):
    logits, _ = predictor.apply(params, batch_stats, images, commands, train=True)
    return losses.cross_entropy(logits, success).mean()

  # Kernels before a batch norm have gradients that nearly cancel.
  assert_compiles(jax.grad(loss), params, tolerance=5e-3)

  def step(gradient, state, params):
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  assert_compiles(step, jax.grad(loss)(params), optimizer.init(params), params)


def test_metrics():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=64).astype(np.float32))
  success = jnp.asarray((rng.uniform(size=64) < 0.3).astype(np.float32))
  assert_compiles(losses.cross_entropy, logits, success)


@pytest.mark.slow
def test_cross_entropy_method():
  search = cem.CrossEntropyMethod(
    is_feasible=lambda points: jnp.abs(points).max(axis=-1) < 0.5,
    project=lambda points: jnp.clip(points, -0.499, 0.499),
    initial_std=jnp.full(5, 0.2),
    min_std=0.01,
    num_samples=32,
    num_iterations=2,
  )

  def best(initial):
    found = search.maximize(
      lambda points: -jnp.sum((points - 0.2) ** 2, axis=-1), jax.random.key(1), initial
    )
    return found.best, found.candidates, found.scores

  assert_compiles(best, jnp.zeros(5))


@pytest.mark.parametrize("shape", [(64, 33), (8, 16, 16, 32), (4, 5, 6, 7, 8)])
def test_reductions(shape):
  values = jnp.asarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))

  def reductions(values):
    axes = tuple(range(values.ndim - 1))  # of a batch norm
    mean = values.mean(axis=axes)
    spread = ((values - mean) ** 2).mean(axis=axes)
    return mean, spread, values.sum(axis=-1), values.max(axis=axes), values.sum()

  assert_compiles(reductions, values)
