"""The network of Figure 4: its shapes, its size, its halves and its batch norm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import architectures, network

TINY = network.preset("small", channels=4, image_convs=1, command_convs=1)


@functools.cache
def _predictor(config=TINY):
  predictor = network.build(config)
  return predictor._replace(
    apply=jax.jit(predictor.apply, static_argnames="train"),
    encode=jax.jit(predictor.encode),
    score=jax.jit(predictor.score),
  )


@functools.cache
def _variables(config=TINY):
  """Weights without the zeros of a fresh network, so that all of it shows."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    noise = rng.normal(size=leaf.shape).astype(np.float32)
    if path[-1].key == "kernel":
      return noise * np.sqrt(2 / np.prod(leaf.shape[:-1])).astype(np.float32)
    return 0.1 * noise + (1.1 if path[-1].key in ("scale", "var") else 0)

  params, batch_stats = jax.tree.map_with_path(
    draw, jax.eval_shape(_predictor(config).init, jax.random.key(0))
  )
  return params, jax.tree.map(np.abs, batch_stats)


def _inputs(count, size=64, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (count, size, size, 6), dtype=np.uint8)
  return images, rng.normal(size=(count, 5)).astype(np.float32) / 10


def _abstract(name):
  predictor = architectures.build(network.preset(name))
  size = predictor.config.crop_size
  images = jax.ShapeDtypeStruct((2, size, size, 6), jnp.uint8)
  commands = jax.ShapeDtypeStruct((2, 5), jnp.float32)
  params, batch_stats = jax.eval_shape(predictor.init, jax.random.key(0))
  return predictor, params, batch_stats, images, commands


def test_paper_network_has_the_shapes_of_figure_4():
  predictor, *arguments = _abstract("levine2016")
  shapes = {
    name: value.shape[1:]
    for name, value in jax.eval_shape(predictor.intermediates, *arguments).items()
  }
  assert predictor.config.crop_size == 472
  assert shapes == {
    "stem": (236, 236, 64),
    "stem_pool": (79, 79, 64),
    "image_convs": (79, 79, 64),
    "image_pool": (27, 27, 64),
    "command": (64,),
    "command_convs": (27, 27, 64),
    "command_pool": (14, 14, 64),
    "final_convs": (8, 8, 64),
    "dense": (64,),
  }


def test_paper_network_has_1_23_million_parameters():
  _, params, batch_stats, *_ = _abstract("levine2016")
  convolutions = 64 * (6 * 36 + 6 * 25 * 64 + 9 * 9 * 64)
  batch_norm = 16 * 2 * 64
  dense = (5 + 1) * 64 + (8 * 8 * 64 + 1) * 64 + (64 + 1) * 64 + (64 + 1)
  found, statistics = (
    sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, batch_stats)
  )
  assert found == convolutions + batch_norm + dense
  assert round(found / 1e6, 2) == 1.23
  assert statistics == batch_norm


@pytest.mark.parametrize("name", network.PRESETS)
def test_presets_give_one_logit_per_sample(name):
  predictor, *arguments = _abstract(name)
  apply = functools.partial(predictor.apply, train=True)
  logits, batch_stats = jax.eval_shape(apply, *arguments)
  assert logits.shape == (2,) and logits.dtype == jnp.float32
  assert jax.tree.structure(batch_stats) == jax.tree.structure(arguments[1])


def test_untrained_network_predicts_one_half():
  predictor = _predictor()
  logits, _ = predictor.apply(
    *predictor.init(jax.random.key(0)), *_inputs(2), train=False
  )
  np.testing.assert_array_equal(logits, 0.0)


def test_halves_equal_the_whole():
  predictor, variables = _predictor(), _variables()
  images, commands = _inputs(3)
  whole, _ = predictor.apply(*variables, images, commands, train=False)
  features = predictor.encode(*variables, images)
  np.testing.assert_allclose(
    predictor.score(*variables, features, commands), whole, atol=1e-5
  )
  assert np.std(whole) > 1e-3


def test_one_image_scores_many_commands():
  predictor, variables = _predictor(), _variables()
  images, commands = _inputs(5)
  one = predictor.score(*variables, predictor.encode(*variables, images[:1]), commands)
  tiled, _ = predictor.apply(
    *variables, np.repeat(images[:1], 5, axis=0), commands, train=False
  )
  np.testing.assert_allclose(one, tiled, atol=1e-5)


def test_inference_leaves_batch_stats_alone_and_training_moves_them():
  predictor, (params, batch_stats) = _predictor(), _variables()
  inputs = _inputs(4)
  _, same = predictor.apply(params, batch_stats, *inputs, train=False)
  _, moved = predictor.apply(params, batch_stats, *inputs, train=True)
  jax.tree.map(np.testing.assert_array_equal, same, batch_stats)
  changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), moved, batch_stats)
  assert all(jax.tree.leaves(changed))


def test_inference_does_not_depend_on_the_rest_of_the_batch():
  predictor, variables = _predictor(), _variables()
  images, commands = _inputs(4)
  all_of_them, _ = predictor.apply(*variables, images, commands, train=False)
  one, _ = predictor.apply(*variables, images[2:3], commands[2:3], train=False)
  np.testing.assert_allclose(one[0], all_of_them[2], atol=1e-5)


def test_running_statistics_are_those_that_numpy_finds():
  config = network.preset("small", channels=4, image_convs=0, command_convs=0)
  predictor, (params, batch_stats) = _predictor(config), _variables(config)
  images, commands = _inputs(4)
  _, moved = predictor.apply(params, batch_stats, images, commands, train=True)
  x = jax.lax.conv_general_dilated(
    images / np.float32(127.5) - 1,
    params["stem_block"]["conv"]["kernel"],
    window_strides=(2, 2),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  momentum = config.batch_norm_momentum
  for name, value in (("mean", np.mean(x, (0, 1, 2))), ("var", np.var(x, (0, 1, 2)))):
    before = batch_stats["stem_block"]["batch_norm"][name]
    np.testing.assert_allclose(
      moved["stem_block"]["batch_norm"][name],
      momentum * before + (1 - momentum) * value,
      rtol=1e-3,
      atol=1e-5,
    )


def test_float_images_equal_uint8_images():
  predictor, variables = _predictor(), _variables()
  images, commands = _inputs(2)
  as_bytes, _ = predictor.apply(*variables, images, commands, train=False)
  as_floats, _ = predictor.apply(
    *variables, images.astype(np.float32), commands, train=False
  )
  np.testing.assert_array_equal(as_bytes, as_floats)


def test_bfloat16_computes_nearly_the_same_from_float32_state():
  config = network.preset("small", **_SMALLER, dtype="bfloat16")
  predictor, (params, batch_stats) = _predictor(config), _variables()
  inputs = _inputs(4)
  logits, moved = predictor.apply(params, batch_stats, *inputs, train=True)
  reference, _ = _predictor().apply(params, batch_stats, *inputs, train=True)
  drawn = jax.eval_shape(predictor.init, jax.random.key(0))
  kinds = {leaf.dtype for leaf in jax.tree.leaves((drawn, moved, logits))}
  assert kinds == {jnp.dtype("float32")}
  np.testing.assert_allclose(logits, reference, atol=0.1)


@pytest.mark.parametrize(
  ("size", "kernel", "stride"),
  [(8, 6, 2), (64, 6, 2), (12, 5, 2), (12, 4, 2), (12, 3, 3), (12, 7, 3), (12, 2, 4),
   (12, 1, 2)],
)  # fmt: skip
def test_space_to_depth_is_the_strided_convolution(size, kernel, stride):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, size, size, 6)).astype(np.float32)
  weights = rng.normal(size=(kernel, kernel, 6, 4)).astype(np.float32)
  expected = jax.lax.conv_general_dilated(
    x, weights, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  found = network.space_to_depth_conv(x, weights, stride)
  np.testing.assert_allclose(found, expected, atol=2e-4)
  with pytest.raises(ValueError, match="no multiple of the stride"):
    network.space_to_depth_conv(x[:, 1:], weights, stride=stride + size)


def test_both_forms_of_the_stem_are_one_network():
  other = _predictor(network.preset("small", **_SMALLER, stem_form="space_to_depth"))
  jax.tree.map(
    np.testing.assert_array_equal,
    other.init(jax.random.key(0)),
    _predictor().init(jax.random.key(0)),
  )
  variables, inputs = _variables(), _inputs(3)
  for train in (False, True):
    logits, moved = other.apply(*variables, *inputs, train=train)
    expected, moved_so = _predictor().apply(*variables, *inputs, train=train)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      moved,
      moved_so,
    )


def test_the_receptive_field_is_what_a_feature_depends_on():
  predictor, variables = _predictor(), _variables()
  images = np.random.default_rng(0).normal(128, 40, (96, 64, 64, 6)).astype(np.float32)

  def middle(images):
    return jnp.sum(predictor.encode(*variables, images)[:, 4, 4])

  # A max pool lets one place of each window through: over many images, all of them.
  seen = np.abs(jax.jit(jax.grad(middle))(images)).sum(axis=(0, 3)) > 0
  for axis in (0, 1):
    touched = np.flatnonzero(seen.any(axis=axis))
    assert touched[-1] - touched[0] + 1 == network.receptive_field(TINY)


def test_the_receptive_field_of_figure_4():
  # 6 at the stem, +2 pixels of stride 2, then in steps of 6: six times 4 and 2.
  assert network.receptive_field(network.preset("levine2016")) == 6 + 4 + 144 + 12


_SMALLER = {"channels": 4, "image_convs": 1, "command_convs": 1}


@pytest.mark.parametrize(("size", "window"), [(8, 2), (79, 3), (27, 2), (236, 3)])
def test_max_pool_is_the_windowed_one(size, window):
  x = np.random.default_rng(0).normal(size=(1, size, size, 2)).astype(np.float32)
  strides = (1, window, window, 1)
  expected = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, strides, strides, "SAME")
  np.testing.assert_array_equal(network.max_pool(x, window), expected)


def test_the_gradient_of_max_pool_is_finite_where_xla_rounds_twice():
  x = np.random.default_rng(0).normal(size=100_000).astype(np.float32)

  def loss(x):
    y = jnp.exp(x) * x + jnp.sin(x) / jnp.sqrt(x * x + 1)
    return jnp.sum(network.max_pool(y.reshape(1, 250, 400, 1), 2) ** 2)

  assert np.isfinite(jax.jit(jax.grad(loss))(x)).all()


def test_same_key_same_weights():
  one, same, other = (_predictor().init(jax.random.key(seed))[0] for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert np.any(one["command_dense"]["kernel"] != other["command_dense"]["kernel"])


def test_weights_are_plain_dicts():
  def check(node):
    assert type(node) is dict or isinstance(node, jax.Array)
    if type(node) is dict:
      for value in node.values():
        check(value)

  for tree in _predictor().init(jax.random.key(0)):
    check(tree)


@pytest.mark.parametrize(
  ("name", "overrides", "message"),
  [
    ("tiny", {}, "unknown preset 'tiny', known presets: levine2016, small"),
    ("small", {"chanels": 8}, "unknown network field chanels, known fields: name, fr"),
    ("small", {"crop_size": 80}, "crop_size 80 is larger than frame_size 72"),
    ("small", {"channels": 0}, "channels is 0, expected an integer >= 1"),
    ("small", {"image_convs": -1}, "image_convs is -1, expected an integer >= 0"),
    ("small", {"dtype": "int8"}, "dtype is 'int8', expected one of float32, bfloat16"),
    ("small", {"initializer": "ones"}, "initializer is 'ones', expected one of trunc"),
    ("small", {"stem_form": "fft"}, "stem_form is 'fft', expected one of direct, spa"),
    (
      "small",
      {"stem_form": "space_to_depth", "crop_size": 63},
      "crop_size 63 is no multiple of stem_stride 2",
    ),
    ("small", {"command_scale": 0.0}, "command_scale is 0.0, expected > 0"),
  ],
)
def test_wrong_configurations_are_one_clear_error(name, overrides, message):
  with pytest.raises(ValueError, match=message):
    network.preset(name, **overrides)


def test_without_the_pregrasp_image_it_makes_no_difference():
  config = network.preset("small", channels=4, image_convs=0, pregrasp=False)
  predictor = network.build(config)
  params, batch_stats = predictor.init(jax.random.key(0))
  images = np.zeros((2, config.crop_size, config.crop_size, 6), np.uint8)
  images[1, ..., :3] = 200
  features = predictor.encode(params, batch_stats, images)
  np.testing.assert_array_equal(features[0], features[1])
  images[1, ..., 3:] = 200
  features = predictor.encode(params, batch_stats, images)
  assert np.any(features[0] != features[1])
