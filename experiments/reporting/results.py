"""Reads the data, the training and the policy of a work folder; every part is optional.

Layout: see WORKSPACE.md. `evaluated` reads the rest.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli, statistics
from experiments.statistics import Rate
from hand_eye.deploy import runtime


@dataclass(frozen=True)
class DatasetFacts:
  """A collected dataset: counts overall and by unit, or why it cannot be read."""

  total: Rate = field(default_factory=dict)
  by_unit: dict[str, Rate] = field(default_factory=dict)
  samples: int = 0
  size_bytes: int = 0
  problem: str = ""


@dataclass
class Results:
  """What was found under a work folder; None, {} or [] where a part is missing."""

  workdir: Path
  datasets: dict[str, DatasetFacts] = field(default_factory=dict)
  metrics: list[dict[str, Any]] = field(default_factory=list)
  config: dict[str, Any] = field(default_factory=dict)
  predictions: dict[str, np.ndarray] | None = None
  policy_file: Path | None = None
  policy_manifest: dict[str, Any] = field(default_factory=dict)
  seconds: dict[str, float] = field(default_factory=dict)

  def split(self, name: str) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of one split, 'train' or 'held_out', while it learned."""
    rows = [row for row in self.metrics if row.get("split") == name]
    return [row for row in rows if not row.get("final")]

  def final(self) -> dict[str, Any]:
    """The held-out evaluation of the best weights; {} before training has ended."""
    return next((row for row in reversed(self.metrics) if row.get("final")), {})

  @property
  def is_learned_here(self) -> bool:
    """Whether the folder holds more than the evaluation of a policy from elsewhere."""
    return bool(self.metrics or self.datasets or self.policy_file)

  @property
  def phase_ends(self) -> list[int]:
    """The steps at which the curriculum moves on."""
    phases = self.config.get("train", {}).get("phases", ())
    return np.cumsum([steps for steps, _ in phases], dtype=int)[:-1].tolist()


def read(workdir: Path) -> Results:
  """Reads a work folder. Raises UserError for a file that is there but broken."""
  policy_file = workdir / "policy.hep"
  is_there = policy_file.is_file()
  folders = {
    # Of a campaign, a dataset a round.
    "train": sorted(workdir.glob("data/train/1.0.0"))
    + sorted(workdir.glob("data/round_[0-9]*/1.0.0")),
    "held_out": sorted(workdir.glob("data/held_out/1.0.0")),
  }
  training = training_folder(workdir)
  return Results(
    workdir,
    datasets={name: _dataset_facts(found) for name, found in folders.items() if found},
    metrics=_metrics(training / "metrics.jsonl"),
    config=cli.read_json(training / "config.json"),
    predictions=read_npz(
      training / "held_out_predictions.npz", ("label", "probability")
    ),
    policy_file=policy_file if is_there else None,
    policy_manifest=runtime.read_manifest(policy_file) if is_there else {},
    seconds=cli.read_json(workdir / "demo.json").get("seconds", {}),
  )


def _metrics(path: Path) -> list[dict[str, Any]]:
  rows = cli.read_jsonl(path)
  advice = "run experiments.train again into a new folder, or delete the file"
  for row in rows:
    if row.get("final"):
      others = [one for one in rows if not one.get("final")]
      cli.check_tally(others, row.get("rows"), str(path), advice)
  return rows


def training_folder(workdir: Path) -> Path:
  """Where the network was trained: of a campaign, in its last update."""
  updates = sorted(workdir.glob("train/round_[0-9]*/checkpoints"))
  return updates[-1].parent if updates else workdir / "train"


def read_npz(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray] | None:
  """The arrays of a file, None if there is none. Raises UserError if it is broken."""
  if not path.is_file():
    return None
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
    raise cli.UserError(f"{path}: unreadable ({error}); delete it") from error
  if missing := [name for name in needed if name not in arrays]:
    raise cli.UserError(
      f"{path}: lacks {', '.join(missing)}; it has {', '.join(sorted(arrays))}"
    )
  return arrays


def _dataset_facts(folders: Sequence[Path]) -> DatasetFacts:
  from data_pipeline import source

  files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
  size = sum(path.stat().st_size for path in files)
  try:
    attempts = source.merge([source.open_dataset(f) for f in folders]).attempts
  except Exception as error:
    if cli.message_for_user(error) is None:
      raise
    return DatasetFacts(size_bytes=size, problem=str(error))
  return DatasetFacts(
    statistics.rate(int(attempts.success.sum()), len(attempts)),
    statistics.rates_by(np.asarray(attempts.unit), attempts.success),
    int(attempts.num_steps.sum()),
    size,
  )
