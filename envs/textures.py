"""Patterns of surfaces, drawn from a seed: what a unit's bin and table look like.

A pattern is a small image that repeats without a seam. It multiplies the surface's
colour; the colour that is seen keeps its mean.
"""

import mujoco
import numpy as np

from envs.units import TEXTURE_KINDS, Texture

PIXELS = 128  # of a pattern, each side: two millimetres a pixel
_CLIP = 2.5  # standard deviations: nothing much darker than the rest


def add_material(
  spec: mujoco.MjSpec, name: str, texture: Texture
) -> tuple[str | None, float]:
  """Adds a material with the pattern, if there is one.

  Returns:
    Its name for a geom, None for a plain surface; and by how much the geom's colour
    must be multiplied, because a pattern can only darken.

  Raises:
    ValueError: an unknown kind of texture.
  """
  if texture.kind == "plain":
    return None, 1.0
  brightness = 1.0 + texture.contrast * tinted(texture)
  brightest = float(brightness.max())
  image = np.round(255.0 * brightness / brightest).astype(np.uint8)
  texture_2d = spec.add_texture(
    name=name,
    type=mujoco.mjtTexture.mjTEXTURE_2D,
    width=PIXELS,
    height=PIXELS,
    nchannel=3,
  )
  texture_2d.data = image.tobytes()
  material = spec.add_material(
    name=name,
    texuniform=True,
    texrepeat=(1.0 / texture.scale, 1.0 / texture.scale),
    # As dull as a geom without a material.
    specular=0.5,
    shininess=0.5,
  )
  material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
  return name, brightest


def tinted(texture: Texture) -> np.ndarray:
  """float64[PIXELS, PIXELS, 3]: the pattern, a little coloured; mean 0, deviation 1."""
  rng = np.random.default_rng(texture.seed)
  pattern = _pattern(texture.kind, rng)
  if rng.uniform() < 0.5:
    pattern = pattern.T
  colour = 1.0 + rng.uniform(-0.3, 0.3, size=3)
  return pattern[..., None] * (colour / colour.mean())


def _pattern(kind: str, rng: np.random.Generator) -> np.ndarray:
  x = np.arange(PIXELS) / PIXELS
  match kind:
    case "grain":
      pattern = _noise(rng, 2.5, 2.5)
    case "speckle":
      pattern = -np.clip(4.0 * (_noise(rng, 1.8, 1.8) - 1.2), 0.0, 1.0)
    case "brushed":
      pattern = _noise(rng, 25.0, 1.2)
    case "stripes":
      waves = np.sin(2 * np.pi * rng.integers(5, 10) * x)
      pattern = np.tile(np.tanh(3.0 * waves), (PIXELS, 1))
    case "wood":
      # Rings that waver along the board, and fibres.
      rings = rng.integers(4, 7) * x[:, None] + 0.35 * _noise(rng, 30.0, 12.0)
      pattern = np.sin(2 * np.pi * rings) + 0.5 * _noise(rng, 25.0, 1.0)
    case _:
      raise ValueError(f"texture {kind!r}: expected one of {TEXTURE_KINDS}")
  pattern = _standardised(np.clip(_standardised(pattern), -_CLIP, _CLIP))
  return pattern


def _noise(rng: np.random.Generator, along: float, across: float) -> np.ndarray:
  """[PIXELS, PIXELS], smooth over so many pixels along and across rows; periodic."""
  frequency = np.fft.fftfreq(PIXELS)
  fall = np.exp(-0.5 * (2 * np.pi * frequency * np.array([[across], [along]])) ** 2)
  white = rng.normal(size=(PIXELS, PIXELS))
  return _standardised(np.fft.ifft2(np.fft.fft2(white) * np.outer(*fall)).real)


def _standardised(pattern: np.ndarray) -> np.ndarray:
  return (pattern - pattern.mean()) / pattern.std()
