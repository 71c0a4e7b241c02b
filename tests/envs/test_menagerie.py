"""An arm of MuJoCo Menagerie, by a stand-in of our own with the same names."""

import dataclasses

import mujoco
import numpy as np
import pytest

from envs import arm, gripper, rollout, scene, units
from envs.baselines import RandomPolicy
from envs.grasp_env import HOME_JOINTS, GraspEnv
from envs.menagerie import MenagerieError

# Height of each link above its parent, arm stretched up; the turn of its frame, so
# that every joint turns about its own z axis; the joint's range, degrees.
LINKS = (
  (0.1575, "1 0 0 0", 170),
  (0.2025, "0.5 -0.5 -0.5 -0.5", 120),
  (0.2045, "0.5 0.5 0.5 0.5", 170),
  (0.2155, "0.5 0.5 -0.5 0.5", 120),
  (0.1845, "0.5 -0.5 0.5 -0.5", 170),
  (0.2155, "0.5 -0.5 -0.5 -0.5", 120),
  (0.081, "0.5 0.5 0.5 0.5", 175),
)
# The way up, in a parent's frame that may lie on its side.
UPWARDS = ("0 0 {}",) + ("0 0 {}", "{} 0 0", "0 0 {}", "{} 0 0", "0 0 {}", "{} 0 0")


def model_xml(site: float = 0.045, elbow: float = 120) -> str:
  """An arm of the iiwa's lengths, with what a cell must not take over from it."""
  bodies = "{}"
  for i, ((height, turn, limit), way) in enumerate(zip(LINKS, UPWARDS, strict=True)):
    limit = elbow if i == 3 else limit
    bodies = bodies.replace(
      "{}",
      f'<body name="link{i + 1}" pos="{way.format(height)}" quat="{turn}">'
      '<inertial mass="3" pos="0 0 0.05" diaginertia="0.02 0.02 0.02"/>'
      f'<joint name="joint{i + 1}" axis="0 0 1" range="-{limit} {limit}"/>'
      '<geom size="0.05" group="2"/>{}</body>',
    )
  bodies = bodies.replace("{}", f'<site name="attachment_site" pos="0 0 {site}"/>')
  servos = "".join(
    f'<general name="servo_{i}" joint="joint{i}" gainprm="50" biastype="affine"'
    ' biasprm="0 -50 -5"/>'
    for i in range(1, 8)
  )
  return f"""<mujoco>
    <option timestep="0.001" gravity="0 0 3"/>
    <worldbody>
      <light pos="0 0 2"/>
      <camera name="over_shoulder"/>
      <body name="base"><geom size="0.1"/>{bodies}</body>
    </worldbody>
    <actuator>{servos}</actuator>
    <keyframe><key qpos="0 1 0 -1 0 0 0"/></keyframe>
  </mujoco>"""


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Puts a model where the Menagerie's would be."""

  def put(text: str) -> None:
    (tmp_path / "kuka_iiwa_14").mkdir(exist_ok=True)
    (tmp_path / "kuka_iiwa_14" / "iiwa14.xml").write_text(text)

  monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
  return put


def unit(name: str = "menagerie:kuka_iiwa_14") -> units.Unit:
  return dataclasses.replace(units.sample_unit(1), arm=name)


def build(name: str = "menagerie:kuka_iiwa_14") -> scene.Scene:
  return scene.build_scene(unit(name), [], 64)


def test_units_have_the_built_in_arm():
  assert units.sample_unit(0).arm == arm.BUILT_IN


@pytest.mark.filterwarnings("error")
def test_the_cell_stays_as_it_is_but_for_the_arm(write):
  write(model_xml())
  ours, theirs = build(arm.BUILT_IN).model, build().model
  assert (theirs.nlight, theirs.ncam, theirs.nkey) == (ours.nlight, ours.ncam, 0)
  assert (theirs.nq, theirs.nu) == (ours.nq, ours.nu)
  assert theirs.opt.timestep == ours.opt.timestep
  np.testing.assert_array_equal(theirs.opt.gravity, ours.opt.gravity)
  np.testing.assert_array_equal(theirs.cam_pos, ours.cam_pos)
  # The gripper is ours, wear and all.
  for pad in ("left_pad", "right_pad"):
    np.testing.assert_array_equal(theirs.geom(pad).size, ours.geom(pad).size)
  for index in range(theirs.ngeom):
    body = theirs.body(theirs.geom_bodyid[index])
    if body.name.startswith("menagerie/"):
      assert theirs.geom_contype[index] == theirs.geom_conaffinity[index] == 0
      assert theirs.body_gravcomp[body.id] == 1.0


def test_the_inverse_kinematics_hold_for_it(write):
  write(model_xml())
  built = build()
  data = mujoco.MjData(built.model)
  low, high = built.unit.workspace()
  for pose in np.random.default_rng(0).uniform(low, high, (20, 4)):
    data.qpos[built.arm_qpos] = arm.inverse_kinematics(pose, gripper.TOOL_LENGTH)
    mujoco.mj_kinematics(built.model, data)
    rotation = data.site_xmat[built.tip_site].reshape(3, 3)
    np.testing.assert_allclose(data.site_xpos[built.tip_site], pose[:3], atol=1e-6)
    np.testing.assert_allclose(rotation[:, 2], [0, 0, -1], atol=1e-6)
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    assert yaw == pytest.approx(pose[3], abs=1e-6)


def test_it_goes_where_it_is_sent(write):
  write(model_xml())
  env = GraspEnv(unit(), [], 64)
  env.approach(np.array([0.55, 0.05, 0.1, 0.3]))
  target = np.array([0.60, -0.05, 0.05, -0.5])
  env.controller.move_to(target)
  error = np.abs(env.pose() - target)
  env.controller.teleport(HOME_JOINTS)
  env.controller.wait(0.5)
  still = np.abs(env.data.qpos[env.scene.arm_qpos] - HOME_JOINTS).max()
  env.close()
  assert error[:3].max() < 0.004
  assert error[3] < np.deg2rad(1.0)
  assert still < 1e-3  # gravity does not pull it down


def test_attempts_are_made_with_it(write):
  write(model_xml())
  task = rollout.SceneTask(unit(), 3, 1, (2,), 3, "box,capsule", 48)
  (one,) = rollout.run_scene(task, RandomPolicy()).attempts
  (same,) = rollout.run_scene(task, RandomPolicy()).attempts
  np.testing.assert_array_equal(one.images, same.images)
  assert one.poses[-1, 2] - one.table_height < 0.05


@pytest.mark.parametrize(
  "name",
  ["menagerie:franka_emika_panda", "kuka", "menagerie:kuka_iiwa_14+robotiq_2f85"],
)
def test_other_arms_are_refused(name, write):
  with pytest.raises(MenagerieError, match="expected built_in or menagerie:kuka_iiwa"):
    build(name)


def test_no_menagerie_is_told_how_to_get(tmp_path, monkeypatch):
  monkeypatch.delenv("MENAGERIE_ROOT", raising=False)
  with pytest.raises(MenagerieError, match="MENAGERIE_ROOT is not set: download http"):
    build()
  monkeypatch.setenv("MENAGERIE_ROOT", str(tmp_path))
  with pytest.raises(MenagerieError, match="iiwa14.xml is missing: MENAGERIE_ROOT"):
    build()


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("<mujoco><worldbody>", "iiwa14.xml cannot be loaded"),
    (model_xml().replace("attachment_site", "flange"), "no site attachment_site"),
    (model_xml().replace('joint="joint7"', 'joint="joint6"'), "no actuator of joint7"),
    (model_xml(site=0.060), "tip is 15.00 mm and 0.00 degrees from pose"),
    (model_xml(elbow=90), "joint 4 ends at .*90.* degrees; the workspace needs"),
  ],
)
def test_models_that_do_not_fit_are_refused(text, error, write):
  write(text)
  with pytest.raises(MenagerieError, match=error):
    build()


def test_a_turned_flange_is_refused(write):
  site = '<site name="attachment_site"'
  write(model_xml().replace(site, f'{site} euler="0 0 3"'))
  with pytest.raises(MenagerieError, match="0.00 mm and 3.00 degrees"):
    build()
