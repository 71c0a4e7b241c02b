"""The form in which every family describes an object, and what follows from it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

# What makes an object heavy, flat, ...: the properties that Section 6 names.
HEAVY = 0.25  # kg and more
LIGHT = 0.025  # kg and less
FLAT = 0.018  # m: the thinnest side of a flat object is at most this,
FLAT_RATIO = 3.0  # and both others are at least so many times as long
LONG_RATIO = 3.5  # of the longest side to the next
LARGE = 0.12  # m, longest side and more
SMALL = 0.05  # m, longest side and less


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
  """A closed convex surface, in the frame of its part."""

  vertices: np.ndarray  # float32[V, 3], m
  faces: np.ndarray  # int32[F, 3], counterclockwise from outside
  volume: float  # m^3


@dataclasses.dataclass(frozen=True, eq=False)
class Skin:
  """A surface that is only seen, in the object's own frame."""

  vertices: np.ndarray  # float32[V, 3], m
  faces: np.ndarray  # int32[F, 3]
  uv: np.ndarray | None  # float32[V, 2]: places in the image, v upwards; None: plain
  image: np.ndarray | None  # uint8[H, W, 3], top row first; None: the object's colour


@dataclasses.dataclass(frozen=True)
class Part:
  """One convex rigid piece, in the object's own frame."""

  shape: str  # box, cylinder, capsule, ellipsoid, sphere or mesh
  size: tuple[float, ...] = ()  # MuJoCo's half sizes, m; () for a mesh
  position: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m
  quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
  shade: float = 1.0  # times the colour
  mesh: Mesh | None = None
  colour: tuple[float, float, float] | None = None  # RGB in [0, 1]; None: the object's


@dataclasses.dataclass(frozen=True)
class SoftBody:
  """An elastic solid that deforms under load (a trilinear flex).

  It falls and yields as a solid does, but turns too sluggishly: MuJoCo has all of its
  mass at its eight corners, so its moment of inertia is about 3, 4 or 5 times that of a
  box, cylinder or ellipsoid. Corners can have no other moment with the same mass. What
  was tried in MuJoCo 3.17: a point of mass in the middle, bound to the corners, gives
  moments right within 15 %, but an equality of tendons ends in a fatal error where
  bodies sleep, and with springs none of them ever sleeps, for 2.3 times the time;
  quadratic flexes give 0.9, 1.2 and 1.5, for 3 to 7 times the time of a step.
  """

  shape: str  # box, ellipsoid or cylinder (its axis along z)
  half_size: tuple[float, float, float]  # m
  young: float  # Young's modulus, Pa


@dataclasses.dataclass(frozen=True)
class Solid:
  """The union of an object's parts, its centre of mass at the object's origin."""

  volume: float  # m^3
  inertia: tuple[tuple[float, float, float], ...]  # m^5: times the density, kg m^2


@dataclasses.dataclass(frozen=True)
class Shape:
  """What a family draws: rigid parts or one soft body, and ranges of material."""

  parts: tuple[Part, ...] = ()
  soft: SoftBody | None = None
  solid: Solid | None = None  # None: what parts share counts as often as they share it
  density: tuple[float, float] = (250.0, 700.0)  # kg/m^3
  friction: tuple[float, float] = (0.6, 1.0)
  opacity: float = 1.0  # below 1: translucent
  shine: float = 0.0  # specular reflection in [0, 1]
  saturation: tuple[float, float] = (0.5, 1.0)
  brightness: tuple[float, float] = (0.55, 1.0)


# The same draws give the same shape forever.
Family = Callable[[np.random.Generator], Shape]


@dataclasses.dataclass(frozen=True)
class ObjectSpec:
  """One object; either rigid parts or one soft body."""

  name: str  # family-instance, such as 'box-000137'
  family: str
  parts: tuple[Part, ...]
  density: float  # kg/m^3
  friction: float  # sliding, on the bin and on others; in a grip the pads' own counts
  colour: tuple[float, float, float]  # RGB in [0, 1]
  soft: SoftBody | None = None
  opacity: float = 1.0
  shine: float = 0.0
  solid: Solid | None = None
  skins: tuple[Skin, ...] = ()  # drawn instead of the parts, if there are any


def mass(thing: ObjectSpec) -> float:
  """kg; without a `solid`, parts that overlap count twice, as they do in MuJoCo."""
  if thing.soft is not None:
    return thing.density * soft_volume(thing.soft)
  if thing.solid is not None:
    return thing.density * thing.solid.volume
  return thing.density * sum(part_volume(part) for part in thing.parts)


def part_volume(part: Part) -> float:
  """m^3."""
  if part.mesh is not None:
    return part.mesh.volume
  size = part.size
  match part.shape:
    case "box":
      return 8 * size[0] * size[1] * size[2]
    case "cylinder":
      return np.pi * size[0] ** 2 * 2 * size[1]
    case "capsule":
      return np.pi * size[0] ** 2 * (2 * size[1] + 4 / 3 * size[0])
    case "ellipsoid":
      return 4 / 3 * np.pi * size[0] * size[1] * size[2]
    case "sphere":
      return 4 / 3 * np.pi * size[0] ** 3
  raise ValueError(f"part of shape {part.shape!r}: expected one of {sorted(SHAPES)}")


def soft_volume(soft: SoftBody) -> float:
  """m^3."""
  full = 8 * float(np.prod(soft.half_size))
  return full * {"box": 1.0, "cylinder": np.pi / 4, "ellipsoid": np.pi / 6}[soft.shape]


SHAPES = ("box", "cylinder", "capsule", "ellipsoid", "sphere", "mesh")


def centred(*parts: Part) -> tuple[Part, ...]:
  """The same parts with their centre of mass at the origin of the object's frame."""
  volumes = np.array([part_volume(part) for part in parts])
  middle = volumes @ np.array([part.position for part in parts]) / volumes.sum()
  return tuple(
    dataclasses.replace(part, position=_triple(np.asarray(part.position) - middle))
    for part in parts
  )


def turn(axis: str, angle: float) -> tuple[float, float, float, float]:
  """The quaternion of a rotation about the axis x, y or z, rad."""
  vector = [np.sin(angle / 2) if name == axis else 0.0 for name in "xyz"]
  return (float(np.cos(angle / 2)), *_triple(vector))


def around(part: Part, angle: float) -> Part:
  """The part carried round the object's z axis, rad."""
  w, z = np.cos(angle / 2), np.sin(angle / 2)
  a, b, c, d = part.quaternion
  turned = (w * a - z * d, w * b - z * c, w * c + z * b, w * d + z * a)
  cos, sin = np.cos(angle), np.sin(angle)
  px, py, pz = part.position
  return dataclasses.replace(
    part,
    position=_triple((cos * px - sin * py, sin * px + cos * py, pz)),
    quaternion=(float(turned[0]), *_triple(turned[1:])),
  )


def part_points(part: Part) -> np.ndarray:
  """float64[P, 3]: points whose convex hull holds the part, object's frame, m.

  The vertices of a mesh, the corners of any other shape's bounding box.
  """
  if part.mesh is not None:
    points = part.mesh.vertices.astype(np.float64)
  else:
    corners = np.array(np.meshgrid(*[(-1.0, 1.0)] * 3)).reshape(3, -1).T
    points = corners * half_size(part)
  return points @ part_rotation(part).T + part.position


def bounds(thing: ObjectSpec) -> tuple[np.ndarray, np.ndarray]:
  """Lowest and highest corner, float64[3] each, of the object in its own frame, m."""
  if thing.soft is not None:
    half = np.asarray(thing.soft.half_size)
    return -half, half
  points = np.concatenate([part_points(part) for part in thing.parts])
  return points.min(axis=0), points.max(axis=0)


def properties(thing: ObjectSpec) -> tuple[str, ...]:
  """What sort of thing it is: rigid or soft first, then any that apply.

  heavy, light, flat, long, large, small, translucent, composed.
  """
  low, high = bounds(thing)
  short, middle, longest = np.sort(high - low)
  weight = mass(thing)
  found = {
    "heavy": weight >= HEAVY,
    "light": weight <= LIGHT,
    "flat": short <= FLAT and middle >= FLAT_RATIO * short,
    "long": longest >= LONG_RATIO * middle,
    "large": longest >= LARGE,
    "small": longest <= SMALL,
    "translucent": thing.opacity < 1.0,
    "composed": len(thing.parts) > 1,
  }
  return (
    "soft" if thing.soft is not None else "rigid",
    *(name for name, applies in found.items() if applies),
  )


def _triple(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
  x, y, z = values
  return float(x), float(y), float(z)


def half_size(part: Part) -> np.ndarray:
  """float64[3]: half the sides of the bounding box in the part's own frame, m."""
  size = part.size
  match part.shape:
    case "cylinder":
      return np.array([size[0], size[0], size[1]])
    case "capsule":
      return np.array([size[0], size[0], size[0] + size[1]])
    case "sphere":
      return np.full(3, size[0])
  return np.asarray(size, np.float64)


def part_contains(part: Part, points: np.ndarray) -> np.ndarray:
  """bool[P]: which points [P, 3], object's frame, lie inside a part without a mesh."""
  x, y, z = ((points - part.position) @ part_rotation(part)).T
  size = part.size
  match part.shape:
    case "box":
      return (np.abs(x) <= size[0]) & (np.abs(y) <= size[1]) & (np.abs(z) <= size[2])
    case "cylinder":
      return (x**2 + y**2 <= size[0] ** 2) & (np.abs(z) <= size[1])
    case "capsule":
      beyond = np.maximum(np.abs(z) - size[1], 0.0)
      return x**2 + y**2 + beyond**2 <= size[0] ** 2
    case "ellipsoid":
      return (x / size[0]) ** 2 + (y / size[1]) ** 2 + (z / size[2]) ** 2 <= 1.0
    case "sphere":
      return x**2 + y**2 + z**2 <= size[0] ** 2
  raise ValueError(f"part of shape {part.shape!r}: expected a primitive")


def part_rotation(part: Part) -> np.ndarray:
  """float64[3, 3]: from the part's frame to the object's."""
  w, x, y, z = np.asarray(part.quaternion) / np.linalg.norm(part.quaternion)
  return np.array(
    [
      [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
  )
