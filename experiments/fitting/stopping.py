"""SIGTERM and SIGINT end a run after the current step, once it is saved.

A preempted machine gets SIGTERM half a minute before it stops. The program then ends
with status STOPPED, which a job manager can distinguish from a failure; the same
command continues the run.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

# 'Temporary failure, try again' of sysexits.h.
STOPPED = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
  """A signal stopped a run, which was saved first."""


class Signals:
  """Notes SIGTERM and SIGINT while it is entered; a second one acts immediately.

  Outside the main thread it does nothing: Python allows handlers only there.
  """

  def __init__(self) -> None:
    self._received = 0
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "Signals":
    if threading.current_thread() is threading.main_thread():
      for number in _SIGNALS:
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *_: object) -> None:
    self._restore()

  def agreed(self, *, is_meeting: bool) -> str:
    """The name of the signal to stop for, or ''.

    With several processes all must stop after the same step, so they ask each other,
    which takes time: only where `is_meeting`, which must be the same for all.
    """
    received = self._received
    if jax.process_count() > 1:
      if not is_meeting:
        return ""
      received = int(np.max(multihost_utils.process_allgather(np.int32(received))))
    return signal.Signals(received).name if received else ""

  def _note(self, number: int, _: FrameType | None) -> None:
    if self._received:
      self._restore()
      os.kill(os.getpid(), number)
    self._received = number

  def _restore(self) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before.clear()
