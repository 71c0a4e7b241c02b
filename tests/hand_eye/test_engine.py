"""The network by OpenVINO, where it is installed, against `inference`."""

import importlib.util
import sys

import jax
import numpy as np
import pytest

from hand_eye import engine, inference, network, servo

CONFIG = network.preset("small", channels=8, image_convs=1, command_convs=2)


def _weights(config=CONFIG, seed=0):
  rng = np.random.default_rng(seed)
  params, batch_stats = network.build_predictor(config).init(jax.random.key(0))
  noisy = lambda x: x + rng.normal(size=x.shape, scale=0.1).astype(np.float32)  # noqa: E731
  params = jax.tree.map(noisy, params)
  return inference.prepare(params, jax.tree.map(lambda x: x + 0.1, batch_stats), config)


def _inputs(config=CONFIG, count=5):
  rng = np.random.default_rng(0)
  shape = (1, config.crop_size, config.crop_size, 6)
  images = rng.integers(0, 256, shape, dtype=np.uint8)
  return images, rng.normal(size=(count, 5)).astype(np.float32) / 3


def _probabilities(predictor, weights, images, candidates):
  @jax.jit
  def run(weights, images, candidates):
    features = predictor.encode(weights, {}, images)
    return jax.nn.sigmoid(predictor.score(weights, {}, features, candidates))

  return np.asarray(run(weights, images, candidates))


@pytest.fixture
def openvino():
  """Not by importing it, which `engine` does more quietly."""
  if importlib.util.find_spec("openvino") is None:
    pytest.skip("OpenVINO is not installed")
  return engine


def test_without_openvino_it_says_what_to_do(monkeypatch):
  monkeypatch.setitem(sys.modules, "openvino", None)
  with pytest.raises(engine.EngineError, match="pip install openvino"):
    engine.build_predictor(_weights(), CONFIG)


def test_openvino_does_not_report_that_it_was_imported(openvino):
  openvino.build_predictor(_weights(), CONFIG)
  assert "openvino_telemetry" not in sys.modules


def test_unknown_precision_is_refused():
  with pytest.raises(ValueError, match="precision is 'int8', expected one of float32"):
    engine.build_predictor(_weights(), CONFIG, precision="int8")


@pytest.mark.parametrize(
  "fields", [{}, {"command_convs": 0, "crop_size": 61}, {"final_convs": 0}]
)
def test_float32_agrees_to_a_thousandth(openvino, fields):
  config = network.preset("small", **{"channels": 8, "image_convs": 1, **fields})
  weights, inputs = _weights(config), _inputs(config)
  expected = _probabilities(inference.build_predictor(config), weights, *inputs)
  found = _probabilities(openvino.build_predictor(weights, config), {}, *inputs)
  assert np.std(expected) > 1e-2
  np.testing.assert_allclose(found, expected, atol=1e-3)


def test_bfloat16_agrees_to_two_digits(openvino):
  weights, inputs = _weights(), _inputs()
  try:
    predictor = openvino.build_predictor(weights, CONFIG, precision="bfloat16")
  except openvino.EngineError as error:
    pytest.skip(str(error))
  expected = _probabilities(inference.build_predictor(CONFIG), weights, *inputs)
  np.testing.assert_allclose(
    _probabilities(predictor, {}, *inputs), expected, atol=0.05
  )


def test_a_fleet_is_scored_like_its_robots(openvino):
  weights = _weights()
  predictor = openvino.build_predictor(weights, CONFIG)
  images, candidates = _inputs()
  pair = np.stack([images, images[:, ::-1]])

  def one(images):
    return predictor.score({}, {}, predictor.encode({}, {}, images), candidates)

  together = jax.jit(jax.vmap(one))(pair)
  np.testing.assert_allclose(together[0], jax.jit(one)(pair[0]), atol=1e-5)
  np.testing.assert_allclose(together[1], jax.jit(one)(pair[1]), atol=1e-5)
  assert np.max(np.abs(together[0] - together[1])) > 1e-3


def test_the_servo_takes_it(openvino):
  frames = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  low, high = np.array([[0.4, -0.2, 0.0, -3.0], [0.7, 0.2, 0.3, 3.0]], np.float32)
  weights = _weights()
  made = []
  for predictor in (
    inference.build_predictor(CONFIG),
    openvino.build_predictor(weights, CONFIG),
  ):
    decide = jax.jit(servo.make_decision_fn(predictor))
    pose = np.array([0.55, 0.0, 0.12, 0.3], np.float32)
    space = servo.commands.Workspace(low=low, high=high)
    key = jax.random.key(0)
    made.append(decide(weights, {}, *frames, pose, 0.0, space, False, key))
  np.testing.assert_allclose(
    made[1].probabilities[:64], made[0].probabilities[:64], atol=1e-3
  )
