"""Runs a program in a process of its own, and stops it when its time is up."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

# Until a program that was asked to stop is killed: training saves its weights first.
GRACE = 6.0
_LAST = 5  # lines of standard error that are kept


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a program ended.

  Attributes:
    status: `done`, `cut` (its time was up) or `failed`.
    seconds: that it took.
    output: its standard output.
    last: the last lines of its standard error.
  """

  status: str
  seconds: float
  output: str = ""
  last: tuple[str, ...] = ()


def run(
  program: Sequence[str],
  seconds: float,
  environment: Mapping[str, str],
  tell: Callable[[str], None],
  *,
  grace: float = GRACE,
) -> Outcome:
  """Runs `python -m PROGRAM` to its end, or for so long.

  When its time is up it gets SIGTERM, and after some more seconds SIGKILL, with all
  processes that it started. So it ends whatever it is doing.

  Args:
    program: the module and its arguments.
    seconds: that it may take.
    environment: variables besides those of this process.
    tell: is given each line that it prints, from other threads.
    grace: seconds between SIGTERM and SIGKILL.
  """
  begin = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, "-m", *program],
    env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    errors="replace",
    start_new_session=True,
  )
  assert process.stdout is not None and process.stderr is not None
  output, errors = _Reader(process.stdout, tell), _Reader(process.stderr, tell)
  is_cut = False
  try:
    if not _ends(process, begin + seconds):
      is_cut = True
      process.terminate()
      _ends(process, begin + seconds + grace)
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()
  lines, last = output.lines(), errors.lines()[-_LAST:]
  status = "done" if process.returncode == 0 else "cut" if is_cut else "failed"
  return Outcome(status, time.monotonic() - begin, "\n".join(lines), tuple(last))


def _ends(process: subprocess.Popen, until: float) -> bool:
  try:
    process.wait(max(0.0, until - time.monotonic()))
  except subprocess.TimeoutExpired:
    return False
  return True


class _Reader:
  """Keeps the lines of a stream, and passes them on as they come."""

  def __init__(self, stream: IO[str], tell: Callable[[str], None]):
    self._stream, self._tell = stream, tell
    self._lines: list[str] = []
    self._thread = threading.Thread(target=self._read, daemon=True)
    self._thread.start()

  def lines(self) -> list[str]:
    self._thread.join(1.0)
    return list(self._lines)

  def _read(self) -> None:
    for line in self._stream:
      self._lines.append(line.rstrip())
      self._tell(line.rstrip())
