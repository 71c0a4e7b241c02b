"""Random shapes: two to five primitives grown into one another, no two alike.

Levine et al. trained on everyday things; later work on the same method trained in
simulation on random shapes, because variety is what carries over to unseen objects.
"""

import colorsys
import dataclasses

import numpy as np

from envs.objects.shapes import (
  Part,
  Shape,
  Solid,
  half_size,
  part_contains,
  part_points,
  part_rotation,
)

PRIMITIVES = ("box", "capsule", "cylinder", "ellipsoid", "sphere")
MOST_PARTS = 5
SHORTEST, LONGEST = 0.045, 0.15  # of the longest side, m
HEAVIEST = 0.5  # kg
_SAMPLES = 40_000  # points in the bounding box that mass and inertia are summed over


def composite(rng: np.random.Generator) -> Shape:
  """A family, see `training.TRAINING`: parts that overlap, of one density.

  Each part is thin enough for the gripper in at least one direction.
  """
  parts = [_primitive(rng, np.zeros(3))]
  for _ in range(rng.integers(1, MOST_PARTS)):
    grown = parts[rng.integers(len(parts))]
    spot = np.asarray(grown.position) + part_rotation(grown) @ _inside(grown, rng)
    part = _primitive(rng, spot)
    away = part_rotation(part) @ _inside(part, rng)
    parts.append(dataclasses.replace(part, position=tuple((spot - away).tolist())))
  parts = _scaled(parts, rng)
  if rng.uniform() < 0.6:
    second = colorsys.hsv_to_rgb(*rng.uniform((0.0, 0.0, 0.15), 1.0))
    parts = [
      dataclasses.replace(part, colour=second) if i and rng.uniform() < 0.6 else part
      for i, part in enumerate(parts)
    ]
  solid, centre = _integrate(parts)
  density = min(
    float(np.exp(rng.uniform(*np.log((100.0, 3000.0))))), HEAVIEST / solid.volume
  )
  friction = rng.uniform(0.4, 1.1)
  return Shape(
    parts=tuple(
      dataclasses.replace(
        part, position=tuple((np.asarray(part.position) - centre).tolist())
      )
      for part in parts
    ),
    solid=solid,
    density=(density, density),
    friction=(friction, friction),
    opacity=float(rng.uniform(0.3, 0.5)) if rng.uniform() < 0.08 else 1.0,
    shine=float(rng.uniform(0.2, 0.9)) if rng.uniform() < 0.3 else 0.0,
    saturation=(0.0, 1.0),
    brightness=(0.2, 1.0),
  )


def _primitive(rng: np.random.Generator, position: np.ndarray) -> Part:
  shape = PRIMITIVES[rng.integers(len(PRIMITIVES))]
  thick, thin = np.exp(rng.uniform(np.log(0.007), np.log(0.027), 2))
  long = np.exp(rng.uniform(np.log(0.010), np.log(0.055)))
  size: tuple[float, ...]
  match shape:
    case "box" | "ellipsoid":
      size = (long, thick, thin)
    case "cylinder" if rng.uniform() < 0.3:
      size = (min(long, 0.033), 0.7 * thin)  # a disc
    case "cylinder" | "capsule":
      size = (thick, long)
    case _:
      size = (max(thick, thin),)
  if rng.uniform() < 0.5:  # along the axes of the first part
    quaternion = np.eye(4)[0] if rng.uniform() < 0.4 else _quarter_turn(rng)
  else:
    quaternion = rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
  return Part(
    shape,
    tuple(float(s) for s in size),
    tuple(position.tolist()),
    tuple(quaternion.tolist()),
    shade=float(rng.uniform(0.75, 1.0)),
  )


def _quarter_turn(rng: np.random.Generator) -> np.ndarray:
  quaternion = np.zeros(4)
  quaternion[0] = quaternion[rng.integers(1, 4)] = np.sqrt(0.5)
  return quaternion


def _inside(part: Part, rng: np.random.Generator) -> np.ndarray:
  """float64[3]: a point inside, near the surface, on or near an axis; part's frame.

  Where two parts share such a point, they overlap. Of no primitive is it outside.
  """
  spot = rng.uniform(-0.3, 0.3, 3)
  spot[rng.integers(3)] = rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 0.8)
  return spot * half_size(part)


def _scaled(parts: list[Part], rng: np.random.Generator) -> list[Part]:
  """The same things, of a size that a bin and a gripper take."""
  points = np.concatenate([part_points(part) for part in parts])
  longest = float(np.max(np.ptp(points, axis=0)))
  low, high = SHORTEST / longest, LONGEST / longest
  factor = float(np.clip(rng.uniform(0.7, 1.0), low, high))
  return [
    dataclasses.replace(
      part,
      size=tuple(factor * s for s in part.size),
      position=(factor * x, factor * y, factor * z),
    )
    for part in parts
    for x, y, z in [part.position]
  ]


def _integrate(parts: list[Part]) -> tuple[Solid, np.ndarray]:
  """The union of the parts as a solid, and its centre of mass, float64[3], m.

  A sum over points, one in each cell of a fine grid, that lie in any of the parts.
  Always the same points of a shape, so that it weighs the same on every machine.
  """
  corners = np.concatenate([part_points(part) for part in parts])
  low, sides = corners.min(axis=0), np.ptp(corners, axis=0)
  counts = np.maximum(np.ceil(sides * np.cbrt(_SAMPLES / np.prod(sides))), 8).astype(
    int
  )
  cells = np.stack(
    np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1
  ).reshape(-1, 3)
  jitter = np.random.default_rng(0).uniform(size=cells.shape)
  points = low + (cells + jitter) / counts * sides
  inside = np.zeros(len(points), bool)
  for part in parts:
    inside |= part_contains(part, points)
  points = points[inside]
  volume = len(points) * float(np.prod(sides / counts))
  centre = points.mean(axis=0)
  away = points - centre
  second = away.T @ away / len(points) * volume
  inertia = np.trace(second) * np.eye(3) - second
  return Solid(volume, tuple(map(tuple, inertia.tolist()))), centre
