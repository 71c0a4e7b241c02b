"""Progress bars and stopwatches."""

import sys
import time
from typing import TextIO

import tqdm


class _Lines:
  """A stream on which each redraw of a progress bar becomes a line of its own."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> None:
    text = text.strip("\r\n")
    if text.strip():
      self._stream.write(text + "\n")

  def flush(self) -> None:
    self._stream.flush()


def progress(
  total: int, label: str, unit: str, *, initial: int = 0, stream: TextIO | None = None
) -> tqdm.tqdm:
  """A bar with rate and time left; in a log file, one line every ten seconds.

  `update(n)` moves it, `set_postfix_str(text)` adds figures. Use it in a `with`.
  """
  stream = stream or sys.stderr
  interactive = stream.isatty()
  return tqdm.tqdm(
    total=total,
    initial=initial,
    desc=label,
    unit=f" {unit}",
    file=stream if interactive else _Lines(stream),
    mininterval=0.5 if interactive else 10.0,
    maxinterval=10.0,
    dynamic_ncols=interactive,
    smoothing=0.1,
    ascii=None if interactive else " .:-=#",
    ncols=None if interactive else 100,
  )


class Stopwatch:
  """Seconds since it was made, and the share of them spent inside `with watch:`."""

  def __init__(self) -> None:
    self._begin = time.perf_counter()
    self._inside = 0.0
    self._entered = 0.0

  def __enter__(self) -> "Stopwatch":
    self._entered = time.perf_counter()
    return self

  def __exit__(self, *_: object) -> None:
    self._inside += time.perf_counter() - self._entered

  @property
  def seconds(self) -> float:
    return time.perf_counter() - self._begin

  @property
  def share(self) -> float:
    return self._inside / max(self.seconds, 1e-9)
