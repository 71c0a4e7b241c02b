"""The network that learns where in the image a command leads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import glimpse, optimizers, presets, training
from hand_eye.checkpoint import PolicyWeights
from hand_eye.deploy import export, runtime

SMALL = presets.preset(
  "glimpse", frame_size=36, crop_size=32, channels=8, image_convs=2, yaw_points=4
)


@pytest.fixture(scope="module")
def predictor():
  return glimpse.build(SMALL)


@pytest.fixture(scope="module")
def weights(predictor):
  params, batch_stats = predictor.init(jax.random.key(0))
  # The logit starts at zero, where nothing could be told apart.
  kernel = jax.random.normal(jax.random.key(1), params["logit"]["kernel"].shape)
  return {**params, "logit": {**params["logit"], "kernel": kernel}}, batch_stats


def pictures(count, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 32, 32, 6), dtype=np.uint8)


def commands(count, seed=0):
  rng = np.random.default_rng(seed)
  yaw = rng.uniform(-2, 2, count)
  motion = rng.uniform(-0.1, 0.1, (count, 3))
  return np.column_stack([motion, np.sin(yaw), np.cos(yaw)]).astype(np.float32)


def test_samples_between_places_and_zero_outside():
  features = jnp.arange(8.0).reshape(1, 2, 4, 1)
  # Columns lie at -.75, -.25, .25, .75 and rows at -.5, .5.
  points = jnp.array([[[-0.75, -0.5], [0.0, -0.5], [-0.75, 0.0], [3.0, 0.0]]])
  found = glimpse.sample(features, points)
  np.testing.assert_allclose(found[0, :, 0], [0.0, 1.5, 2.0, 0.0], atol=1e-6)


def test_scores_many_commands_on_one_image_as_on_copies_of_it(predictor, weights):
  image, asked = pictures(1), commands(7)
  once = predictor.score(*weights, predictor.encode(*weights, image), asked)
  copies = np.repeat(image, 7, axis=0)
  each, _ = predictor.apply(*weights, copies, asked, train=False)
  np.testing.assert_allclose(once, each, atol=1e-4)
  assert np.ptp(np.asarray(once)) > 1e-3


def test_a_half_turn_of_the_gripper_changes_nothing(predictor, weights):
  asked = commands(5)
  turned = asked * np.array([1, 1, 1, -1, -1], np.float32)
  images = pictures(5)
  logits = [
    predictor.apply(*weights, images, which, train=False)[0]
    for which in (asked, turned)
  ]
  np.testing.assert_allclose(*logits, atol=1e-4)


def test_learns_where_the_gripper_is_from_measured_poses(predictor):
  """A bright square is the gripper; its pose is an affine map of where it is."""
  rng = np.random.default_rng(0)

  def batch(count):
    images = np.zeros((count, 32, 32, 3), np.uint8)
    place = rng.integers(4, 27, (count, 2))
    for image, (row, column) in zip(images, place, strict=True):
      image[row - 3 : row + 3, column - 3 : column + 3] = 255
    seen = place[:, ::-1] / 16 - 1
    pose = np.zeros((count, 4), np.float32)
    pose[:, :2] = presets.BIN_CENTRE + seen @ np.array([[0.0, 0.1], [-0.1, 0.0]])
    return training.Batch(
      pregrasp_image=np.zeros_like(images),
      image=images,
      command=np.tile(np.array([0, 0, 0, 0, 1], np.float32), (count, 1)),
      success=np.zeros(count, np.float32),
      pose=pose,
      crop_offset=np.zeros((count, 2), np.float32),
    )

  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig(learning_rate=5e-3))
  state = training.init_state(predictor, optimizer, jax.random.key(0))
  step = training.make_train_step(predictor, optimizer, auxiliary_steps=1000)
  before = np.array(state.params["logit"]["kernel"])  # the step donates its state
  errors = []
  for _ in range(250):
    state, metrics = step(state, batch(32))
    errors.append(float(metrics.auxiliary))
  assert np.mean(errors[-10:]) < 0.2 * np.mean(errors[:5])
  # While only the auxiliary targets count, success teaches nothing.
  np.testing.assert_array_equal(state.params["logit"]["kernel"], before)


def test_a_batch_without_poses_is_refused(predictor):
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig())
  state = training.init_state(predictor, optimizer, jax.random.key(0))
  step = training.make_train_step(predictor, optimizer)
  images = pictures(8)
  batch = training.Batch(
    pregrasp_image=images[..., :3],
    image=images[..., 3:],
    command=commands(8),
    success=np.zeros(8, np.float32),
  )
  with pytest.raises(ValueError, match="no pose"):
    step(state, batch)


def test_exports(tmp_path, weights):
  # Loading runs the file's self-test.
  export.write_policy(tmp_path / "p.hep", PolicyWeights(SMALL, *weights, step=1))
  assert runtime.load_policy(tmp_path / "p.hep")


def test_an_unknown_architecture_is_named():
  with pytest.raises(ValueError, match="architecture is 'figure5'.*glimpse"):
    presets.preset("small", architecture="figure5")
