"""The grasp predictor of Section 4.1 and Figure 4, as `presets` defines it.

Only this file and `glimpse` import flax. The rest of the project gets a `Predictor`:
plain functions on plain nested dicts, with the batch statistics passed as data. The
network has two halves, so that a servo decision encodes its images once and scores any
number of commands on the result:

  images [B, S, S, 6] -- stem, pool, image convolutions, pool --> features [B, h, w, C]
  features + dense(command) -- convolutions, pool, dense layers --> logits [B]

Where Figure 4 and the text of Section 4.1 disagree, Figure 4 is followed: six image
convolutions, not five, and the command is added, not concatenated.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from hand_eye.presets import (
  COMMAND_SIZE,
  IMAGE_CHANNELS,
  PRESETS,
  NetworkConfig,
  preset,
  receptive_field,
)

__all__ = [
  "COMMAND_SIZE",
  "IMAGE_CHANNELS",
  "PRESETS",
  "ArrayTree",
  "GraspNetwork",
  "NetworkConfig",
  "Predictor",
  "build",
  "from_module",
  "max_pool",
  "preset",
  "receptive_field",
  "space_to_depth_conv",
]

ArrayTree = Mapping[str, Any]

_INITIALIZERS: Mapping[str, Callable[..., Any]] = {
  # The weights that later public code with this network starts from.
  "truncated_normal": nn.initializers.truncated_normal(stddev=0.01),
  # Keeps the scale of activations through the layers without batch norm.
  "he_normal": nn.initializers.he_normal(),
}


def _as_they_are(
  params: ArrayTree, batch_stats: ArrayTree
) -> tuple[ArrayTree, ArrayTree]:
  return params, batch_stats


class Predictor(NamedTuple):
  """The predictor as pure functions.

  `params` and `batch_stats` are plain nested dicts of float32 arrays. Images are
  [B, S, S, 6] with S = `config.crop_size`: the pregrasp image's RGB, then the image's;
  uint8, or floats on the same scale of 0 to 255. Commands are [B, 5] float32, robot
  base frame: (dx, dy, dz) metres, (sin, cos) of the change in yaw.

  Attributes:
    config: the definition.
    init: `(key) -> (params, batch_stats)`. The key is consumed.
    apply: `(params, batch_stats, images, commands, *, train) -> (logits [B],
      batch_stats)`. With `train=True` activations are normalised by the statistics of
      this batch and the running ones advance; with `train=False` they are used, and
      returned unchanged.
    apply_with_auxiliary: `(params, batch_stats, images, commands, pose [B, 4],
      crop_offset [B, 2]) -> (logits [B], auxiliary loss [B], batch_stats)`, a forward
      pass of training; None where the architecture has no auxiliary targets.
    encode: `(params, batch_stats, images) -> features`, for inference: [B, h, w, C], or
      a dict of arrays [B, ...].
    score: `(params, batch_stats, features of B, commands [N, 5]) -> logits
      [N]`, with B = N, or B = 1 to score N commands on one image pair. For inference.
    intermediates: `(params, batch_stats, images, commands) -> dict` of the activations
      after each stage, by name. For inspection.
    prepare: `(params, batch_stats) -> (params, batch_stats)` in the form that `encode`
      and `score` compute with: once for many decisions. They take others, too.
  """

  config: NetworkConfig
  init: Callable[[chex.PRNGKey], tuple[ArrayTree, ArrayTree]]
  apply: Callable[..., tuple[chex.Array, ArrayTree]]
  encode: Callable[[ArrayTree, ArrayTree, chex.Array], Any]
  score: Callable[[ArrayTree, ArrayTree, Any, chex.Array], chex.Array]
  intermediates: Callable[..., dict[str, chex.Array]]
  apply_with_auxiliary: (
    Callable[..., tuple[chex.Array, chex.Array, ArrayTree]] | None
  ) = None
  prepare: Callable[[ArrayTree, ArrayTree], tuple[ArrayTree, ArrayTree]] = _as_they_are


def build(config: NetworkConfig) -> Predictor:
  """Builds the network of Figure 4."""
  return from_module(GraspNetwork(config), config)


def from_module(module: nn.Module, config: Any) -> Predictor:
  """Builds a predictor. Nothing is computed yet.

  Args:
    module: its methods are `encode(images, *, train) -> features`,
      `score(features, commands, *, train) -> logits [N]` and
      `__call__(images, commands, *, train) -> logits [B]`; if it has auxiliary targets,
      also `with_auxiliary(images, commands, pose, crop_offset) -> (logits, loss [B])`.
      `Predictor` has the shapes. Its only collections are params and batch_stats.
    config: that the module was made from.
  """

  def first_weights(key):
    images = jnp.zeros((1, config.crop_size, config.crop_size, IMAGE_CHANNELS))
    commands = jnp.zeros((1, COMMAND_SIZE))
    variables = module.init(key, images, commands, train=False)
    return variables["params"], variables.get("batch_stats", {})

  compiled = functools.cache(lambda: jit_once(first_weights))

  def init(key):
    # Within another compiled function it is a part of that.
    is_traced = isinstance(key, jax.core.Tracer)
    return first_weights(key) if is_traced else compiled()(key)

  def apply(params, batch_stats, images, commands, *, train):
    variables = {"params": params, "batch_stats": batch_stats}
    if not train:
      return module.apply(variables, images, commands, train=False), batch_stats
    logits, updates = module.apply(
      variables, images, commands, train=True, mutable=["batch_stats"]
    )
    return logits, updates.get("batch_stats", {})

  def apply_with_auxiliary(params, batch_stats, images, commands, pose, crop_offset):
    variables = {"params": params, "batch_stats": batch_stats}
    (logits, loss), updates = module.apply(
      variables,
      images,
      commands,
      pose,
      crop_offset,
      mutable=["batch_stats"],
      method="with_auxiliary",
    )
    return logits, loss, updates.get("batch_stats", {})

  def encode(params, batch_stats, images):
    variables = {"params": params, "batch_stats": batch_stats}
    return module.apply(variables, images, train=False, method="encode")

  def score(params, batch_stats, features, commands):
    variables = {"params": params, "batch_stats": batch_stats}
    return module.apply(variables, features, commands, train=False, method="score")

  def intermediates(params, batch_stats, images, commands):
    variables = {"params": params, "batch_stats": batch_stats}
    _, sown = module.apply(
      variables, images, commands, train=False, mutable=["intermediates"]
    )
    found = sown.get("intermediates", {})
    return {name: values[0] for name, values in found.items()}

  return Predictor(
    config,
    init,
    apply,
    encode,
    score,
    intermediates,
    apply_with_auxiliary if hasattr(module, "with_auxiliary") else None,
  )


def jit_once(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
  """`jax.jit` for what runs once, as drawing weights does.

  There the compiler takes nearly all of the time: on CPUs a quarter of it with fewer
  optimisations. The results are the same, bit for bit.
  """
  if jax.default_backend() == "cpu":
    options["compiler_options"] = {"xla_backend_optimization_level": 1}
  return jax.jit(function, **options)


class GraspNetwork(nn.Module):
  """The network of Figure 4. See `Predictor` for the arguments."""

  config: NetworkConfig

  def setup(self):
    c = self.config
    dtype = jnp.dtype(c.dtype)
    kernel_init = _INITIALIZERS[c.initializer]
    block = functools.partial(_ConvBlock, config=c)
    self.stem_block = block(
      kernel=c.stem_kernel, stride=c.stem_stride, form=c.stem_form
    )
    self.image_blocks = [block(kernel=c.image_kernel) for _ in range(c.image_convs)]
    # Sees O(1) inputs and is added to O(1) activations, so it starts at their scale
    # whatever the initialiser of the rest.
    self.command_dense = nn.Dense(c.channels, dtype=dtype)
    self.command_blocks = [
      block(kernel=c.command_kernel) for _ in range(c.command_convs)
    ]
    self.final_blocks = [
      block(kernel=c.final_kernel, padding="VALID") for _ in range(c.final_convs)
    ]
    self.dense_layers = [
      nn.Dense(units, dtype=dtype, kernel_init=kernel_init) for units in c.dense_units
    ]
    # Zero: every prediction starts at one half, wherever the features start.
    self.logit = nn.Dense(1, kernel_init=nn.initializers.zeros)

  def encode(self, images: chex.Array, *, train: bool) -> chex.Array:
    """The image half: [B, S, S, 6] -> [B, h, w, C]."""
    c = self.config
    chex.assert_shape(images, (None, c.crop_size, c.crop_size, IMAGE_CHANNELS))
    x = (images.astype(jnp.float32) / 127.5 - 1.0).astype(c.dtype)
    if not c.pregrasp:
      x = jnp.asarray(x).at[..., : IMAGE_CHANNELS // 2].set(0)
    x = self._named("stem", self.stem_block(x, train=train))
    x = self._named("stem_pool", max_pool(x, c.stem_pool))
    for block in self.image_blocks:
      x = block(x, train=train)
    self._named("image_convs", x)
    return self._named("image_pool", max_pool(x, c.image_pool))

  def score(
    self, features: chex.Array, commands: chex.Array, *, train: bool
  ) -> chex.Array:
    """The command half: [B|1, h, w, C] and [B, 5] -> logits [B]."""
    c = self.config
    chex.assert_shape(commands, (None, COMMAND_SIZE))
    scale = jnp.asarray([c.command_scale] * 3 + [1.0, 1.0], jnp.float32)
    command = self._named("command", self.command_dense(commands / scale))
    x = features + command[:, None, None, :]
    for block in self.command_blocks:
      x = block(x, train=train)
    x = self._named("command_convs", x)
    x = self._named("command_pool", max_pool(x, c.command_pool))
    for block in self.final_blocks:
      x = block(x, train=train)
    x = self._named("final_convs", x)
    x = x.reshape(x.shape[0], -1)
    for layer in self.dense_layers:
      x = nn.relu(layer(x))
    x = self._named("dense", x)
    return self.logit(x.astype(jnp.float32))[:, 0]

  def __call__(
    self, images: chex.Array, commands: chex.Array, *, train: bool
  ) -> chex.Array:
    return self.score(self.encode(images, train=train), commands, train=train)

  def _named(self, name: str, x: chex.Array) -> chex.Array:
    self.sow("intermediates", name, x)
    return x


class _ConvBlock(nn.Module):
  """A convolution, batch norm and ReLU."""

  config: NetworkConfig
  kernel: int
  stride: int = 1
  padding: str = "SAME"
  form: str = "direct"

  @nn.compact
  def __call__(self, x: chex.Array, *, train: bool) -> chex.Array:
    c = self.config
    dtype = jnp.dtype(c.dtype)
    kernel_init = _INITIALIZERS[c.initializer]
    if self.form == "space_to_depth":
      conv = _SpaceToDepthConv(
        c.channels, self.kernel, self.stride, dtype, kernel_init, name="conv"
      )
    else:
      conv = nn.Conv(
        c.channels,
        kernel_size=(self.kernel, self.kernel),
        strides=(self.stride, self.stride),
        padding=self.padding,
        use_bias=False,  # Batch norm would take it away again.
        dtype=dtype,
        kernel_init=kernel_init,
        name="conv",
      )
    x = conv(x)
    # Under jit, with the batch split over a mesh, the mean is the global batch's.
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=c.batch_norm_momentum,
      epsilon=c.batch_norm_epsilon,
      dtype=dtype,
      name="batch_norm",
    )(x)
    return nn.relu(x)


class _SpaceToDepthConv(nn.Module):
  """`nn.Conv` with SAME padding and no bias, computed by `space_to_depth_conv`.

  Its parameter has the name, the shape and the first values of `nn.Conv`'s.
  """

  channels: int
  kernel: int
  stride: int
  dtype: Any
  kernel_init: Callable[..., Any]

  @nn.compact
  def __call__(self, x: chex.Array) -> chex.Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    return space_to_depth_conv(
      x.astype(self.dtype), kernel.astype(self.dtype), self.stride
    )


def space_to_depth_conv(x: chex.Array, kernel: chex.Array, stride: int) -> chex.Array:
  """The strided convolution of x [B, H, W, D] with kernel [k, k, D, C], SAME padding.

  Blocks of stride x stride pixels become channels of one pixel, and the kernel, with
  zeros where it does not fill its blocks, is cut in the same way: what was 6 x 6 with
  stride 2 on six channels is 3 x 3 with stride 1 on 24. Six channels leave most of a
  matrix unit idle, 24 four times less of it.

  Returns:
    [B, H / stride, W / stride, C].

  Raises:
    ValueError: if H or W is no multiple of the stride.
  """
  batch, height, width, depth = x.shape
  size = kernel.shape[0]
  if height % stride or width % stride:
    raise ValueError(f"{height} x {width} is no multiple of the stride, {stride}.")
  rows, columns = height // stride, width // stride
  x = x.reshape(batch, rows, stride, columns, stride, depth)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)
  # SAME pads `low` pixels in front; the kernel's first block begins at or before them.
  low = max(0, size - stride) // 2
  front = -low % stride
  blocks = -(-(front + size) // stride)
  around = (front, blocks * stride - front - size)
  kernel = jnp.pad(kernel, (around, around, (0, 0), (0, 0)))
  kernel = kernel.reshape(blocks, stride, blocks, stride, depth, -1)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, x.shape[-1], -1)
  before = (low + front) // stride
  padding = (before, blocks - 1 - before)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1),
    padding=(padding, padding),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def max_pool(x: chex.Array, window: int) -> chex.Array:
  """Max pool of [B, H, W, C] with stride `window` and SAME padding.

  Windows do not overlap, so this is a maximum over two axes of a reshaped array. On
  CPUs its gradient is far cheaper than that of a windowed reduction.

  The maximum is made of pairs. The gradient of `jnp.max` divides by the number of
  places that equal the maximum; XLA may compute a place twice, rounded differently, and
  then it divides zero by zero (findings/jax_max_gradient_is_nan.sh).
  """
  if window == 1:
    return x
  batch, height, width, channels = x.shape
  down, along = -(-height // window), -(-width // window)
  missing = (down * window - height, along * window - width)
  if any(missing):
    around = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
    x = jnp.pad(x, around, constant_values=-jnp.inf)
  x = x.reshape(batch, down, window, along, window, channels)
  rows = functools.reduce(jnp.maximum, (x[:, :, i] for i in range(window)))
  return functools.reduce(jnp.maximum, (rows[:, :, :, i] for i in range(window)))
