"""Records the metrics of a training run: metrics.jsonl, and trackers if wanted."""

import atexit
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from experiments import cli
from experiments.fitting.trackers import Tracker

_NO_FIGURES = ("step", "phase", "final")


class TrainingLog:
  """The rows of a run. Of several processes, the first one writes and the rest do not.

  A tracker that fails is left with a warning: training goes on, and metrics.jsonl has
  every row.

  Attributes:
    seconds: that the run took before it was interrupted.
  """

  def __init__(
    self,
    workdir: Path,
    begin: int,
    trackers: Mapping[str, Tracker],
    *,
    is_writer: bool = True,
  ):
    """Continues after `begin` steps; rows of steps that will be taken again go.

    Args:
      workdir: of the run.
      begin: steps taken before.
      trackers: by name, see `trackers.start`; closed by `finish`, or when the process
        ends.
      is_writer: whether this process writes metrics.jsonl.
    """
    self.path = workdir / "metrics.jsonl"
    self._is_writer = is_writer
    self._trackers = dict(trackers)
    rows = [row for row in self.rows() if row["step"] <= begin]
    self.seconds = float(rows[-1]["seconds"]) if rows else 0.0
    if is_writer:
      cli.rewrite_jsonl(self.path, rows)
      self._lines = cli.JsonLines(self.path)
    if trackers:
      atexit.register(self.close)

  def rows(self) -> list[dict[str, Any]]:
    """What was written so far, without the final row."""
    return [row for row in cli.read_jsonl(self.path) if not row.get("final")]

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends the row of a step, with the fields `step` and `split`."""
    if self._is_writer:
      self._lines.write(row)
    self._track(row, row["split"])

  def finish(self, final: Mapping[str, Any]) -> None:
    """Puts the row of the whole run at the end, in the place of an earlier one."""
    if self._is_writer:
      rows = self.rows()
      cli.rewrite_jsonl(self.path, [*rows, {**final, "rows": cli.tally(rows)}])
    self._track(final, "final")
    self.close(finished=True)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Shows uint8[H, W, 3] in the trackers."""
    self._tell(lambda tracker: tracker.image(step, name, image))

  def close(self, *, finished: bool = False) -> None:
    """Closes the trackers; without `finished` of a run that may be continued."""
    self._tell(lambda tracker: tracker.close(finished=finished))
    self._trackers = {}

  def _track(self, row: Mapping[str, Any], prefix: str) -> None:
    values = {
      f"{prefix}/{name}": float(value)
      for name, value in row.items()
      if isinstance(value, int | float) and name not in _NO_FIGURES
    }
    self._tell(lambda tracker: tracker.scalars(row["step"], values))

  def _tell(self, tell: Callable[[Tracker], None]) -> None:
    for name, tracker in list(self._trackers.items()):
      try:
        tell(tracker)
      except Exception as error:  # Each service has errors of its own.
        logging.warning(
          "--log_to=%s gets no more figures of this run (%s); %s has all",
          name, error, self.path,
        )  # fmt: skip
        del self._trackers[name]
