"""The form in which every family describes an object: convex parts and a density."""

import dataclasses

import mujoco
import numpy as np

_GEOM_TYPES = {
  "box": mujoco.mjtGeom.mjGEOM_BOX,
  "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
  "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
  "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
  "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}


@dataclasses.dataclass(frozen=True)
class Part:
  """One convex piece, in the object's own frame."""

  shape: str  # box, cylinder, capsule, ellipsoid or sphere
  size: tuple[float, ...]  # MuJoCo's half sizes, m
  position: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m
  quaternion: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
  shade: float = 1.0  # times the object's colour


@dataclasses.dataclass(frozen=True)
class ObjectSpec:
  """One object."""

  name: str  # family-instance, such as 'box-000137'
  family: str
  parts: tuple[Part, ...]
  density: float  # kg/m^3
  friction: float
  colour: tuple[float, float, float]  # RGB in [0, 1]


def add_object(spec: mujoco.MjSpec, thing: ObjectSpec, name: str) -> None:
  """Adds a free body under a name of its own (two of one instance may be in a bin)."""
  body = spec.worldbody.add_body(name=name)
  body.add_freejoint(name=name)
  for part in thing.parts:
    rgb = np.clip(np.asarray(thing.colour) * part.shade, 0.0, 1.0)
    body.add_geom(
      type=_GEOM_TYPES[part.shape],
      size=(*part.size, 0.0, 0.0)[:3],
      pos=part.position,
      quat=part.quaternion,
      rgba=(*rgb, 1.0),
      density=thing.density,
      # Rolling friction too (condim 6), or round things would never lie still.
      friction=(thing.friction, 0.01, 0.003),
      condim=6,
      solref=(0.01, 1.0),
    )
