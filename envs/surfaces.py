"""What is drawn of round shapes: as many triangles as a pixel can show.

MuJoCo draws a cylinder with hundreds of triangles, and every image three times: for
the lamps without shadows, from the lamp that casts them, and in its light. Where a
processor draws, triangles are most of what a small image costs. So round geoms are
hidden and shown as meshes; they collide as before.
"""

from collections import defaultdict
from collections.abc import Sequence

import mujoco
import numpy as np

FACET_ERROR = 0.1  # pixels: how far a facet lies beside the round surface, at most
_FEWEST, _MOST = 8, 24  # sides of a circle
_DRAWN = 2  # the last group that is drawn by default
_HIDDEN = 4

_BOX = mujoco.mjtGeom.mjGEOM_BOX
_ROUND = (
  mujoco.mjtGeom.mjGEOM_CYLINDER,
  mujoco.mjtGeom.mjGEOM_CAPSULE,
  mujoco.mjtGeom.mjGEOM_SPHERE,
  mujoco.mjtGeom.mjGEOM_ELLIPSOID,
)

# vertices float64[V, 3], normals float64[V, 3], faces int[F, 3] counterclockwise.
Surface = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_as_meshes(spec: mujoco.MjSpec, error: float) -> None:
  """Shows all primitives of a cell that is not yet compiled as meshes.

  What one body has of one colour becomes one mesh. Translucent geoms stay apart,
  because MuJoCo draws them from back to front.

  Args:
    error: m that a facet may lie inside or outside of a round surface.
  """
  for body in spec.bodies:
    alike = defaultdict(list)
    for number, geom in enumerate(body.geoms):
      if geom.group <= _DRAWN and geom.type in (_BOX, *_ROUND):
        apart = number if geom.rgba[3] < 1.0 else -1
        alike[(*geom.rgba, geom.material, apart)].append(geom)
    for geoms in alike.values():
      if len(geoms) > 1 or geoms[0].type in _ROUND:
        _replace(spec, body, geoms, error)


def _replace(
  spec: mujoco.MjSpec,
  body: mujoco.MjsBody,
  geoms: Sequence[mujoco.MjsGeom],
  error: float,
) -> None:
  vertices, normals, faces, count = [], [], [], 0
  for geom in geoms:
    position, rotation, size = _placement(geom)
    points, upright, triangles = surface(geom.type, size, error)
    vertices.append(points @ rotation.T + position)
    normals.append(upright @ rotation.T)
    faces.append(triangles + count)
    count += len(points)
    geom.group = _HIDDEN
  mesh = spec.add_mesh(
    name=f"drawn{len(spec.meshes)}",
    uservert=np.concatenate(vertices).astype(np.float32).ravel(),
    usernormal=np.concatenate(normals).astype(np.float32).ravel(),
    userface=np.concatenate(faces).astype(np.int32).ravel(),
    inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
  )
  body.add_geom(
    type=mujoco.mjtGeom.mjGEOM_MESH,
    meshname=mesh.name,
    rgba=geoms[0].rgba,
    material=geoms[0].material,
    mass=0.0,
    contype=0,
    conaffinity=0,
  )


def _placement(geom: mujoco.MjsGeom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Position [3], rotation [3, 3] and half sizes [3] in the frame of its body."""
  quaternion, rotation = np.array(geom.quat), np.empty(9)
  position, size = np.array(geom.pos), np.array(geom.size)
  if np.isfinite(geom.fromto[0]):
    start, end = geom.fromto[:3], geom.fromto[3:]
    position, size[1] = (start + end) / 2, np.linalg.norm(end - start) / 2
    mujoco.mju_quatZ2Vec(quaternion, end - start)
  mujoco.mju_quat2Mat(rotation, quaternion / np.linalg.norm(quaternion))
  return position, rotation.reshape(3, 3), size


def surface(kind: mujoco.mjtGeom, size: np.ndarray, error: float) -> Surface:
  """The surface of a box or a round geom of MuJoCo's half sizes [3], in its frame."""
  match kind:
    case mujoco.mjtGeom.mjGEOM_BOX:
      return _box(size)
    case mujoco.mjtGeom.mjGEOM_CYLINDER:
      radius, half = size[:2]
      corners = np.array([(0.0, -half), (radius, -half), (radius, half), (0.0, half)])
      slopes = np.array([(0.0, -1.0), (1.0, 0.0), (0.0, 1.0)])
      strips = [(corners[i : i + 2], slopes[[i, i]]) for i in range(3)]
      return _turned(strips, _sides(radius, error))
    case mujoco.mjtGeom.mjGEOM_CAPSULE:
      radius, half = size[:2]
      sides = _sides(radius, error)
      arc = _arc(-np.pi / 2, 0.0, sides // 4)
      low = radius * arc - (0.0, half)
      profile = np.concatenate([low, low[::-1] * (1.0, -1.0)])
      return _turned([(profile, np.concatenate([arc, arc[::-1] * (1.0, -1.0)]))], sides)
    case mujoco.mjtGeom.mjGEOM_SPHERE | mujoco.mjtGeom.mjGEOM_ELLIPSOID:
      half_size = size[[0, 0, 0]] if kind == mujoco.mjtGeom.mjGEOM_SPHERE else size
      sides = _sides(half_size.max(), error)
      arc = _arc(-np.pi / 2, np.pi / 2, sides // 2)
      vertices, normals, faces = _turned([(arc, arc)], sides)
      normals = normals / half_size
      normals /= np.linalg.norm(normals, axis=1, keepdims=True)
      return vertices * half_size, normals, faces
  raise ValueError(f"geom of type {kind}: expected a box or a round one")


def _sides(radius: float, error: float) -> int:
  """Of the regular polygon that stays so near a circle; a multiple of 4."""
  # As much of it lies outside as inside, see `_turned`.
  least = np.pi / np.arccos(max(0.0, 1.0 - 2.0 * error / radius))
  return int(np.clip(4 * np.ceil(least / 4), _FEWEST, _MOST))


def _arc(first: float, last: float, pieces: int) -> np.ndarray:
  """[pieces + 1, 2]: (radius, height) along a unit circle between two angles, rad."""
  angles = np.linspace(first, last, pieces + 1)
  return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _turned(strips: Sequence[tuple[np.ndarray, np.ndarray]], sides: int) -> Surface:
  """Profiles turned round the z axis.

  Args:
    strips: profiles from the bottom up, [P, 2] (radius, height), and their normals
      [P, 2]; edges between strips are sharp.
    sides: of the polygon that stands for a circle.
  """
  angles = 2 * np.pi * np.arange(sides) / sides
  across = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  wider = 2.0 / (1.0 + np.cos(np.pi / sides))  # corners outside, edges inside
  this, following = np.arange(sides), (np.arange(sides) + 1) % sides
  vertices, normals, faces, count = [], [], [], 0
  for profile, slopes in strips:
    vertices.append(_around(profile * (wider, 1.0), across))
    normals.append(_around(slopes, across))
    for row in range(len(profile) - 1):
      low, high = count + row * sides, count + (row + 1) * sides
      if profile[row, 0] > 1e-9:  # else they meet in a point
        faces.append(np.stack([low + this, low + following, high + this], axis=-1))
      if profile[row + 1, 0] > 1e-9:
        faces.append(
          np.stack([low + following, high + following, high + this], axis=-1)
        )
    count += len(profile) * sides
  return np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces)


def _around(rows: np.ndarray, across: np.ndarray) -> np.ndarray:
  """[P * S, 3] of (radius, height) [P, 2] and directions [S, 2]."""
  flat = rows[:, None, :1] * across
  heights = np.broadcast_to(rows[:, None, 1:], (len(rows), len(across), 1))
  return np.concatenate([flat, heights], axis=-1).reshape(-1, 3)


def _box(half: np.ndarray) -> Surface:
  vertices, normals = [], []
  for axis in range(3):
    for sign in (-1.0, 1.0):
      normal, right = np.zeros(3), np.zeros(3)
      normal[axis], right[(axis + 1) % 3] = sign, 1.0
      up = np.cross(normal, right)
      corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
      vertices += [normal + a * right + b * up for a, b in corners]
      normals += [normal] * 4
  quads = 4 * np.arange(6)[:, None, None] + np.array([[0, 1, 2], [0, 2, 3]])
  return np.array(vertices) * half, np.array(normals), quads.reshape(-1, 3)
