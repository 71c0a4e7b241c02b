"""The progress of a campaign, read from the files of its work folder alone.

The page, the terminal, the alarms and the report use it. So they show the same on any
machine that can read the folder, also after the end.
"""

import collections
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline import plan as plan_lib
from experiments import cli, statistics
from experiments.campaigns.layout import PLAN_FILE, Layout
from experiments.datasets.shard_tasks import LOG_FILE


@dataclasses.dataclass(frozen=True)
class Rate:
  """Successes of attempts."""

  attempts: int
  successes: int

  @property
  def rate(self) -> float:
    return self.successes / self.attempts if self.attempts else float("nan")

  @property
  def interval(self) -> tuple[float, float]:
    """95 % (Wilson)."""
    return statistics.wilson(self.successes, self.attempts)


@dataclasses.dataclass(frozen=True)
class Scene:
  """A bin that was attempted, in the order in which they came; see `SceneReport`."""

  round: int
  policy: str
  version: str
  unit: str
  attempts: int
  successes: int
  diverged: int
  brightness: float
  contrast: float
  finished: float  # seconds since 1970


@dataclasses.dataclass(frozen=True)
class Update:
  """The training after a round.

  Attributes:
    steps: that it has; step: that it has taken.
    aucs: (step, held-out AUC), one an evaluation.
    samples_per_second: of the last window; 0.0 if not known.
    seconds: that it trained.
    best: the AUC of the checkpoint that was chosen; None before the end.
  """

  steps: int
  step: int = 0
  aucs: tuple[tuple[int, float], ...] = ()
  samples_per_second: float = 0.0
  seconds: float = 0.0
  best: float | None = None
  is_done: bool = False


@dataclasses.dataclass(frozen=True)
class RoundState:
  """A round: its attempts and its update.

  Attributes:
    planned: attempts that it will have.
    scenes: that are on the disk, in the order in which they came.
    num_bytes: of its shards.
    evaluated: the servo after its update, if it was evaluated.
  """

  number: int
  planned: int
  num_random: int
  scenes: tuple[Scene, ...]
  num_bytes: int
  update: Update
  evaluated: Rate | None = None

  @property
  def total(self) -> Rate:
    return count(self.scenes)

  def by(self, field: str) -> dict[str, Rate]:
    """Rates by `unit`, `policy` or `version`."""
    groups: dict[str, list[Scene]] = collections.defaultdict(list)
    for scene in self.scenes:
      groups[getattr(scene, field)].append(scene)
    return {name: count(groups[name]) for name in sorted(groups)}

  @property
  def is_collected(self) -> bool:
    return self.total.attempts >= self.planned


@dataclasses.dataclass(frozen=True)
class State:
  """A whole campaign at a moment.

  Attributes:
    rounds: all that are planned, begun or not.
    batch_size: samples a training step.
    now: seconds since 1970.
  """

  rounds: tuple[RoundState, ...]
  batch_size: int
  now: float

  @property
  def scenes(self) -> Iterator[Scene]:
    return (scene for round_ in self.rounds for scene in round_.scenes)

  @property
  def attempts(self) -> int:
    return sum(round_.total.attempts for round_ in self.rounds)

  @property
  def planned(self) -> int:
    return sum(round_.planned for round_ in self.rounds)

  @property
  def num_bytes(self) -> int:
    return sum(round_.num_bytes for round_ in self.rounds)

  def attempts_per_second(self, window: float = 600.0) -> float:
    """Over the last seconds in which attempts came; 0.0 if none did."""
    scenes = list(self.scenes)
    if not scenes:
      return 0.0
    last = max(scene.finished for scene in scenes)
    recent = [scene for scene in scenes if scene.finished > last - window]
    began = min(scene.finished for scene in recent)
    later = [scene for scene in recent if scene.finished > began]
    seconds = last - began
    return sum(scene.attempts for scene in later) / seconds if seconds > 0 else 0.0

  def seconds_left(self) -> float | None:
    """Of collecting and training, one after the other; None if no rate is known."""
    rate = self.attempts_per_second()
    speeds = [r.update.samples_per_second for r in self.rounds]
    speed = next((value for value in reversed(speeds) if value), 0.0)
    attempts = self.planned - self.attempts
    steps = sum(r.update.steps - r.update.step for r in self.rounds)
    if (attempts and not rate) or (steps and not speed):
      return None
    training = steps * self.batch_size / speed if steps else 0.0
    return (attempts / rate if attempts else 0.0) + training


def count(scenes: Sequence[Scene]) -> Rate:
  """Attempts and successes of some bins."""
  return Rate(
    sum(scene.attempts for scene in scenes), sum(scene.successes for scene in scenes)
  )


def is_there(workdir: str | Path) -> bool:
  """Whether a folder holds a campaign."""
  return (Path(workdir) / PLAN_FILE).is_file()


class Reader:
  """Reads the state again and again; rows that were read stay in memory."""

  def __init__(self, workdir: str | Path):
    """Raises UserError if the folder holds no campaign."""
    self._layout = Layout(Path(workdir))
    path = self._layout.workdir / PLAN_FILE
    if not is_there(workdir):
      raise cli.UserError(
        f"--workdir={workdir} holds no campaign: {PLAN_FILE} is missing; expected the"
        " folder that python -m experiments.campaign writes"
      )
    self._plan = cli.read_json(path)
    self._rows: dict[Path, Rows] = {}
    self._sizes: dict[Path, int] = {}  # of shards, by their entries

  def read(self) -> State:
    rounds = tuple(
      self._round(number, entry) for number, entry in enumerate(self._plan["rounds"])
    )
    return State(rounds, self._plan["batch_size"], time.time())

  def _round(self, number: int, entry: Mapping[str, Any]) -> RoundState:
    name = entry["name"]
    scenes, num_bytes = self._scenes(number, name)
    evaluated = None
    summary = cli.read_json(self._layout.workdir / "evaluate" / name / "summary.json")
    for row in summary.get("policies", {}).get("servo", {}).values():
      evaluated = Rate(row["attempts"], row["successes"])
    return RoundState(
      number=number,
      planned=entry["num_attempts"],
      num_random=entry["num_random"],
      scenes=tuple(scenes),
      num_bytes=num_bytes,
      update=self._update(name, entry["num_steps"]),
      evaluated=evaluated,
    )

  def _scenes(self, number: int, name: str) -> tuple[list[Scene], int]:
    """The bins of finished shards: of several rows of a shard the last one counts."""
    directory = self._layout.dataset(name)
    rows = self._read(directory.parent / LOG_FILE)
    last = {row["shard"]: position for position, row in enumerate(rows)}
    scenes, num_bytes = [], 0
    for position in sorted(last.values()):
      row = rows[position]
      entry = plan_lib.shard_entry(directory, row["shard"])
      if not entry.exists():
        continue  # It was made, but is not in place yet.
      if entry not in self._sizes:
        self._sizes[entry] = cli.read_json(entry)["num_bytes"]
      num_bytes += self._sizes[entry]
      scenes += [
        Scene(
          round=number,
          policy=row["policy"],
          version=row["policy_version"],
          finished=row["finished"],
          **{
            field: scene[field]
            for field in (
              "unit", "attempts", "successes", "diverged", "brightness", "contrast",
            )
          },
        )
        for scene in row["scenes"]
      ]  # fmt: skip
    return scenes, num_bytes

  def _update(self, name: str, steps: int) -> Update:
    folder = self._layout.workdir / "train" / name
    done = cli.read_json(folder / "update.json")
    rows = self._read(folder / "metrics.jsonl")
    held_out = [r for r in rows if r["split"] == "held_out" and not r.get("final")]
    training = [r for r in rows if r["split"] == "train"]
    return Update(
      steps=steps,
      step=steps if done else max((row["step"] for row in rows), default=0),
      aucs=tuple((r["step"], r["auc"]) for r in held_out if r["auc"] is not None),
      samples_per_second=training[-1]["samples_per_second"] if training else 0.0,
      seconds=rows[-1]["seconds"] if rows else 0.0,
      best=done["row"].get("auc") if done else None,
      is_done=bool(done),
    )

  def _read(self, path: Path) -> list[dict[str, Any]]:
    if path not in self._rows:
      self._rows[path] = Rows(path)
    return self._rows[path].read()


class Rows:
  """The rows of a growing JSONL file, of which each is parsed once."""

  def __init__(self, path: Path):
    self._path = path
    self._file, self._offset = 0, 0
    self._rows: list[dict[str, Any]] = []

  def read(self) -> list[dict[str, Any]]:
    """All whole rows so far. A file that was replaced by another is read again."""
    if not self._path.exists():
      return []
    found = self._path.stat()
    if found.st_ino != self._file or found.st_size < self._offset:
      self._file, self._offset, self._rows = found.st_ino, 0, []
    with self._path.open("rb") as stream:
      stream.seek(self._offset)
      data = stream.read()
    whole = data.rfind(b"\n") + 1
    self._offset += whole
    for line in data[:whole].split(b"\n"):
      try:
        row = json.loads(line) if line.strip() else None
      except ValueError:
        continue  # torn by a kill
      if isinstance(row, dict):
        self._rows.append(row)
    return self._rows
