"""The surfaces of objects as clouds of points, where the simulator has them now."""

import dataclasses
import functools

import mujoco
import numpy as np

from envs.objects import Body, ObjectSpec, Part, RigidBody, SoftBody, SoftNodes
from envs.objects.pieces import centre
from envs.objects.shapes import mass, part_rotation, part_volume

SPACING = 0.006  # of points, m
MOST_POINTS = 15  # along an edge


@dataclasses.dataclass(frozen=True)
class Cloud:
  """One object's surface as it lies now, base frame, m."""

  points: np.ndarray  # float64[P, 3]
  centre: np.ndarray  # float64[3], of mass
  mass: float  # kg


def cloud(thing: ObjectSpec, body: Body, data: mujoco.MjData) -> Cloud:
  """An object's surface where the simulator has it now."""
  local, middle = _surface(thing)
  if isinstance(body, SoftNodes):
    corners = np.sign(body.home - body.home.mean(axis=0))
    nodes = body.nodes(data)
    weights = np.prod((1 + local[:, None] * corners) / 2, axis=2)
    return Cloud(weights @ nodes, nodes.mean(axis=0), mass(thing))
  assert isinstance(body, RigidBody)
  rotation = np.empty(9)
  mujoco.mju_quat2Mat(rotation, body.quaternion(data))
  turn, position = rotation.reshape(3, 3).T, body.position(data)
  return Cloud(local @ turn + position, middle @ turn + position, mass(thing))


@functools.lru_cache(maxsize=256)
def _surface(thing: ObjectSpec) -> tuple[np.ndarray, np.ndarray]:
  """Surface points [P, 3] and centre of mass [3] in the object's own frame.

  Of a soft body in units of its half sizes: its nodes say where these are.
  """
  if thing.soft is not None:
    return _unit_surface(thing.soft.shape, _counts(thing.soft)), np.zeros(3)
  clouds = [_part_surface(part) for part in thing.parts]
  if thing.solid is not None:
    return np.concatenate(clouds), np.zeros(3)
  volumes = np.array([part_volume(part) for part in thing.parts])
  middles = np.array([_part_centre(part) for part in thing.parts])
  return np.concatenate(clouds), volumes @ middles / volumes.sum()


def _part_centre(part: Part) -> np.ndarray:
  """float64[3]: the centre of mass of a part, object's frame, m."""
  if part.mesh is None:
    return np.array(part.position)  # all other shapes are symmetric about it
  return part_rotation(part) @ centre(part.mesh) + part.position


def _part_surface(part: Part) -> np.ndarray:
  if part.mesh is not None:
    points = _mesh_surface(part.mesh.vertices, part.mesh.faces)
  elif part.shape == "capsule":
    radius, half = part.size[:2]
    ball = _unit_surface("sphere", (7, 7, 7)) * radius
    ball[:, 2] += half * np.sign(ball[:, 2])
    count = _count(half)
    side = _unit_surface("cylinder", (9, 9, count)) * (radius, radius, half)
    side = side[np.hypot(side[:, 0], side[:, 1]) > 0.99 * radius]
    points = np.concatenate([ball, side])
  else:
    size = part.size
    half_size = {
      "cylinder": (size[0], size[0], size[-1]),
      "sphere": (size[0],) * 3,
    }.get(part.shape, size)
    counts = tuple(_count(half) for half in half_size)
    points = _unit_surface(part.shape, counts) * half_size
  return points @ part_rotation(part).T + part.position


def _count(half: float) -> int:
  return int(np.clip(np.ceil(2 * half / SPACING) + 1, 4, MOST_POINTS))


def _counts(soft: SoftBody) -> tuple[int, ...]:
  return tuple(_count(half) for half in soft.half_size)


def _unit_surface(shape: str, counts: tuple[int, ...]) -> np.ndarray:
  """Points [P, 3] on a shape that fills the cube from -1 to 1, from a grid on it."""
  x, y, z = (np.linspace(-1, 1, count) for count in counts)
  faces = []
  for axis, (first, second) in enumerate(((y, z), (x, z), (x, y))):
    grid = np.array(np.meshgrid(first, second)).reshape(2, -1).T
    faces += [np.insert(grid, axis, side, axis=1) for side in (-1.0, 1.0)]
  cube = np.concatenate(faces)
  if shape in ("ellipsoid", "sphere"):
    return cube / np.linalg.norm(cube, axis=1, keepdims=True)
  if shape == "cylinder":
    flat = cube[:, :2]
    length = np.maximum(np.linalg.norm(flat, axis=1), 1e-9)
    cube[:, :2] *= (np.abs(flat).max(axis=1) / length)[:, None]
  return cube


def _mesh_surface(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  corners = vertices[faces].astype(np.float64)  # [F, 3, 3]
  edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
  pieces = np.clip(np.ceil(edges / SPACING), 1, MOST_POINTS).astype(int)
  found = [vertices.astype(np.float64)]
  for count in np.unique(pieces[pieces > 1]):
    i, j = np.nonzero(np.add.outer(np.arange(count + 1), np.arange(count + 1)) <= count)
    weights = np.stack([i, j, count - i - j], axis=1) / count
    found.append((weights @ corners[pieces == count]).reshape(-1, 3))
  return np.concatenate(found)
