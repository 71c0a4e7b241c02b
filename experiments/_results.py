"""Reads what the programs left in a work folder; every part is optional.

Layout: see WORKSPACE.md. Nothing here draws or words anything.
"""

import collections
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import _edge, _stats
from hand_eye import runtime

BASELINE = "random"


@dataclass(frozen=True)
class Rate:
  """Successes of attempts, with the 95 % Wilson interval."""

  attempts: int
  successes: int

  @property
  def rate(self) -> float:
    return self.successes / self.attempts if self.attempts else float("nan")

  @property
  def interval(self) -> tuple[float, float]:
    return _stats.wilson(self.successes, self.attempts)


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
  """Everything found under a work folder; None, {} or [] where a part is missing."""

  workdir: Path
  datasets: dict[str, DatasetFacts] = field(default_factory=dict)
  metrics: list[dict[str, Any]] = field(default_factory=list)
  config: dict[str, Any] = field(default_factory=dict)
  predictions: dict[str, np.ndarray] | None = None
  policies: dict[str, Rate] = field(default_factory=dict)
  rows: list[dict[str, Any]] = field(default_factory=list)
  detectors: dict[str, dict[str, float | None]] = field(default_factory=dict)
  overlay: dict[str, np.ndarray] | None = None
  units_image: Path | None = None
  videos: list[Path] = field(default_factory=list)
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

  def by(self, *names: str) -> dict[tuple[str, ...], Rate]:
    """Success of the evaluated attempts grouped by fields of their rows."""
    attempts: collections.Counter[tuple[str, ...]] = collections.Counter()
    successes: collections.Counter[tuple[str, ...]] = collections.Counter()
    for row in self.rows:
      key = tuple(str(row.get(name, "")) for name in names)
      attempts[key] += 1
      successes[key] += bool(row.get("success"))
    return {key: Rate(attempts[key], successes[key]) for key in attempts}


def read(workdir: Path) -> Results:
  """Reads a work folder. Raises UserError for a file that is there but broken."""
  results = Results(workdir)
  for name in ("train", "held_out"):
    folder = workdir / "data" / name / "1.0.0"
    if folder.is_dir():
      results.datasets[name] = _dataset_facts(folder)
  results.metrics = _edge.read_jsonl(workdir / "train" / "metrics.jsonl")
  results.config = _read_json(workdir / "train" / "config.json")
  results.predictions = _read_npz(
    workdir / "train" / "held_out_predictions.npz", ("label", "probability")
  )
  results.rows = _edge.read_jsonl(workdir / "evaluate" / "rows.jsonl")
  summary = _read_json(workdir / "evaluate" / "summary.json")
  results.detectors = summary.get("detectors", {})
  for name, policy in summary.get("policies", {}).items():
    results.policies[name] = Rate(int(policy["attempts"]), int(policy["successes"]))
  results.overlay = _read_npz(
    workdir / "evaluate" / "overlay.npz",
    ("pregrasp_image", "image", "pixels", "probabilities"),
  )
  units_image = workdir / "evaluate" / "units.png"
  results.units_image = units_image if units_image.is_file() else None
  results.videos = sorted((workdir / "evaluate" / "videos").glob("*.mp4"))
  policy_file = workdir / "policy.hep"
  if policy_file.is_file():
    results.policy_file = policy_file
    results.policy_manifest = runtime.read_manifest(policy_file)
  results.seconds = _read_json(workdir / "demo.json").get("seconds", {})
  return results


def _read_json(path: Path) -> dict[str, Any]:
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise _edge.UserError(f"{path}: no JSON ({error.msg})") from error
  if not isinstance(content, dict):
    raise _edge.UserError(f"{path}: expected a JSON object, found {type(content)}")
  return content


def _read_npz(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray] | None:
  if not path.is_file():
    return None
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: archive[name] for name in archive.files}
  except (ValueError, zipfile.BadZipFile) as error:
    raise _edge.UserError(f"{path}: unreadable ({error}); delete it") from error
  missing = [name for name in needed if name not in arrays]
  if missing:
    raise _edge.UserError(
      f"{path}: lacks {', '.join(missing)}; it has {', '.join(sorted(arrays))}"
    )
  return arrays


def _dataset_facts(folder: Path) -> DatasetFacts:
  from data_pipeline import source

  size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
  try:
    attempts = source.open_dataset(folder).attempts
  except Exception as error:
    if _edge.message_for_user(error) is None:
      raise
    return DatasetFacts(Rate(0, 0), {}, 0, size, problem=str(error))
  by_unit = {}
  for unit in np.unique(attempts.unit):
    success = attempts.success[attempts.unit == unit]
    by_unit[str(unit)] = Rate(len(success), int(success.sum()))
  total = Rate(len(attempts), int(attempts.success.sum()))
  return DatasetFacts(total, by_unit, int(attempts.num_steps.sum()), size)
