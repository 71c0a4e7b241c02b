"""Task-space motion: straight lines, smooth in time, through closed-form IK."""

from collections.abc import Callable

import mujoco
import numpy as np
import numpy.typing as npt

from envs.arm import UnreachableError, inverse_kinematics
from envs.gripper import TOOL_LENGTH, opening
from envs.scene import TIMESTEP, Scene

CONTROL_SUBSTEPS = 5  # physics steps a control period: 50 Hz
LINEAR_SPEED = 0.6  # mean, m/s
CARRY_SPEED = 1.0  # mean, m/s, of what is held, over the bin
YAW_SPEED = 4.0  # mean, rad/s
SHORTEST_MOTION = 0.12  # s
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION

# MuJoCo would print its warnings and write MUJOCO_LOG.TXT into whatever folder this is;
# `check_stable` looks at its counters instead.
mujoco.set_mju_user_warning(lambda text: None)


class DivergedError(RuntimeError):
  """The physics became unstable; the attempt must be dropped and counted.

  Attributes:
    count: attempts that were lost, where a whole scene was given up.
  """

  count = 1


class Controller:
  """Moves one scene's arm and gripper. Poses are float (x, y, z, yaw), base frame."""

  def __init__(self, scene: Scene, data: mujoco.MjData):
    self._scene = scene
    self._data = data
    self._before = np.empty(mujoco.mj_stateSize(scene.model, _STATE))
    # Called after every control period, for videos.
    self.on_control_step: Callable[[], None] | None = None

  def pose(self) -> np.ndarray:
    """float32[4]: where the gripper's tip is, as the arm's encoders say."""
    site = self._scene.tip_site
    x, y, z = self._data.site_xpos[site]
    rotation = self._data.site_xmat[site]
    return np.array([x, y, z, np.arctan2(rotation[3], rotation[0])], np.float32)

  def configuration(self) -> np.ndarray:
    """float64[11]: joints of arm and fingers, rad, for `restore`."""
    return self._data.qpos[self._scene.robot_qpos].copy()

  def restore(self, configuration: np.ndarray) -> None:
    """Puts arm and fingers back, at rest; for a look, nothing may be in between."""
    self._data.qpos[self._scene.robot_qpos] = configuration
    self._data.qvel[self._scene.robot_qvel] = 0.0
    mujoco.mj_forward(self._scene.model, self._data)

  def gripper_reading(self) -> float:
    """The drive's position as an opening between pads, m."""
    return opening(self._data.qpos[self._scene.finger_qpos])

  def teleport(self, joints: np.ndarray) -> None:
    """Sets the arm's joints at rest, fingers as they are.

    Only through free air: it saves simulating motions that touch nothing.
    """
    scene, data = self._scene, self._data
    data.qpos[scene.arm_qpos] = joints
    data.qvel[scene.arm_qvel] = 0.0
    data.ctrl[scene.arm_ctrl] = joints
    mujoco.mj_forward(scene.model, data)

  def move_to(self, target: npt.ArrayLike, speed: float = LINEAR_SPEED) -> None:
    """Moves along a straight line to a pose, then lets the arm catch up.

    Raises:
      UnreachableError: the target is out of the arm's reach.
      DivergedError: the physics became unstable, or forced the arm out of its reach.
    """
    start = self.pose().astype(np.float64)
    change = np.asarray(target, np.float64) - start
    duration = max(
      SHORTEST_MOTION,
      float(np.linalg.norm(change[:3])) / speed,
      abs(float(change[3])) / YAW_SPEED,
    )
    count = int(np.ceil(duration / (CONTROL_SUBSTEPS * TIMESTEP)))
    phase = np.arange(1, count + 1) / count
    blend = phase**3 * (10 - 15 * phase + 6 * phase**2)  # minimum jerk
    try:
      inverse_kinematics(start, TOOL_LENGTH)
    except UnreachableError as error:
      raise DivergedError(f"something forced the arm away: {error}") from error
    for joints in inverse_kinematics(start + blend[:, None] * change, TOOL_LENGTH):
      self._data.ctrl[self._scene.arm_ctrl] = joints
      self._advance()
    self.wait(0.06)

  def drive(self, torque: float, seconds: float) -> None:
    """Closes (positive) or opens the gripper by force for a time, N m."""
    self._data.ctrl[self._scene.drive_ctrl] = torque
    self.wait(seconds)

  def wait(self, seconds: float) -> None:
    """Lets time pass with all commands as they are."""
    for _ in range(int(np.ceil(seconds / (CONTROL_SUBSTEPS * TIMESTEP)))):
      self._advance()

  def _advance(self) -> None:
    model, data = self._scene.model, self._data
    mujoco.mj_getState(model, data, self._before, _STATE)
    try:
      mujoco.mj_step(model, data, nstep=CONTROL_SUBSTEPS)
    except mujoco.FatalError:
      self._advance_awake()
    check_stable(data)
    if self.on_control_step is not None:
      self.on_control_step()

  def _advance_awake(self) -> None:
    """Takes a control period again with all objects awake.

    In MuJoCo 3.17 a step ends in a fatal error when something wakes an object that
    has drifted into another sleeping one with its very last step before sleeping.
    """
    model, data = self._scene.model, self._data
    mujoco.mj_resetData(model, data)
    mujoco.mj_setState(model, data, self._before, _STATE)
    model.opt.enableflags &= ~int(mujoco.mjtEnableBit.mjENBL_SLEEP)
    try:
      mujoco.mj_step(model, data, nstep=CONTROL_SUBSTEPS)
    except mujoco.FatalError as error:
      raise DivergedError(f"physics failed at {data.time:.3f} s: {error}") from error
    finally:
      model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)


_UNSTABLE = (
  # A full arena drops contacts: what happens then is not physics either.
  mujoco.mjtWarning.mjWARN_CONTACTFULL,
  mujoco.mjtWarning.mjWARN_CNSTRFULL,
  mujoco.mjtWarning.mjWARN_BADQPOS,
  mujoco.mjtWarning.mjWARN_BADQVEL,
  mujoco.mjtWarning.mjWARN_BADQACC,
)


def check_stable(data: mujoco.MjData) -> None:
  """Raises DivergedError once MuJoCo has warned of a bad state."""
  for warning in _UNSTABLE:
    if data.warning[warning].number:
      raise DivergedError(
        f"physics diverged at {data.time:.3f} s ({warning.name},"
        f" degree of freedom {data.warning[warning].lastinfo})"
      )
