"""Holds when the camera or the policy of a control loop fails.

`FrameChecks` looks at the images of one robot before each decision, `Watchdog` at the
age of the last decision between them. Neither is a safety-rated function: the robot
keeps its own.
"""

import collections
import threading
import time
from collections.abc import Callable

import numpy as np

from hand_eye.decision import Cause, Decision, Observation, hold

MAX_AGE = 0.5  # s
LEAST_CONTRAST = 8  # of 255: below this between darkest and brightest, nothing is seen
MOST_IDENTICAL = 10  # frames; a real sensor's noise makes two identical ones unlikely
_MOVED = (0.003, 0.03)  # m, rad: after such a motion the gripper must look different


class FrameChecks:
  """Finds black, frozen and old frames of one robot, by comparing them with the last.

  Args:
    max_age: seconds; an older image is refused, where the observation tells its `age`.
    most_identical: so many images in a row may be the same to the last bit.
  """

  def __init__(self, max_age: float = MAX_AGE, most_identical: int = MOST_IDENTICAL):
    if not 0 < max_age < np.inf or most_identical < 1:
      raise ValueError(
        f"max_age is {max_age!r} and most_identical {most_identical!r}, expected a"
        " finite number of seconds > 0 and at least 1 image."
      )
    self._max_age, self._most_identical = max_age, most_identical
    self._last: np.ndarray | None = None
    self._pose = np.zeros(4)
    self._same = 0

  def problem(self, observation: Observation) -> tuple[Cause, str] | None:
    """Returns what is wrong with the images, or None. Their form has been checked."""
    for name in ("pregrasp_image", "image"):
      image = np.asarray(getattr(observation, name))
      contrast = int(image.max()) - int(image.min())
      if contrast < LEAST_CONTRAST:
        return Cause.BLACK_FRAME, (
          f"the {name} shows nothing: its values lie within {contrast} of 255"
        )
    frozen = self._frozen(observation)
    if frozen:
      return Cause.FROZEN_FRAME, frozen
    age = getattr(observation, "age", None)
    if age is not None and not 0 <= age <= self._max_age:
      return Cause.OLD_FRAME, (
        f"the image is {1e3 * age:.0f} ms old, expected 0 to {1e3 * self._max_age:.0f}"
      )
    return None

  def _frozen(self, observation: Observation) -> str:
    image, pose = np.asarray(observation.image), np.array(observation.pose, float)
    if np.array_equal(image, observation.pregrasp_image):
      return "the image is the pregrasp image to the last bit: is the camera frozen?"
    if self._last is None or not np.array_equal(image, self._last):
      self._last, self._pose, self._same = image.copy(), pose, 1
      return ""
    self._same += 1
    shift = float(np.linalg.norm(pose[:3] - self._pose[:3]))
    turn = abs(np.angle(np.exp(1j * (pose[3] - self._pose[3]))))
    if shift > _MOVED[0] or turn > _MOVED[1]:
      return (
        f"the gripper moved {1e3 * shift:.0f} mm and {np.degrees(turn):.0f} degrees,"
        " and the image is the same to the last bit: the camera is frozen"
      )
    if self._same > self._most_identical:
      return f"{self._same} images in a row are the same to the last bit"
    return ""


class Watchdog:
  """Answers HOLD when no fresh decision has come in time. For several threads.

  The thread that decides calls `feed`; the control loop calls `poll` as often as it
  likes and sends what it gets, once each: a decision that is polled twice is the same
  object.

  Args:
    timeout: seconds that a decision stays fresh.
    clock: seconds that only grow.

  Attributes:
    expired: how many times a decision went stale before the next one came.
  """

  def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic):
    if not 0 < timeout < np.inf:
      raise ValueError(f"timeout is {timeout!r}, expected a finite number > 0 (s).")
    self._timeout, self._clock = timeout, clock
    self._lock = threading.Lock()
    self._decision: Decision | None = None
    self._fed = clock()
    self._stale: Decision | None = None
    self.expired = 0

  def feed(self, decision: Decision) -> None:
    """A decision has been made, just now."""
    with self._lock:
      self._decision, self._fed, self._stale = decision, self._clock(), None

  def poll(self) -> Decision:
    """Returns the last decision while it is fresh, else HOLD."""
    with self._lock:
      if self._decision is not None and self._clock() - self._fed <= self._timeout:
        return self._decision
      if self._stale is None:
        said = "no decision yet" if self._decision is None else "no fresh decision"
        self._stale = hold(f"{said} for {1e3 * self._timeout:.0f} ms", Cause.STALE)
        self.expired += 1
      return self._stale


class Tally:
  """Counts decisions, and those that held by their cause. For several threads."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._counts: collections.Counter[str] = collections.Counter()

  def add(self, decision: Decision) -> None:
    with self._lock:
      self._counts["decisions"] += 1
      self._counts["late"] += not decision.on_time
      if decision.cause != Cause.NONE:
        self._counts[decision.cause.name.lower()] += 1

  def counts(self) -> dict[str, int]:
    """By name: `decisions`, `late`, and causes in lower case."""
    with self._lock:
      return {name: count for name, count in self._counts.items() if count}
