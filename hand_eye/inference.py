"""The network for control: what `network.Predictor` computes, in less time.

One decision scores some two hundred commands on one image pair, with fixed weights. So
these changes give the same results up to rounding:

- batch norm is folded into the convolutions before it;
- the command is added in front of a convolution, which is linear: the image's share of
  that convolution is computed once a decision, and a command's share is linear in its
  five numbers and differs between positions only at the border;
- on CPUs, convolutions of stride 1 take Winograd's form, and candidates go through the
  layers a few at a time, so that the activations between two layers stay in the cache.

`build` makes a predictor of it for `servo`. docs/inference.md says what each step
gains.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hand_eye import network, presets, winograd

FoldedWeights = Mapping[str, Any]

# Candidates that go through the layers together on a CPU. Their maps of 27 x 27 x 64
# and the tiles of these stay in the cache; with more, every layer waits for memory.
CHUNK = 8

# With fewer channels the sums around Winograd's products cost what these save.
_WINOGRAD_CHANNELS = 64


def build(config: network.NetworkConfig) -> network.Predictor:
  """Builds the predictor of Figure 4, with the two halves of this file.

  Its `encode` and `score` take the parameters and batch statistics of a training run
  and fold them, which is a hundredth of a decision's time; or what `prepare` made of
  them. What `encode` returns is for its own `score` only. The rest is that of
  `network.build`.
  """

  def encode_fn(params, batch_stats, images):
    return encode(prepare(params, batch_stats, config), images, config)

  def score_fn(params, batch_stats, features, commands):
    weights = prepare(params, batch_stats, config)
    return score(weights, features, commands, config)

  def prepare_fn(params, batch_stats):
    return prepare(params, batch_stats, config), {}

  return network.build(config)._replace(
    encode=encode_fn, score=score_fn, prepare=prepare_fn
  )


def prepare(
  params: network.ArrayTree,
  batch_stats: network.ArrayTree,
  config: network.NetworkConfig,
) -> dict[str, Any]:
  """Folds the weights of a network for `encode` and `score`.

  Args:
    params, batch_stats: of a `network.Predictor` of this `config`. What was prepared
      before is returned as it is.
    config: the definition.

  Returns:
    A nested dict of float32 arrays. Layers are {'kernel', 'bias'}. K is the number of
    ways in which the kernel of the first command convolution meets the map along one
    axis: inside, or sticking out at either end.

      stem: {'pregrasp' [k, k, 3, C], 'image' [k, k, 3, C], 'bias' [C]}
      image, command, final: {'0': layer, ...} of convolutions
      command_share: {'kernel' [5, K, K, C], 'bias' [K, K, C]}, from a command to what
        it adds after the first command convolution
      dense, logit: of dense layers
  """
  if "command_share" in params:
    return dict(params)

  def folded(name: str) -> dict[str, chex.Array]:
    layer, norm = params[name], params[name]["batch_norm"]
    statistics = batch_stats[name]["batch_norm"]
    factor = norm["scale"] / jnp.sqrt(statistics["var"] + config.batch_norm_epsilon)
    return {
      "kernel": layer["conv"]["kernel"] * factor,
      "bias": norm["bias"] - statistics["mean"] * factor,
    }

  def convolutions(name: str, count: int) -> dict[str, dict[str, chex.Array]]:
    return {str(i): folded(f"{name}_blocks_{i}") for i in range(count)}

  stem = folded("stem_block")
  command = convolutions("command", config.command_convs)
  first = command["0"]["kernel"] if config.command_convs else None
  return {
    "stem": {
      # Grey is zero: what is not looked at has no share.
      "pregrasp": stem["kernel"][:, :, :3] * config.pregrasp,
      "image": stem["kernel"][:, :, 3:],
      "bias": stem["bias"],
    },
    "image": convolutions("image", config.image_convs),
    "command_share": _command_share(params["command_dense"], first, config),
    "command": command,
    "final": convolutions("final", config.final_convs),
    "dense": {
      str(i): dict(params[f"dense_layers_{i}"]) for i in range(len(config.dense_units))
    },
    "logit": dict(params["logit"]),
  }


def encode(
  weights: FoldedWeights, images: chex.Array, config: network.NetworkConfig
) -> chex.Array:
  """The image half, and what of the command half does not depend on the command.

  Args:
    weights: of `prepare`.
    images: [B, S, S, 6], 0 to 255: the pregrasp image's RGB, then the image's.
    config: the definition.

  Returns:
    features [B, h, w, C] for `score`.
  """
  size, stem = config.crop_size, weights["stem"]
  chex.assert_shape(images, (None, size, size, network.IMAGE_CHANNELS))
  kernel = jnp.concatenate([stem["pregrasp"], stem["image"]], axis=2)
  x = _stem(_scaled(images, config), kernel, config)
  x = jax.nn.relu(x + stem["bias"].astype(x.dtype))
  layers = {"image": weights["image"]}
  if config.command_convs:
    layers["command"] = {"0": weights["command"]["0"]}
  return _by_platform(
    _image_half, config, layers, network.max_pool(x, config.stem_pool)
  )


def score(
  weights: FoldedWeights,
  features: chex.Array,
  commands: chex.Array,
  config: network.NetworkConfig,
) -> chex.Array:
  """The command half.

  Args:
    weights: of `prepare`.
    features: [B, h, w, C] of `encode`, with B = N, or B = 1 to score N commands on one
      image pair.
    commands: [N, 5], see `network.Predictor`.
    config: the definition.

  Returns:
    logits [N] float32.
  """
  chex.assert_shape(commands, (None, network.COMMAND_SIZE))
  share = weights["command_share"]
  shares = jnp.einsum("nd,drsc->nrsc", commands, share["kernel"], precision="highest")
  shares = (shares + share["bias"]).astype(features.dtype)
  layers = {name: weights[name] for name in ("final", "dense", "logit")}
  layers["command"] = {i: weights["command"][i] for i in weights["command"] if i != "0"}
  return _by_platform(_score_shares, config, layers, features, shares)


def _by_platform(half: Callable, config: network.NetworkConfig, *args) -> chex.Array:
  """Runs a half in the form that is fastest where it is compiled for."""
  half = functools.partial(half, config)
  if not _uses_winograd(config):
    return half(*args, on_cpu=False)
  return jax.lax.platform_dependent(
    *args,
    cpu=functools.partial(half, on_cpu=True),
    default=functools.partial(half, on_cpu=False),
  )


def _image_half(config, weights, x, *, on_cpu):
  if on_cpu:
    weights = _transformed(weights)
  x = _same_convolutions(x, weights["image"])
  x = network.max_pool(x, config.image_pool)
  if not config.command_convs:
    return x
  return _convolve(x, weights["command"]["0"], "SAME")


def _score_shares(config, weights, features, shares, *, on_cpu):
  """Logits [N] of features [B, h, w, C] and commands' shares [N, K, K, C]."""
  whole = len(shares) // CHUNK * CHUNK if on_cpu else 0
  # What is no whole chunk is small, and not worth another form's time to compile.
  direct = functools.partial(_command_half, config, weights)
  if not whole:
    return direct(features, shares)
  fast = functools.partial(_command_half, config, _transformed(weights))

  def split(x: chex.Array) -> chex.Array:
    return x[:whole].reshape(-1, CHUNK, *x.shape[1:])

  if len(features) == 1:
    logits = jax.lax.map(lambda s: fast(features, s), split(shares)).reshape(-1)
    rest = features
  else:
    pairs = (split(features), split(shares))
    logits = jax.lax.map(lambda pair: fast(*pair), pairs).reshape(-1)
    rest = features[whole:]
  if whole < len(shares):
    logits = jnp.concatenate([logits, direct(rest, shares[whole:])])
  return logits


def _command_half(config, weights, features, shares):
  _, index = presets.border(config)
  x = features + shares[:, index][:, :, index]
  if config.command_convs:
    x = jax.nn.relu(x)
  x = _same_convolutions(x, weights["command"])
  x = network.max_pool(x, config.command_pool)
  for name in sorted(weights["final"], key=int):
    x = jax.nn.relu(_convolve(x, weights["final"][name], "VALID"))
  x = x.reshape(x.shape[0], -1)
  for name in sorted(weights["dense"], key=int):
    layer = weights["dense"][name]
    x = jax.nn.relu(x @ layer["kernel"].astype(x.dtype) + layer["bias"].astype(x.dtype))
  logit = weights["logit"]
  return (x.astype(jnp.float32) @ logit["kernel"] + logit["bias"])[:, 0]


def _transformed(layers: Mapping[str, Any]) -> dict[str, Any]:
  """Adds Winograd's matrices to the convolutions that have such a form."""
  layers = dict(layers)
  for part in {"image", "command", "final"} & set(layers):
    layers[part] = {
      name: {**layer, "winograd": winograd.transform_kernel(layer["kernel"])}
      if winograd.applies_to(layer["kernel"].shape[0])
      else layer
      for name, layer in layers[part].items()
    }
  return layers


def _same_convolutions(x: chex.Array, layers: Mapping[str, Any]) -> chex.Array:
  """Convolutions with SAME padding, each with a ReLU, one after the other."""
  for name in sorted(layers, key=int):
    x = jax.nn.relu(_convolve(x, layers[name], "SAME"))
  return x


def _convolve(
  x: chex.Array, layer: Mapping[str, chex.Array], padding: str
) -> chex.Array:
  kernel, bias = layer["kernel"], layer["bias"].astype(x.dtype)
  if "winograd" in layer:
    return winograd.convolve(x, layer["winograd"], kernel.shape[0], padding) + bias
  return _direct(x, kernel, 1, padding) + bias


def _stem(x, kernel, config):
  if config.stem_form == "space_to_depth":
    return network.space_to_depth_conv(x, kernel.astype(x.dtype), config.stem_stride)
  return _direct(x, kernel, config.stem_stride, "SAME")


def _direct(x: chex.Array, kernel: chex.Array, stride: int, padding: str) -> chex.Array:
  return jax.lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(stride, stride),
    padding=padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _scaled(images: chex.Array, config: network.NetworkConfig) -> chex.Array:
  return (images.astype(jnp.float32) / 127.5 - 1.0).astype(config.dtype)


def _uses_winograd(config: network.NetworkConfig) -> bool:
  # In bfloat16 the digits that it loses are not there to lose.
  return config.dtype == "float32" and config.channels >= _WINOGRAD_CHANNELS


def _command_share(
  dense: Mapping[str, chex.Array],
  kernel: chex.Array | None,
  config: network.NetworkConfig,
) -> dict[str, chex.Array]:
  """The dense layer of commands and the convolution after it as one linear map."""
  scale = np.array([config.command_scale] * 3 + [1.0, 1.0], np.float32)
  into, bias = dense["kernel"] / scale[:, None], dense["bias"]
  if kernel is None:
    return {"kernel": into[:, None, None], "bias": bias[None, None]}
  meets, _ = presets.border(config)
  sums = functools.partial(jnp.einsum, precision="highest")
  taps = sums("ri,sj,ijcd->rscd", meets, meets, kernel)
  return {
    "kernel": sums("vc,rscd->vrsd", into, taps),
    "bias": sums("c,rscd->rsd", bias, taps),
  }
