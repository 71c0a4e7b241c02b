"""Short videos for the report: successes, corrections and failures, one attempt each.

A correction is an attempt during which all objects were pushed, and which grasped one
that had moved. These are extra attempts in bins of the evaluation; the other videos
show attempts that its rows count.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from envs import protocols
from experiments import cli
from experiments.evaluation import conditions, policy_names, replay
from experiments.evaluation import trials as trials_lib
from experiments.pictures import video

Row = Mapping[str, Any]

PUSH = conditions.Condition("push", 0.4)
MOST_PUSHED = 16  # attempts among which corrections are looked for
LEAST_MOVED = 0.01  # m, of a correction's target
# Of policies that may be shown failing where the servo succeeds, the best first.
_BASELINES = ("open_loop", "hand_designed", "random")


@dataclasses.dataclass(frozen=True)
class Film:
  """An attempt to be shown.

  Attributes:
    kind: success, correction or failure.
    row: of the attempt.
    caption: what it shows, a sentence.
  """

  kind: str
  row: Row
  caption: str

  @property
  def file(self) -> str:
    """The name of its video."""
    policy = policy_names.slug(self.row["policy"])
    where = f"{self.row['unit']}-scene-{self.row['repetition']}"
    return f"{policy}-{self.kind}-{where}.mp4"


def film(
  workdir: Path,
  trials: Sequence[trials_lib.Trial],
  rows: Sequence[Row],
  pushed: Sequence[trials_lib.Trial],
  policy: str,
  *,
  count: int,
  size: int,
  num_workers: int = 0,
) -> None:
  """Writes videos/*.mp4, videos/gallery.json and overlay.npz to a work folder.

  Existing files stay: the folder belongs to one configuration.

  Args:
    trials, rows: of the evaluation.
    pushed: trials under PUSH, one attempt a bin; made now.
    policy: that is shown.
    count: of each kind, at most.
    size: of the pictures, pixels, even.
  """
  folder = workdir / "videos"
  folder.mkdir(parents=True, exist_ok=True)
  films = choose(rows, policy, count)
  if count:
    again = trials_lib.run(
      pushed, folder / "pushed.jsonl", num_workers=num_workers, label="push"
    )
    films += corrections(again, count)
  wanted = [(one.row, folder / one.file) for one in films]
  for row in [*(one.row for one in films), *_of(rows, policy)][:1]:
    wanted.append((row, workdir / "overlay.npz"))
  by_key = {trial.key: trial for trial in (*trials, *pushed)}
  reels: dict[str, _Reel] = {}
  for row, path in wanted:
    if not path.exists():
      key = row["trial"]
      reel = reels.get(key, _Reel(by_key[key], (), size))
      reels[key] = dataclasses.replace(reel, shots=(*reel.shots, (row, path)))
  shots = sum(len(reel.shots) for reel in reels.values())
  with cli.progress(shots, "film", "attempts") as bar:
    tasks = list(reels.values())
    for index, _ in replay.in_workers(_shoot, tasks, num_workers):
      bar.update(len(tasks[index].shots))
  shown = [_entry(one) for one in films if (folder / one.file).exists()]
  cli.write_json(folder / "gallery.json", shown)


def choose(rows: Iterable[Row], policy: str, count: int) -> list[Film]:
  """Successes and failures, and beside a success the failure of a baseline.

  Early attempts come first: those before them in their bin must be made again, too.
  Only attempts are shown whose label is the truth.

  Args:
    rows: of an evaluation.
    policy: that is shown.
    count: of each kind, at most, each in a bin of its own.
  """
  rows = list(rows)
  own = [row for row in _of(rows, policy) if row["success"] == row["simulator_truth"]]
  films = []
  for kind, success in (("success", True), ("failure", False)):
    bins: dict[int, Row] = {}
    for row in own:
      if row["success"] == success:
        bins.setdefault(row["repetition"], row)
    films += [Film(kind, row, _caption(row)) for row in list(bins.values())[:count]]
  return films + _beside(rows, films)


def _of(rows: Iterable[Row], policy: str) -> list[Row]:
  """A policy's rows without condition, early attempts first, with replacement if so."""
  found = [
    row
    for row in rows
    if row["policy"] == policy and not row["condition"] and not row["diverged_in_scene"]
  ]
  return sorted(
    found,
    key=lambda row: (
      protocols.NAMES.index(row["protocol"]), row["attempt"], row["repetition"],
    ),
  )  # fmt: skip


def _beside(rows: Sequence[Row], films: Sequence[Film]) -> list[Film]:
  """The failure of a baseline in the same bin, as it was, as a success of `films`."""
  for name in _BASELINES:
    failed = {
      (row["protocol"], row["repetition"]): row
      for row in _of(rows, name)
      if not row["attempt"] and not row["success"] and not row["simulator_truth"]
    }
    for one in films:
      row = failed.get((one.row["protocol"], one.row["repetition"]))
      if row and one.kind == "success" and not one.row["attempt"]:
        words = f"{_caption(row)} The same bin as {one.row['policy']} had there."
        return [Film("failure", row, words)]
  return []


def corrections(rows: Iterable[Row], count: int) -> list[Film]:
  """Attempts that grasped what had been pushed away, the farthest first.

  Args:
    rows: of attempts under PUSH.
    count: at most.
  """
  found = [
    row
    for row in rows
    if row["success"]
    and row["simulator_truth"]
    and not row["diverged_in_scene"]
    and row["grasped"] == row["target"]
    and row["target_moved"] >= LEAST_MOVED
    and row["closed_at_step"] > conditions.PUSH_STEP  # it has seen the objects after
  ]
  found.sort(key=lambda row: (row["attempt"], -row["target_moved"]))
  return [
    Film(
      "correction",
      row,
      f"All objects are pushed during motion {conditions.PUSH_STEP}; the one that it"
      f" grasps had moved by {100 * row['target_moved']:.1f} cm when it last looked."
      f" {_caption(row)}",
    )
    for row in found[:count]
  ]


def _caption(row: Row) -> str:
  held = row["grasped"] or ("something" if row["simulator_truth"] else "nothing")
  return (
    f"{row['policy']} on {row['unit']}, closed at step {row['closed_at_step']} of"
    f" {row['num_steps']}: {held} in the gripper."
  )


def _entry(one: Film) -> dict[str, Any]:
  kept = ("policy", "unit", "scene_seed", "attempt", "condition")
  return {
    "file": one.file,
    "kind": one.kind,
    **{name: one.row[name] for name in kept},
    "caption": one.caption,
  }


@dataclasses.dataclass(frozen=True)
class _Reel:
  """Attempts of one trial that are recorded in one go, each with its file."""

  trial: trials_lib.Trial
  shots: tuple[tuple[Row, Path], ...]
  size: int


def _shoot(reel: _Reel) -> None:
  """Runs in a worker process."""
  with contextlib.ExitStack() as stack:
    recorders: dict[replay.Which, Any] = {}
    for row, path in reel.shots:
      which = row["repetition"], row["attempt"]
      recorder = stack.enter_context(_recorder(row, path, reel.size))
      others = [recorders[which]] if which in recorders else []
      recorders[which] = replay.Together(*others, recorder)
    made = replay.replay(reel.trial, recorders)
  for row, path in reel.shots:
    attempt = made.get((row["repetition"], row["attempt"]))
    if attempt is None or attempt.success != row["success"]:
      path.unlink(missing_ok=True)
      logging.warning(
        "%s: on this machine the attempt came out otherwise; left out", path
      )


def _recorder(row: Row, path: Path, size: int) -> Any:
  if path.suffix == ".npz":
    return video.OverlayRecorder(path, size)
  pushed = conditions.parse(row["condition"]).pushing.step
  return video.VideoRecorder(path, size, made_before=row["attempt"], pushed_at=pushed)
