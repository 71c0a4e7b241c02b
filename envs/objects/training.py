"""Families of objects that the network is trained on; see `held_out` for the others.

A family is a function of a random generator that returns a `Shape`, sizes in metres,
4 to 20 cm along the longest side. Sizes are such that most, not all, instances can
be pinched somewhere by a 9 cm gripper.
"""

import numpy as np

from envs.objects.shapes import Family, Part, Shape

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


TRAINING: dict[str, Family] = {
  "box": _box,
  "cylinder": _cylinder,
  "capsule": _capsule,
  "ellipsoid": _ellipsoid,
  "l_piece": _l_piece,
  "dumbbell": _dumbbell,
}
