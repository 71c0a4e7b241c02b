"""Records the metrics of a training run: metrics.jsonl, and TensorBoard if wanted."""

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli


class TrainingLog:
  """The rows of a run. Of several processes, the first one writes and the rest do not.

  Attributes:
    seconds: that the run took before it was interrupted.
  """

  def __init__(
    self, workdir: Path, begin: int, *, tensorboard: bool, is_writer: bool = True
  ):
    """Continues after `begin` steps; rows of steps that will be taken again go."""
    self.path = workdir / "metrics.jsonl"
    self._is_writer = is_writer
    rows = [row for row in self.rows() if row["step"] <= begin]
    self.seconds = float(rows[-1]["seconds"]) if rows else 0.0
    self._events: Any = None
    if is_writer:
      cli.rewrite_jsonl(self.path, rows)
      self._lines = cli.JsonLines(self.path)
      if tensorboard:
        from tensorboardX import SummaryWriter

        # Of steps that will be taken again, TensorBoard drops what it had.
        self._events = SummaryWriter(
          str(workdir / "tensorboard"), purge_step=begin + 1, flush_secs=10
        )
        atexit.register(self._events.close)

  def rows(self) -> list[dict[str, Any]]:
    """What was written so far, without the final row."""
    return [row for row in cli.read_jsonl(self.path) if not row.get("final")]

  def write(self, row: Mapping[str, Any]) -> None:
    """Appends the row of a step, with the fields `step` and `split`."""
    if self._is_writer:
      self._lines.write(row)
    if self._events:
      for name, value in row.items():
        if isinstance(value, int | float) and name not in ("step", "phase", "final"):
          self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])

  def finish(self, final: Mapping[str, Any]) -> None:
    """Puts the row of the whole run at the end, in the place of an earlier one."""
    if self._is_writer:
      rows = self.rows()
      cli.rewrite_jsonl(self.path, [*rows, {**final, "rows": cli.tally(rows)}])
    if self._events:
      self._events.close()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Shows uint8[H, W, 3] in TensorBoard."""
    if self._events:
      self._events.add_image(name, image, step, dataformats="HWC")
