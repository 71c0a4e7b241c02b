"""Reads the results of an evaluation and a sweep; every part is optional."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from experiments import cli, statistics
from experiments.reporting import results as results_lib
from experiments.statistics import Rate

WITH, WITHOUT = "with_replacement", "without_replacement"
# Of videos, in the order in which they are shown.
KINDS = ("success", "correction", "failure")

# What is read of a row, see `trials.row_of`.
_ROW = (
  "policy", "protocol", "condition", "unit", "success", "grasped", "target",
  "target_family", "target_properties", "target_across", "actions", "p_null", "p_best",
)  # fmt: skip

Cell = Mapping[str, Any]  # an entry that `sweep.summarise` makes
Found = TypeVar("Found")


@dataclass(frozen=True)
class Setup:
  """What an evaluation or a sweep was made with.

  Attributes:
    settings: the section `evaluate` that was run.
    specs: of the policies: version, and fields of the servo.
    cell: the frame size and what else decides the rows.
  """

  settings: Mapping[str, Any]
  specs: Mapping[str, Mapping[str, Any]]
  cell: Mapping[str, Any]

  def bins(self, protocol: str) -> int:
    return int(self.settings.get(protocol, {}).get("repetitions", 0))


@dataclass(frozen=True)
class Evaluation(Setup):
  """What evaluate/ says.

  Attributes:
    with_replacement: success by policy.
    without: success over the first attempts of each bin, by policy and their number.
    cleared: after which attempt each bin was empty, None if never, by policy.
    paired: by policy and protocol, (difference, low, high) of its rate to the servo's.
    detectors: precision and recall by detector.
    rows: an attempt each, of the policies above, under no condition.
    others: policies of which there are rows, but which were not named last.
  """

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


@dataclass(frozen=True)
class Sweep(Setup):
  """What sweep/ says; a cell is one policy under one protocol and condition."""

  cells: tuple[Cell, ...]

  @property
  def policies(self) -> list[str]:
    return list(dict.fromkeys(cell["policy"] for cell in self.cells))

  @property
  def conditions(self) -> list[str]:
    return list(dict.fromkeys(c["condition"] for c in self.cells if c["condition"]))


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
  return Evaluated(
    workdir,
    _read(folder / "summary.json", "evaluate", _evaluation),
    _read(workdir / "sweep" / "sweep.json", "sweep", _sweep),
    results_lib.read_npz(
      folder / "overlay.npz", ("pregrasp_image", "image", "pixels", "probabilities")
    ),
    units_image if units_image.is_file() else None,
    _read_videos(folder / "videos"),
  )


def _read(path: Path, program: str, made: Callable[..., Found]) -> Found | None:
  content = cli.read_json(path)
  try:
    return made(content, path) if content else None
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    what = f"lacks {error}" if isinstance(error, KeyError) else f"is not valid: {error}"
    where = path if not isinstance(error, _RowError) else error.path
    raise cli.UserError(
      f"{where} {what}; it is of another version, or damaged. Run"
      f" python -m experiments.{program} again, into a new folder"
    ) from error


class _RowError(KeyError):
  """A row lacks a field."""

  def __init__(self, name: str, path: Path):
    super().__init__(name)
    self.path = path


def _evaluation(summary: Mapping[str, Any], path: Path) -> Evaluation:
  return from_summary(summary, cli.read_jsonl(path.parent / "rows.jsonl"), path.parent)


def from_summary(
  summary: Mapping[str, Any], rows: list[dict[str, Any]], folder: Path = Path()
) -> Evaluation:
  """The content of a summary.json, which `evaluate.evaluate` writes, and its rows.

  Raises:
    KeyError, TypeError, ValueError, AttributeError: it is of another version.
  """
  policies, config = summary["policies"], summary["config"]
  for row in rows:
    for name in _ROW:
      if name not in row:
        raise _RowError(name, folder / "rows.jsonl")
  own = [row for row in rows if row["policy"] in policies]
  tallies = summary.get("rows", {})
  for name in policies:
    cli.check_tally(
      [row for row in own if row["policy"] == name and not row["condition"]],
      tallies.get(name),
      f"{folder / 'rows.jsonl'}, policy {name},",
      "run python -m experiments.evaluate again with the same --workdir: it makes what"
      " is missing",
    )
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
      name: {protocol: (gap, low, high) for protocol, (gap, low, high) in one.items()}
      for name, one in summary["paired"].items()
    },
    detectors=summary["detectors"],
    rows=[row for row in own if not row["condition"]],
    others=tuple(
      dict.fromkeys(row["policy"] for row in rows if row["policy"] not in policies)
    ),
  )


def _sweep(content: Mapping[str, Any], path: Path) -> Sweep:
  del path
  facts = content["config"]
  cells = tuple(map(cell_of, content["cells"]))
  return Sweep(facts["evaluate"], facts["policies"], facts["cell"], cells)


def cell_of(entry: Mapping[str, Any]) -> Cell:
  """One of the entries that `sweep.summarise` makes, its rate apart."""
  names = ("policy", "protocol", "condition", "name", "amount")
  return {**{name: entry[name] for name in names}, "rate": _rate(entry)}


def _rate(entry: Mapping[str, Any]) -> Rate:
  names = ("attempts", "successes", "rate", "low", "high", "over", "groups")
  found = statistics.rate(int(entry["successes"]), int(entry["attempts"]))
  return {**found, **{name: entry[name] for name in names if name in entry}}


def _read_videos(folder: Path) -> list[Video]:
  """Those that gallery.json lists in its order, then all others by name."""
  path = folder / "gallery.json"
  listed = []
  if path.is_file():
    try:
      for entry in json.loads(path.read_text(encoding="utf-8")):
        kind = entry["kind"] if entry["kind"] in KINDS else ""
        file = folder / Path(entry["file"]).name
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
