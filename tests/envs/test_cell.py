"""Arm, gripper, bin and cameras: what the cell is made of."""

import mujoco
import numpy as np
import pytest

from envs import arm, cameras, gripper, objects, scene, units
from envs import bin as bin_lib
from envs.control import DivergedError
from envs.grasp_env import HOME_JOINTS, GraspEnv


@pytest.fixture(scope="module")
def built():
  unit = units.sample_unit(0)
  things = objects.sample_objects(np.random.default_rng(0), 4)
  return scene.build_scene(unit, things, 64)


def test_a_seed_is_a_unit():
  assert units.sample_unit(3) == units.sample_unit(3)
  assert units.sample_unit(3) != units.sample_unit(4)
  training = {unit.camera for unit in units.fleet_units(14, "training")}
  held_out = {unit.camera for unit in units.fleet_units(14, "held_out")}
  assert len(training) == len(held_out) == 14
  assert not training & held_out


@pytest.mark.parametrize("field", ["camera", "lights", "fingers", "actuation"])
def test_units_differ_in_everything_that_wears(field):
  values = {getattr(unit, field) for unit in units.fleet_units(6)}
  assert len(values) == 6


def test_left_and_right_fingers_wear_apart():
  left, right = units.sample_unit(0).fingers
  assert left != right


def test_unknown_families_are_named():
  with pytest.raises(ValueError, match="training"):
    units.sample_unit(0, "spare")
  with pytest.raises(ValueError, match="ellipsoid"):
    objects.sample_object("teapot", 0)
  with pytest.raises(ValueError, match="held_out"):
    objects.sample_objects(np.random.default_rng(0), 1, "spare")


def test_object_groups_share_no_family():
  assert not set(objects.TRAINING) & set(objects.HELD_OUT)


def test_inverse_kinematics_reaches_the_whole_workspace(built):
  rng = np.random.default_rng(0)
  data = mujoco.MjData(built.model)
  low, high = built.unit.workspace()
  corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(4, -1).T
  for pose in np.concatenate([corners, rng.uniform(low, high, (200, 4))]):
    joints = arm.inverse_kinematics(pose, gripper.TOOL_LENGTH)
    assert np.all(np.abs(joints) <= arm.JOINT_LIMITS)
    data.qpos[built.arm_qpos] = joints
    mujoco.mj_kinematics(built.model, data)
    rotation = data.site_xmat[built.tip_site].reshape(3, 3)
    np.testing.assert_allclose(data.site_xpos[built.tip_site], pose[:3], atol=1e-6)
    np.testing.assert_allclose(rotation[:, 2], [0, 0, -1], atol=1e-6)
    np.testing.assert_allclose(
      rotation[:2, 0], [np.cos(pose[3]), np.sin(pose[3])], atol=1e-6
    )


def test_unreachable_poses_are_refused():
  with pytest.raises(arm.UnreachableError, match="0.820 m"):
    arm.inverse_kinematics(np.array([1.5, 0, 0, 0]), gripper.TOOL_LENGTH)
  with pytest.raises(arm.UnreachableError, match="joint 7"):
    arm.inverse_kinematics(np.array([0.5, 0, 0.1, 3.1]), gripper.TOOL_LENGTH)


def test_the_arm_goes_where_it_is_sent():
  env = GraspEnv(units.sample_unit(1), [], 64)
  env.approach(np.array([0.55, 0.05, 0.1, 0.3]))
  target = np.array([0.60, -0.05, 0.05, -0.5])
  env.controller.move_to(target)
  error = np.abs(env.pose() - target)
  env.close()
  assert error[:3].max() < 0.004
  assert error[3] < np.deg2rad(1.0)


def test_an_arm_that_was_forced_out_of_its_reach_costs_the_attempt():
  env = GraspEnv(units.sample_unit(1), [], 64)
  target = np.array([0.46, 0.0, 0.1, 0.0])
  folded = arm.inverse_kinematics(target, gripper.TOOL_LENGTH)
  folded[3] = -arm.JOINT_LIMITS[3] - 0.05
  env.controller.teleport(folded)
  with pytest.raises(DivergedError, match="forced the arm away.*joint 4"):
    env.controller.move_to(target)
  env.close()


def test_the_gripper_opens_wide_and_closes_on_nothing():
  env = GraspEnv(units.sample_unit(1), [], 64)
  env.approach(np.array([0.55, 0.0, 0.1, 0.0]))
  env.controller.drive(-gripper.OPENING_TORQUE, 0.4)
  assert 0.08 < env.controller.gripper_reading() < 0.10
  env.controller.drive(gripper.CLOSING_TORQUE, 0.6)
  assert env.controller.gripper_reading() < 0.005
  env.close()


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left")])
def test_each_finger_bends_on_its_own(built, sides):
  """A push against one pad bends its finger, and leaves the other (Section 5.1)."""
  assert built.model.nu == len(arm.JOINT_NAMES) + 1  # one drive for four joints
  pushed, other = (f"{side}_distal" for side in sides)
  env = GraspEnv(built.unit, [], 64)
  try:
    env.approach(np.array([0.55, 0.0, 0.15, 0.0]))
    # Wide open, the proximal links rest at their stops: only the pads can give way.
    env.controller.drive(-gripper.OPENING_TORQUE, 0.5)
    before = {name: env.data.joint(name).qpos[0] for name in (pushed, other)}
    outwards = env.data.body(pushed).xpos - env.data.body(other).xpos
    pad = env.scene.model.body(pushed).id
    env.data.xfrc_applied[pad, :3] = 20 * outwards / np.linalg.norm(outwards)  # N
    env.controller.drive(-gripper.OPENING_TORQUE, 0.5)
    bent = {name: env.data.joint(name).qpos[0] - before[name] for name in before}
  finally:
    env.close()
  assert bent[pushed] < -np.deg2rad(2)  # positive is inwards
  assert abs(bent[other]) < np.deg2rad(0.1)


def test_worn_pads_are_thinner_and_shorter():
  new = units.Finger(0.0, 0.0, 0.0, 1.0, (0.1, 0.1, 0.1))
  worn = units.Finger(0.002, 0.005, 0.05, 0.7, (0.1, 0.1, 0.1))
  spec = mujoco.MjSpec()
  gripper.add_gripper(spec, spec.worldbody.add_body(), (new, worn))
  model = spec.compile()
  left, right = model.geom("left_pad"), model.geom("right_pad")
  assert left.size[1] - right.size[1] == pytest.approx(0.001)
  assert left.size[2] - right.size[2] == pytest.approx(0.0025)
  assert left.friction[0] > right.friction[0]


def test_at_home_the_arm_is_out_of_every_view():
  for unit in [*units.fleet_units(14), *units.fleet_units(14, "held_out")]:
    built = scene.build_scene(unit, [], 64)
    data = mujoco.MjData(built.model)
    data.qpos[built.arm_qpos] = HOME_JOINTS
    mujoco.mj_kinematics(built.model, data)
    robot = [i for i in range(built.model.ngeom) if built.model.geom_bodyid[i] > 0]
    seen = _in_view(unit.camera, data.geom_xpos[robot])
    assert not seen.any(), unit.name


def test_the_workspace_is_in_every_view():
  for unit in [*units.fleet_units(14), *units.fleet_units(14, "held_out")]:
    low, high = unit.workspace()
    corners = [
      (x, y, unit.table_height) for x in (low[0], high[0]) for y in (low[1], high[1])
    ]
    assert _in_view(unit.camera, np.array(corners)).all(), unit.name


def test_projection_agrees_with_the_renderer():
  unit = units.sample_unit(2)
  ball = objects.ObjectSpec(
    "ball-0", "ball", (objects.Part("sphere", (0.02,)),), 500.0, 1.0, (1.0, 0.0, 0.0)
  )
  env = GraspEnv(unit, [ball], 128)
  env.begin(np.random.default_rng(0))
  where = np.array([0.6, -0.05, unit.table_height + 0.02])
  env.scene.bodies[0].place(env.data, where, [1, 0, 0, 0])
  mujoco.mj_forward(env.scene.model, env.data)
  image = env.image().astype(int)
  env.close()
  red = (image[..., 0] - image[..., 1:].max(axis=-1)) > 60
  rows, columns = np.nonzero(red)
  expected = cameras.project(unit.camera, where, 128)
  np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=2.0)


def test_the_bin_keeps_what_is_dropped_into_it():
  env = GraspEnv(
    units.sample_unit(0), objects.sample_objects(np.random.default_rng(5), 8), 64
  )
  env.fill(np.random.default_rng(1))
  positions = env.object_positions()
  env.close()
  assert bin_lib.contains(positions, env.unit.table_height).all()
  # Nothing sinks into the floor, nothing floats.
  assert positions[:, 2].min() > env.unit.table_height + 0.005
  assert positions[:, 2].max() < env.unit.table_height + 0.15
  speeds = np.abs(env.data.qvel[env.scene.object_qvel])
  assert speeds.max() < 0.5


def _in_view(camera, points):
  pixels = cameras.project(camera, points, 1)
  return ((pixels > 0) & (pixels < 1)).all(axis=-1)
