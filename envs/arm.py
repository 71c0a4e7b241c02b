"""The 7-DoF arm: its bodies, and its closed-form inverse kinematics.

Lengths, joint ranges and torques are those of the KUKA LBR iiwa 14 R820 data sheet
(reach 820 mm, 14 kg payload, 29.9 kg, axes ±170 ±120 ±170 ±120 ±170 ±120 ±175
degrees; 320 320 176 176 110 40 40 Nm). Shapes are our own simple ones, and so is how
the mass is shared among the links. Motions (`envs.control`) are up to three times as
fast as the joints of that arm may turn: simulated time is what collection costs, and
nothing but the gripper touches anything.
"""

import dataclasses

import mujoco
import numpy as np

BASE_TO_SHOULDER = 0.360
UPPER_ARM = 0.420
FOREARM = 0.400
WRIST_TO_FLANGE = 0.126

JOINT_NAMES = tuple(f"arm_joint{i}" for i in range(1, 8))
JOINT_LIMITS = np.deg2rad([170.0, 120.0, 170.0, 120.0, 170.0, 120.0, 175.0])
MAX_TORQUE = np.array([320.0, 320.0, 176.0, 176.0, 110.0, 40.0, 40.0])
LINK_MASS = (4.0, 4.0, 3.5, 3.5, 2.5, 2.0, 0.6)  # sums to a base-less arm of 20 kg
# Each joint's position servo: stiff, critically damped about its reflected inertia.
SERVO_STIFFNESS = np.array([8e3, 8e3, 4e3, 4e3, 2e3, 1e3, 6e2])
SERVO_DAMPING = np.array([4e2, 4e2, 2e2, 2e2, 6e1, 2.5e1, 1.2e1])
ARMATURE = (0.1, 0.1, 0.1, 0.1, 0.02, 0.02, 0.02)  # of the rotors, kg m^2
BUILT_IN = "built_in"  # of `Unit.arm`

_WHITE = (0.82, 0.82, 0.80, 1.0)
_ORANGE = (0.85, 0.42, 0.12, 1.0)
_AXES = ((0, 0, 1), (0, 1, 0), (0, 0, 1), (0, -1, 0), (0, 0, 1), (0, 1, 0), (0, 0, 1))
# Height of each joint above its parent's, arm stretched upwards.
_OFFSETS = (0.1575, 0.2025, 0.2045, 0.2155, 0.1845, 0.2155, 0.081)


class UnreachableError(ValueError):
  """A pose that the arm cannot take."""


@dataclasses.dataclass(frozen=True)
class MountedArm:
  """An arm in a cell: what carries the gripper, and what moves it."""

  flange: mujoco.MjsBody  # its z axis points out of the arm
  joints: tuple[str, ...]  # seven names, from the base on
  servos: tuple[str, ...]  # actuators of the joints, controlled by angles in rad


def add_arm(spec: mujoco.MjSpec) -> MountedArm:
  """Adds the built-in arm at the origin of the base frame.

  Links are seen but do not collide: only the gripper touches things in a bin that
  lies within reach.
  """
  body = spec.worldbody.add_body(name="arm_base")
  _link(body, length=_OFFSETS[0], radius=0.075, colour=_WHITE)
  for i, name in enumerate(JOINT_NAMES):
    body = body.add_body(name=f"arm_link{i + 1}", pos=(0, 0, _OFFSETS[i]))
    body.gravcomp = 1.0
    body.add_joint(
      name=name,
      type=mujoco.mjtJoint.mjJNT_HINGE,
      axis=_AXES[i],
      range=(-JOINT_LIMITS[i], JOINT_LIMITS[i]),
      limited=True,
      armature=ARMATURE[i],
    )
    length = _OFFSETS[i + 1] if i < 6 else WRIST_TO_FLANGE - _OFFSETS[6]
    radius = (0.07, 0.066, 0.062, 0.058, 0.052, 0.044, 0.034)[i]
    colour = _WHITE if i % 2 else _ORANGE
    _link(body, length, radius, colour, mass=LINK_MASS[i])
    actuator = spec.add_actuator(
      name=f"{name}_servo",
      target=name,
      trntype=mujoco.mjtTrn.mjTRN_JOINT,
      ctrlrange=(-JOINT_LIMITS[i], JOINT_LIMITS[i]),
      ctrllimited=True,
      forcerange=(-MAX_TORQUE[i], MAX_TORQUE[i]),
      forcelimited=True,
    )
    actuator.set_to_position(kp=SERVO_STIFFNESS[i], kv=SERVO_DAMPING[i])
  flange = body.add_body(name="flange", pos=(0, 0, WRIST_TO_FLANGE - _OFFSETS[6]))
  return MountedArm(flange, JOINT_NAMES, tuple(f"{n}_servo" for n in JOINT_NAMES))


def _link(body, length, radius, colour, mass=4.0):
  body.add_geom(
    type=mujoco.mjtGeom.mjGEOM_CAPSULE,
    fromto=(0, 0, 0, 0, 0, length),
    size=(radius, 0, 0),
    rgba=colour,
    mass=mass,
    contype=0,
    conaffinity=0,
  )


def inverse_kinematics(pose: np.ndarray, tool_length: float) -> np.ndarray:
  """Joint angles that hold the tool vertical at a pose, elbow up, in closed form.

  With the elbow in the vertical plane through the wrist, joints 3 and 5 are zero,
  the rest is a planar triangle; the redundancy is spent on the raised elbow,
  which keeps the arm out of the camera's way.

  Args:
    pose: [..., 4] (x, y, z, yaw) of the tool's tip, base frame, m and rad.
    tool_length: from the flange to the tip, m.

  Returns:
    [..., 7] float64 rad.

  Raises:
    UnreachableError: out of reach or beyond a joint limit.
  """
  pose = np.asarray(pose, np.float64)
  x, y, z, yaw = np.moveaxis(pose, -1, 0)
  height = z + tool_length + WRIST_TO_FLANGE - BASE_TO_SHOULDER
  radius = np.hypot(x, y)
  reach = np.hypot(radius, height)
  # Folded closer than the upper arm less the forearm is out of reach as well.
  bad = (reach > UPPER_ARM + FOREARM) | (reach < UPPER_ARM - FOREARM)
  if np.any(bad):
    raise UnreachableError(
      f"pose {pose[bad][0].round(4).tolist()}: the wrist would be"
      f" {reach[bad][0]:.3f} m from the shoulder, whose reach is"
      f" {UPPER_ARM + FOREARM:.3f} m"
    )
  cos_elbow = (UPPER_ARM**2 + FOREARM**2 - reach**2) / (2 * UPPER_ARM * FOREARM)
  cos_shoulder = (UPPER_ARM**2 + reach**2 - FOREARM**2) / (2 * UPPER_ARM * reach)
  q1 = np.arctan2(y, x)
  q2 = np.arctan2(radius, height) - np.arccos(np.clip(cos_shoulder, -1, 1))
  q4 = np.arccos(np.clip(cos_elbow, -1, 1)) - np.pi
  q6 = np.pi - q2 + q4
  q7 = q1 - yaw
  zero = np.zeros_like(q1)
  joints = np.stack([q1, q2, zero, q4, zero, q6, q7], axis=-1)
  beyond = np.argwhere(np.abs(joints) > JOINT_LIMITS)
  if len(beyond):
    *where, joint = beyond[0]
    raise UnreachableError(
      f"pose {pose[tuple(where)].round(4).tolist()}: joint {joint + 1} would be at"
      f" {np.rad2deg(joints[tuple(beyond[0])]):.1f} degrees, its limit is"
      f" {np.rad2deg(JOINT_LIMITS[joint]):.0f}"
    )
  return joints
