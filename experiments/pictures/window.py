"""A window on a cell in real time: MuJoCo's viewer as a recorder of attempts.

The viewer draws with GLFW in its own threads. The renderer of `envs`, which draws what
policies see, is not affected.
"""

import contextlib
import copy
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import mujoco
import numpy as np

from envs import grasp_env
from envs.attempt import Observation, Recorder
from experiments import cli

_LATEST = 0.1  # s behind real time, after which the rest is not made up for
_LONGEST_CLOSE = 10.0  # s that a window may take to go away
# Of the window at first: from beside the robot, over the bin.
_VIEW = {
  "lookat": (0.45, 0.0, 0.22),
  "distance": 1.35,
  "azimuth": 140,
  "elevation": -30,
}


class WindowClosedError(Exception):
  """The window was closed."""


class Window(Recorder):
  """MuJoCo's viewer on the cell that is being recorded.

  It shows copies of the model and the state: the window never changes an attempt. Each
  cell opens its own window.
  """

  largest_image = 0

  def __init__(self) -> None:
    self._env: grasp_env.GraspEnv | None = None
    self._handle: Any = None
    self._data: mujoco.MjData | None = None
    self._opening: futures.Future[tuple[Any, list[Any]]] | None = None
    self._pace = Pace()

  def decided(
    self, env: grasp_env.GraspEnv, observation: Observation, decision: Any
  ) -> None:
    pass

  def frame(self, env: grasp_env.GraspEnv) -> None:
    """Shows the cell as it is, when it is time to.

    Raises:
      WindowClosedError: by the person.
    """
    if env is not self._env:
      self._open(env)
    if not self._handle.is_running():
      raise WindowClosedError
    model = env.scene.model
    mujoco.mj_copyData(self._data, model, env.data)
    self._handle.sync()
    self._pace.wait_until(env.data.time)

  def show_beside(self, image: np.ndarray, text: str) -> None:
    """Shows a picture uint8[H, W, 3] and a line in the window, until the next."""
    if self._handle is None:
      return
    height, width = image.shape[:2]
    self._handle.set_images((mujoco.MjrRect(0, 0, width, height), image))
    self._handle.set_texts((None, mujoco.mjtGridPos.mjGRID_TOPLEFT, text, None))

  def close(self) -> None:
    """Closes the window, if there is one; safe to call twice."""
    if self._opening is None:
      return
    handle, threads = self._opening.result()
    handle.close()
    for thread in threads:
      # GLFW is taken apart when the program ends: not while something is being drawn.
      thread.join(_LONGEST_CLOSE)
    self._opening = self._env = self._handle = None

  def _open(self, env: grasp_env.GraspEnv) -> None:
    self.close()
    model = copy.deepcopy(env.scene.model)
    self._data = mujoco.MjData(model)
    mujoco.mj_copyData(self._data, env.scene.model, env.data)
    # In a thread, so that Ctrl-C cannot leave a window behind.
    with futures.ThreadPoolExecutor(1) as opener:
      self._opening = opener.submit(_launch, model, self._data)
    self._handle, _ = self._opening.result()
    for name, value in _VIEW.items():
      setattr(self._handle.cam, name, value)
    self._env = env


def _launch(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[Any, list[Any]]:
  """The viewer's handle and its threads."""
  from mujoco import viewer  # loads GLFW, which headless machines may lack

  before = threading.enumerate()
  handle = viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
  return handle, [t for t in threading.enumerate() if t not in before]


class Pace:
  """Keeps simulated time from running ahead of the clock."""

  def __init__(
    self,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
  ):
    self._clock, self._sleep = clock, sleep
    self._offset: float | None = None  # of the clock from simulated time, s

  def wait_until(self, simulated: float) -> None:
    """Returns when the clock says that simulated time, s, has come.

    What is late by more than a moment, after a decision or a slow picture, stays late:
    nothing is shown faster than it happens. Simulated time may restart.
    """
    ahead = 0.0
    if self._offset is not None:
      ahead = simulated + self._offset - self._clock()
    if self._offset is None or not -_LATEST < ahead < 1.0:
      self._offset, ahead = self._clock() - simulated, 0.0
    if ahead > 0:
      self._sleep(ahead)


def check_display() -> None:
  """Raises UserError unless a window can be opened: the viewer would wait forever."""
  if sys.platform == "linux" and not (
    os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
  ):
    raise cli.UserError(
      "--viewer needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set;"
      " without --viewer a video is written to --workdir"
    )
  import glfw

  messages: list[str] = []

  def keep(_: int, text: bytes | str) -> None:
    messages.append(text.decode() if isinstance(text, bytes) else text)

  glfw.set_error_callback(keep)
  with contextlib.suppress(glfw.GLFWError):
    if glfw.init():
      glfw.window_hint(glfw.VISIBLE, glfw.FALSE)
      window = glfw.create_window(64, 64, "", None, None)
      glfw.default_window_hints()
      if window:
        glfw.destroy_window(window)
        return
  raise cli.UserError(
    f"--viewer cannot open a window ({'; '.join(messages) or 'GLFW says no more'});"
    " without --viewer a video is written to --workdir"
  )
