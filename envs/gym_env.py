"""The cell as a Gymnasium environment; needs the extra `gym`.

  import gymnasium
  env = gymnasium.make("envs.gym_env:hand_eye/Grasp-v0", unit=3, num_steps=5)

One episode is one attempt, by the rules of `envs.AttemptRun`: the gripper
closes when told to or at step T, and the reward is then the label, 0 or 1. Vectorised
over processes it needs `vector_kwargs={"context": "spawn"}`: a GL context does not
survive a fork.
"""

from typing import Any

import numpy as np

from envs import objects as objects_lib
from envs.attempt import Attempt, AttemptRun, Decision, Observation
from envs.control import DivergedError
from envs.grasp_env import NULL_COMMAND, GraspEnv
from envs.rollout import MAX_DIVERGED
from envs.units import MAX_HEIGHT, WORKSPACE_HALF, Unit, sample_unit

try:
  import gymnasium
  from gymnasium import spaces
except ImportError as error:
  raise ImportError(
    "envs.gym_env needs gymnasium, which is not installed:"
    " pip install 'hand_eye[gym]', or pip install gymnasium"
  ) from error

ID = "hand_eye/Grasp-v0"
# The longest command that makes sense, (dx, dy, dz), m: from edge to edge.
_FARTHEST = (2 * WORKSPACE_HALF[0], 2 * WORKSPACE_HALF[1], MAX_HEIGHT)
_REACH = 2.0  # m, beyond which no measured position lies
_LEAST_LENGTH = 1e-6  # of (sin, cos), below which they name no angle


class HandEyeGraspEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
  """One unit and its bin.

  Observation, a dict (`envs.Observation` without what never changes):
    pregrasp_image: uint8[H, W, 3], I0: the scene without the gripper.
    image: uint8[H, W, 3], It. After closing, the image at which the gripper closed.
    step: int64, t from 1 to T.
    pose: float32[4], the gripper's measured (x, y, z, yaw), base frame, m and rad. The
      paper's network is not given it; the servo needs it to stay in the workspace.
    table_height: float32[1], of the bin's floor, base frame, m.

  Action, float32[6]: (dx, dy, dz, sin dyaw, cos dyaw, close); the command's frame and
  units as everywhere. (sin, cos) may have any length; (0, 0) is no turn. Above zero,
  `close` closes the gripper, after a descent to the table where it is above it, and the
  command is ignored. The last motion before step T always ends on the table.

  Terminated when the gripper has closed, with info: success, gripper_reading (m),
  drop_test, simulator_truth, grasped (the object's name or ''). Truncated when the
  physics became unstable (info: diverged, what MuJoCo said); the attempt has no label
  then, and the next reset fills the bin anew.
  """

  metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

  def __init__(
    self,
    unit: int | Unit = 0,
    unit_family: str = "training",
    objects: str = "training",
    num_objects: int = 6,
    num_steps: int = 5,
    frame_size: int = 128,
    render_mode: str | None = None,
    render_size: int = 320,
  ):
    """Builds nothing yet: the bin is filled, and GL opened, by the first reset.

    Args:
      unit: a robot's seed in its family, or the robot itself.
      unit_family: `training` or `held_out`; not used where `unit` is a Unit.
      objects: a selection, see `envs.objects.choose`.
      num_objects: in the bin, drawn anew whenever it is filled.
      num_steps: T, from 2.
      frame_size: of the images in observations, pixels.
      render_mode: `rgb_array` or None.
      render_size: of what `render` returns, pixels.

    Raises:
      ValueError: one of them is not as described.
    """
    if num_steps < 2:
      raise ValueError(f"num_steps is {num_steps}, expected at least 2")
    if not 0 <= num_objects <= objects_lib.MOST:
      raise ValueError(
        f"num_objects is {num_objects}, expected 0 to {objects_lib.MOST}"
      )
    for name, size in (("frame_size", frame_size), ("render_size", render_size)):
      if size < 32:
        raise ValueError(f"{name} is {size}, expected at least 32 pixels")
    if render_mode not in (None, "rgb_array"):
      raise ValueError(f"render_mode is {render_mode!r}, expected 'rgb_array' or None")
    objects_lib.choose(objects)
    self.unit = unit if isinstance(unit, Unit) else sample_unit(unit, unit_family)
    self.render_mode = render_mode
    self.attempt: Attempt | None = None  # the last one that was finished
    self._objects, self._num_objects = objects, num_objects
    self._num_steps, self._frame_size = num_steps, frame_size
    self._render_size = render_size
    self._cell: GraspEnv | None = None
    self._run: AttemptRun | None = None
    self._picture: np.ndarray | None = None  # the last one that was rendered
    self.observation_space = observation_space(frame_size, num_steps)
    self.action_space = action_space()

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills the bin, takes I0 and approaches the first pose, which is random.

    Args:
      options: `keep_bin` (False): goes on in the bin as the last attempt left it, where
        there is one.

    Returns:
      The observation of step 1, and info: unit (its name), objects (names of what lies
      in the bin) and filled (whether it was filled for this attempt).

    Raises:
      ValueError: an unknown option.
      DivergedError: no filling of the bin came to rest.
    """
    super().reset(seed=seed)
    options = options or {}
    if unknown := sorted(set(options) - {"keep_bin"}):
      raise ValueError(f"reset option {unknown[0]!r}: expected keep_bin, True or False")
    self._run = None
    filled = self._cell is None or not options.get("keep_bin", False)
    for _ in range(MAX_DIVERGED):
      try:
        cell = self._fill() if filled else self._require_cell()
        self._run = AttemptRun(
          cell, cell.begin(self.np_random), self.np_random, self._num_steps
        )
        break
      except DivergedError:
        filled = True  # what there was is lost
    else:
      raise DivergedError(
        f"{self.unit.name}: {MAX_DIVERGED} fillings of the bin diverged; the cell is"
        " broken"
      )
    names = tuple(cell.scene.objects[i].name for i in cell.remaining())
    info = {"unit": self.unit.name, "objects": names, "filled": filled}
    return _as_dict(self._run.observation()), info

  def step(
    self, action: np.ndarray
  ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
    """Executes an action; see the class.

    Raises:
      ResetNeeded: the attempt is over, or none has begun.
      ValueError: an action of another shape, or with values that are not finite.
    """
    run = self._run
    if run is None:
      raise gymnasium.error.ResetNeeded("no attempt is under way: call reset first")
    decision = decision_of(action)
    before = run.observation()
    try:
      run.execute(decision)
      if not run.must_close:
        return _as_dict(run.observation()), 0.0, False, False, {}
      self.attempt = run.close()
    except DivergedError as error:
      self._run = None
      self._free()
      return _as_dict(before), 0.0, False, True, {"diverged": str(error)}
    self._run = None
    names = ("success", "gripper_reading", "drop_test", "simulator_truth", "grasped")
    info = {name: getattr(self.attempt, name) for name in names}
    reward = float(self.attempt.success)
    return _as_dict(run.observation()), reward, True, False, info

  def observation(self) -> Observation:
    """What policies of this project are given now; see `action_of` for the way back."""
    if self._run is None:
      raise gymnasium.error.ResetNeeded("no attempt is under way: call reset first")
    return self._run.observation()

  def render(self) -> np.ndarray | None:
    """uint8[render_size, render_size, 3]: the policy's camera, now.

    After physics that became unstable, the last picture that could be drawn.
    """
    if self.render_mode is None:
      gymnasium.logger.warn("render needs gymnasium.make(..., render_mode='rgb_array')")
      return None
    if self._cell is not None or self._picture is None:
      self._picture = self._require_cell().image(self._render_size)
    return self._picture.copy()

  def close(self) -> None:
    """Frees the renderer; safe to call twice."""
    self._run = None
    self._free()

  def _fill(self) -> GraspEnv:
    self._free()
    things = objects_lib.sample_objects(
      self.np_random, self._num_objects, self._objects
    )
    largest = self._render_size if self.render_mode else 0
    self._cell = GraspEnv(self.unit, things, self._frame_size, largest)
    self._cell.fill(self.np_random)
    return self._cell

  def _require_cell(self) -> GraspEnv:
    if self._cell is None:
      raise gymnasium.error.ResetNeeded("there is no filled bin: call reset first")
    return self._cell

  def _free(self) -> None:
    if self._cell is not None:
      self._cell.close()
    self._cell = None


def observation_space(frame_size: int, num_steps: int) -> spaces.Dict:
  """The space of observations; see HandEyeGraspEnv."""
  image = spaces.Box(0, 255, (frame_size, frame_size, 3), np.uint8)
  pose = np.array([_REACH, _REACH, _REACH, np.pi], np.float32)
  return spaces.Dict(
    {
      "pregrasp_image": image,
      "image": image,
      "step": spaces.Discrete(num_steps, start=1),
      "pose": spaces.Box(-pose, pose, dtype=np.float32),
      "table_height": spaces.Box(-_REACH, _REACH, (1,), np.float32),
    }
  )


def action_space() -> spaces.Box:
  """The space of actions, in metres; see HandEyeGraspEnv."""
  high = np.array([*_FARTHEST, 1.0, 1.0, 1.0], np.float32)
  return spaces.Box(-high, high, dtype=np.float32)


def decision_of(action: np.ndarray) -> Decision:
  """The decision that an action [6] stands for, its angle of unit length.

  Raises:
    ValueError: another shape, or values that are not finite.
  """
  action = np.asarray(action, np.float32)
  if action.shape != (6,) or not np.all(np.isfinite(action)):
    raise ValueError(f"action is {action}, expected 6 finite numbers")
  command = action[:5].copy()
  length = np.hypot(command[3], command[4])
  command[3:] = command[3:] / length if length > _LEAST_LENGTH else NULL_COMMAND[3:]
  return Decision(command, close=bool(action[5] > 0))


def action_of(decision: Any) -> np.ndarray:
  """float32[6]: the action that stands for a policy's decision."""
  close = 1.0 if decision.close else -1.0
  return np.array([*np.asarray(decision.command), close], np.float32)


def _as_dict(observation: Observation) -> dict[str, Any]:
  # Copies: what the caller does with them must not reach the attempt.
  return {
    "pregrasp_image": observation.pregrasp_image.copy(),
    "image": observation.image.copy(),
    "step": np.int64(observation.step),
    "pose": observation.pose.copy(),
    "table_height": np.array([observation.table_height], np.float32),
  }


gymnasium.register(ID, entry_point="envs.gym_env:HandEyeGraspEnv")
