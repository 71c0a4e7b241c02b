"""The bin, with sloped sides that keep objects from wedging into corners."""

import mujoco
import numpy as np

from envs.textures import add_material
from envs.units import BIN_CENTRE, Unit

FLOOR_HALF = (0.15, 0.17)
WALL_HEIGHT = 0.06
WALL_RUN = 0.045  # how far the sloped side leans out
_THICKNESS = 0.006
_FRICTION = (0.5, 0.01, 0.001)


def add_bin(spec: mujoco.MjSpec, unit: Unit) -> None:
  """Adds table and bin, the bin's floor at the unit's table height."""
  cx, cy = BIN_CENTRE
  top = unit.table_height
  wood, gain = add_material(spec, "table", unit.table_texture)
  table = spec.worldbody.add_geom(
    name="table",
    type=mujoco.mjtGeom.mjGEOM_BOX,
    pos=(cx, cy, top - 2 * _THICKNESS - 0.02),
    size=(0.9, 0.9, 0.02),
    rgba=_rgba(unit.table_colour, gain),
    friction=_FRICTION,
  )
  pattern, gain = add_material(spec, "bin", unit.bin_texture)
  floor = spec.worldbody.add_geom(
    name="bin_floor",
    type=mujoco.mjtGeom.mjGEOM_BOX,
    pos=(cx, cy, top - _THICKNESS),
    size=(*FLOOR_HALF, _THICKNESS),
    rgba=_rgba(unit.bin_colour, gain),
    friction=_FRICTION,
  )
  surfaces = [(table, wood), (floor, pattern)]
  slope = np.hypot(WALL_HEIGHT, WALL_RUN) / 2
  lean = np.arctan2(WALL_HEIGHT, WALL_RUN)
  for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
    middle = np.array([cx, cy, top + WALL_HEIGHT / 2])
    middle[axis] += sign * (FLOOR_HALF[axis] + WALL_RUN / 2)
    # The slab's inner face, not its middle, is the slope.
    normal = np.zeros(3)
    normal[axis], normal[2] = -sign * np.sin(lean), np.cos(lean)
    angle = -sign * lean if axis == 0 else sign * lean
    quat = [np.cos(angle / 2), 0.0, 0.0, 0.0]
    quat[2 if axis == 0 else 1] = np.sin(angle / 2)
    size = [0.0, 0.0, _THICKNESS]
    size[axis], size[1 - axis] = slope, FLOOR_HALF[1 - axis] + WALL_RUN
    wall = spec.worldbody.add_geom(
      name=f"bin_wall{axis}{'+' if sign > 0 else '-'}",
      type=mujoco.mjtGeom.mjGEOM_BOX,
      pos=tuple(middle - _THICKNESS * normal),
      quat=quat,
      size=size,
      rgba=_rgba(unit.bin_colour, 0.85 * gain),
      friction=_FRICTION,
    )
    surfaces.append((wall, pattern))
  for geom, material in surfaces:
    if material:
      geom.material = material


def contains(position: np.ndarray, table_height: float) -> np.ndarray:
  """Whether points [..., 3] lie within the bin's rim, at any height above its floor."""
  half = np.asarray(FLOOR_HALF) + WALL_RUN
  inside = np.abs(position[..., :2] - np.asarray(BIN_CENTRE)) <= half
  return inside.all(axis=-1) & (position[..., 2] > table_height - 0.02)


def _rgba(colour: tuple[float, float, float], gain: float) -> tuple[float, ...]:
  return (*(min(1.0, gain * c) for c in colour), 1.0)
