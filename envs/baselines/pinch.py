"""Where objects of known shape and pose can be pinched: the geometry of the oracle.

Objects are clouds of points on their surface. A pinch is judged in the gripper's own
axes: `across`, along which the fingers close, `along`, the width of the pads, and the
height above the bin's floor.
"""

import dataclasses
import functools

import mujoco
import numpy as np

from envs import gripper
from envs.bin import FLOOR_HALF, WALL_HEIGHT, WALL_RUN
from envs.objects import Body, ObjectSpec, Part, RigidBody, SoftBody, SoftNodes
from envs.objects.shapes import mass, part_volume
from envs.units import BIN_CENTRE

SPACING = 0.006  # of surface points, m
MOST_POINTS = 15  # along an edge
YAWS = np.deg2rad(np.arange(-90.0, 90.0, 6.0))  # a pinch is the same after half a turn
OFFSET_STEP = 0.005  # of pinch points along an object, m

OPENING = gripper.opening(np.full(2, -gripper.OPEN_ANGLE))
WIDEST = OPENING - 0.014  # that may be pinched: both fingers' error, and bent tips
# What each flaw of a pinch costs, an odd in log units a flaw of 1, from a logistic fit
# to 1,800 pinches made by chance among good and bad ones.
WEIGHTS = {
  "slant": 4.0,  # of the line between the two contacts, m/m
  "beside": 140.0,  # contacts from the middle of the pads, along them, m
  "shallow": 400.0,  # how much less than 2.2 cm above the pads' edge contacts reach, m
  "off centre": 20.0,  # of mass, m
  "wide": 40.0,  # beyond 5.5 cm, m
  "short": 100.0,  # of 1 cm that opposite contacts share along the pads, m
  "thin": 40.0,  # the same in height, m
  "heavy": 6.0,  # kg
}
_PATCH = 0.0015  # what lies so near the outermost point touches the pad too, m
# Of the open gripper, at table height, heights above the floor in m.
_PAD_BOTTOM = gripper.CLEARANCE + gripper.PROXIMAL * (1 - np.cos(gripper.OPEN_ANGLE))
_PAD_TOP = _PAD_BOTTOM + gripper.DISTAL
_PALM_BOTTOM = gripper.TOOL_LENGTH - gripper.PALM_LENGTH
_PALM_HALF = (0.034, 0.018)
_LINK_RADIUS = 0.007


@dataclasses.dataclass(frozen=True)
class Cloud:
  """One object's surface as it lies now, base frame, m."""

  points: np.ndarray  # float64[P, 3]
  centre: np.ndarray  # float64[3], of mass
  mass: float  # kg


@dataclasses.dataclass(frozen=True)
class Pinches:
  """Candidates for one object, before anything else in the bin is looked at."""

  poses: np.ndarray  # float64[K, 3]: x, y, yaw in [-90, 90) degrees
  widths: np.ndarray  # float64[K], m
  flaws: np.ndarray  # float64[K, F], see WEIGHTS


def cloud(thing: ObjectSpec, body: Body, data: mujoco.MjData) -> Cloud:
  """An object's surface where the simulator has it now."""
  local, centre = _surface(thing)
  if isinstance(body, SoftNodes):
    corners = np.sign(body.home - body.home.mean(axis=0))
    nodes = body.nodes(data)
    weights = np.prod((1 + local[:, None] * corners) / 2, axis=2)
    return Cloud(weights @ nodes, nodes.mean(axis=0), mass(thing))
  assert isinstance(body, RigidBody)
  rotation = np.empty(9)
  mujoco.mju_quat2Mat(rotation, body.quaternion(data))
  turn, position = rotation.reshape(3, 3).T, body.position(data)
  return Cloud(local @ turn + position, centre @ turn + position, mass(thing))


@functools.lru_cache(maxsize=256)
def _surface(thing: ObjectSpec) -> tuple[np.ndarray, np.ndarray]:
  """Surface points [P, 3] and centre of mass [3] in the object's own frame.

  Of a soft body in units of its half sizes: its nodes say where these are.
  """
  if thing.soft is not None:
    return _unit_surface(thing.soft.shape, _counts(thing.soft)), np.zeros(3)
  clouds = [_part_surface(part) for part in thing.parts]
  volumes = np.array([part_volume(part) for part in thing.parts])
  middles = np.array([(c.min(axis=0) + c.max(axis=0)) / 2 for c in clouds])
  return np.concatenate(clouds), volumes @ middles / volumes.sum()


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
  rotation = np.empty(9)
  mujoco.mju_quat2Mat(
    rotation, np.array(part.quaternion) / np.linalg.norm(part.quaternion)
  )
  return points @ rotation.reshape(3, 3).T + part.position


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


def propose(thing: Cloud, floor: float) -> Pinches:
  """All pinches of one object that fit between the fingers.

  Good is what holds by friction: both pads touch opposite patches, in the middle of
  the pads, near the centre of mass, and well above the pads' lower edges.
  """
  found = [_at_yaw(thing, floor, yaw) for yaw in YAWS]
  return Pinches(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def axes(yaw: float) -> np.ndarray:
  """float64[2, 2]: rows `across` and `along` of a gripper at this yaw, base frame."""
  return np.array([[-np.sin(yaw), np.cos(yaw)], [np.cos(yaw), np.sin(yaw)]])


def _at_yaw(thing: Cloud, floor: float, yaw: float):
  across, along = axes(yaw) @ thing.points[:, :2].T
  height = thing.points[:, 2] - floor
  middle = axes(yaw)[1] @ thing.centre[:2]
  low, high = along.min(), along.max()
  offsets = np.arange(low + 0.003, high, OFFSET_STEP)
  offsets = np.append(offsets, [(low + high) / 2, np.clip(middle, low, high)])

  band = np.abs(along - offsets[:, None]) <= gripper.PAD_HALF_WIDTH + 0.001  # [K, P]
  whole = _extent(across, band)
  # Pads sink as they close; their height at contact is close to that halfway.
  bottom = (gripper.CLEARANCE + _PAD_BOTTOM) / 2
  between = (height > bottom) & (height < _PAD_TOP)
  touched = band & between
  left, right = _extent(across, touched)
  width = right - left
  usable = touched.any(axis=1) & (width <= WIDEST) & (whole[1] - whole[0] <= WIDEST)
  if not usable.any():
    return np.empty((0, 3)), np.empty(0), np.empty((0, len(WEIGHTS)))
  touched, left, right = touched[usable], left[usable], right[usable]
  width, offsets = width[usable], offsets[usable]
  on_left = touched & (across <= left[:, None] + _PATCH)
  on_right = touched & (across >= right[:, None] - _PATCH)

  a_along, b_along = _extent(along, on_left), _extent(along, on_right)
  a_height, b_height = _extent(height, on_left), _extent(height, on_right)
  top = np.minimum(a_height[1], b_height[1])
  slant = np.hypot(_gap(a_along, b_along), _gap(a_height, b_height))
  flaws = np.stack(
    [
      slant / np.maximum(width, 0.004),
      np.abs(sum(a_along) / 2 - offsets) + np.abs(sum(b_along) / 2 - offsets),
      np.maximum(0.0, 0.022 - (top - _pad_bottom(width))),
      np.abs(offsets - middle),
      np.maximum(0.0, width - 0.055),
      np.maximum(0.0, 0.010 - _common(a_along, b_along)),
      np.maximum(0.0, 0.010 - _common(a_height, b_height)),
      np.full(len(width), thing.mass),
    ],
    axis=1,
  )
  centre = np.stack([(left + right) / 2, offsets], axis=1) @ axes(yaw)
  poses = np.column_stack([centre, np.full(len(centre), yaw)])
  return poses, width, flaws


def _pad_bottom(width: np.ndarray) -> np.ndarray:
  """Height above the floor of the pads' lower edges: they sink as they close, m."""
  outwards = (width / 2 + gripper.PAD_HALF_THICKNESS - gripper.PIVOT) / gripper.PROXIMAL
  return gripper.CLEARANCE + gripper.PROXIMAL * (1 - np.sqrt(1 - outwards**2))


def _gap(a, b) -> np.ndarray:
  """How far apart two intervals (low, high), [K] each, are."""
  return np.maximum(0.0, np.maximum(a[0], b[0]) - np.minimum(a[1], b[1]))


def _common(a, b) -> np.ndarray:
  """How long the part is that two intervals share."""
  return np.maximum(0.0, np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]))


def _extent(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Lowest and highest value [K] of those chosen by each row of a mask [K, P]."""
  return (
    np.where(mask, values, np.inf).min(axis=1),
    np.where(mask, values, -np.inf).max(axis=1),
  )


def obstruction(
  pose: np.ndarray, own: np.ndarray, others: np.ndarray, floor: float
) -> float:
  """What stands in the way of a gripper that comes straight down at a pinch.

  Args:
    pose: [3] x, y, yaw.
    own: [P, 3] points of the object to pinch.
    others: [Q, 3] points of everything else in the bin.

  Returns:
    0 if nothing, about 1 for what hinders, 3 for what a finger would land on.
  """

  def local(points):
    flat = (points[:, :2] - pose[:2]) @ axes(pose[2]).T
    return flat[:, 0], flat[:, 1], points[:, 2] - floor

  everything = np.concatenate([own, others])
  across, along, height = local(everything)
  cost = 0.0
  for margin, price in ((0.001, 4.0), (0.006, 1.0)):
    if np.any(_in_fingers(np.abs(across), np.abs(along), height, margin)):
      cost += price
  across, along, height = local(others)
  swept = (np.abs(across) < OPENING / 2) & (np.abs(along) < gripper.PAD_HALF_WIDTH)
  if np.any(swept & (height > gripper.CLEARANCE)):
    cost += 1.0
  return cost + _wall(pose)


def _in_fingers(across, along, height, margin: float) -> np.ndarray:
  inner = OPENING / 2
  outer = inner + 2 * gripper.PAD_HALF_THICKNESS
  pads = (
    (across > inner - margin)
    & (across < outer + margin)
    & (along < gripper.PAD_HALF_WIDTH + margin)
    & (height > _PAD_BOTTOM)
    & (height < _PAD_TOP)
  )
  rise = np.clip((height - _PAD_TOP) / (_PALM_BOTTOM - _PAD_TOP), 0.0, 1.0)
  link = (inner + outer) / 2 * (1 - rise) + gripper.PIVOT * rise
  links = (
    (np.abs(across - link) < _LINK_RADIUS + margin)
    & (along < _LINK_RADIUS + margin)
    & (height >= _PAD_TOP)
  )
  palm = (
    (across < _PALM_HALF[0] + margin)
    & (along < _PALM_HALF[1] + margin)
    & (height > _PALM_BOTTOM - margin)
  )
  return pads | links | palm


def _wall(pose: np.ndarray) -> float:
  """How far the pads' outer corners would go into the bin's sloped sides."""
  outer = OPENING / 2 + 2 * gripper.PAD_HALF_THICKNESS
  corners = np.array(
    [(s * outer, t * gripper.PAD_HALF_WIDTH) for s in (-1, 1) for t in (-1, 1)]
  )
  spots = np.abs(corners @ axes(pose[2]) + pose[:2] - BIN_CENTRE) - FLOOR_HALF
  rise = spots.max() * WALL_HEIGHT / WALL_RUN
  return max(0.0, rise - _PAD_BOTTOM) / 0.004
