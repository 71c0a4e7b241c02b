"""Reads what an evaluation and a sweep left in a work folder; every part is optional.

Nothing here draws or words anything.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments import cli
from experiments.reporting import results as results_lib
from experiments.reporting.results import Rate

WITH, WITHOUT = "with_replacement", "without_replacement"
# Of videos, in the order in which they are shown.
KINDS = ("success", "correction", "failure")

# What is read of a row, see `trials.row_of`.
_ROW = (
  "policy", "protocol", "condition", "unit", "success", "grasped", "target",
  "target_family", "target_properties", "target_across", "actions", "p_null", "p_best",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
  """What evaluate/ says.

  Attributes:
    settings: the section `evaluate` that was run.
    specs: of the policies: version, and fields of the servo.
    cell: the frame size and what else decides the rows.
    with_replacement: success by policy.
    without: success over the first attempts of each bin, by policy and their number.
    cleared: after which attempt each bin was empty, None if never, by policy.
    paired: by policy and protocol, (difference, low, high) of its rate to the servo's.
    detectors: precision and recall by detector.
    rows: an attempt each, of the policies above, under no condition.
    others: policies of which there are rows, but which were not named last.
  """

  settings: Mapping[str, Any]
  specs: Mapping[str, Mapping[str, Any]]
  cell: Mapping[str, Any]
  with_replacement: Mapping[str, Rate]
  without: Mapping[str, Mapping[int, Rate]]
  cleared: Mapping[str, list[int | None]]
  paired: Mapping[str, Mapping[str, tuple[float, float, float]]]
  detectors: Mapping[str, Mapping[str, float | None]]
  rows: list[dict[str, Any]]
  others: tuple[str, ...] = ()

  @property
  def policies(self) -> list[str]:
    """In the order in which they were named."""
    return list(self.specs)

  def bins(self, protocol: str) -> int:
    return int(self.settings.get(protocol, {}).get("repetitions", 0))


@dataclass(frozen=True)
class Cell:
  """One policy under one protocol and condition ('' for none)."""

  policy: str
  protocol: str
  condition: str
  name: str
  amount: float
  rate: Rate


@dataclass(frozen=True)
class Sweep:
  """What sweep/ says; settings, specs and cell as of an `Evaluation`."""

  settings: Mapping[str, Any]
  specs: Mapping[str, Mapping[str, Any]]
  cell: Mapping[str, Any]
  cells: tuple[Cell, ...]

  @property
  def policies(self) -> list[str]:
    return list(dict.fromkeys(cell.policy for cell in self.cells))

  @property
  def conditions(self) -> list[str]:
    return [c for c in dict.fromkeys(cell.condition for cell in self.cells) if c]


@dataclass(frozen=True)
class Video:
  """kind: of KINDS, or '' where that is not known."""

  path: Path
  kind: str
  caption: str


@dataclass(frozen=True)
class Evaluated:
  """What was found under a work folder."""

  workdir: Path
  evaluation: Evaluation | None = None
  sweep: Sweep | None = None
  overlay: Mapping[str, np.ndarray] | None = None
  units_image: Path | None = None
  videos: list[Video] = field(default_factory=list)


def read(workdir: Path) -> Evaluated:
  """Reads a work folder. Raises UserError for a file that is there but broken."""
  folder = workdir / "evaluate"
  units_image = folder / "units.png"
  overlay = results_lib.read_npz(
    folder / "overlay.npz", ("pregrasp_image", "image", "pixels", "probabilities")
  )
  return Evaluated(
    workdir,
    _read_evaluation(folder),
    _read_sweep(workdir / "sweep" / "sweep.json"),
    overlay,
    units_image if units_image.is_file() else None,
    _read_videos(folder / "videos"),
  )


def _read_evaluation(folder: Path) -> Evaluation | None:
  path = folder / "summary.json"
  summary = results_lib.read_json(path)
  if not summary:
    return None
  try:
    return from_summary(summary, *_read_rows(folder / "rows.jsonl", summary))
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise _other_version(path, "evaluate", error) from error


def from_summary(
  summary: Mapping[str, Any],
  rows: list[dict[str, Any]],
  others: tuple[str, ...] = (),
) -> Evaluation:
  """The content of a summary.json, which `evaluate.evaluate` writes, and its rows.

  Raises:
    KeyError, TypeError, ValueError, AttributeError: it is of another version.
  """
  policies, config = summary["policies"], summary["config"]
  without = {name: one[WITHOUT] for name, one in policies.items() if WITHOUT in one}
  return Evaluation(
    settings=config["evaluate"],
    specs={name: config["policies"][name] for name in policies},
    cell=config["cell"],
    with_replacement={
      name: _rate(one[WITH]) for name, one in policies.items() if WITH in one
    },
    without={
      name: {int(n): _rate(rate) for n, rate in one["first"].items()}
      for name, one in without.items()
    },
    cleared={name: list(one["cleared_at"]) for name, one in without.items()},
    paired={
      name: {protocol: _triple(values) for protocol, values in one.items()}
      for name, one in summary["paired"].items()
    },
    detectors=summary["detectors"],
    rows=rows,
    others=others,
  )


def _read_rows(
  path: Path, summary: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
  """Rows of the policies of a summary, and the names of others.

  Raises:
    UserError: a row lacks a field.
  """
  named, kept, others = set(summary["policies"]), [], {}
  for row in cli.read_jsonl(path):
    if missing := [name for name in _ROW if name not in row]:
      error = KeyError(missing[0])
      raise _other_version(path, "evaluate", error)
    if row["policy"] not in named:
      others[row["policy"]] = True
    elif not row["condition"]:
      kept.append(row)
  return kept, tuple(others)


def _read_sweep(path: Path) -> Sweep | None:
  content = results_lib.read_json(path)
  if not content:
    return None
  try:
    facts = content["config"]
    return Sweep(
      settings=facts["evaluate"],
      specs=facts["policies"],
      cell=facts["cell"],
      cells=tuple(map(cell_of, content["cells"])),
    )
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise _other_version(path, "sweep", error) from error


def cell_of(entry: Mapping[str, Any]) -> Cell:
  """One of the entries that `sweep.summarise` makes."""
  return Cell(
    entry["policy"],
    entry["protocol"],
    entry["condition"],
    entry["name"],
    float(entry["amount"]),
    _rate(entry),
  )


def _rate(entry: Mapping[str, Any]) -> Rate:
  low, high = float(entry["low"]), float(entry["high"])
  # Redrawing bins that are alike, or a single one, says nothing: Wilson's, then.
  bounds = (low, high) if low < high else None
  return Rate(int(entry["attempts"]), int(entry["successes"]), bounds)


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
  difference, low, high = map(float, values)
  return difference, low, high


def _other_version(path: Path, program: str, error: Exception) -> cli.UserError:
  what = (
    f"lacks {error}" if isinstance(error, KeyError) else f"is not as expected: {error}"
  )
  return cli.UserError(
    f"{path} {what}; it is of another version, or damaged. Run"
    f" python -m experiments.{program} again, into a new folder"
  )


def _read_videos(folder: Path) -> list[Video]:
  """Those that gallery.json lists in its order, then all others by name."""
  path = folder / "gallery.json"
  listed = []
  if path.is_file():
    try:
      for entry in json.loads(path.read_text(encoding="utf-8")):
        file = folder / Path(entry["file"]).name
        kind = entry["kind"] if entry["kind"] in KINDS else ""
        listed.append(Video(file, kind, str(entry["caption"])))
    except (KeyError, TypeError, ValueError) as error:
      raise cli.UserError(
        f"{path} is not as expected ({error}): a list of entries with file, kind and"
        " caption; delete it, and all videos are shown"
      ) from error
  known = {video.path for video in listed}
  others = [
    Video(file, "", file.stem.replace("_", " ").replace("-", " "))
    for file in sorted(folder.glob("*.mp4"))
    if file not in known
  ]
  return [video for video in listed if video.path.is_file()] + others
