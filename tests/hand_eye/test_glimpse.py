"""The network that learns where in the image a command leads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import glimpse, optimizers, presets, training
from hand_eye.checkpoint import PolicyWeights
from hand_eye.deploy import export, runtime

SMALL = presets.preset(
  "glimpse",
  frame_size=36,
  crop_size=32,
  channels=8,
  image_convs=2,
  yaw_points=4,
  glimpse_points=16,
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


def test_training_turns_and_mirrors_what_the_gripper_sees():
  glimpses = np.arange(4 * 2 * 2, dtype=np.float32).reshape(4, 2, 2, 1)
  seen = np.asarray(glimpse.turned(glimpses))
  expected = [
    glimpses[0],
    glimpses[1][::-1],
    glimpses[2][:, ::-1],
    glimpses[3][::-1, ::-1],
  ]
  np.testing.assert_array_equal(seen, expected)


def test_sees_pixels_that_the_search_for_the_gripper_averages_away():
  """Stripes of one pixel: their mean is grey everywhere."""
  fine = presets.preset("glimpse128", frame_size=36, crop_size=32, glimpse_points=16)
  predictor = glimpse.build(fine)
  params, batch_stats = predictor.init(jax.random.key(0))
  stripes = np.tile(np.array([0, 254], np.uint8), 16)[None, None, :, None]
  stripes = np.broadcast_to(stripes, (1, 32, 32, 6))
  grey = np.full_like(stripes, 127)
  found = [predictor.encode(params, batch_stats, image) for image in (stripes, grey)]
  np.testing.assert_allclose(found[0]["keypoint"], found[1]["keypoint"], atol=1e-4)
  assert np.ptp(found[0]["pixels"]) > 1.9


def test_an_attention_that_is_not_in_one_place_costs(predictor, weights):
  features = dict(predictor.encode(*weights, pictures(1)))
  module = glimpse.GlimpseNetwork(SMALL)
  arguments = (commands(1), np.zeros((1, 4), np.float32), np.zeros((1, 2), np.float32))

  def loss(spread):
    return module.apply(
      {"params": weights[0], "batch_stats": weights[1]},
      {**features, "spread": jnp.array([spread])},
      *arguments,
      method="auxiliary_loss",
    )[0]

  assert loss(0.5) > loss(0.1)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"glimpse_points": 9}, "glimpse_points is 9, expected a multiple of 4"),
    ({"gripper_shrink": 3}, "crop_size 64 is no multiple of gripper_shrink 3"),
  ],
)
def test_sizes_that_do_not_divide_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    presets.preset("glimpse", **fields)


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
