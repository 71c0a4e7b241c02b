"""An arm of MuJoCo Menagerie instead of the built-in one, for those who have it.

    export MENAGERIE_ROOT=/path/to/mujoco_menagerie
    ... --arm=menagerie:kuka_iiwa_14

Its bodies, masses and looks replace ours; the gripper with its wear, the servos' gains
and the inverse kinematics stay, so that all else works as before. That the arm is where
the inverse kinematics put it is verified whenever a cell is built.
"""

import dataclasses
import os
from pathlib import Path

import mujoco
import numpy as np

from envs.arm import (
  ARMATURE,
  MAX_TORQUE,
  SERVO_DAMPING,
  SERVO_STIFFNESS,
  MountedArm,
  inverse_kinematics,
)
from envs.units import fleet_workspace

PREFIX = "menagerie:"
ROOT = "MENAGERIE_ROOT"
SOURCE = "https://github.com/google-deepmind/mujoco_menagerie"
_NAMES = "menagerie/"  # before all names of the model, in the cell
_NEAR = 1e-4  # m, and rad: as far as the tip may be from where it should


class MenagerieError(ValueError):
  """An arm that is not there or does not fit; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class _Layout:
  """What is called how in a model."""

  file: str
  base: str  # body
  joints: tuple[str, ...]
  flange: str  # site


_LAYOUTS = {
  "kuka_iiwa_14": _Layout(
    file="kuka_iiwa_14/iiwa14.xml",
    base="base",
    joints=tuple(f"joint{i}" for i in range(1, 8)),
    flange="attachment_site",
  )
}


def add_menagerie_arm(spec: mujoco.MjSpec, name: str) -> MountedArm:
  """Adds an arm of the Menagerie at the origin of the base frame.

  As with the built-in arm, links are seen but do not collide, and gravity is
  compensated for.

  Args:
    name: `menagerie:` and a model, see `Unit.arm`.

  Raises:
    MenagerieError: another model, no Menagerie, or one with another layout.
  """
  layout = _layout(name)
  path = _find(layout)
  try:
    arm = mujoco.MjSpec.from_file(str(path))
  except ValueError as error:
    raise MenagerieError(
      f"arm {name}: {path} cannot be loaded: {str(error).strip()}"
    ) from error
  _require(arm, layout, path)
  # Lights and cameras are the cell's own; keyframes know nothing of its objects.
  for thing in (*arm.lights, *arm.cameras, *arm.keys):
    arm.delete(thing)
  for geom in arm.geoms:
    geom.contype = geom.conaffinity = 0
  for body in arm.bodies[1:]:
    body.gravcomp = 1.0
  servos = _set_servos(arm, layout)
  site = arm.site(layout.flange)
  flange = site.parent.add_body(name="flange", pos=site.pos, quat=site.quat)
  for field in ("type", "axisangle", "euler", "xyaxes", "zaxis"):
    setattr(flange.alt, field, getattr(site.alt, field))
  _take_options(arm, spec)
  spec.attach(arm, prefix=_NAMES, frame=spec.worldbody.add_frame())
  return MountedArm(
    flange=spec.body(f"{_NAMES}flange"),
    joints=tuple(f"{_NAMES}{joint}" for joint in layout.joints),
    servos=tuple(f"{_NAMES}{servo}" for servo in servos),
  )


def check_kinematics(
  model: mujoco.MjModel, arm_qpos: np.ndarray, tip_site: int, tool_length: float
) -> None:
  """Compares the tip with where the inverse kinematics say it is.

  Args:
    model: a cell.
    arm_qpos: int[7] of qpos.
    tip_site: of the gripper.
    tool_length: from the flange to the tip, m.

  Raises:
    MenagerieError: it is elsewhere or turned otherwise, or joints reach less far.
  """
  data = mujoco.MjData(model)
  low, high = fleet_workspace()
  corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(4, -1).T
  joints = inverse_kinematics(corners, tool_length)
  limits = model.jnt_range[_joints_at(model, arm_qpos)]
  beyond = np.argwhere((joints < limits[:, 0]) | (joints > limits[:, 1]))
  if len(beyond):
    row, joint = beyond[0]
    raise MenagerieError(
      f"the arm's joint {joint + 1} ends at {np.rad2deg(limits[joint]).round(1)}"
      f" degrees; the workspace needs {np.rad2deg(joints[row, joint]):.1f}"
    )
  for pose, angles in zip(corners.astype(np.float64), joints, strict=True):
    data.qpos[arm_qpos] = angles
    mujoco.mj_kinematics(model, data)
    away = float(np.linalg.norm(data.site_xpos[tip_site] - pose[:3]))
    cos, sin = np.cos(pose[3]), np.sin(pose[3])
    upside_down = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
    turn = data.site_xmat[tip_site].reshape(3, 3) @ upside_down.T
    # From the sine of half the angle: its cosine says nothing of small ones.
    turned = 2 * np.arcsin(min(1.0, np.linalg.norm(turn - np.eye(3)) / np.sqrt(8)))
    if away > _NEAR or turned > _NEAR:
      raise MenagerieError(
        f"the arm's tip is {1e3 * away:.2f} mm and {np.rad2deg(turned):.2f} degrees"
        f" from pose {pose.round(3).tolist()}, where the inverse kinematics of the"
        " iiwa 14 put it: this is another arm, or another version of the model"
      )


def _layout(name: str) -> _Layout:
  model = name.removeprefix(PREFIX)
  if not name.startswith(PREFIX) or model not in _LAYOUTS:
    known = ", ".join(f"{PREFIX}{each}" for each in sorted(_LAYOUTS))
    raise MenagerieError(f"arm {name!r}: expected built_in or {known}")
  return _LAYOUTS[model]


def _find(layout: _Layout) -> Path:
  root = os.environ.get(ROOT)
  if not root:
    raise MenagerieError(
      f"{ROOT} is not set: download {SOURCE} and set it to that folder"
    )
  path = Path(root).expanduser() / layout.file
  if not path.is_file():
    raise MenagerieError(
      f"{path} is missing: {ROOT} must name a copy of {SOURCE} that holds it"
    )
  return path


def _require(arm: mujoco.MjSpec, layout: _Layout, path: Path) -> None:
  parts = {
    f"body {layout.base}": arm.body(layout.base),
    **{f"joint {name}": arm.joint(name) for name in layout.joints},
    f"site {layout.flange}": arm.site(layout.flange),
  }
  missing = [name for name, part in parts.items() if part is None]
  if missing:
    raise MenagerieError(
      f"{path} has no {', no '.join(missing)}: this version of the model has another"
      " layout than the one known here"
    )


def _take_options(arm: mujoco.MjSpec, spec: mujoco.MjSpec) -> None:
  """Gives the model the cell's physics options, or MuJoCo would warn of each other."""
  for name in dir(spec.option):
    if not name.startswith("_"):
      setattr(arm.option, name, getattr(spec.option, name))


def _set_servos(arm: mujoco.MjSpec, layout: _Layout) -> list[str]:
  """Gives the joints our servos' gains; returns the names of their actuators.

  The model's own are softer and lag a tenth of a second behind, longer than our motions
  wait; rotors' inertia it has none.
  """
  by_joint = {actuator.target: actuator for actuator in arm.actuators}
  missing = [name for name in layout.joints if name not in by_joint]
  if missing:
    raise MenagerieError(f"{layout.file} has no actuator of {missing[0]}")
  names = []
  for i, name in enumerate(layout.joints):
    actuator = by_joint[name]
    actuator.set_to_position(kp=SERVO_STIFFNESS[i], kv=SERVO_DAMPING[i])
    actuator.forcelimited = True
    actuator.forcerange = (-MAX_TORQUE[i], MAX_TORQUE[i])
    arm.joint(name).armature = ARMATURE[i]
    names.append(actuator.name)
  return names


def _joints_at(model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
  return np.array([int(np.nonzero(model.jnt_qposadr == adr)[0][0]) for adr in qpos])
