"""The cell as a Gymnasium environment; needs the extra `gym`.

  import gymnasium
  env = gymnasium.make("envs.gym_env:hand_eye/Grasp-v0", unit=3, num_steps=5)
  envs = gymnasium.make_vec("envs.gym_env:hand_eye/Grasp-v0", num_envs=8)

One episode is one attempt, by the rules of `envs.AttemptRun`: the gripper closes when
the agent says so or at step T, and the reward is then the label, 0 or 1. After `import
envs.gym_env`, the id is `hand_eye/Grasp-v0`. `make_vec` gives `envs.vector_env`.
Gymnasium's own asynchronous vector needs `vector_kwargs={"context": "spawn"}`: a GL
context does not survive a fork.
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
# What an action's (dx, dy, dz) of 1 stands for, m: from edge to edge of the workspace.
FARTHEST = (2 * WORKSPACE_HALF[0], 2 * WORKSPACE_HALF[1], MAX_HEIGHT)
_REACH = 2.0  # m, beyond which no measured position lies
_LEAST_LENGTH = 1e-6  # of (sin, cos), below which they name no angle


class HandEyeGraspEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
  """One unit and its bin.

  Observation, a dict (`envs.Observation` without what never changes):
    pregrasp_image: uint8[H, W, 3], I0: the scene without the gripper.
    image: uint8[H, W, 3], It. After closing, the image at which the gripper closed.
    step: float32[1], t from 1 to T. (Learners take a `Discrete` space for one that
      begins at 0.)
    pose: float32[4], the gripper's measured (x, y, z, yaw), base frame, m and rad. The
      paper's network is not given it; the servo needs it to stay in the workspace.
    table_height: float32[1], of the bin's floor, base frame, m.

  Action, float32[6] from -1 to 1: (dx, dy, dz, sin dyaw, cos dyaw, close), base frame.
  Learners want that range. dx, dy and dz are parts of FARTHEST, (0.20, 0.24, 0.20) m;
  `action_of` makes an action of a command in metres. (sin, cos) may have any length;
  (0, 0) is no turn. Above zero, `close` closes the gripper, after a descent to the
  table where it is above it, and the command is ignored. The last motion before step T
  always ends on the table.

  Terminated when the gripper has closed, with info: success, gripper_reading (m),
  drop_test, simulator_truth, grasped (the object's name or ''). Truncated when the
  physics became unstable (info: diverged, what MuJoCo said); the attempt has no label
  then, and the next reset fills the bin.
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
    keep_bin: bool = False,
    render_mode: str | None = None,
    render_size: int = 320,
  ):
    """Builds nothing yet: the bin is filled, and GL opened, by the first reset.

    Args:
      unit: a robot's seed in its family, or the robot itself.
      unit_family: `training` or `held_out`; not used where `unit` is a Unit.
      objects: a selection, see `envs.objects.choose`.
      num_objects: in the bin, drawn again whenever it is filled.
      num_steps: T, from 2.
      frame_size: of the images in observations, pixels.
      keep_bin: whether a reset without a seed goes on in the bin as the last attempt
        left it; filling takes longer than an attempt.
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
    self._keep_bin = self._keeps = bool(keep_bin)
    self._cell: GraspEnv | None = None
    self._run: AttemptRun | None = None
    self._picture: np.ndarray | None = None  # the last one that was rendered
    self.observation_space = observation_space(frame_size, num_steps)
    self.action_space = action_space()

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills the bin or keeps it, takes I0 and approaches the first pose, a random one.

    A seed alone fills the bin: one seed, one episode. Without seed and options, as
    vector environments call it after each episode, `keep_bin` is what the last reset
    said, or `__init__`.

    Args:
      options: `keep_bin`: whether this and the following resets go on in the bin as the
        last attempt left it, where there is one.

    Returns:
      The observation of step 1, and info: unit (its name), objects (names of what lies
      in the bin) and filled (whether it was filled for this attempt).

    Raises:
      ValueError: an unknown option.
      DivergedError: no filling of the bin came to rest.
    """
    super().reset(seed=seed)
    if unknown := sorted(set(options or {}) - {"keep_bin"}):
      raise ValueError(f"reset option {unknown[0]!r}: expected keep_bin, True or False")
    asked = (options or {}).get("keep_bin")
    if asked is not None or seed is not None:
      self._keeps = bool(self._keep_bin if asked is None else asked)
    keep = self._keeps and (seed is None or asked is not None)
    self._run = None
    filled = self._cell is None or not keep
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
      "step": spaces.Box(1, num_steps, (1,), np.float32),
      "pose": spaces.Box(-pose, pose, dtype=np.float32),
      "table_height": spaces.Box(-_REACH, _REACH, (1,), np.float32),
    }
  )


def action_space() -> spaces.Box:
  """The space of actions; see HandEyeGraspEnv."""
  return spaces.Box(-1, 1, (6,), np.float32)


def decision_of(action: np.ndarray) -> Decision:
  """The decision that an action [6] stands for: metres, its angle of unit length.

  Raises:
    ValueError: another shape, or values that are not finite.
  """
  action = np.asarray(action, np.float32)
  if action.shape != (6,) or not np.all(np.isfinite(action)):
    raise ValueError(f"action is {action}, expected 6 finite numbers")
  command = action[:5].copy()
  command[:3] *= np.array(FARTHEST, np.float32)
  length = np.hypot(command[3], command[4])
  command[3:] = command[3:] / length if length > _LEAST_LENGTH else NULL_COMMAND[3:]
  return Decision(command, close=bool(action[5] > 0))


def action_of(decision: Any) -> np.ndarray:
  """float32[6]: the action that stands for a policy's decision."""
  command = np.array(decision.command, np.float32)
  command[:3] /= np.array(FARTHEST, np.float32)
  return np.array([*command, 1.0 if decision.close else -1.0], np.float32)


def _as_dict(observation: Observation) -> dict[str, Any]:
  # Copies: what the caller does with them must not reach the attempt.
  return {
    "pregrasp_image": observation.pregrasp_image.copy(),
    "image": observation.image.copy(),
    "step": np.array([observation.step], np.float32),
    "pose": observation.pose.copy(),
    "table_height": np.array([observation.table_height], np.float32),
  }


gymnasium.register(
  ID,
  entry_point="envs.gym_env:HandEyeGraspEnv",
  vector_entry_point="envs.vector_env:HandEyeVectorEnv",
)
