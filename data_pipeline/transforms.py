"""Crop, mirror and colour jitter of samples, as pure functions of their parameters.

Both images of a sample are always treated alike: whatever the network compares
between them stays comparable.
"""

import dataclasses
import threading

import numpy as np

# Rec. 601 luma: how bright red, green and blue look.
_LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class ColourJitter:
  """How far colours may be changed; a range of 0 leaves them as they are.

  Attributes:
    brightness: added, drawn from +-brightness, as a share of the full range.
    contrast: factor about middle grey, drawn from 1 +- contrast.
    saturation: factor about each pixel's own grey, drawn from 1 +- saturation.
  """

  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}, expected 0 <= {name} < 1")

  @property
  def is_off(self) -> bool:
    return not (self.brightness or self.contrast or self.saturation)

  def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draws brightness, contrast and saturation: float32[count, 3]."""
    spread = np.array([self.brightness, self.contrast, self.saturation])
    return (rng.uniform(-1, 1, (count, 3)) * spread + [0, 1, 1]).astype(np.float32)


def random_offsets(
  rng: np.random.Generator, count: int, frame_size: int, crop_size: int
) -> np.ndarray:
  """Draws crop corners uniformly: int64[count, 2], (row, column) in pixels."""
  return rng.integers(0, frame_size - crop_size, (count, 2), endpoint=True)


def centre_offsets(count: int, frame_size: int, crop_size: int) -> np.ndarray:
  """Returns the corner of the centre crop: int64[count, 2], (row, column)."""
  return np.full((count, 2), (frame_size - crop_size) // 2)


def crop(image: np.ndarray, offset: np.ndarray, size: int) -> np.ndarray:
  """Returns a view of [size, size, 3] of an image, from the corner (row, column)."""
  row, column = offset
  return image[row : row + size, column : column + size]


def mirror_image(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
  """Returns an image [H, W, 3] with left and right exchanged, in `out` if given."""
  if out is None:
    out = np.empty_like(image)
  # One channel at a time: five times faster than reversing three-byte pixels.
  for channel in range(3):
    out[..., channel] = image[:, ::-1, channel]
  return out


def mirror_command(command: np.ndarray) -> np.ndarray:
  """Returns what a command [..., 5] looks like in the mirror: dy and dyaw negated.

  That belongs to `mirror_image` only where the camera looks along the x axis of the
  robot base frame. The cameras of this project's own cell look across it, over one
  shoulder: their attempts must not be mirrored.
  """
  return command * np.array([1, -1, 1, -1, 1], command.dtype)


def jitter_colours(
  image: np.ndarray, parameters: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
  """Changes the colours of an image.

  Args:
    image: uint8[..., 3] RGB.
    parameters: float32[3], a row of ColourJitter.draw.
    out: where to put the result; may be the image itself.

  Returns:
    uint8[..., 3]: saturation changed first, then contrast, then brightness.
  """
  brightness, contrast, saturation = (np.float32(value) for value in parameters)
  red, green, blue = (np.float32(weight) for weight in _LUMA)
  if out is None:
    out = np.empty_like(image)
  # The three changes are one affine map of a pixel's colour and its grey. In buffers
  # that are kept, as new memory of this size costs more than the arithmetic, and a
  # channel at a time, as NumPy is slow along an axis of three.
  colours, shift, product = _buffers(image.shape)
  colours[...] = image
  np.multiply(colours[..., 0], red, out=shift)
  shift += np.multiply(colours[..., 1], green, out=product)
  shift += np.multiply(colours[..., 2], blue, out=product)
  shift *= contrast * (1 - saturation)
  shift += 255 * brightness + 127.5 * (1 - contrast) + 0.5  # 0.5 rounds.
  colours *= contrast * saturation
  for channel in range(3):
    colours[..., channel] += shift
  np.clip(colours, 0, 255, out=colours)
  # A cast cuts off, as `astype` does.
  np.copyto(out, colours, casting="unsafe")
  return out


_kept = threading.local()


def _buffers(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns float32 buffers of an image and of two of its channels, of this thread."""
  if getattr(_kept, "shape", None) != shape:
    _kept.shape = shape
    _kept.buffers = (
      np.empty(shape, np.float32),
      np.empty(shape[:-1], np.float32),
      np.empty(shape[:-1], np.float32),
    )
  return _kept.buffers
