"""Families of objects that no network is trained on.

They share no generator with those of `training`.

A family is a function of a random generator that returns a `Shape`, sizes in metres,
4 to 20 cm along the longest side. Sizes are such that most, not all, instances can
be pinched somewhere by a 9 cm gripper.
"""

import numpy as np

from envs.objects.shapes import Family, Part, Shape

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


HELD_OUT: dict[str, Family] = {
  "t_piece": _t_piece,
  "bottle": _bottle,
  "hammer": _hammer,
  "prism_stack": _prism_stack,
}
