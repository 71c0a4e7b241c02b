"""Families of objects that the network is trained on; see `held_out` for the others.

A family is a function of a random generator that returns a `Shape`, sizes in metres,
4 to 20 cm along the longest side. Sizes are such that most, not all, instances can
be pinched somewhere by a 9 cm gripper.
"""

import numpy as np

from envs.objects.composites import composite
from envs.objects.shapes import Family, Part, Shape, SoftBody, around, centred, turn

_LYING = (float(np.sqrt(0.5)), 0.0, float(np.sqrt(0.5)), 0.0)  # z axis along x


def _box(rng: np.random.Generator) -> Shape:
  return Shape(
    parts=(
      Part(
        "box",
        (
          rng.uniform(0.022, 0.05),
          rng.uniform(0.014, 0.028),
          rng.uniform(0.012, 0.025),
        ),
      ),
    )
  )


def _cylinder(rng: np.random.Generator) -> Shape:
  return Shape(
    parts=(Part("cylinder", (rng.uniform(0.014, 0.03), rng.uniform(0.02, 0.055))),)
  )


def _capsule(rng: np.random.Generator) -> Shape:
  return Shape(
    parts=(Part("capsule", (rng.uniform(0.012, 0.026), rng.uniform(0.015, 0.045))),)
  )


def _ellipsoid(rng: np.random.Generator) -> Shape:
  size = rng.uniform((0.022, 0.018, 0.015), (0.05, 0.03, 0.026))
  return Shape(parts=(Part("ellipsoid", tuple(float(s) for s in size)),))


def _l_piece(rng: np.random.Generator) -> Shape:
  long, short = rng.uniform(0.03, 0.055), rng.uniform(0.018, 0.03)
  width, height = rng.uniform(0.009, 0.014), rng.uniform(0.010, 0.018)
  return Shape(
    parts=(
      Part("box", (long, width, height)),
      Part(
        "box", (width, short, height), (long - width, short + width, 0.0), shade=0.9
      ),
    )
  )


def _dumbbell(rng: np.random.Generator) -> Shape:
  half, thin = rng.uniform(0.025, 0.05), rng.uniform(0.008, 0.012)
  thick = rng.uniform(0.016, 0.026)
  return Shape(
    parts=(
      Part("cylinder", (thin, half), quaternion=_LYING),
      Part("sphere", (thick,), (half, 0.0, 0.0), shade=0.8),
      Part("sphere", (thick,), (-half, 0.0, 0.0), shade=0.8),
    )
  )


def _notepad(rng: np.random.Generator) -> Shape:
  long, wide = rng.uniform(0.04, 0.065), rng.uniform(0.028, 0.04)
  thick, cover = rng.uniform(0.0075, 0.0085), 0.001
  return Shape(
    parts=centred(
      Part("box", (long, wide, thick - cover), (0.0, 0.0, -cover)),
      Part("box", (long, wide, cover), (0.0, 0.0, thick - cover), shade=0.6),
      Part("box", (0.007, wide + 0.0004, thick + 0.0004), (-long, 0.0, 0.0), shade=0.4),
    ),
    density=(500.0, 800.0),
    saturation=(0.15, 0.6),
    brightness=(0.85, 1.0),
  )


def _weight(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.018, 0.022), rng.uniform(0.018, 0.024)
  return Shape(
    parts=centred(
      Part("cylinder", (radius, half)),
      Part("cylinder", (0.4 * radius, 0.2 * half), (0.0, 0.0, 1.2 * half), shade=0.8),
      Part("cylinder", (0.7 * radius, 0.15 * half), (0.0, 0.0, 1.55 * half)),
    ),
    density=(7000.0, 7900.0),
    friction=(0.5, 0.8),
    shine=0.9,
    saturation=(0.0, 0.12),
    brightness=(0.45, 0.75),
  )


def _foam_block(rng: np.random.Generator) -> Shape:
  size = rng.uniform((0.028, 0.02, 0.016), (0.045, 0.035, 0.03))
  return Shape(
    parts=(Part("box", tuple(float(s) for s in size)),),
    density=(25.0, 60.0),
    friction=(0.8, 1.1),
    saturation=(0.15, 0.6),
  )


def _marker(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.009, 0.013), rng.uniform(0.052, 0.068)
  return Shape(
    parts=centred(
      Part("cylinder", (radius, half), quaternion=_LYING),
      Part(
        "cylinder", (1.15 * radius, 0.3 * half), (0.75 * half, 0.0, 0.0), _LYING, 0.5
      ),
      Part(
        "cylinder", (0.6 * radius, 0.06 * half), (-1.05 * half, 0.0, 0.0), _LYING, 0.5
      ),
    )
  )


def _tumbler(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.026, 0.037), rng.uniform(0.032, 0.05)
  return Shape(
    parts=_vessel(radius, half, wall=0.0045, floor=rng.uniform(0.006, 0.01)),
    density=(600.0, 1000.0),
    friction=(0.5, 0.8),
    opacity=float(rng.uniform(0.3, 0.45)),
    shine=0.8,
    saturation=(0.1, 0.7),
    brightness=(0.8, 1.0),
  )


def _mug(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.028, 0.037), rng.uniform(0.033, 0.045)
  reach, bar = rng.uniform(0.018, 0.026), rng.uniform(0.0045, 0.006)
  end, height = radius + reach, 0.6 * half
  link = (reach / 2 + 0.002, bar, bar)
  return Shape(
    parts=centred(
      *_vessel(radius, half, wall=0.0045, floor=0.005),
      Part("box", link, (radius + reach / 2, 0.0, height), shade=0.9),
      Part("box", link, (radius + reach / 2, 0.0, -height), shade=0.9),
      Part("box", (bar, 1.1 * bar, height + 1.1 * bar), (end, 0.0, 0.0), shade=0.9),
    ),
    density=(700.0, 1200.0),
    shine=0.5,
  )


def _vessel(radius: float, half: float, wall: float, floor: float) -> tuple[Part, ...]:
  """An open cylinder along z, hollow: staves in a circle, and a floor."""
  count = 12
  middle, width = radius - wall / 2, radius * np.tan(np.pi / count)
  stave = Part("box", (wall / 2, float(width), half), (middle, 0.0, 0.0))
  return (
    *(around(stave, 2 * np.pi * i / count) for i in range(count)),
    Part("cylinder", (radius - wall, floor / 2), (0.0, 0.0, floor / 2 - half)),
  )


def _stapler(rng: np.random.Generator) -> Shape:
  half, width = rng.uniform(0.05, 0.068), rng.uniform(0.013, 0.017)
  gape = np.deg2rad(rng.uniform(5.0, 9.0))
  base, arm = rng.uniform(0.005, 0.007), rng.uniform(0.008, 0.011)
  rise = base + arm + half * np.sin(gape)
  return Shape(
    parts=centred(
      Part("box", (half, width, base), shade=0.45),
      Part(
        "box", (0.012, 0.8 * width, 0.8 * arm), (-half + 0.012, 0, base), shade=0.45
      ),
      Part("box", (half, 0.85 * width, arm), (0.0, 0.0, rise), turn("y", -gape)),
    ),
    density=(500.0, 900.0),
  )


def _ring(rng: np.random.Generator) -> Shape:
  tube = rng.uniform(0.0065, 0.009)
  radius, count = rng.uniform(0.02, 0.034), 12
  side = float(radius * np.tan(np.pi / count))
  lying = turn("x", np.pi / 2)  # z axis along y, which is the way round at (r, 0, 0)
  piece = Part("capsule", (tube, side), (radius, 0.0, 0.0), lying)
  return Shape(parts=tuple(around(piece, 2 * np.pi * i / count) for i in range(count)))


def _toy_block(rng: np.random.Generator) -> Shape:
  half = rng.uniform(0.02, 0.0245)
  inner = half - rng.uniform(0.002, 0.005)
  return Shape(
    parts=(
      Part("box", (half, inner, inner)),
      Part("box", (inner, half, inner), shade=0.8),
      Part("box", (inner, inner, half), shade=0.6),
    ),
    density=(100.0, 250.0),  # three boxes that overlap
  )


def _crate(rng: np.random.Generator) -> Shape:
  x, y, z = rng.uniform((0.061, 0.03, 0.018), (0.078, 0.038, 0.027)).tolist()
  wall = rng.uniform(0.004, 0.0055)  # half of a plank
  side, end = (x, wall, z), (wall, y - 2 * wall, z)
  return Shape(
    parts=centred(
      Part("box", (x - 2 * wall, y - 2 * wall, wall), (0.0, 0.0, wall - z), shade=0.7),
      Part("box", side, (0.0, y - wall, 0.0)),
      Part("box", side, (0.0, wall - y, 0.0)),
      Part("box", end, (x - wall, 0.0, 0.0), shade=0.85),
      Part("box", end, (wall - x, 0.0, 0.0), shade=0.85),
    ),
    density=(200.0, 400.0),
  )


def _sponge(rng: np.random.Generator) -> Shape:
  x, y, z = rng.uniform((0.032, 0.024, 0.014), (0.05, 0.034, 0.021)).tolist()
  return Shape(
    soft=SoftBody("box", (x, y, z), rng.uniform(2e4, 6e4)),
    density=(80.0, 200.0),
    friction=(0.8, 1.1),
  )


def _soft_ball(rng: np.random.Generator) -> Shape:
  radius = rng.uniform(0.024, 0.034)
  x, y, z = (radius * rng.uniform((0.95, 0.85, 0.8), 1.0)).tolist()
  return Shape(
    soft=SoftBody("ellipsoid", (x, y, z), rng.uniform(2e4, 6e4)),
    density=(80.0, 200.0),
    friction=(0.8, 1.1),
  )


TRAINING: dict[str, Family] = {
  "box": _box,
  "cylinder": _cylinder,
  "capsule": _capsule,
  "ellipsoid": _ellipsoid,
  "l_piece": _l_piece,
  "dumbbell": _dumbbell,
  "notepad": _notepad,
  "weight": _weight,
  "foam_block": _foam_block,
  "marker": _marker,
  "tumbler": _tumbler,
  "mug": _mug,
  "stapler": _stapler,
  "ring": _ring,
  "toy_block": _toy_block,
  "crate": _crate,
  "sponge": _sponge,
  "soft_ball": _soft_ball,
  "composite": composite,
}
