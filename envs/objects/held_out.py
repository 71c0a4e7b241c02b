"""Families of objects that no network is trained on.

They share no generator with those of `training`.

A family is a function of a random generator that returns a `Shape`, sizes in metres,
4 to 20 cm along the longest side. Sizes are such that most, not all, instances can
be pinched somewhere by a 9 cm gripper.
"""

import numpy as np

from envs.objects.shapes import Family, Part, Shape, SoftBody, around, centred, turn

_LYING = (float(np.sqrt(0.5)), 0.0, float(np.sqrt(0.5)), 0.0)  # z axis along x


def _t_piece(rng: np.random.Generator) -> Shape:
  bar, stem = rng.uniform(0.03, 0.05), rng.uniform(0.02, 0.035)
  width, height = rng.uniform(0.009, 0.014), rng.uniform(0.010, 0.018)
  return Shape(
    parts=(
      Part("box", (bar, width, height)),
      Part("box", (width, stem, height), (0.0, stem + width, 0.0), shade=0.9),
    )
  )


def _bottle(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.018, 0.028), rng.uniform(0.03, 0.05)
  neck = rng.uniform(0.3, 0.5) * radius
  return Shape(
    parts=(
      Part("cylinder", (radius, half), quaternion=_LYING),
      Part("cylinder", (neck, 0.3 * half), (1.3 * half, 0.0, 0.0), _LYING, shade=0.7),
    )
  )


def _hammer(rng: np.random.Generator) -> Shape:
  half, thin = rng.uniform(0.045, 0.075), rng.uniform(0.008, 0.012)
  head = rng.uniform(0.014, 0.02)
  return Shape(
    parts=(
      Part("capsule", (thin, half), quaternion=_LYING),
      Part("box", (head, 1.8 * head, head), (half, 0.0, 0.0), shade=0.6),
    )
  )


def _prism_stack(rng: np.random.Generator) -> Shape:
  base = rng.uniform(0.018, 0.032)
  height = rng.uniform(0.010, 0.018)
  return Shape(
    parts=(
      Part("box", (base, base, height)),
      Part("cylinder", (0.7 * base, height), (0.0, 0.0, 2 * height), shade=0.85),
    )
  )


def _brush(rng: np.random.Generator) -> Shape:
  thin, half = rng.uniform(0.007, 0.010), rng.uniform(0.046, 0.06)
  length, width = rng.uniform(0.022, 0.03), rng.uniform(0.012, 0.016)
  back, hair = rng.uniform(0.005, 0.007), rng.uniform(0.008, 0.012)
  middle = half + length
  tuft = (0.27 * length, 0.85 * width, hair)
  return Shape(
    parts=centred(
      Part("capsule", (thin, half), quaternion=_LYING),
      Part("box", (length, width, back), (middle, 0.0, 0.0)),
      *(
        Part("box", tuft, (middle + s * 0.64 * length, 0.0, -back - hair), shade=0.5)
        for s in (-1.0, 0.0, 1.0)
      ),
    )
  )


def _tape_dispenser(rng: np.random.Generator) -> Shape:
  long, wide = rng.uniform(0.058, 0.072), rng.uniform(0.02, 0.026)
  base, roll = rng.uniform(0.007, 0.010), rng.uniform(0.021, 0.028)
  rear, axle = 0.35 * long, base + 0.9 * roll
  across = turn("x", np.pi / 2)
  cheek = (0.5 * roll, 0.002, 0.6 * roll)
  return Shape(
    parts=centred(
      Part("box", (long, wide, base), shade=0.55),
      Part("cylinder", (roll, wide - 0.005), (rear, 0.0, axle), across),
      Part("cylinder", (0.45 * roll, wide - 0.001), (rear, 0.0, axle), across, 0.35),
      Part("box", cheek, (rear, wide - 0.002, base + 0.6 * roll), shade=0.55),
      Part("box", cheek, (rear, 0.002 - wide, base + 0.6 * roll), shade=0.55),
      Part(
        "box",
        (0.006, 0.8 * wide, 0.5 * roll),
        (0.01 - long, 0.0, base + 0.4 * roll),
        turn("y", -0.4),
        shade=0.55,
      ),
    )
  )


def _coaster(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.028, 0.035), rng.uniform(0.0075, 0.0082)
  return Shape(
    parts=(
      Part("cylinder", (radius, half)),
      Part("cylinder", (0.75 * radius, half + 0.0006), shade=0.65),
    ),
    density=(150.0, 400.0),  # the second part lies inside the first
    saturation=(0.2, 0.7),
  )


def _flask(rng: np.random.Generator) -> Shape:
  radius, neck = rng.uniform(0.024, 0.033), rng.uniform(0.009, 0.012)
  half = rng.uniform(0.015, 0.024)
  top = float(np.sqrt(radius**2 - neck**2)) + half
  return Shape(
    parts=centred(
      Part("sphere", (radius,)),
      Part("cylinder", (neck, half), (0.0, 0.0, top)),
      Part("cylinder", (1.35 * neck, 0.003), (0.0, 0.0, top + half)),
      Part("cylinder", (0.7 * radius, 0.003), (0.0, 0.0, -0.9 * radius)),
    ),
    friction=(0.5, 0.8),
    opacity=float(rng.uniform(0.35, 0.5)),
    shine=0.8,
    saturation=(0.1, 0.7),
    brightness=(0.8, 1.0),
  )


def _hex_nut(rng: np.random.Generator) -> Shape:
  outer, half = rng.uniform(0.024, 0.028), rng.uniform(0.011, 0.014)  # across flats / 2
  inner = rng.uniform(0.4, 0.48) * outer
  size = ((outer - inner) / 2, float(outer * np.tan(np.pi / 6)), half)
  at = ((outer + inner) / 2, 0.0, 0.0)
  # Neighbours overlap: every other one is lower by a hair, or faces flicker.
  sides = (Part("box", size, at), Part("box", (*size[:2], half - 0.0004), at))
  return Shape(
    parts=tuple(around(sides[i % 2], np.pi / 3 * i) for i in range(6)),
    density=(5800.0, 6500.0),  # of steel, less what overlaps
    friction=(0.5, 0.8),
    shine=0.9,
    saturation=(0.0, 0.15),
    brightness=(0.4, 0.7),
  )


def _jack(rng: np.random.Generator) -> Shape:
  thin, half = rng.uniform(0.006, 0.009), rng.uniform(0.0145, 0.021)
  axes = (_LYING, turn("x", np.pi / 2), turn("z", 0.0))
  return Shape(
    parts=tuple(
      Part("capsule", (thin, half), quaternion=axis, shade=shade)
      for axis, shade in zip(axes, (1.0, 0.85, 0.7), strict=True)
    )
  )


def _wrench(rng: np.random.Generator) -> Shape:
  half, width = rng.uniform(0.04, 0.054), rng.uniform(0.008, 0.011)
  thick, jaw = rng.uniform(0.0075, 0.009), rng.uniform(0.014, 0.017)
  prong = (0.011, 0.3 * jaw, thick)
  reach = half + jaw + 0.008
  return Shape(
    parts=centred(
      Part("box", (half, width, 0.8 * thick)),
      Part("cylinder", (jaw, thick), (-half - 0.4 * jaw, 0.0, 0.0)),
      Part("box", (0.5 * jaw, jaw, thick), (half + 0.4 * jaw, 0.0, 0.0)),
      Part("box", prong, (reach, 0.7 * jaw, 0.0)),
      Part("box", prong, (reach, -0.7 * jaw, 0.0)),
    ),
    density=(2500.0, 5500.0),
    friction=(0.5, 0.8),
    shine=0.9,
    saturation=(0.0, 0.15),
    brightness=(0.5, 0.75),
  )


def _paper_cup(rng: np.random.Generator) -> Shape:
  bottom, half = rng.uniform(0.024, 0.029), rng.uniform(0.034, 0.045)
  top = bottom * rng.uniform(1.1, 1.25)
  count, thin = 12, 0.0018  # panels, half of their thickness
  lean = float(np.arctan2(top - bottom, 2 * half))
  size = (thin, float(top * np.tan(np.pi / count)), half)
  panel = Part("box", size, ((top + bottom) / 2 - thin, 0.0, 0.0), turn("y", lean))
  return Shape(
    parts=centred(
      *(around(panel, 2 * np.pi * i / count) for i in range(count)),
      Part("cylinder", (bottom, thin), (0.0, 0.0, 2 * thin - half), shade=0.8),
    ),
    density=(80.0, 200.0),
    saturation=(0.05, 0.4),
    brightness=(0.85, 1.0),
  )


def _foam_roll(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.015, 0.02), rng.uniform(0.038, 0.055)
  return Shape(
    soft=SoftBody("cylinder", (radius, radius, half), rng.uniform(2e4, 6e4)),
    density=(150.0, 300.0),
    friction=(0.8, 1.1),
  )


def _marshmallow(rng: np.random.Generator) -> Shape:
  radius, half = rng.uniform(0.021, 0.025), rng.uniform(0.017, 0.025)
  return Shape(
    soft=SoftBody("cylinder", (radius, radius, half), rng.uniform(4e4, 9e4)),
    density=(80.0, 200.0),
    friction=(0.8, 1.1),
    saturation=(0.05, 0.4),
    brightness=(0.85, 1.0),
  )


HELD_OUT: dict[str, Family] = {
  "t_piece": _t_piece,
  "bottle": _bottle,
  "hammer": _hammer,
  "prism_stack": _prism_stack,
  "brush": _brush,
  "tape_dispenser": _tape_dispenser,
  "coaster": _coaster,
  "flask": _flask,
  "hex_nut": _hex_nut,
  "jack": _jack,
  "wrench": _wrench,
  "paper_cup": _paper_cup,
  "foam_roll": _foam_roll,
  "marshmallow": _marshmallow,
}
