"""Families of objects: sizes, seeds, properties, soft bodies, and how they lie."""

import dataclasses
import hashlib

import mujoco
import numpy as np
import pytest

from envs import bin as bin_lib
from envs import objects, scene, units
from envs.grasp_env import GraspEnv
from envs.gripper import CLOSING_TORQUE
from envs.objects import shapes
from envs.objects.catalogue import kind_of

ALL = sorted(objects.FAMILIES)
SOFT = [family for family in ALL if kind_of(family) == "soft"]
PROPERTIES = {
  *("rigid", "soft", "heavy", "light", "flat", "long", "large", "small"),
  *("translucent", "composed"),
}
# What these families drew when the demo was measured on them. They may not change.
DRAWN_BEFORE = {
  "box": "4e97db9912685730",
  "cylinder": "c0639284d872726d",
  "capsule": "58964f64aae9ca88",
  "ellipsoid": "280a6e927aab65a0",
  "l_piece": "5f1d4ea792fee015",
  "dumbbell": "b993ba9aee01ed06",
  "t_piece": "4118f0753bf87a44",
  "bottle": "4187693f5d1acc0e",
  "hammer": "7a9b5c0be1c2a9c2",
  "prism_stack": "60ba8c183c96c58e",
}


def instances(family: str, count: int) -> list[objects.ObjectSpec]:
  return [objects.sample_object(family, i) for i in range(count)]


def described(thing: objects.ObjectSpec) -> str:
  """All that there is to a rigid thing without meshes, to nine digits."""
  numbers = [thing.density, thing.friction, *thing.colour, thing.opacity, thing.shine]
  words = [thing.name]
  for part in thing.parts:
    words.append(part.shape)
    numbers += [*part.size, *part.position, *part.quaternion, part.shade]
  return " ".join([*words, *(f"{number:.9g}" for number in numbers)])


def digest(family: str) -> str:
  text = "\n".join(described(thing) for thing in instances(family, 21))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_there_are_enough_families_and_no_group_shares_a_generator():
  training, held_out = objects.TRAINING, objects.HELD_OUT
  assert len(training) >= 14
  assert len(held_out) >= 10
  assert not set(training) & set(held_out)
  code = [{family.__code__ for family in g.values()} for g in (training, held_out)]
  assert len(code[0]) == len(training) and len(code[1]) == len(held_out)
  assert not code[0] & code[1]


@pytest.mark.parametrize("family", sorted(DRAWN_BEFORE))
def test_the_families_of_the_demo_draw_what_they_drew(family):
  assert digest(family) == DRAWN_BEFORE[family]


@pytest.mark.parametrize("family", ALL)
def test_every_instance_is_4_to_20_cm_long_and_another(family):
  things = instances(family, 200)
  sides = [np.max(np.subtract(*shapes.bounds(thing)[::-1])) for thing in things]
  assert min(sides) >= 0.0399
  assert max(sides) <= 0.2001
  assert len({(repr(thing.parts), repr(thing.soft)) for thing in things}) == 200
  assert repr(objects.sample_object(family, 7)) == repr(things[7])


@pytest.mark.parametrize("group", [objects.TRAINING, objects.HELD_OUT])
def test_every_property_occurs_in_each_group(group):
  things = [thing for family in group for thing in instances(family, 30)]
  assert {what for thing in things for what in objects.properties(thing)} == PROPERTIES


@pytest.mark.parametrize(
  "family, what",
  [
    *(("notepad", "flat"), ("weight", "heavy"), ("foam_block", "light")),
    *(("marker", "long"), ("tumbler", "translucent"), ("toy_block", "small")),
    *(("crate", "large"), ("sponge", "soft"), ("coaster", "flat")),
    *(("hex_nut", "heavy"), ("paper_cup", "light"), ("brush", "long")),
    *(("flask", "translucent"), ("marshmallow", "small"), ("wrench", "large")),
  ],
)
def test_families_are_always_what_they_stand_for(family, what):
  assert all(what in objects.properties(thing) for thing in instances(family, 100))


def test_mass_is_what_mujoco_makes_of_it():
  things = [objects.sample_object(family, 3) for family in ALL]
  model = scene.build_scene(units.sample_unit(0), things, 64).model
  for index, thing in enumerate(things):
    root = model.body(f"object{index}").id
    mine = [
      b for b in range(model.nbody) if b == root or model.body_parentid[b] == root
    ]
    assert model.body_mass[mine].sum() == pytest.approx(shapes.mass(thing), rel=1e-3)


def test_centred_parts_balance_about_the_origin():
  heavy = objects.Part("box", (0.01, 0.01, 0.03), (0.0, 0.0, 0.05))
  light = objects.Part("box", (0.01, 0.01, 0.01), (0.04, 0.0, 0.0))
  first, second = shapes.centred(heavy, light)
  np.testing.assert_allclose(first.position, (-0.01, 0.0, 0.0125), atol=1e-12)
  np.testing.assert_allclose(second.position, (0.03, 0.0, -0.0375), atol=1e-12)


def test_a_part_is_carried_round_with_what_it_looks_at():
  bar = objects.Part(
    "box", (0.03, 0.01, 0.005), (0.1, 0.0, 0.02), shapes.turn("y", 0.3)
  )
  quarter = shapes.around(bar, np.pi / 2)
  np.testing.assert_allclose(quarter.position, (0.0, 0.1, 0.02), atol=1e-12)
  turned = shapes.part_points(bar) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
  np.testing.assert_allclose(shapes.part_points(quarter), turned, atol=1e-12)


def test_objects_of_all_families_come_to_rest_in_the_bin():
  for first in range(0, len(ALL), 8):
    things = [objects.sample_object(family, 5) for family in ALL[first : first + 8]]
    env = GraspEnv(units.sample_unit(0), things, 48)
    env.fill(np.random.default_rng(2))
    env.controller.wait(1.0)
    before = env.object_positions()
    env.controller.wait(0.4)
    after, floor = env.object_positions(), env.unit.table_height
    lowest = after[:, 2].min() - floor
    warned = sum(warning.number for warning in env.data.warning)
    vertices = env.data.flexvert_xpos
    env.close()
    assert bin_lib.contains(after, floor).all()
    assert np.abs(after - before).max() < 0.003, ALL[first : first + 8]
    assert lowest > 0.003
    assert vertices[:, 2].min(initial=1.0) - floor > -0.003  # nothing soft sinks in
    assert warned == 0


def test_a_bin_full_of_soft_bodies_can_be_filled():
  # All of them in one place have more contacts than MuJoCo's memory holds.
  things = instances("soft_ball", 8)
  env = GraspEnv(units.sample_unit(0), things, 48)
  env.fill(np.random.default_rng(0))
  env.close()
  assert bin_lib.contains(env.object_positions(), env.unit.table_height).all()
  # A heap of balls, not balls within one another.
  apart = np.linalg.norm(
    env.object_positions()[:, None] - env.object_positions(), axis=-1
  )
  assert apart[np.triu_indices(8, 1)].min() > 0.03


def stretch(body: objects.SoftNodes, data: mujoco.MjData) -> tuple[float, float]:
  """The largest relative change of a distance between nodes; volume over rest's."""
  nodes, rest = body.nodes(data), body.home
  pairs = np.triu_indices(8, 1)
  lengths, at_rest = (
    np.linalg.norm(n[:, None] - n[None], axis=-1)[pairs] for n in (nodes, rest)
  )
  sides = rest > rest.mean(axis=0)
  edges, square = (
    [n[sides[:, k]].mean(axis=0) - n[~sides[:, k]].mean(axis=0) for k in range(3)]
    for n in (nodes, rest)
  )
  volume = float(np.linalg.det(edges) / np.linalg.det(square))
  return float(np.abs(lengths / at_rest - 1).max()), volume


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
  ("shape", "squares"),
  [("box", (3, 3, 3)), ("cylinder", (4, 4, 3)), ("ellipsoid", (5, 5, 5))],
)
def test_how_sluggishly_a_soft_body_turns(shape, squares, axis):
  """Its mass is at its corners, see `objects.SoftBody`: measured by a torque.

  Args:
    squares: one over the mean square along each axis of a solid that reaches from -1
      to 1.
  """
  half = np.array([0.04, 0.03, 0.025])
  thing = dataclasses.replace(
    objects.sample_object("soft_ball", 0),
    soft=objects.SoftBody(shape, tuple(half), young=1e5),
  )
  spec = mujoco.MjSpec()
  spec.option.gravity = (0, 0, 0)
  spec.option.integrator = mujoco.mjtIntegrator.mjINT_DISCRETE
  names = objects.add_objects(spec, [thing])
  model = spec.compile()
  data = mujoco.MjData(model)
  (body,) = objects.find_bodies(model, names, [thing])
  mujoco.mj_forward(model, data)
  arms = body.nodes(data) - body.position(data)
  along = np.cross(np.eye(3)[axis], arms)  # where nodes move when it turns
  torque, moved = 1e-3, body.qvel.reshape(-1, 3)
  data.qfrc_applied[moved] = torque * along / np.sum(along**2)
  mujoco.mj_step(model, data, nstep=25)
  speed = np.sum(along * data.qvel[moved]) / np.sum(along**2)
  inner, mass = half - 0.002, shapes.mass(thing)  # nodes are beneath the skin
  at_corners = mass * (np.sum(inner**2) - inner[axis] ** 2)
  assert torque * data.time / speed == pytest.approx(at_corners, rel=0.02)
  solid = mass * np.delete(half**2 / squares, axis).sum()
  assert 2.5 < at_corners / solid < 4.8


@pytest.mark.parametrize("family", SOFT)
def test_a_soft_body_gives_way_to_the_fingers_and_can_be_lifted(family):
  env = GraspEnv(units.sample_unit(1), [objects.sample_object(family, 0)], 48)
  rng = np.random.default_rng(1)
  env.fill(rng)
  env.begin(rng)
  (body,) = env.scene.bodies
  flat = body.nodes(env.data)[:, :2] - body.position(env.data)[:2]
  _, axes = np.linalg.eigh(flat.T @ flat)
  yaw = np.arctan2(axes[1, 1], axes[0, 1])  # fingers close across its length
  yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2
  pose = np.array([*body.position(env.data)[:2], env.unit.table_height + 0.08, yaw])
  env.approach(pose)
  pose[2] = env.unit.table_height
  env.controller.move_to(pose)
  before, _ = stretch(body, env.data)
  env.controller.drive(CLOSING_TORQUE, 0.4)
  squeezed, volume = stretch(body, env.data)
  outcome = env.grasp(rng)
  after, _ = stretch(body, env.data)
  warned = sum(warning.number for warning in env.data.warning)
  env.close()
  assert before < 0.03
  assert squeezed > 0.08
  assert 0.65 < volume < 1.1
  assert outcome.simulator_truth and outcome.success
  assert after < 0.03  # elastic: it has its own shape again
  assert warned == 0
