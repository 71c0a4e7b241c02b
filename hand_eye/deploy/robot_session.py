"""One robot's attempts, independent of the message system: the core of `ros2_node`.

Images and poses come in; set-points, the gripper's command and a heartbeat go out.
Three threads may call it: the one that receives, the one that decides, and the control
loop. If any input falls silent, the set-points stop smoothly. Needs NumPy and ruckig.
"""

import enum
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hand_eye.decision import Action, Cause, Decision, hold
from hand_eye.deploy.interpolator import Interpolator
from hand_eye.deploy.robot_config import SessionConfig
from hand_eye.observations import Seen

Ask = Callable[..., Decision]  # (observation, key, deadline) -> decision, as `Client`


class State(enum.Enum):
  """Where an attempt is."""

  IDLE = "idle"  # no attempt: nothing is sent to the robot
  SERVOING = "servoing"  # decisions are asked for and followed
  CLOSING = "closing"  # on the way down to the table
  CLOSED = "closed"  # there: the gripper is to close


class Output(NamedTuple):
  """What goes to the robot now.

  pose: [4] set-point, metres and radians, or None where nothing is to be sent.
  close: whether the gripper is to be closed.
  state, cause, reason: for the heartbeat; cause is that of the last HOLD.
  """

  pose: np.ndarray | None
  close: bool
  state: State
  cause: Cause
  reason: str


class RobotSession:
  """Servoes one robot through attempts.

  Args:
    ask: for a decision; holds where there is none, as `Client` does.
    config: how the robot is servoed.
    clock: seconds that only grow; that of the stamps of images and poses.
    seed: of the keys; None is chance.
  """

  def __init__(
    self,
    ask: Ask,
    config: SessionConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
    seed: int | None = None,
  ):
    self._ask, self._config, self._clock = ask, config, clock
    self._keys, self._lock = np.random.default_rng(seed), threading.RLock()
    self._state = State.IDLE
    self._image: tuple[np.ndarray, float] | None = None
    self._pose: tuple[np.ndarray, float] | None = None
    self._pregrasp: np.ndarray | None = None
    self._motion: Interpolator | None = None
    self._step = 1
    self._last = hold("no attempt yet", Cause.STALE)

  def image(self, image: np.ndarray, taken: float) -> None:
    """A camera frame, uint8[F, F, 3] RGB, and when it was taken."""
    with self._lock:
      self._image = image, taken

  def pose(self, pose: np.ndarray, taken: float) -> None:
    """A measured pose [4] of the fingertips, metres and radians, and when."""
    with self._lock:
      self._pose = np.asarray(pose, np.float32), taken

  def look(self) -> str:
    """Takes the last image as the pregrasp image: the gripper is out of view now.

    Returns:
      What is missing, or an empty string.
    """
    with self._lock:
      if self._state in (State.SERVOING, State.CLOSING):
        return "an attempt is under way: stop it first"
      missing = self._missing("image")
      if missing or self._image is None:
        return missing or "no image"
      self._pregrasp = self._image[0].copy()
      return ""

  def start(self) -> str:
    """Begins an attempt where the gripper is, at rest; returns what is missing."""
    with self._lock:
      if self._state in (State.SERVOING, State.CLOSING):
        return "an attempt is under way: stop it first"
      if self._pregrasp is None:
        return "no pregrasp image: call look while the gripper is out of view"
      missing = self._missing()
      if missing or self._pose is None:
        return missing or "no pose"
      self._motion = Interpolator(
        self._pose[0],
        self._config.limits,
        rate=self._config.rate,
        timeout=self._config.timeout,
        clock=self._clock,
      )
      self._step, self._state = 1, State.SERVOING
      self._last = hold("no decision yet", Cause.STALE)
      return ""

  def stop(self, reason: str = "stopped") -> str:
    """Ends an attempt: the motion brakes, and nothing is sent once it is at rest."""
    with self._lock:
      if self._state in (State.SERVOING, State.CLOSING) and self._motion is not None:
        self._motion.brake()
        self._last = hold(reason, Cause.STALE)
      self._state, self._pregrasp = State.IDLE, None
      return ""

  def decide(self) -> Decision | None:
    """Asks for one decision and follows it; None where no attempt wants one."""
    with self._lock:
      if self._state != State.SERVOING or self._image is None or self._pose is None:
        return None
      motion, missing = self._motion, self._missing()
      seen = Seen(
        pregrasp_image=self._pregrasp,  # type: ignore[arg-type]  # since `start`
        image=self._image[0],
        pose=self._pose[0],
        step=self._step,
        num_steps=self._config.num_steps,
        table_height=self._config.table_height,
        age=max(0.0, self._age(self._image[1])),
      )
      key = self._keys.integers(0, 2**32, 2, dtype=np.uint32)
    if missing:
      made = hold(missing, Cause.OLD_FRAME)
    else:
      # Without the lock: the control loop goes on meanwhile.
      made = self._ask(seen, key, 0.8 * self._config.deadline)
    with self._lock:
      if self._state != State.SERVOING or self._motion is not motion or motion is None:
        return made  # stopped meanwhile
      self._last = made
      motion.follow(made, seen)
      if made.action == Action.CLOSE:
        self._state = State.CLOSING
      elif made.action in (Action.MOVE, Action.RAISE):
        self._step = min(self._step + 1, self._config.num_steps)
      return made

  def tick(self) -> Output:
    """Returns what goes to the robot now; call it `rate` times a second."""
    with self._lock:
      if self._motion is None:
        return self._output(None, False)
      if self._state == State.SERVOING or self._state == State.CLOSING:
        self._check_robot()
      point = self._motion.step()
      if self._state == State.CLOSING and point.close:
        self._state = State.CLOSED
      if self._state == State.IDLE and not np.any(np.abs(point.velocity) > 1e-6):
        self._motion = None  # at rest: the robot is free again
      return self._output(point.pose, self._state == State.CLOSED)

  def _check_robot(self) -> None:
    """Stops where the robot says nothing, or is not where it was sent."""
    if self._pose is None or self._motion is None:
      return
    pose, taken = self._pose
    if self._age(taken) > self._config.max_age:
      self.stop(f"no pose for {1e3 * self._config.max_age:.0f} ms")
      return
    off = float(np.linalg.norm(pose[:3] - self._motion.pose[:3]))
    if not off <= self._config.max_deviation:
      self.stop(f"the robot is {off:.3f} m from its set-point")

  def _missing(self, *names: str) -> str:
    """Which of image and pose has not come of late, or an empty string."""
    for name, last in (("image", self._image), ("pose", self._pose)):
      if names and name not in names:
        continue
      # Stamps from the future are those of another clock.
      if last is None or not abs(self._age(last[1])) <= self._config.max_age:
        return f"no {name} for {1e3 * self._config.max_age:.0f} ms"
    return ""

  def _age(self, taken: float) -> float:
    return self._clock() - taken

  def _output(self, pose: np.ndarray | None, close: bool) -> Output:
    return Output(pose, close, self._state, self._last.cause, self._last.reason)
