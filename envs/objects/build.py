"""Adds objects to a cell as free bodies, rigid or soft."""

from collections.abc import Sequence

import mujoco
import numpy as np

from envs.objects.shapes import ObjectSpec, Part, Skin, SoftBody, mass

_GEOM_TYPES = {
  "box": mujoco.mjtGeom.mjGEOM_BOX,
  "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
  "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
  "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
  "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
  "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}
# Thickness of a soft body's skin; contacts are felt from its outside.
_SKIN = 0.002  # m
# Points along each axis of the surface that collides and is drawn. The solid has
# eight nodes, at the corners, whatever the number of points.
_SOFT_POINTS = {"box": (5, 4, 3), "cylinder": (5, 5, 4), "ellipsoid": (5, 5, 5)}
# Elastic forces are solved for by iteration as contacts are, but need more of it: up
# to 50 were seen. Only what is needed is used, else MuJoCo warns that it stopped short.
_SOFT_ITERATIONS = 100
_UNSEEN = 3  # a group of geoms that MuJoCo does not draw by default
_SOFT_TYPES = {"box": "grid", "cylinder": "cylinder", "ellipsoid": "ellipsoid"}


def add_objects(spec: mujoco.MjSpec, things: Sequence[ObjectSpec]) -> list[str]:
  """Adds the objects at no particular place; returns their bodies' names.

  Rigid objects have a free joint of the same name, soft ones a flex.
  """
  names = [f"object{i}" for i in range(len(things))]
  for index, (thing, name) in enumerate(zip(things, names, strict=True)):
    if thing.soft is not None:
      _add_soft(spec, thing, thing.soft, name, index)
    else:
      _add_rigid(spec, thing, name)
  return names


def _add_rigid(spec: mujoco.MjSpec, thing: ObjectSpec, name: str) -> None:
  body = spec.worldbody.add_body(name=name)
  body.add_freejoint(name=name)
  material = None
  if thing.shine:
    material = f"{name}_material"
    spec.add_material(
      name=material, specular=thing.shine, shininess=0.7, rgba=(1, 1, 1, 1)
    )
  for index, part in enumerate(thing.parts):
    rgb = np.clip(np.asarray(part.colour or thing.colour) * part.shade, 0.0, 1.0)
    geom = body.add_geom(
      type=_GEOM_TYPES[part.shape],
      size=(*part.size, 0.0, 0.0, 0.0)[:3],
      pos=part.position,
      quat=part.quaternion,
      rgba=(*rgb, thing.opacity),
      density=thing.density,
      # Rolling friction too (condim 6), or round things would never lie still.
      friction=(thing.friction, 0.01, 0.003),
      condim=6,
      solref=(0.01, 1.0),
    )
    if part.mesh is not None:
      geom.meshname = _add_mesh(spec, part, f"{name}_mesh{index}")
    if material:
      geom.material = material
    if thing.skins:
      geom.group = _UNSEEN
  for index, skin in enumerate(thing.skins):
    _add_skin(spec, body, thing, skin, f"{name}_skin{index}")
  if thing.solid is not None:
    body.explicitinertial = True
    body.mass = mass(thing)
    body.ipos = (0.0, 0.0, 0.0)
    inertia = thing.density * np.array(thing.solid.inertia)
    body.fullinertia = inertia[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]


def _add_mesh(spec: mujoco.MjSpec, part: Part, name: str) -> str:
  assert part.mesh is not None
  spec.add_mesh(
    name=name,
    uservert=part.mesh.vertices.astype(np.float32).ravel(),
    userface=part.mesh.faces.astype(np.int32).ravel(),
    # Parts are convex: exactly the volume inside, and no test of the surface.
    inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX,
  )
  return name


def _add_skin(
  spec: mujoco.MjSpec, body, thing: ObjectSpec, skin: Skin, name: str
) -> None:
  """A surface in its colours, without mass or contacts."""
  faces = skin.faces.astype(np.int32).ravel()
  uv = np.zeros((len(skin.vertices), 2), np.float32) if skin.uv is None else skin.uv
  # MuJoCo counts rows of an image from where it begins.
  uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float32)
  spec.add_mesh(
    name=name,
    uservert=skin.vertices.astype(np.float32).ravel(),
    userface=faces,
    usertexcoord=uv.ravel(),
    userfacetexcoord=faces,
    inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # it need not close
  )
  body.add_geom(
    type=mujoco.mjtGeom.mjGEOM_MESH,
    meshname=name,
    material="" if skin.image is None else _add_texture(spec, skin.image, name),
    contype=0,
    conaffinity=0,
    mass=0.0,
    rgba=(*thing.colour, 1.0) if skin.image is None else (1.0, 1.0, 1.0, 1.0),
  )


def _add_texture(spec: mujoco.MjSpec, image: np.ndarray, name: str) -> str:
  """A material of that name, of an image uint8[H, W, 3], top row first."""
  texture = spec.add_texture(
    name=name,
    type=mujoco.mjtTexture.mjTEXTURE_2D,
    width=image.shape[1],
    height=image.shape[0],
    nchannel=3,
  )
  texture.data = np.ascontiguousarray(image).tobytes()
  material = spec.add_material(name=name)
  material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
  return name


def _add_soft(
  spec: mujoco.MjSpec, thing: ObjectSpec, soft: SoftBody, name: str, index: int
) -> None:
  # Apart from each other until they are placed: soft bodies within one another have
  # more pairs of elements in contact than MuJoCo's memory holds.
  row, column = divmod(index, 7)
  apart = (0.2 + 0.22 * row, 0.22 * (column - 3), 0.4)
  body = spec.worldbody.add_body(name=name)
  count = np.array(_SOFT_POINTS[soft.shape])
  inner = np.asarray(soft.half_size) - _SKIN
  flex = body.make_flex(
    name=name,
    type=_SOFT_TYPES[soft.shape],
    dim=3,
    dof="trilinear",
    count=count,
    spacing=2 * inner / (count - 1),
    radius=_SKIN,
    mass=mass(thing),
    pos=apart,
  )
  flex.young = soft.young
  flex.poisson = 0.3
  flex.damping = 0.01
  flex.selfcollide = mujoco.mjtFlexSelf.mjFLEXSELF_NONE
  flex.friction = (thing.friction, 0.01, 0.003)
  # A soft body touches with many points at once, which resist twisting and rolling
  # without friction terms of their own; each term costs as much as the sliding ones.
  flex.condim = 3
  flex.priority = 1  # else a rigid thing's six would count
  flex.solref = (0.01, 1.0)
  flex.rgba = (*thing.colour, thing.opacity)
  spec.option.iterations = max(spec.option.iterations, _SOFT_ITERATIONS)
