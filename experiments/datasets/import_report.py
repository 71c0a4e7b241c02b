"""Reports on an import: a row per file, and a summary."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import records
from data_pipeline.importers import example, levine2016
from experiments import cli
from experiments.reporting import words as words_lib

LOG = "import.jsonl"
_SHOWN = 10  # rejected records in the terminal; all of them are in the log.
_WIDEST = 0.3  # m; fingers that are further apart are no reading in metres.
_SIDEWAYS = 0.01  # m; a last step that moved further is worth a word.
_FEW = 0.8  # Labels that agree less often with the file's own, too.


@dataclasses.dataclass(frozen=True)
class FileReport:
  """What a file gave.

  Attributes:
    file: its name.
    shard: None if it had no attempt to give.
    attempts: imported.
    successes: of these, by the paper's rule.
    agreements: attempts whose label is that of the file.
    compared: attempts whose file says `grasp_success`.
    wide: readings that are too large for metres.
    last_motions: attempts whose last step moved further than 1 cm sideways.
    rejected: [record, reason] of each record that was left out.
    unread: bytes of the file, after the last of these, in which no record was found.
  """

  file: str
  shard: int | None = None
  attempts: int = 0
  successes: int = 0
  agreements: int = 0
  compared: int = 0
  wide: int = 0
  last_motions: int = 0
  rejected: tuple[tuple[int, str], ...] = ()
  unread: int = 0

  def plus(self, attempt: records.AttemptRecord) -> "FileReport":
    """The report with one more attempt."""
    origin = json.loads(attempt["software"])
    recorded = origin["recorded_success"]
    return dataclasses.replace(
      self,
      attempts=self.attempts + 1,
      successes=self.successes + attempt["success"],
      compared=self.compared + (recorded is not None),
      agreements=self.agreements
      + (recorded is not None and attempt["success"] == (recorded > 0.5)),
      wide=self.wide + (attempt["gripper_reading"] > _WIDEST),
      last_motions=self.last_motions + ((origin["last_motion"] or 0) > _SIDEWAYS),
    )

  def without(self, number: int, reason: str, unread: int = 0) -> "FileReport":
    """The report with one more rejected record, and what lies unread after it."""
    return dataclasses.replace(
      self,
      rejected=(*self.rejected, (number, reason)),
      unread=self.unread + unread,
    )


def read_reports(folder: str | Path) -> list[FileReport]:
  """The last report of each file, from the log in <workdir>/<name>."""
  rows = {row["file"]: row for row in cli.read_jsonl(Path(folder) / LOG)}
  return [
    FileReport(**row | {"rejected": tuple((n, why) for n, why in row["rejected"])})
    for row in rows.values()
  ]


def summary(reports: Sequence[FileReport]) -> list[str]:
  """The summary of an import, line by line."""

  def total(name: str) -> int:
    return sum(getattr(report, name) for report in reports)

  attempts, compared = total("attempts"), total("compared")
  rejected = [(r.file, n, why) for r in reports for n, why in r.rejected]
  lines = [
    f"{attempts:,} attempts of {len(reports)} files, success "
    f"{words_lib.percent(total('successes') / max(attempts, 1))}; left out: "
    f"{len(rejected)} records"
  ]
  lines += [f"  {file}, record {n}: {why}" for file, n, why in rejected[:_SHOWN]]
  if len(rejected) > _SHOWN:
    lines.append(f"  and {len(rejected) - _SHOWN} more, see {LOG}")
  if unread := total("unread"):
    files = sum(report.unread > 0 for report in reports)
    lines.append(
      f"  and {unread:,} bytes of {files} files in which nothing says where a record "
      "begins: how many attempts they hold is not known"
    )
  if compared:
    agreement = total("agreements") / compared
    lines.append(
      f"label and the files' grasp_success agree in {100 * agreement:.1f} % of "
      f"{compared:,} attempts"
    )
    if agreement < _FEW:
      lines.append(
        "  so few that gripper/status probably counts another way: try "
        "--gripper_status=opening or closing, and --stroke"
      )
  if wide := total("wide"):
    lines.append(
      f"{wide:,} readings are above {_WIDEST} m, further than fingers open: "
      "gripper/status may be a share from 0 to 1, see --gripper_status"
    )
  if moved := total("last_motions"):
    lines.append(
      f"in {moved:,} attempts the last step moved more than 1 cm sideways before the "
      "fingers closed, which no image shows; --max_last_motion leaves such out"
    )
  return lines


def promised(paths: Sequence[Path]) -> list[str]:
  """What the lists of keys beside the records say of the number of attempts."""
  lines = []
  for folder in sorted({path.parent for path in paths}):
    for path in sorted(folder.glob("features_*.csv")):
      try:
        count, _ = levine2016.read_feature_list(path)
      except (example.LayoutError, UnicodeDecodeError) as error:
        lines.append(f"{path.name} was not understood: {error}")
        continue
      part = path.stem.removeprefix("features")  # _057, _062_b
      files = sum(f"{part}.tfrecord" in p.name for p in paths if p.parent == folder)
      lines.append(
        f"{path.name} announces {count:,} attempts in all its files; {files} are here"
      )
  return lines


def missing(paths: Sequence[Path]) -> list[str]:
  """Which files of those are not here that the names of others announce.

  `NAME-00001-of-00004` says that there are four.
  """
  found: dict[tuple[Path, str, int], set[int]] = {}
  for path in paths:
    if match := re.fullmatch(r"(.*)-(\d+)-of-(\d+)", path.name):
      name, number, count = match.groups()
      found.setdefault((path.parent, name, int(count)), set()).add(int(number))
  lines = []
  for (_, name, count), numbers in sorted(found.items()):
    if absent := sorted(set(range(count)) - numbers):
      named = ", ".join(f"{one:05d}" for one in absent[:8])
      named += ", ..." if len(absent) > 8 else ""
      lines.append(f"{name}: {len(absent)} of {count} files are missing: {named}")
  return lines
