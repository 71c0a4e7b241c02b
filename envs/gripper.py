"""The compliant, underactuated two-finger gripper (Section 5.1, Figure 7).

Each finger has a proximal and a distal link; one drive closes both proximal joints
through a common tendon, by force. A soft spring keeps each distal pad upright until
a contact bends it: the grip conforms to odd shapes, and is prone to slipping.

Local frame of the palm: z towards the fingertips, fingers left (+y) and right (-y).
"""

import mujoco
import numpy as np

from envs.units import Finger

PALM_LENGTH = 0.065
PIVOT = 0.025  # of the proximal joint from the middle
PROXIMAL = 0.060
DISTAL = 0.052
PAD_HALF_THICKNESS = 0.006
PAD_HALF_WIDTH = 0.013
OPEN_ANGLE = np.deg2rad(26.0)  # of a proximal link, outwards
CLOSED_ANGLE = np.deg2rad(24.0)  # inwards, where the joint stops
CLEARANCE = 0.004  # of the tip point below the pads: 'at table height' scrapes nothing
TOOL_LENGTH = PALM_LENGTH + PROXIMAL + DISTAL + CLEARANCE

CLOSING_TORQUE = 1.4  # at each proximal joint, N m: about 14 N at the pads
OPENING_TORQUE = 1.0
UPRIGHT_STIFFNESS = 9.0  # of the spring that keeps a pad upright, N m/rad
DRIVE = "gripper_drive"
TIP = "gripper_tip"
PROXIMAL_JOINTS = ("left_proximal", "right_proximal")
FINGER_JOINTS = (*PROXIMAL_JOINTS, "left_distal", "right_distal")

_DARK = (0.16, 0.16, 0.18, 1.0)
_METAL = (0.25, 0.25, 0.28, 1.0)


def add_gripper(
  spec: mujoco.MjSpec, flange: mujoco.MjsBody, fingers: tuple[Finger, Finger]
) -> None:
  """Mounts a gripper with the given wear on the flange."""
  # Turned half way round, so that the pose's yaw is joint 1 less joint 7.
  palm = flange.add_body(name="palm", quat=(0, 0, 0, 1))
  palm.gravcomp = 1.0
  palm.add_geom(
    type=mujoco.mjtGeom.mjGEOM_BOX,
    pos=(0, 0, PALM_LENGTH / 2),
    size=(0.018, 0.034, PALM_LENGTH / 2),
    rgba=_DARK,
    mass=0.6,
  )
  # Group 4 is not drawn: a camera sees no point between the fingers.
  palm.add_site(name=TIP, pos=(0, 0, TOOL_LENGTH), size=(0.001, 0, 0), group=4)
  for side, name, finger in zip((1, -1), ("left", "right"), fingers, strict=True):
    _add_finger(spec, palm, side, name, finger)
  drive = spec.add_tendon(name=DRIVE)
  for joint in PROXIMAL_JOINTS:
    drive.wrap_joint(joint, 1.0)
  spec.add_actuator(
    name=DRIVE,
    target=DRIVE,
    trntype=mujoco.mjtTrn.mjTRN_TENDON,
    ctrlrange=(-OPENING_TORQUE, CLOSING_TORQUE),
    ctrllimited=True,
  )
  # Without a weak tie the pair would drift sideways: the drive feels only the sum.
  tie = spec.add_tendon(name="centring", stiffness=1.0, damping=0.05)
  tie.springlength = (0.0, 0.0)
  tie.wrap_joint(PROXIMAL_JOINTS[0], 1.0)
  tie.wrap_joint(PROXIMAL_JOINTS[1], -1.0)


def _add_finger(spec, palm, side: int, name: str, finger: Finger) -> None:
  # Angles are positive inwards; the zero of a proximal joint is the upright link.
  proximal = palm.add_body(name=f"{name}_proximal", pos=(0, side * PIVOT, PALM_LENGTH))
  proximal.gravcomp = 1.0
  proximal.add_joint(
    name=f"{name}_proximal",
    type=mujoco.mjtJoint.mjJNT_HINGE,
    axis=(side, 0, 0),
    range=(-OPEN_ANGLE, CLOSED_ANGLE),
    limited=True,
    damping=0.35,
    armature=0.004,
  )
  proximal.add_geom(
    type=mujoco.mjtGeom.mjGEOM_CAPSULE,
    fromto=(0, 0, 0, 0, 0, PROXIMAL),
    size=(0.007, 0, 0),
    rgba=_METAL,
    mass=0.05,
  )
  distal = proximal.add_body(name=f"{name}_distal", pos=(0, 0, PROXIMAL))
  distal.gravcomp = 1.0
  distal.add_joint(
    name=f"{name}_distal",
    type=mujoco.mjtJoint.mjJNT_HINGE,
    axis=(side, 0, 0),
    range=(-np.deg2rad(60), np.deg2rad(60)),
    limited=True,
    damping=0.03,
    armature=0.001,
  )
  half_length = (DISTAL - finger.tip_loss) / 2
  half_thickness = PAD_HALF_THICKNESS - finger.pad_loss / 2
  distal.add_geom(
    name=f"{name}_pad",
    type=mujoco.mjtGeom.mjGEOM_BOX,
    # The worn side is the inner one; the bend turns the tip outwards.
    pos=(0, side * finger.pad_loss / 2, half_length),
    quat=(np.cos(finger.bend / 2), -side * np.sin(finger.bend / 2), 0, 0),
    size=(PAD_HALF_WIDTH, half_thickness, half_length),
    rgba=(*finger.colour, 1.0),
    mass=0.04,
    friction=(finger.friction, 0.02, 0.002),
    condim=6,
    priority=2,  # above all objects': in a grip the pads' own friction counts
    solref=(0.012, 1.0),
  )
  # Holds the pad upright whatever the proximal link does, softly.
  upright = spec.add_tendon(
    name=f"{name}_upright", stiffness=UPRIGHT_STIFFNESS, damping=0.05
  )
  upright.springlength = (0.0, 0.0)
  upright.wrap_joint(f"{name}_proximal", 1.0)
  upright.wrap_joint(f"{name}_distal", 1.0)


def opening(proximal_angles: np.ndarray) -> float:
  """The position reading: distance between unworn, upright pads.

  Args:
    proximal_angles: [2] rad, positive inwards, as the drive's encoder feels them.

  Returns:
    metres, 0 when closed on nothing (less when pads are worn), about 0.09 open.
  """
  outwards = -float(np.mean(proximal_angles))
  return 2 * (PIVOT + PROXIMAL * np.sin(outwards) - PAD_HALF_THICKNESS)
