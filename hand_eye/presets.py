"""The definition of the network as a dataclass, and the presets of it.

Needs NumPy alone: `network` builds a network of it with flax, `engine` another, for
control processes, without.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

IMAGE_CHANNELS = 6  # The pregrasp image and the image, concatenated.
COMMAND_SIZE = 5

INITIALIZERS = ("truncated_normal", "he_normal")
STEM_FORMS = ("direct", "space_to_depth")
_DTYPES = ("float32", "bfloat16")
_ARCHITECTURES = ("figure4", "glimpse")  # of `architectures`, those of this class

# Middle of the workspace, robot base frame, metres: from where `glimpse` counts.
BIN_CENTRE = (0.56, 0.0)


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Everything that defines a network. The defaults are the paper's (Figure 4).

  Pools have a stride equal to their window. All layers pad to SAME, but the final
  convolutions, which are VALID.

  Attributes:
    name: the preset that this configuration started from.
    architecture: `figure4`, or `glimpse` (`hand_eye.glimpse`), which looks where the
      command leads. That one reads frame and crop size, channels, stem_kernel,
      stem_stride, image_convs, image_kernel, image_pool, dense_units and what follows
      them here, and ignores the rest.
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
    gripper_shrink: of `glimpse`: the gripper is looked for in the crop made smaller by
      this factor, the glimpse is read from the whole one.
    glimpse_points: side of the grid of pixels that a glimpse reads, a multiple of 4
      from 16 on.
    glimpse_reach: from its middle to its edge, metres.
    yaw_points, yaw_reach: the same of what the yaw is read from; as a share of half the
      image.
    pregrasp: whether the pregrasp image is looked at. Without it, the network sees grey
      in its place: for measuring what it is good for.
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
  pregrasp: bool = True
  architecture: str = "figure4"
  gripper_shrink: int = 1
  glimpse_points: int = 28
  glimpse_reach: float = 0.08
  yaw_points: int = 10
  yaw_reach: float = 0.3

  def __post_init__(self):
    # A configuration read from JSON brings a list, which would not hash.
    object.__setattr__(self, "dense_units", tuple(self.dense_units))
    if self.crop_size > self.frame_size:
      raise ValueError(
        f"crop_size {self.crop_size} is larger than frame_size {self.frame_size}: a"
        " crop is cut from a frame."
      )
    for name, known in (
      ("initializer", INITIALIZERS),
      ("dtype", _DTYPES),
      ("stem_form", STEM_FORMS),
      ("architecture", _ARCHITECTURES),
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
    if self.architecture == "glimpse":
      self._check_glimpse()
    if not self.command_scale > 0:
      raise ValueError(f"command_scale is {self.command_scale!r}, expected > 0 (m).")

  def _check_glimpse(self):
    if self.glimpse_points % 4 or self.glimpse_points < 16:
      raise ValueError(
        f"glimpse_points is {self.glimpse_points}, expected a multiple of 4 from 16 on:"
        " a stride and a pool halve it."
      )
    if self.crop_size % self.gripper_shrink:
      raise ValueError(
        f"crop_size {self.crop_size} is no multiple of gripper_shrink"
        f" {self.gripper_shrink}."
      )


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
  # Learns where commands lead; ahead of `small` from ten thousand attempts on.
  "glimpse": NetworkConfig(
    name="glimpse",
    architecture="glimpse",
    frame_size=72,
    crop_size=64,
    channels=32,
    stem_kernel=5,
    image_convs=3,
    image_kernel=3,
    image_pool=2,
    initializer="he_normal",
  ),
  "glimpse128": NetworkConfig(
    name="glimpse128",
    architecture="glimpse",
    frame_size=144,
    crop_size=128,
    channels=32,
    stem_kernel=5,
    gripper_shrink=2,
    glimpse_points=36,
    image_convs=3,
    image_kernel=3,
    image_pool=2,
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


def feature_size(config: NetworkConfig) -> int:
  """Side of the map that the image half ends in."""
  size = config.crop_size
  for step in (config.stem_stride, config.stem_pool, config.image_pool):
    size = -(-size // step)
  return size


def border(config: NetworkConfig) -> tuple[np.ndarray, np.ndarray]:
  """Which rows of the first command kernel meet the map, and which do not.

  Returns:
    meets [K, k] of 0 and 1, the cases that there are; index [h], the case of each row
    of the map. Columns are the same.
  """
  if not config.command_convs:
    return np.ones((1, 1)), np.zeros(feature_size(config), int)
  size, kernel = feature_size(config), config.command_kernel
  at = np.arange(size)[:, None] - (kernel - 1) // 2 + np.arange(kernel)
  inside = (at >= 0) & (at < size)
  meets, index = np.unique(inside, axis=0, return_inverse=True)
  return meets.astype(np.float32), index.reshape(-1)
