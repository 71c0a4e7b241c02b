"""The fast path computes what the plain network computes, whatever the weights."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from hand_eye import inference, network, optimizers, servo, training

pytestmark = pytest.mark.usefixtures("compiled_once")

# 64 channels, so that on CPUs Winograd's form is used in both halves. And few layers:
# what takes time here is compiling.
WIDE = network.preset(
  "small", channels=64, image_convs=0, command_convs=2, final_convs=0
)
TOLERANCE = 1e-4  # of a probability


def _random_variables(config, seed=0):
  """Weights and statistics of which none is what a fresh network has there."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    name = path[-1].key
    if name == "kernel":
      deviation = np.sqrt(2 / np.prod(x.shape[:-1]))
      return rng.normal(size=x.shape, scale=deviation).astype(np.float32)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    return rng.normal(size=x.shape, scale=0.2).astype(np.float32)

  shapes = jax.eval_shape(network.build(config).init, jax.random.key(0))
  return jax.tree_util.tree_map_with_path(draw, shapes)


def _images(config, count=1, seed=0):
  shape = (count, config.crop_size, config.crop_size, 6)
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _commands(count, seed=0):
  rng = np.random.default_rng(seed)
  moves, angles = rng.normal(size=(count, 3)) / 10, rng.uniform(-3, 3, count)
  turns = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
  return np.concatenate([moves, turns], axis=-1).astype(np.float32)


def _probabilities(predictor, variables, images, candidates):
  @jax.jit
  def run(params, batch_stats, images, candidates):
    features = predictor.encode(params, batch_stats, images)
    return jax.nn.sigmoid(predictor.score(params, batch_stats, features, candidates))

  return np.asarray(run(*variables, images, candidates))


def _check_equal(config, variables, num_images=1, count=11):
  inputs = _images(config, num_images), _commands(count)
  plain = _probabilities(network.build(config), variables, *inputs)
  fast = _probabilities(inference.build(config), variables, *inputs)
  assert np.std(plain) > 1e-3
  np.testing.assert_allclose(fast, plain, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
  "name", ["small", pytest.param("levine2016", marks=pytest.mark.slow)]
)
def test_equals_the_plain_network(name):
  """11 commands: a chunk and a rest."""
  config = network.preset(name)
  _check_equal(config, _random_variables(config))


@pytest.mark.parametrize("channels", [8, 64])
def test_equals_the_plain_network_on_trained_weights(channels):
  config = network.preset("small", channels=channels, image_convs=1, command_convs=1)
  config = WIDE if channels == 64 else config
  predictor = network.build(config)
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig())
  state = training.init_state(predictor, optimizer, jax.random.key(0))
  step = training.make_train_step(predictor, optimizer)
  images, rng = _images(config, 8), np.random.default_rng(0)
  batch = training.Batch(
    pregrasp_image=images[..., :3],
    image=images[..., 3:],
    command=_commands(8),
    success=rng.integers(0, 2, 8).astype(np.float32),
  )
  for _ in range(20):
    state, _ = step(state, batch)
  _check_equal(config, (state.params, state.batch_stats))


@pytest.mark.parametrize(
  "fields",
  [
    {"command_convs": 1},
    {"command_convs": 0},
    {"command_convs": 0, "final_convs": 0, "command_pool": 1, "image_pool": 1},
    {"command_kernel": 4},  # Sticks out further at one end than at the other.
    {"command_kernel": 5},
    {"crop_size": 16, "command_kernel": 5, "final_convs": 0},  # Wider than its map.
    {"crop_size": 61, "stem_kernel": 5, "stem_stride": 3, "image_kernel": 5},
    {"stem_form": "space_to_depth"},
    {"dense_units": ()},
    {"pregrasp": False},
    {"channels": 64, "image_convs": 0, "final_convs": 1, "command_convs": 1},
    {"channels": 64, "image_kernel": 5, "final_convs": 0, "command_convs": 0},
  ],
)
def test_equals_the_plain_network_of_any_definition(fields):
  config = network.preset("small", **{"image_convs": 1, "channels": 4, **fields})
  _check_equal(config, _random_variables(config), count=8)


def test_one_command_an_image_pair():
  """Nine: on CPUs a chunk and a rest, images and commands alike."""
  _check_equal(WIDE, _random_variables(WIDE), num_images=9, count=9)


def test_prepared_weights_do_in_place_of_the_trained_ones():
  variables, inputs = _random_variables(WIDE), (_images(WIDE), _commands(5))
  predictor = inference.build(WIDE)
  prepared = inference.prepare(*variables, WIDE), {}
  np.testing.assert_allclose(
    _probabilities(predictor, prepared, *inputs),
    _probabilities(predictor, variables, *inputs),
    atol=1e-6,
  )


def test_prepared_weights_are_as_many_as_the_trained_ones():
  """But for batch norm, the command layer, and the cases at the border."""
  config = network.PRESETS["levine2016"]
  params, batch_stats = _random_variables(config)
  prepare = functools.partial(inference.prepare, config=config)
  weights = jax.eval_shape(prepare, params, batch_stats)
  count = sum(x.size for x in jax.tree.leaves(weights))
  count -= sum(x.size for x in jax.tree.leaves(params))
  assert count == 6 * 3 * 3 * 64 - 6 * 64 - 16 * 64


def test_a_fleet_is_scored_like_its_robots():
  variables = _random_variables(WIDE)
  predictor = inference.build(WIDE)
  images, candidates = _images(WIDE, 3), _commands(8)

  def one(image):
    features = predictor.encode(*variables, image[None])
    return predictor.score(*variables, features, candidates)

  together = jax.jit(jax.vmap(one))(images)
  alone = jnp.stack([jax.jit(one)(image) for image in images])
  np.testing.assert_allclose(together, alone, atol=1e-4)


def test_bfloat16_is_near():
  config = network.preset("small", channels=64, dtype="bfloat16")
  variables, inputs = _random_variables(config), (_images(config), _commands(9))
  fast = _probabilities(inference.build(config), variables, *inputs)
  exact = network.build(network.preset("small", channels=64))
  plain = _probabilities(exact, variables, *inputs)
  np.testing.assert_allclose(fast, plain, atol=0.1)
  assert 1e-4 < np.max(np.abs(fast - plain))


def test_exported_for_all_devices_at_once_it_is_the_same_here():
  variables, inputs = _random_variables(WIDE), (_images(WIDE), _commands(8))
  predictor = inference.build(WIDE)

  def run(params, batch_stats, images, candidates):
    features = predictor.encode(params, batch_stats, images)
    return predictor.score(params, batch_stats, features, candidates)

  export = jax_export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))
  data = export(*variables, *inputs).serialize()
  loaded = jax.jit(jax_export.deserialize(data).call)(*variables, *inputs)
  np.testing.assert_allclose(loaded, jax.jit(run)(*variables, *inputs), atol=1e-5)


class Observation(NamedTuple):
  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray = np.array([0.55, 0.0, 0.12, 0.3], np.float32)
  step: int = 1
  num_steps: int = 4
  table_height: float = 0.0
  workspace: tuple[np.ndarray, np.ndarray] = (
    np.array([0.4, -0.2, 0.0, -np.pi], np.float32),
    np.array([0.7, 0.2, 0.3, np.pi], np.float32),
  )


def test_the_servo_decides_as_with_the_plain_network():
  config = network.PRESETS["small"]
  variables = _random_variables(config)
  frames = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  decisions = [
    servo.ServoPolicy(build(config), *variables)(
      Observation(*frames), np.array([0, 1], np.uint32)
    )
    for build in (network.build, inference.build)
  ]
  plain, fast = (made.evidence["probabilities"] for made in decisions)
  count = servo.ServoConfig().num_samples  # Later iterations may go other ways.
  np.testing.assert_allclose(fast[:count], plain[:count], atol=TOLERANCE)
  assert decisions[0].action == decisions[1].action
  np.testing.assert_allclose(
    decisions[1].command[:2], decisions[0].command[:2], atol=0.02
  )
