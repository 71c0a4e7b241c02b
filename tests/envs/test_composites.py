"""Random composites: connected, of the right mass and inertia, varied, graspable."""

import hashlib

import mujoco
import numpy as np
import pytest

from envs import objects, scene, units
from envs.baselines import pinch
from envs.baselines.surfaces import cloud
from envs.grasp_env import GraspEnv
from envs.objects import composites, shapes

THINGS = [objects.sample_object("composite", i) for i in range(60)]


def union(thing: objects.ObjectSpec, count: int) -> tuple[np.ndarray, float]:
  """Random points [P, 3] inside any part, and the volume of the union, m^3."""
  low, high = shapes.bounds(thing)
  points = np.random.default_rng(5).uniform(low, high, (count, 3))
  inside = np.any([shapes.part_contains(p, points) for p in thing.parts], axis=0)
  return points[inside], float(inside.mean() * np.prod(high - low))


def test_the_parts_of_each_hang_together():
  for thing in THINGS:
    assert 2 <= len(thing.parts) <= composites.MOST_PARTS
    points, _ = union(thing, 100_000)
    within = np.array([shapes.part_contains(part, points) for part in thing.parts])
    touching = within.astype(int) @ within.T > 0
    reached = np.linalg.matrix_power(touching.astype(int), len(thing.parts))[0]
    assert reached.all(), thing.name


def test_mujoco_has_the_mass_and_inertia_of_the_union():
  things = THINGS[:6]
  model = scene.build_scene(units.sample_unit(0), things, 64).model
  for index, thing in enumerate(things):
    body = model.body(f"object{index}")
    points, volume = union(thing, 400_000)
    weight = thing.density * volume
    assert body.mass[0] == pytest.approx(weight, rel=0.02)
    assert body.mass[0] < thing.density * sum(map(shapes.part_volume, thing.parts))
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=5e-4)
    np.testing.assert_allclose(body.ipos, 0.0)
    second = points.T @ points / len(points) * weight
    expected = np.linalg.eigvalsh(np.trace(second) * np.eye(3) - second)
    np.testing.assert_allclose(np.sort(body.inertia), expected, rtol=0.03)
    rotation = np.empty(9)
    mujoco.mju_quat2Mat(rotation, body.iquat)
    axes = rotation.reshape(3, 3)
    full = axes @ np.diag(body.inertia) @ axes.T
    np.testing.assert_allclose(
      full, np.trace(second) * np.eye(3) - second, atol=0.03 * expected.max()
    )


def test_they_vary_in_everything():
  things = [objects.sample_object("composite", i) for i in range(300)]
  assert {part.shape for t in things for part in t.parts} == set(composites.PRIMITIVES)
  weights = [shapes.mass(thing) for thing in things]
  assert max(weights) <= composites.HEAVIEST + 1e-9
  assert np.percentile(weights, 90) > 15 * np.percentile(weights, 10)
  frictions = [thing.friction for thing in things]
  assert min(frictions) < 0.45 and max(frictions) > 1.05
  two_tone = [any(part.colour for part in thing.parts) for thing in things]
  assert 0.3 < np.mean(two_tone) < 0.7


def test_most_can_be_pinched_as_they_come_to_lie():
  found = []
  for first in (0, 8, 16):
    things = THINGS[first : first + 8]
    env = GraspEnv(units.sample_unit(first), things, 48)
    rng = np.random.default_rng(first)
    env.fill(rng)
    for thing, body in zip(things, env.scene.bodies, strict=True):
      clouds = cloud(thing, body, env.data)
      found.append(pinch.propose(clouds, env.unit.table_height).costs.min(initial=9.0))
    env.close()
  assert np.mean(np.array(found) < 3.0) > 0.75


def test_instances_stay_what_they_are():
  numbers = [
    number
    for thing in THINGS[:21]
    for part in thing.parts
    for number in (*part.size, *part.position, *part.quaternion)
  ]
  text = " ".join(f"{round(number, 6) + 0.0:.6f}" for number in numbers)
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == "3b6c389ba84c5ea8"
