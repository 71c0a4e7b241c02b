"""How fast the stages were, read from what they wrote."""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

from experiments import cli


@dataclasses.dataclass(frozen=True)
class Collecting:
  """A collection so far.

  Attributes:
    attempts, successes: that were written.
    seconds: of one worker, an attempt.
  """

  attempts: int
  successes: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Training:
  """A training run so far.

  Attributes:
    samples_per_second: the median of its training rows, without the first, which
      compiles.
    wait_share: of the time, waiting for data; the median likewise.
    compile_seconds: that the first row took longer than others.
    steps: that it took.
    held_out_samples: of an evaluation, 0 before the first.
  """

  samples_per_second: float
  wait_share: float
  compile_seconds: float
  steps: int
  held_out_samples: int


def collecting(folder: Path) -> Collecting | None:
  """Of a dataset's folder (`data/train`); None if no shard is finished."""
  shards = {row["shard"]: row for row in cli.read_jsonl(folder / "collection.jsonl")}
  attempts = sum(row["attempts"] for row in shards.values())
  if not attempts:
    return None
  return Collecting(
    attempts,
    sum(row["successes"] for row in shards.values()),
    sum(row["seconds"] for row in shards.values()) / attempts,
  )


def training(folder: Path) -> Training | None:
  """Of a training run's folder; None if it wrote no row."""
  rows = cli.read_jsonl(folder / "metrics.jsonl")
  learned = [row for row in rows if row["split"] == "train"]
  if not learned:
    return None
  first, steady = learned[0], learned[1:] or learned
  speed = statistics.median(row["samples_per_second"] for row in steady)
  alone = first["step"] * (speed / first["samples_per_second"] - 1)
  return Training(
    samples_per_second=speed,
    wait_share=statistics.median(row["wait_share"] for row in steady),
    compile_seconds=max(0.0, alone) * _batch(folder) / speed,
    steps=learned[-1]["step"],
    held_out_samples=max((row.get("samples", 0) for row in rows), default=0),
  )


def final(folder: Path) -> dict[str, Any]:
  """The held-out row of the best checkpoint; {} before training has ended."""
  rows = cli.read_jsonl(folder / "metrics.jsonl")
  return next((row for row in rows if row.get("final")), {})


def _batch(folder: Path) -> int:
  return int(cli.read_json(folder / "config.json").get("train", {})["batch_size"])
