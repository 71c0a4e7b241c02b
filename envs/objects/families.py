"""Families of objects, 4 to 20 cm long; training and held-out share no generator.

A family is a function of a random generator: parts in metres. Sizes are such that
most, not all, instances can be pinched somewhere by a 9 cm gripper.
"""

import colorsys
from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from envs.objects.shapes import ObjectSpec, Part, add_object

MOST = 40  # objects in a bin: more lie above its rim

Family = Callable[[np.random.Generator], tuple[Part, ...]]

_LYING = (float(np.sqrt(0.5)), 0.0, float(np.sqrt(0.5)), 0.0)  # z axis along x


def _box(rng):
  return (
    Part(
      "box",
      (rng.uniform(0.022, 0.05), rng.uniform(0.014, 0.028), rng.uniform(0.012, 0.025)),
    ),
  )


def _cylinder(rng):
  return (Part("cylinder", (rng.uniform(0.014, 0.03), rng.uniform(0.02, 0.055))),)


def _capsule(rng):
  return (Part("capsule", (rng.uniform(0.012, 0.026), rng.uniform(0.015, 0.045))),)


def _ellipsoid(rng):
  size = rng.uniform((0.022, 0.018, 0.015), (0.05, 0.03, 0.026))
  return (Part("ellipsoid", tuple(float(s) for s in size)),)


def _l_piece(rng):
  long, short = rng.uniform(0.03, 0.055), rng.uniform(0.018, 0.03)
  width, height = rng.uniform(0.009, 0.014), rng.uniform(0.010, 0.018)
  return (
    Part("box", (long, width, height)),
    Part("box", (width, short, height), (long - width, short + width, 0.0), shade=0.9),
  )


def _dumbbell(rng):
  half, thin = rng.uniform(0.025, 0.05), rng.uniform(0.008, 0.012)
  thick = rng.uniform(0.016, 0.026)
  return (
    Part("cylinder", (thin, half), quaternion=_LYING),
    Part("sphere", (thick,), (half, 0.0, 0.0), shade=0.8),
    Part("sphere", (thick,), (-half, 0.0, 0.0), shade=0.8),
  )


def _t_piece(rng):
  bar, stem = rng.uniform(0.03, 0.05), rng.uniform(0.02, 0.035)
  width, height = rng.uniform(0.009, 0.014), rng.uniform(0.010, 0.018)
  return (
    Part("box", (bar, width, height)),
    Part("box", (width, stem, height), (0.0, stem + width, 0.0), shade=0.9),
  )


def _bottle(rng):
  radius, half = rng.uniform(0.018, 0.028), rng.uniform(0.03, 0.05)
  neck = rng.uniform(0.3, 0.5) * radius
  return (
    Part("cylinder", (radius, half), quaternion=_LYING),
    Part("cylinder", (neck, 0.3 * half), (1.3 * half, 0.0, 0.0), _LYING, shade=0.7),
  )


def _hammer(rng):
  half, thin = rng.uniform(0.045, 0.075), rng.uniform(0.008, 0.012)
  head = rng.uniform(0.014, 0.02)
  return (
    Part("capsule", (thin, half), quaternion=_LYING),
    Part("box", (head, 1.8 * head, head), (half, 0.0, 0.0), shade=0.6),
  )


def _prism_stack(rng):
  base = rng.uniform(0.018, 0.032)
  height = rng.uniform(0.010, 0.018)
  return (
    Part("box", (base, base, height)),
    Part("cylinder", (0.7 * base, height), (0.0, 0.0, 2 * height), shade=0.85),
  )


TRAINING: dict[str, Family] = {
  "box": _box,
  "cylinder": _cylinder,
  "capsule": _capsule,
  "ellipsoid": _ellipsoid,
  "l_piece": _l_piece,
  "dumbbell": _dumbbell,
}
HELD_OUT: dict[str, Family] = {
  "t_piece": _t_piece,
  "bottle": _bottle,
  "hammer": _hammer,
  "prism_stack": _prism_stack,
}
FAMILIES = {**TRAINING, **HELD_OUT}
GROUPS = {"training": TRAINING, "held_out": HELD_OUT}


def sample_object(family: str, instance: int) -> ObjectSpec:
  """One object of a family; the same instance number is the same object forever.

  Raises:
    ValueError: an unknown family.
  """
  if family not in FAMILIES:
    raise ValueError(f"object family {family!r}: expected one of {sorted(FAMILIES)}")
  rng = np.random.default_rng([*family.encode(), instance])
  parts = FAMILIES[family](rng)
  hue = rng.uniform()
  colour = colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 1.0), rng.uniform(0.55, 1.0))
  return ObjectSpec(
    name=f"{family}-{instance:06d}",
    family=family,
    parts=parts,
    density=float(rng.uniform(250.0, 700.0)),
    friction=float(rng.uniform(0.6, 1.0)),
    colour=colour,
  )


def sample_objects(
  rng: np.random.Generator, count: int, group: str = "training"
) -> list[ObjectSpec]:
  """Draws the contents of a bin from a group of families.

  Raises:
    ValueError: an unknown group.
  """
  if group not in GROUPS:
    raise ValueError(f"object group {group!r}: expected one of {sorted(GROUPS)}")
  families = sorted(GROUPS[group])
  return [
    sample_object(families[rng.integers(len(families))], int(rng.integers(1_000_000)))
    for _ in range(count)
  ]


def add_objects(spec: mujoco.MjSpec, things: Sequence[ObjectSpec]) -> list[str]:
  """Adds the objects as free bodies; returns their bodies' (and joints') names."""
  names = [f"object{i}" for i in range(len(things))]
  for thing, name in zip(things, names, strict=True):
    add_object(spec, thing, name)
  return names
