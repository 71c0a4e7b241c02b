"""Puts a cell together from its parts, compiles it, and names what is in it."""

import dataclasses

import mujoco
import numpy as np

from envs.arm import BUILT_IN, add_arm
from envs.bin import add_bin
from envs.cameras import add_camera, add_lights, focal_length
from envs.gripper import (
  DRIVE,
  FINGER_JOINTS,
  PROXIMAL_JOINTS,
  TIP,
  TOOL_LENGTH,
  add_gripper,
)
from envs.menagerie import add_menagerie_arm, check_kinematics
from envs.objects import Body, ObjectSpec, add_objects, find_bodies
from envs.surfaces import FACET_ERROR, draw_as_meshes
from envs.units import Camera, Unit

TIMESTEP = 0.004  # s


@dataclasses.dataclass(frozen=True)
class Scene:
  """A compiled cell with the addresses of its parts in MuJoCo's arrays."""

  unit: Unit
  objects: tuple[ObjectSpec, ...]
  model: mujoco.MjModel
  arm_qpos: np.ndarray  # [7] of qpos
  arm_qvel: np.ndarray  # [7] of qvel
  arm_ctrl: np.ndarray  # [7] of ctrl
  finger_qpos: np.ndarray  # [2] of qpos: the proximal joints
  robot_qpos: np.ndarray  # [11] of qpos: arm and all finger joints
  robot_qvel: np.ndarray  # [11] of qvel
  drive_ctrl: int
  tip_site: int
  bodies: tuple[Body, ...]  # where each object is
  object_qvel: np.ndarray  # of qvel: all objects' velocities


def build_scene(
  unit: Unit, objects: list[ObjectSpec], frame_size: int, largest_image: int = 0
) -> Scene:
  """Compiles a cell: one unit, its bin, and the objects at no particular place.

  Args:
    frame_size: of the images that policies see, pixels; decides how finely is drawn.
    largest_image: of any other image that will be drawn, pixels.

  Raises:
    MenagerieError: the unit's arm is one that is not there or does not fit.
  """
  spec = mujoco.MjSpec()
  spec.modelname = unit.name
  spec.compiler.degree = False
  any_soft = any(thing.soft is not None for thing in objects)
  _set_options(spec, any_soft, frame_size, max(frame_size, largest_image))
  add_lights(spec, unit.lights)
  add_camera(spec, unit.camera)
  add_bin(spec, unit)
  built_in = unit.arm == BUILT_IN
  arm = add_arm(spec) if built_in else add_menagerie_arm(spec, unit.arm)
  add_gripper(spec, arm.flange, unit.fingers)
  names = add_objects(spec, objects)
  draw_as_meshes(spec, FACET_ERROR * _metres_per_pixel(unit.camera, frame_size))
  model = spec.compile()

  arm_joints = [model.joint(name) for name in arm.joints]
  robot_joints = [model.joint(name) for name in (*arm.joints, *FINGER_JOINTS)]
  bodies = find_bodies(model, names, objects)
  scene = Scene(
    unit=unit,
    objects=tuple(objects),
    model=model,
    arm_qpos=np.array([j.qposadr[0] for j in arm_joints]),
    arm_qvel=np.array([j.dofadr[0] for j in arm_joints]),
    arm_ctrl=np.array([model.actuator(name).id for name in arm.servos]),
    finger_qpos=np.array([model.joint(n).qposadr[0] for n in PROXIMAL_JOINTS]),
    robot_qpos=np.array([j.qposadr[0] for j in robot_joints]),
    robot_qvel=np.array([j.dofadr[0] for j in robot_joints]),
    drive_ctrl=model.actuator(DRIVE).id,
    tip_site=model.site(TIP).id,
    bodies=bodies,
    object_qvel=np.array([adr for body in bodies for adr in body.qvel], np.int64),
  )
  if not built_in:
    check_kinematics(model, scene.arm_qpos, scene.tip_site, TOOL_LENGTH)
  return scene


def object_positions(scene: Scene, data: mujoco.MjData) -> np.ndarray:
  """float64[N, 3]: the middle of every object, base frame, m."""
  return np.array([b.position(data) for b in scene.bodies]).reshape(-1, 3)


def _metres_per_pixel(camera: Camera, size: int) -> float:
  """At the point that a camera looks at, in an image of `size` pixels."""
  away = np.linalg.norm(np.subtract(camera.position, camera.target))
  return float(away) / focal_length(camera, size)


def _set_options(
  spec: mujoco.MjSpec, any_soft: bool, frame_size: int, largest_image: int
) -> None:
  option = spec.option
  option.timestep = TIMESTEP
  # Only the discrete integrator knows elastic solids; it is the slower one.
  option.integrator = (
    mujoco.mjtIntegrator.mjINT_DISCRETE
    if any_soft
    else mujoco.mjtIntegrator.mjINT_IMPLICITFAST
  )
  option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
  option.impratio = 20.0  # grips creep less
  option.iterations = 20
  option.tolerance = 1e-6
  option.ls_iterations = 20
  # A diverged attempt is detected and dropped; it is never silently reset.
  option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
  # What lies still is not simulated until it is touched: half of the physics' time.
  option.enableflags |= mujoco.mjtEnableBit.mjENBL_SLEEP
  # Heaps creep for seconds at a millimetre a second, which costs most of a full bin's
  # time; an attempt counts what is slower than 20 as at rest.
  option.sleep_tolerance = 0.005  # m/s
  spec.visual.global_.offwidth = largest_image
  spec.visual.global_.offheight = largest_image
  # Details that are invisible in a small frame take three quarters of its drawing.
  fine = frame_size > 128
  quality = spec.visual.quality
  quality.offsamples = 4
  quality.shadowsize = 1024 if fine else 512
  quality.numslices, quality.numstacks = (20, 10) if fine else (16, 8)
  quality.numquads = 1
  # The shadow map spans the bin, not the whole table: its texels are then finer than
  # what casts shadows there.
  spec.visual.map.shadowclip = 0.25
  spec.visual.map.znear = 0.05
  spec.visual.map.zfar = 10.0
  spec.visual.headlight.active = 0
