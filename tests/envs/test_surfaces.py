"""Round shapes drawn as meshes: near the shape, and nothing else changes."""

import mujoco
import numpy as np
import pytest

from envs import objects, surfaces, units
from envs.grasp_env import GraspEnv
from envs.objects.shapes import Part, part_contains
from envs.scene import build_scene

ERROR = 5e-4
GEOMS = {
  "box": (0.02, 0.03, 0.01),
  "cylinder": (0.02, 0.03),
  "capsule": (0.02, 0.03),
  "sphere": (0.025,),
  "ellipsoid": (0.03, 0.02, 0.025),
}


def surface_of(shape, size):
  kind = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.upper()}")
  return surfaces.surface(kind, np.array((*size, 0.0, 0.0)[:3]), ERROR)


@pytest.mark.parametrize(("shape", "size"), GEOMS.items())
def test_facets_lie_on_the_surface(shape, size):
  vertices, _, faces = surface_of(shape, size)
  # Middles of facets and of their edges, where they leave a round surface furthest.
  corners = vertices[faces]
  points = np.concatenate([vertices, corners.mean(axis=1), corners[:, :2].mean(axis=1)])
  away = 2.5 * ERROR  # a sphere is bent in both directions
  larger = Part(shape, tuple(s + away for s in size))
  smaller = Part(shape, tuple(s - away for s in size))
  assert part_contains(larger, points).all()
  assert not part_contains(smaller, points).any()


@pytest.mark.parametrize(("shape", "size"), GEOMS.items())
def test_facets_look_outwards_and_leave_no_gap(shape, size):
  vertices, normals, faces = surface_of(shape, size)
  a, b, c = np.moveaxis(vertices[faces], 1, 0)
  facing = np.cross(b - a, c - a)
  assert (np.einsum("ij,ikj->ik", facing, normals[faces]) > 0).all()
  np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
  assert (np.einsum("ij,ij->i", facing, (a + b + c) / 3) > 0).all()
  # Every edge between two places is passed once in each direction.
  places, number = np.unique(vertices.round(9), axis=0, return_inverse=True)
  corners = number.reshape(-1)[faces]
  edges = corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
  there = {tuple(edge) for edge in edges.tolist()}
  assert len(there) == len(edges) and there == {(b, a) for a, b in there}


def test_unknown_shapes_are_refused():
  with pytest.raises(ValueError, match="expected a box or a round one"):
    surfaces.surface(mujoco.mjtGeom.mjGEOM_PLANE, np.ones(3), ERROR)


FAMILIES = ("ring", "dumbbell", "weight", "tumbler", "mug", "capsule", "ellipsoid")


def scene_of(monkeypatch, *, as_meshes: bool):
  with monkeypatch.context() as patch:
    if not as_meshes:
      patch.setattr("envs.scene.draw_as_meshes", lambda *_: None)
    things = [objects.sample_object(family, 3) for family in FAMILIES]
    return GraspEnv(units.sample_unit(0), things, 72)


def image_of(env):
  for index, body in enumerate(env.scene.bodies):
    row, column = divmod(index, 4)
    place = np.array([0.48 + 0.13 * row, -0.15 + 0.1 * column, 0.05])
    body.place(env.data, place, np.array([0.8, 0.0, 0.6, 0.0]))
  mujoco.mj_forward(env.scene.model, env.data)
  return env.image().astype(int)


def test_a_picture_looks_the_same_with_a_tenth_of_the_triangles(monkeypatch):
  primitives = scene_of(monkeypatch, as_meshes=False)
  meshes = scene_of(monkeypatch, as_meshes=True)
  expected, found = image_of(primitives), image_of(meshes)
  # Edges fall elsewhere within a pixel; nothing is missing or of another colour.
  assert np.abs(found - expected).mean() < 2.0
  blurred = [
    image.reshape(18, 4, 18, 4, 3).mean(axis=(1, 3)) for image in (expected, found)
  ]
  assert np.abs(blurred[0] - blurred[1]).max() < 25.0
  drawn = meshes._renderer._scene
  assert drawn.ngeom < 0.6 * primitives._renderer._scene.ngeom
  assert meshes.scene.model.nmeshface < 6000
  for env in (primitives, meshes):
    env.close()


def test_what_collides_and_weighs_is_as_it_was(monkeypatch):
  unit, things = units.sample_unit(0), [objects.sample_object(f, 3) for f in FAMILIES]
  after = build_scene(unit, things, 72).model
  monkeypatch.setattr("envs.scene.draw_as_meshes", lambda *_: None)
  before = build_scene(unit, things, 72).model
  np.testing.assert_allclose(after.body_mass, before.body_mass, rtol=1e-12)
  np.testing.assert_allclose(after.body_inertia, before.body_inertia, rtol=1e-9)
  touching = after.geom_contype > 0
  for field in ("geom_type", "geom_bodyid", "geom_size", "geom_pos", "geom_friction"):
    mine, theirs = getattr(after, field), getattr(before, field)
    np.testing.assert_array_equal(mine[touching], theirs[before.geom_contype > 0])
