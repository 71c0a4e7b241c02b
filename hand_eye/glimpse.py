"""A grasp predictor that learns where in the image a command leads, and looks there.

Figure 4 adds the command to every place of the feature map, and leaves it to the later
convolutions to find out which place it means. With tens of thousands of attempts
instead of 800,000 that is the hard part: given the true place, success is learned from
ten thousand attempts. This network has the place built in, and learns it from the
robot's own motions, without a calibration:

  keypoint   attention over the feature map finds the gripper in the image: k
  yaw        read from the features around k alone, so that k must be the gripper
  camera     an affine map of the fleet, learned: metres = A k + b height + c
  landing    where the gripper will be seen after the command: k + A^-1 (dx, dy) + ...
  glimpse    pixels of both images on a grid around the landing, turned with the
             gripper -> convolutions -> logit

The measured pose is an auxiliary target of training for keypoint, yaw and camera. It is
never an input: the network sees two images and a command. Each camera may differ from
the fleet's, as k is seen, not computed; what a wrong A costs shrinks with the command,
and the servo looks again after every motion.

The gripper looks the same after half a turn. So yaw is predicted as (sin 2 yaw,
cos 2 yaw), and training sees glimpses turned by half a turn, and mirrored: a thing and
its mirror image are grasped alike.
"""

from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from hand_eye import network, presets

# The unit of lengths inside the network, metres.
_LENGTH = 0.1
# Smallest |det A| that is inverted: the map starts near zero.
_LEAST_DETERMINANT = 0.02

# Weight of the attention's spread in the auxiliary loss. Without it the mean of a wide
# attention can follow the gripper by what else moves with it, the arm and its shadow,
# and then nothing at the keypoint shows the yaw.
_SPREAD = 1.0
_he = nn.initializers.he_normal()


def build(config: presets.NetworkConfig) -> network.Predictor:
  """Builds the predictor."""
  return network.from_module(GlimpseNetwork(config), config)


class GlimpseNetwork(nn.Module):
  """See the module. Image coordinates are (column, row), -1 to 1 over the crop."""

  config: presets.NetworkConfig

  def setup(self):
    c = self.config
    conv = lambda kernel, **options: _ConvBlock(c, kernel, **options)  # noqa: E731
    self.stem_block = conv(c.stem_kernel, stride=c.stem_stride)
    self.gripper_blocks = [conv(c.image_kernel) for _ in range(c.image_convs)]
    self.attention = nn.Conv(1, (1, 1), dtype=c.dtype)
    self.yaw_block = conv(3)
    self.yaw_dense = nn.Dense(64, kernel_init=_he)
    self.yaw = nn.Dense(2)
    normal, zeros = nn.initializers.normal(0.1), nn.initializers.zeros
    self.camera = self.param("camera", normal, (2, 2))
    self.camera_height = self.param("camera_height", zeros, (2,))
    self.camera_origin = self.param("camera_origin", zeros, (2,))
    # From where the keypoint settles to between the fingertips.
    self.image_offset = self.param("image_offset", zeros, (2,))
    self.grid_offset = self.param("grid_offset", zeros, (2,))
    self.glimpse_stem = conv(5, stride=2, padding="VALID", channels=c.channels // 2)
    self.glimpse_blocks = [conv(3), conv(3), conv(3, padding="VALID")]
    self.dense_layers = [nn.Dense(units, kernel_init=_he) for units in c.dense_units]
    self.logit = nn.Dense(1, kernel_init=zeros)

  def encode(self, images: chex.Array, *, train: bool) -> dict[str, chex.Array]:
    """Finds the gripper.

    Args:
      images: [B, S, S, 6], see `network.Predictor`.
      train: whether batch norm uses the statistics of the batch.

    Returns:
      pixels [B, S, S, 6]: the images, -1 to 1; keypoint [B, 2]: the gripper, image
      coordinates; spread [B]: variance of the attention around it; yaw [B, 2]: (sin,
      cos) of twice its yaw, not normalised.
    """
    c = self.config
    shape = (None, c.crop_size, c.crop_size, presets.IMAGE_CHANNELS)
    chex.assert_shape(images, shape)
    pixels = (images.astype(jnp.float32) / 127.5 - 1.0).astype(c.dtype)
    if not c.pregrasp:
      pixels = pixels.at[..., : presets.IMAGE_CHANNELS // 2].set(0)
    features = self.stem_block(_mean_pool(pixels, c.gripper_shrink), train=train)
    x = network.max_pool(features, c.image_pool)
    for block in self.gripper_blocks:
      x = block(x, train=train)
    batch, height, width, _ = x.shape
    attention = self.attention(x).astype(jnp.float32).reshape(batch, height * width)
    attention, places = jax.nn.softmax(attention), _places(height, width)
    keypoint = attention @ places
    away = jnp.sum((places - keypoint[:, None]) ** 2, -1)
    spread = jnp.sum(attention * away, -1)

    # Fixed to the image, about as far around as the gripper is wide.
    square = _grid(c.yaw_points, c.yaw_reach)
    around = sample(features, keypoint[:, None] + square)
    around = around.reshape(batch, c.yaw_points, c.yaw_points, -1)
    around = network.max_pool(self.yaw_block(around, train=train), 2).reshape(batch, -1)
    yaw = self.yaw(nn.relu(self.yaw_dense(around))).astype(jnp.float32)
    return {"pixels": pixels, "keypoint": keypoint, "spread": spread, "yaw": yaw}

  def score(
    self, features: Mapping[str, chex.Array], commands: chex.Array, *, train: bool
  ) -> chex.Array:
    """Features of `encode` [B|1, ...] and commands [N, 5] -> logits [N]."""
    c = self.config
    chex.assert_shape(commands, (None, presets.COMMAND_SIZE))
    to_image = _inverse(self.camera)
    motion = commands[:, :3] / _LENGTH
    landing = (
      features["keypoint"]
      + self.image_offset
      + (motion[:, :2] - motion[:, 2:] * self.camera_height) @ to_image.T
    )
    twice = features["yaw"]
    # The angle of a vector of no length has no gradient.
    has_angle = jnp.sum(twice**2, -1, keepdims=True) > 1e-6
    twice = jnp.where(has_angle, twice, jnp.array([0.0, 1.0]))
    yaw = 0.5 * jnp.arctan2(twice[:, 0], twice[:, 1])
    yaw = yaw + jnp.arctan2(commands[:, 3], commands[:, 4])
    sin, cos = jnp.sin(yaw), jnp.cos(yaw)
    turn = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    points = _grid(c.glimpse_points, c.glimpse_reach / _LENGTH) + self.grid_offset
    points = jnp.einsum("nij,pj->npi", turn, points) @ to_image.T
    x = sample(features["pixels"], landing[:, None] + points)
    x = x.reshape(len(commands), c.glimpse_points, c.glimpse_points, -1)
    if train:
      x = turned(x)
    x = self.glimpse_blocks[0](self.glimpse_stem(x, train=train), train=train)
    x = network.max_pool(x, 2)
    for block in self.glimpse_blocks[1:]:
      x = block(x, train=train)
    x = x.reshape(len(x), -1)
    x = jnp.concatenate([x, motion, commands[:, 3:]], -1)
    x = nn.relu(self.dense_layers[0](x))
    for layer in self.dense_layers[1:]:
      x = nn.relu(layer(x))
    return self.logit(x.astype(jnp.float32))[:, 0]

  def auxiliary_loss(
    self,
    features: Mapping[str, chex.Array],
    commands: chex.Array,
    pose: chex.Array,
    crop_offset: chex.Array,
  ) -> chex.Array:
    """Squared error of the gripper's measured position and yaw, and the spread, [B].

    Args:
      features: of `encode`, [B, ...].
      commands: [B, 5], to where the gripper closed, which is on the table: they say how
        high it is now.
      pose: [B, 4] measured pose now, robot base frame, metres and radians.
      crop_offset: [B, 2] (row, column), how far the crop lies from the frame's middle
        one, pixels. The camera is that of the frame.
    """
    half = self.config.crop_size / 2
    seen = features["keypoint"] + crop_offset[:, ::-1] / half
    position = (
      seen @ self.camera.T
      - commands[:, 2:3] / _LENGTH * self.camera_height
      + self.camera_origin
    )
    target = (pose[:, :2] - jnp.asarray(presets.BIN_CENTRE)) / _LENGTH
    twice = jnp.stack([jnp.sin(2 * pose[:, 3]), jnp.cos(2 * pose[:, 3])], -1)
    errors = jnp.sum((position - target) ** 2, -1) + jnp.sum(
      (features["yaw"] - twice) ** 2, -1
    )
    return errors + _SPREAD * features["spread"]

  def __call__(
    self, images: chex.Array, commands: chex.Array, *, train: bool
  ) -> chex.Array:
    return self.score(self.encode(images, train=train), commands, train=train)

  def with_auxiliary(
    self,
    images: chex.Array,
    commands: chex.Array,
    pose: chex.Array,
    crop_offset: chex.Array,
  ) -> tuple[chex.Array, chex.Array]:
    """Logits [B] and auxiliary loss [B] of one forward pass of training."""
    features = self.encode(images, train=True)
    loss = self.auxiliary_loss(features, commands, pose, crop_offset)
    return self.score(features, commands, train=True), loss


class _ConvBlock(nn.Module):
  """A convolution, batch norm and ReLU."""

  config: presets.NetworkConfig
  kernel: int
  stride: int = 1
  padding: str = "SAME"
  channels: int | None = None

  @nn.compact
  def __call__(self, x: chex.Array, *, train: bool) -> chex.Array:
    c = self.config
    x = nn.Conv(
      self.channels or c.channels,
      kernel_size=(self.kernel, self.kernel),
      strides=(self.stride, self.stride),
      padding=self.padding,
      use_bias=False,
      dtype=c.dtype,
      kernel_init=_he,
      name="conv",
    )(x)
    x = nn.BatchNorm(
      use_running_average=not train,
      momentum=c.batch_norm_momentum,
      epsilon=c.batch_norm_epsilon,
      dtype=c.dtype,
      name="batch_norm",
    )(x)
    return nn.relu(x)


def sample(features: chex.Array, points: chex.Array) -> chex.Array:
  """Features [B|1, h, w, C] at points [N, P, 2], image coordinates: [N, P, C].

  Bilinear between places, zero outside.
  """
  batch, height, width, channels = features.shape
  x = (points[..., 0] + 1) / 2 * width - 0.5
  y = (points[..., 1] + 1) / 2 * height - 0.5
  left, top = (jnp.floor(jax.lax.stop_gradient(v)) for v in (x, y))
  flat = features.reshape(batch * height * width, channels)
  first = jnp.arange(batch)[:, None] * (height * width)
  total = jnp.zeros((), features.dtype)
  for column, row in ((left + i, top + j) for i in (0, 1) for j in (0, 1)):
    weight = jnp.maximum(0, 1 - jnp.abs(x - column))
    weight *= jnp.maximum(0, 1 - jnp.abs(y - row))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
    found = flat[first + index.astype(jnp.int32)]
    total = total + found * (weight * inside)[..., None].astype(features.dtype)
  return total


def turned(x: chex.Array) -> chex.Array:
  """Glimpses [N, P, P, C], each fourth of them as it is, turned or mirrored.

  The gripper grasps a thing, its mirror image, and both turned by half a turn alike.
  """
  which = jnp.arange(len(x))[:, None, None, None]
  x = jnp.where(which & 1, x[:, ::-1], x)
  return jnp.where(which & 2, x[:, :, ::-1], x)


def _places(height: int, width: int) -> chex.Array:
  """[h * w, 2] image coordinates of the places of a feature map."""
  columns, rows = ((jnp.arange(n) + 0.5) / n * 2 - 1 for n in (width, height))
  return jnp.stack(jnp.meshgrid(columns, rows), -1).reshape(-1, 2)


def _grid(count: int, reach: float) -> chex.Array:
  """[count * count, 2]: a square grid from -reach to reach."""
  along = jnp.linspace(-reach, reach, count)
  return jnp.stack(jnp.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)


def _inverse(matrix: chex.Array) -> chex.Array:
  """Inverse of a 2 x 2 matrix whose determinant is kept away from zero."""
  (a, b), (c, d) = matrix
  determinant = a * d - b * c
  least = jnp.where(determinant < 0, -_LEAST_DETERMINANT, _LEAST_DETERMINANT)
  small = jnp.abs(determinant) < _LEAST_DETERMINANT
  return jnp.array([[d, -b], [-c, a]]) / jnp.where(small, least, determinant)


def _mean_pool(x: chex.Array, window: int) -> chex.Array:
  """The mean of each window x window places."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // window, window, width // window, window, channels)
  return x.mean((2, 4))
