"""Where objects of known shape and pose can be pinched: the geometry of the oracle.

Objects are clouds of points on their surfaces. A pinch is judged in the gripper's own
axes: `across`, along which the fingers close, `along`, the width of the pads, and the
height above the bin's floor.
"""

import dataclasses

import numpy as np

from envs import gripper
from envs.baselines.surfaces import Cloud
from envs.bin import FLOOR_HALF, WALL_HEIGHT, WALL_RUN
from envs.units import BIN_CENTRE

YAWS = np.deg2rad(np.arange(-90.0, 90.0, 6.0))  # a pinch is the same after half a turn
OFFSET_STEP = 0.005  # of pinch points along an object, m

OPENING = gripper.opening(np.full(2, -gripper.OPEN_ANGLE))
WIDEST = OPENING - 0.014  # that may be pinched: both fingers' error, and bent tips
# What each flaw of a pinch takes from the log odds that it holds, in a logistic fit to
# 1,300 attempts at pinches drawn among good and bad ones.
WEIGHTS = {
  "slant": 3.0,  # of the line between the two contacts, m/m
  "beside": 150.0,  # of contacts, from the middle of the pads, both together, m
  "shallow": 430.0,  # missing of 1.4 cm from the pads' edges to the top of contacts, m
  "off centre": 22.0,  # of mass, m
  "wide": 40.0,  # beyond 5.5 cm, m
  "short": 40.0,  # missing of 1 cm that opposite contacts share along the pads, m
  "thin": 42.0,  # the same in height, m
  "heavy": 7.0,  # kg
}
_DEEP, _COMFORTABLE, _LONG = 0.014, 0.055, 0.010
_PATCH = 0.0015  # what lies so near the outermost point touches the pad too, m
# Of the open gripper, at table height, heights above the floor in m.
PAD_BOTTOM = gripper.CLEARANCE + gripper.PROXIMAL * (1 - np.cos(gripper.OPEN_ANGLE))
PAD_TOP = PAD_BOTTOM + gripper.DISTAL
PALM_BOTTOM = gripper.TOOL_LENGTH - gripper.PALM_LENGTH
PALM_HALF = (0.034, 0.018)
LINK_RADIUS = 0.007


@dataclasses.dataclass(frozen=True)
class Pinches:
  """Candidates for one object, before anything else in the bin is looked at."""

  poses: np.ndarray  # float64[K, 3]: x, y, yaw in [-90, 90) degrees
  widths: np.ndarray  # float64[K], m
  flaws: np.ndarray  # float64[K, F], in the order of WEIGHTS

  @property
  def costs(self) -> np.ndarray:
    """float64[K]: what the flaws of each add up to; 3 is a pinch that often fails."""
    return self.flaws @ np.array(list(WEIGHTS.values()))


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
  bottom = (gripper.CLEARANCE + PAD_BOTTOM) / 2
  between = (height > bottom) & (height < PAD_TOP)
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
  beside = np.abs(sum(a_along) / 2 - offsets) + np.abs(sum(b_along) / 2 - offsets)
  flaws = {
    "slant": slant / np.maximum(width, 0.004),
    "beside": beside,
    "shallow": np.maximum(0.0, _DEEP - (top - pad_bottom(width))),
    "off centre": np.abs(offsets - middle),
    "wide": np.maximum(0.0, width - _COMFORTABLE),
    "short": np.maximum(0.0, _LONG - _common(a_along, b_along)),
    "thin": np.maximum(0.0, _LONG - _common(a_height, b_height)),
    "heavy": np.full(len(width), thing.mass),
  }
  centre = np.stack([(left + right) / 2, offsets], axis=1) @ axes(yaw)
  poses = np.column_stack([centre, np.full(len(centre), yaw)])
  return poses, width, np.stack([flaws[name] for name in WEIGHTS], axis=1)


def pad_bottom(width: np.ndarray) -> np.ndarray:
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
    0 if nothing, 1 for what is near, 5 for what a finger would land on.
  """

  def local(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    & (height > PAD_BOTTOM)
    & (height < PAD_TOP)
  )
  rise = np.clip((height - PAD_TOP) / (PALM_BOTTOM - PAD_TOP), 0.0, 1.0)
  link = (inner + outer) / 2 * (1 - rise) + gripper.PIVOT * rise
  links = (
    (np.abs(across - link) < LINK_RADIUS + margin)
    & (along < LINK_RADIUS + margin)
    & (height >= PAD_TOP)
  )
  palm = (
    (across < PALM_HALF[0] + margin)
    & (along < PALM_HALF[1] + margin)
    & (height > PALM_BOTTOM - margin)
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
  return max(0.0, rise - PAD_BOTTOM) / 0.004
