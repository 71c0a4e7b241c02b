"""Reads the data, the training and the policy of a work folder; every part is optional.

Layout: see WORKSPACE.md. Nothing here draws or words anything. `_evaluated` reads the
rest.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli, statistics
from hand_eye import runtime


@dataclass(frozen=True)
class Rate:
  """Successes of attempts, with a 95 % interval: Wilson's, unless `bounds` is given."""

  attempts: int
  successes: int
  bounds: tuple[float, float] | None = None

  @property
  def rate(self) -> float:
    return self.successes / self.attempts if self.attempts else float("nan")

  @property
  def interval(self) -> tuple[float, float]:
    return self.bounds or statistics.wilson(self.successes, self.attempts)


@dataclass(frozen=True)
class DatasetFacts:
  """A collected dataset: counts overall and by unit, or why it cannot be read."""

  total: Rate
  by_unit: dict[str, Rate]
  samples: int
  size_bytes: int
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
    """The held-out evaluation of the best weights, else the last; {} if none."""
    rows = [row for row in self.metrics if row.get("split") == "held_out"]
    return rows[-1] if rows else {}


def read(workdir: Path) -> Results:
  """Reads a work folder. Raises UserError for a file that is there but broken."""
  results = Results(workdir)
  for name in ("train", "held_out"):
    found = sorted(workdir.glob(f"data/{name}/1.0.0"))
    if name == "train":  # of a campaign, a dataset a round
      found += sorted(workdir.glob("data/round_[0-9]*/1.0.0"))
    if found:
      results.datasets[name] = _dataset_facts(found)
  training = training_folder(workdir)
  results.metrics = cli.read_jsonl(training / "metrics.jsonl")
  results.config = read_json(training / "config.json")
  results.predictions = read_npz(
    training / "held_out_predictions.npz", ("label", "probability")
  )
  policy_file = workdir / "policy.hep"
  if policy_file.is_file():
    results.policy_file = policy_file
    results.policy_manifest = runtime.read_manifest(policy_file)
  results.seconds = read_json(workdir / "demo.json").get("seconds", {})
  return results


def training_folder(workdir: Path) -> Path:
  """Where the network was trained: of a campaign, in its last update."""
  updates = sorted(workdir.glob("train/round_[0-9]*/checkpoints"))
  return updates[-1].parent if updates else workdir / "train"


def read_json(path: Path) -> dict[str, Any]:
  """The object in a JSON file, {} if there is none. Raises UserError if broken."""
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise cli.UserError(f"{path}: no JSON ({error}); delete it") from error
  if not isinstance(content, dict):
    found = type(content).__name__
    raise cli.UserError(f"{path}: expected a JSON object, found a {found}; delete it")
  return content


def read_npz(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray] | None:
  """The arrays of a file, None if there is none. Raises UserError if it is broken."""
  if not path.is_file():
    return None
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (ValueError, zipfile.BadZipFile) as error:
    raise cli.UserError(f"{path}: unreadable ({error}); delete it") from error
  missing = [name for name in needed if name not in arrays]
  if missing:
    raise cli.UserError(
      f"{path}: lacks {', '.join(missing)}; it has {', '.join(sorted(arrays))}"
    )
  return arrays


def _dataset_facts(folders: Sequence[Path]) -> DatasetFacts:
  from data_pipeline import source

  files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
  size = sum(path.stat().st_size for path in files)
  try:
    datasets = [source.open_dataset(folder) for folder in folders]
    attempts = source.merge(datasets).attempts
  except Exception as error:
    if cli.message_for_user(error) is None:
      raise
    return DatasetFacts(Rate(0, 0), {}, 0, size, problem=str(error))
  by_unit = {}
  for unit in np.unique(attempts.unit):
    success = attempts.success[attempts.unit == unit]
    by_unit[str(unit)] = Rate(len(success), int(success.sum()))
  total = Rate(len(attempts), int(attempts.success.sum()))
  return DatasetFacts(total, by_unit, int(attempts.num_steps.sum()), size)
