"""The grasp predictor of Section 4.1 and Figure 4, as presets of one definition.

This is the only file that imports flax. It gives the rest of the project a `Predictor`:
plain functions on plain nested dicts, with the batch statistics passed as data. The
network has two halves, so that a servo decision encodes its images once and scores any
number of commands on the result:

  images [B, S, S, 6] -- stem, pool, image convolutions, pool --> features [B, h, w, C]
  features + dense(command) -- convolutions, pool, dense layers --> logits [B]

Where Figure 4 and the text of Section 4.1 disagree, Figure 4 is followed: six image
convolutions, not five, and the command is added, not concatenated.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

ArrayTree = Mapping[str, Any]

IMAGE_CHANNELS = 6  # The pregrasp image and the image, concatenated.
COMMAND_SIZE = 5

_INITIALIZERS: Mapping[str, Callable[..., Any]] = {
  # The weights that later public code with this network starts from.
  "truncated_normal": nn.initializers.truncated_normal(stddev=0.01),
  # Keeps the scale of activations through the layers without batch norm.
  "he_normal": nn.initializers.he_normal(),
}

_DTYPES = ("float32", "bfloat16")

STEM_FORMS = ("direct", "space_to_depth")


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Everything that defines a network. The defaults are the paper's (Figure 4).

  Pools have a stride equal to their window. All layers pad to SAME, but the final
  convolutions, which are VALID.

  Attributes:
    name: the preset that this configuration started from.
    frame_size: side of the camera frames as recorded, in pixels.
    crop_size: side of the square crop that the network sees, in pixels.
    channels: output channels of every convolution.
    stem_kernel: side of the first convolution's kernel.
    stem_stride: stride of the first convolution.
    stem_pool: window of the max pool after the first convolution; 1 is none.
    image_convs: convolutions between the two first pools.
    image_kernel: side of their kernels.
    image_pool: window of the max pool that ends the image half; 1 is none.
    command_scale: the translation, in metres, that the network sees as 1. Commands are
      centimetres, and numbers of 0.01 would leave the dense layer next to blind.
    command_convs: convolutions after the command was added.
    command_kernel: side of their kernels.
    command_pool: window of the max pool after them; 1 is none.
    final_convs: VALID convolutions before the dense layers.
    final_kernel: side of their kernels.
    dense_units: sizes of the hidden dense layers before the logit.
    initializer: of convolutions and hidden dense layers, `truncated_normal` (stddev
      0.01) or `he_normal`.
    batch_norm_momentum: share of the old running statistics kept by each step.
    batch_norm_epsilon: added to the variance.
    dtype: of the computation, `float32` or `bfloat16`. Parameters, batch statistics and
      logits are float32 with both.
    stem_form: how the stem's convolution is computed, `direct` or `space_to_depth`.
      Both are the same function of the same parameters, but for rounding; see
      `space_to_depth_conv`.
  """

  name: str = "levine2016"
  frame_size: int = 512
  crop_size: int = 472
  channels: int = 64
  stem_kernel: int = 6
  stem_stride: int = 2
  stem_pool: int = 3
  image_convs: int = 6
  image_kernel: int = 5
  image_pool: int = 3
  command_scale: float = 0.1
  command_convs: int = 6
  command_kernel: int = 3
  command_pool: int = 2
  final_convs: int = 3
  final_kernel: int = 3
  dense_units: tuple[int, ...] = (64, 64)
  initializer: str = "truncated_normal"
  batch_norm_momentum: float = 0.9
  batch_norm_epsilon: float = 1e-3
  dtype: str = "float32"
  stem_form: str = "direct"

  def __post_init__(self):
    # A configuration read from JSON brings a list, which would not hash.
    object.__setattr__(self, "dense_units", tuple(self.dense_units))
    if self.crop_size > self.frame_size:
      raise ValueError(
        f"crop_size {self.crop_size} is larger than frame_size {self.frame_size}: a"
        " crop is cut from a frame."
      )
    for name, known in (
      ("initializer", tuple(_INITIALIZERS)),
      ("dtype", _DTYPES),
      ("stem_form", STEM_FORMS),
    ):
      value = getattr(self, name)
      if value not in known:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}.")
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      least = 0 if field.name.endswith("_convs") else 1
      if field.type is int and not (isinstance(value, int) and value >= least):
        raise ValueError(f"{field.name} is {value!r}, expected an integer >= {least}.")
    if self.stem_form == "space_to_depth" and self.crop_size % self.stem_stride:
      raise ValueError(
        f"stem_form is 'space_to_depth', but crop_size {self.crop_size} is no multiple"
        f" of stem_stride {self.stem_stride}; choose another size, or 'direct'."
      )
    if not self.command_scale > 0:
      raise ValueError(f"command_scale is {self.command_scale!r}, expected > 0 (m).")


PRESETS: Mapping[str, NetworkConfig] = {
  "levine2016": NetworkConfig(),
  # The same definition for two CPU cores: 64 -> 32 -> 16 -> 8 -> 4 -> 2.
  "small": NetworkConfig(
    name="small",
    frame_size=72,
    crop_size=64,
    channels=32,
    stem_pool=2,
    image_convs=3,
    image_kernel=3,
    image_pool=2,
    command_convs=3,
    final_convs=1,
    initializer="he_normal",
  ),
}


def preset(name: str, **overrides: Any) -> NetworkConfig:
  """Returns the preset `name` with some fields replaced.

  Args:
    name: a key of `PRESETS`.
    **overrides: fields of `NetworkConfig`.

  Raises:
    ValueError: for an unknown name, field or value; the message lists the known ones.
  """
  if name not in PRESETS:
    raise ValueError(f"unknown preset {name!r}, known presets: {', '.join(PRESETS)}.")
  known = [field.name for field in dataclasses.fields(NetworkConfig)]
  unknown = sorted(set(overrides) - set(known))
  if unknown:
    raise ValueError(
      f"unknown network field {', '.join(unknown)}, known fields: {', '.join(known)}."
    )
  return dataclasses.replace(PRESETS[name], **overrides)


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
    encode: `(params, batch_stats, images) -> features [B, h, w, C]`. For inference.
    score: `(params, batch_stats, features [B, h, w, C], commands [N, 5]) -> logits
      [N]`, with B = N, or B = 1 to score N commands on one image pair. For inference.
    intermediates: `(params, batch_stats, images, commands) -> dict` of the activations
      after each stage, by name. For inspection.
  """

  config: NetworkConfig
  init: Callable[[chex.PRNGKey], tuple[ArrayTree, ArrayTree]]
  apply: Callable[..., tuple[chex.Array, ArrayTree]]
  encode: Callable[[ArrayTree, ArrayTree, chex.Array], chex.Array]
  score: Callable[[ArrayTree, ArrayTree, chex.Array, chex.Array], chex.Array]
  intermediates: Callable[..., dict[str, chex.Array]]


def build_predictor(config: NetworkConfig) -> Predictor:
  """Builds the predictor that `config` defines. Nothing is computed yet."""
  module = GraspNetwork(config)

  def first_weights(key):
    images = jnp.zeros((1, config.crop_size, config.crop_size, IMAGE_CHANNELS))
    commands = jnp.zeros((1, COMMAND_SIZE))
    variables = module.init(key, images, commands, train=False)
    return variables["params"], variables["batch_stats"]

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
    return logits, updates["batch_stats"]

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
    return {name: values[0] for name, values in sown["intermediates"].items()}

  return Predictor(config, init, apply, encode, score, intermediates)


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
  """
  if window == 1:
    return x
  batch, height, width, channels = x.shape
  rows, columns = -(-height // window), -(-width // window)
  missing = (rows * window - height, columns * window - width)
  if any(missing):
    around = [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)]
    x = jnp.pad(x, around, constant_values=-jnp.inf)
  x = x.reshape(batch, rows, window, columns, window, channels)
  return x.max(axis=(2, 4))


def num_parameters(params: ArrayTree) -> int:
  """Number of scalars in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def receptive_field(config: NetworkConfig) -> int:
  """Side of the square of pixels that one place of the features depends on."""
  side, step = 1, 1
  layers = [
    (config.stem_kernel, config.stem_stride),
    (config.stem_pool, config.stem_pool),
    *[(config.image_kernel, 1)] * config.image_convs,
    (config.image_pool, config.image_pool),
  ]
  for window, stride in layers:
    side += (window - 1) * step
    step *= stride
  return side
