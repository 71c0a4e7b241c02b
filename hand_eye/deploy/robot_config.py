"""The settings of a robot, from a file: how it is servoed, where its messages go."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from hand_eye.deploy.interpolator import MotionLimits

TOPICS = ("image", "pose", "target", "close", "heartbeat")


@dataclasses.dataclass(frozen=True)
class SessionConfig:
  """How a robot is servoed.

  Attributes:
    table_height: z of fingertips that touch the table, metres.
    num_steps: T, motions and the close of an attempt.
    rate: set-points per second.
    deadline: seconds that an exchange with the server may take; the policy gets four
      fifths of it.
    timeout: seconds without a decision until the motion stops.
    max_age: seconds; older images and poses are not used.
    max_deviation: metres; a robot farther from its set-point does not follow it.
    limits: of the motion.
  """

  table_height: float
  num_steps: int = 10
  rate: float = 100.0
  deadline: float = 0.3
  timeout: float = 0.8
  max_age: float = 0.5
  max_deviation: float = 0.1
  limits: MotionLimits = MotionLimits()

  def __post_init__(self) -> None:
    for name in ("rate", "deadline", "timeout", "max_age", "max_deviation"):
      value = getattr(self, name)
      if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}, expected a finite number > 0.")
    whole = isinstance(self.num_steps, int) and self.num_steps >= 1
    if not whole or not math.isfinite(self.table_height):
      raise ValueError(
        f"num_steps is {self.num_steps!r} and table_height {self.table_height!r},"
        " expected a whole number of steps and a finite height (m)."
      )


@dataclasses.dataclass(frozen=True)
class RosConfig:
  """The settings of `ros2_node`.

  Attributes:
    server: path of a Unix socket, or (IP address, port).
    decisions_per_second: how often it asks.
    base_frame: name of the robot base frame, that poses are in.
    topics: by name of TOPICS.
    session: how the robot is servoed.
  """

  server: str | tuple[str, int]
  decisions_per_second: float
  base_frame: str
  topics: dict[str, str]
  session: SessionConfig


def read_ros_config(settings: Any) -> RosConfig:
  """Returns what a file says, once its YAML is read.

  Raises:
    ValueError: for unknown or missing settings, and values that make no sense.
  """
  names = [field.name for field in dataclasses.fields(RosConfig)]
  _check_names("the file", settings, names, needed=names)
  _check_names("topics", settings["topics"], TOPICS, needed=TOPICS)
  for name, value in {**settings["topics"], **settings}.items():
    if name in (*TOPICS, "server", "base_frame") and not (
      isinstance(value, str) and value
    ):
      raise ValueError(f"{name} is {value!r}, expected a name.")
  often = settings["decisions_per_second"]
  if isinstance(often, bool) or not isinstance(often, int | float) or not often > 0:
    raise ValueError(f"decisions_per_second is {often!r}, expected a number > 0.")
  host, _, port = settings["server"].rpartition(":")
  return RosConfig(
    server=(host, int(port)) if host and port.isdigit() else settings["server"],
    decisions_per_second=float(often),
    base_frame=settings["base_frame"],
    topics=dict(settings["topics"]),
    session=read_session_config(settings["session"]),
  )


def read_session_config(settings: Any) -> SessionConfig:
  """Returns the configuration that a section of a file says; errors as above."""
  known = [field.name for field in dataclasses.fields(SessionConfig)]
  _check_names("session", settings, known, needed=["table_height"])
  numbers = dict(settings)
  limits = numbers.pop("limits", {})
  known = [field.name for field in dataclasses.fields(MotionLimits)]
  _check_names("limits", limits, known, needed=[])
  for name, value in {**numbers, **limits}.items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise ValueError(f"{name} is {value!r}, expected a number.")
  return SessionConfig(**numbers, limits=MotionLimits(**limits))


def _check_names(where: str, given: Any, known: Any, *, needed: Any) -> None:
  if not isinstance(given, Mapping):
    raise ValueError(f"{where} is {given!r}, expected settings by name.")
  unknown = sorted(str(name) for name in set(given) - set(known))
  missing = [name for name in needed if name not in given]
  if unknown or missing:
    what = f"unknown {', '.join(unknown)}" if unknown else f"no {', '.join(missing)}"
    raise ValueError(f"{where} has {what}, expected {', '.join(known)}.")
