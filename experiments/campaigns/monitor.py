"""Refreshes the page of a campaign and prints its alarms in the terminal."""

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from experiments import cli
from experiments.campaigns import alarms as alarms_lib
from experiments.campaigns import view
from experiments.campaigns.layout import PAGE_FILE, Layout
from experiments.campaigns.state import Reader


class Monitor:
  """Writes the page every so many seconds, in a thread; a context manager.

  A page that cannot be written never ends a campaign.
  """

  def __init__(self, layout: Layout, refresh: float, tell: Callable[[str], None]):
    """`tell` is given a line for every new alarm."""
    self._layout, self._refresh, self._tell = layout, refresh, tell
    self._told: set[tuple[str, str]] = set()
    self._ends = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> "Monitor":
    self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._ends.set()
    self._thread.join(10.0)
    self._look(Reader(self._layout.workdir), refresh=0.0)

  def _run(self) -> None:
    reader = Reader(self._layout.workdir)
    while not self._ends.wait(self._refresh):
      self._look(reader, self._refresh)

  def _look(self, reader: Reader, refresh: float) -> None:
    try:
      state = reader.read()
      for alarm in alarms_lib.find(state):
        if (alarm.kind, alarm.where) not in self._told:
          self._told.add((alarm.kind, alarm.where))
          self._tell(f"alarm: {alarm.text}")
      text = view.page(state, refresh, self._layout.workdir.name)
      cli.write_atomically(self._layout.workdir / PAGE_FILE, text)
    except Exception:
      logging.getLogger("absl").warning("the page was not written", exc_info=True)
