r"""Converts the grasping dataset that the paper's authors published to our format.

  python -m experiments.import_data --source=grasping_dataset \
    --gripper_status=opening --workdir=runs/paper/data --name=levine2016

--source is a folder of TFRecord files, or a pattern such as 'data/*_057.tfrecord*'.
Each file becomes one shard of a TFDS dataset in <workdir>/<name>/1.0.0; the same
command resumes an interrupted import. data_pipeline/importers/levine2016.py documents
what is read from a record and what is assumed about it. Records do not say what
gripper/status means: --gripper_status is needed.

With --on_bad_record=skip, broken attempts are left out and counted. Every file's counts
and rejected records are rows of <workdir>/<name>/import.jsonl.
"""

import dataclasses
import functools
import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from absl import flags, logging

from data_pipeline import finish, records, writer
from data_pipeline import plan as plan_lib
from data_pipeline.importers import example, levine2016, tfrecord
from envs import fleet
from experiments import cli
from experiments.datasets.import_report import (
  LOG,
  FileReport,
  missing,
  promised,
  read_reports,
  summary,
)

_RECORDS = "*.tfrecord*"
# Copies that a program began (`_.gstmp`, `.part`) or made twice (` (1)`) end otherwise.
_WHOLE = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$")
_MB = 1_000_000
_SKIP = "leave such records out with --on_bad_record=skip"
_EMPTY = "no record is there"
_STATUS = (
  "--gripper_status is needed: metres between the fingers, a share of their opening"
  " (0 closed, 1 open), or closing (0 open, 1 closed). The records do not say which."
  " Values up to 1 are a share; import a file each way into a folder of its own: with"
  " the right one, as the last lines say, label and the files' grasp_success agree"
)


@dataclasses.dataclass(frozen=True)
class FileTask:
  """One file of records, which becomes one shard."""

  directory: str
  shard: int
  path: str
  name: str
  conventions: levine2016.Conventions
  on_bad_record: Literal["fail", "skip"]


def import_dataset(
  source: str,
  workdir: str | Path,
  name: str,
  *,
  conventions: levine2016.Conventions,
  on_bad_record: Literal["fail", "skip"] = "fail",
  num_workers: int = 1,
) -> Path:
  """Imports published attempts, or what is missing of them.

  Args:
    source: a folder, searched with its subfolders, or a pattern of files.
    workdir: the folder of datasets.
    name: of the new dataset.
    conventions: what the records do not say.
    on_bad_record: whether a broken record ends the import, or is left out and counted.
    num_workers: processes, 0 for one a core; the attempts do not depend on it.

  Returns:
    The dataset's folder.

  Raises:
    UserError: there are no files; or a record is broken, or a file has no usable
      attempt, and `on_bad_record` is `fail`: names file, record and reason.
    DatasetError: the dataset cannot be written, or was begun otherwise.
  """
  paths, base = find_files(source)
  workdir = cli.prepare_workdir(workdir)
  tasks = [
    FileTask("", 0, str(path), path.relative_to(base).as_posix(), conventions,
             on_bad_record)
    for path in paths
  ]  # fmt: skip
  # Independent of on_bad_record, so that a later --on_bad_record=skip resumes the plan.
  usable = []
  log = cli.JsonLines(workdir / name / LOG)
  for task in tasks:
    report = first_look(task)
    if report.attempts:
      usable.append(task)
    elif on_bad_record == "fail":
      number, reason = (*report.rejected, (0, _EMPTY))[0]
      raise cli.UserError(
        f"{task.path} has no usable attempt; record {number}: {reason}; remove the "
        f"file, or {_SKIP}"
      )
    else:
      log.write(dataclasses.asdict(report))
  if not usable:
    raise cli.UserError(
      f"--source={source}: none of {len(paths)} files has a usable attempt; the first "
      f"reason: {_first_reason(workdir / name)}"
    )
  directory = plan_lib.begin(
    workdir,
    plan_lib.Plan(
      name=name,
      num_shards=len(usable),
      frame_size=levine2016.FRAME_SIZE,
      config={
        "importer": levine2016.POLICY,
        "files": {task.name: os.path.getsize(task.path) for task in usable},
        **dataclasses.asdict(conventions),
      },
    ),
  )
  _run(
    [
      dataclasses.replace(usable[shard], directory=str(directory), shard=shard)
      for shard in writer.pending_shards(directory)
    ],
    sum(os.path.getsize(task.path) for task in usable),
    num_workers,
  )
  finish.finalize(directory)
  return directory


def find_files(source: str) -> tuple[list[Path], Path]:
  """Returns the files behind --source, sorted, and the folder they have in common.

  Files whose names are not those of whole ones are left out, with a warning.

  Raises:
    UserError: there are none.
  """
  if not source:
    raise cli.UserError("--source is needed: a folder of TFRecord files, or a pattern")
  if Path(source).is_dir():
    found = Path(source).rglob(_RECORDS)
  else:
    found = (Path(match) for match in glob.iglob(source, recursive=True))
  there = sorted(p for p in found if p.is_file() and p.suffix != ".csv")
  paths = [path for path in there if _WHOLE.search(path.name)]
  odd = [path.name for path in there if not _WHOLE.search(path.name)]
  words = f"{len(odd)} are no whole files by their names: {', '.join(odd[:5])}"
  if not paths:
    raise cli.UserError(
      f"--source={source}: no such files{f' ({words})' if odd else ''}; expected a"
      f" folder with {_RECORDS}, or a pattern in quotes"
    )
  if odd:
    logging.warning("--source=%s: %s; they are left out", source, words)
  return paths, Path(os.path.commonpath([path.parent for path in paths]))


def first_look(task: FileTask) -> FileReport:
  """Reads up to the first usable attempt: a shard cannot be empty."""
  report = FileReport(task.name)
  for raw, found in _attempts(task):
    if not isinstance(found, str):
      return report.plus(found)
    report = report.without(raw.number, found, raw.unread)
  return report


def import_file(
  task: FileTask, advance: Callable[[int], None] = lambda _: None
) -> FileReport:
  """Imports one file; runs in a worker process.

  `advance` is called with the number of bytes read so far.

  Raises:
    UserError: a record is broken and `on_bad_record` is 'fail'.
  """
  report = FileReport(task.name, task.shard)
  with writer.ShardWriter(task.directory, task.shard) as shard:
    for raw, found in _attempts(task):
      advance(raw.position)
      if not isinstance(found, str):
        shard.write(found)
        report = report.plus(found)
      elif task.on_bad_record == "fail":
        raise cli.UserError(
          f"{task.path}, record {raw.number}: {found}; repair it, or {_SKIP}"
        )
      else:
        report = report.without(raw.number, found, raw.unread)
    # Before the shard has its name: no finished shard lacks its row. Of several rows
    # of a file the last one counts.
    log = cli.JsonLines(Path(task.directory).parent / LOG)
    log.write(dataclasses.asdict(report))
  return report


def _attempts(
  task: FileTask,
) -> Iterator[tuple[tfrecord.Raw, records.AttemptRecord | str]]:
  """Yields each record with its attempt, or what is wrong with it."""
  first_seed = _first_seed(task.name)
  for raw in tfrecord.read(task.path):
    found: records.AttemptRecord | str = raw.problem
    if not raw.problem:
      try:
        found = levine2016.to_record(
          raw.data,
          file=task.name,
          number=raw.number,
          attempt_seed=first_seed + raw.number,
          conventions=task.conventions,
        )
        records.validate(found)
      except (example.LayoutError, records.RecordError) as error:
        found = str(error)
    yield raw, found


def _first_seed(name: str) -> int:
  """A number for each file, the same in every import, with room for 2^23 records.

  Merged imports can then tell their attempts apart.
  """
  digest = hashlib.blake2b(name.encode(), digest_size=5).digest()
  return int.from_bytes(digest, "little") << 23


def _run(tasks: list[FileTask], num_bytes: int, num_workers: int) -> None:
  sizes = {task.name: os.path.getsize(task.path) for task in tasks}
  finished = num_bytes - sum(sizes.values())
  attempts = rejected = 0
  with cli.progress(
    max(1, num_bytes // _MB), "import", "MB", initial=finished // _MB
  ) as bar:

    def advance(within: int = 0) -> None:
      bar.update((finished + within) // _MB - bar.n)

    workers = min(num_workers or fleet.num_cores(), len(tasks))
    # A file reports its progress only when it is read in this process.
    function = (
      import_file if workers > 1 else functools.partial(_import_here, advance=advance)
    )
    for _, report in fleet.map_unordered(function, tasks, num_workers=workers):
      finished += sizes[report.file]
      attempts += report.attempts
      rejected += len(report.rejected)
      bar.set_postfix_str(f"{attempts} attempts, {rejected} left out", refresh=False)
      advance()


def _import_here(task: FileTask, advance: Callable[[int], None]) -> FileReport:
  return import_file(task, advance)


def _first_reason(folder: Path) -> str:
  rejected = [(r.file, *one) for r in read_reports(folder) for one in r.rejected]
  return "{}, record {}: {}".format(*rejected[0]) if rejected else _EMPTY


def define_flags() -> None:
  flags.DEFINE_string("source", "", "Folder of TFRecord files, or a pattern of them.")
  flags.DEFINE_string("workdir", "", "Folder of datasets.")
  flags.DEFINE_string("name", levine2016.POLICY, "Name of the new dataset.")
  flags.DEFINE_enum(
    "on_bad_record",
    "fail",
    ["fail", "skip"],
    "Stop at a broken record, or leave it out.",
  )
  flags.DEFINE_enum(
    "gripper_status", None, levine2016.GRIPPER_STATUS,
    "What gripper/status is: metres between the fingers, or a share from closed to"
    " open, or from open to closed. Needed.",
  )  # fmt: skip
  flags.DEFINE_float(
    "stroke", 0.1, "Metres between open fingers, for opening and closing."
  )
  flags.DEFINE_float("table_height", None, "Metres, base frame; unknown if not given.")
  flags.DEFINE_float(
    "max_last_motion", None, "Metres; attempts that moved further at last are broken."
  )
  flags.DEFINE_integer("num_workers", 0, "Processes, 0 for one a core.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if args.gripper_status is None:
    raise cli.UserError(_STATUS)
  conventions = levine2016.Conventions(
    args.gripper_status, args.stroke, args.table_height, args.max_last_motion
  )
  files = find_files(args.source)[0]
  for line in (*promised(files), *missing(files)):
    print(line)
  directory = import_dataset(
    args.source,
    args.workdir,
    args.name,
    conventions=conventions,
    on_bad_record=args.on_bad_record,
    num_workers=args.num_workers,
  )
  print("\n".join(summary(read_reports(directory.parent))))
  print(f"Dataset: {directory}")


if __name__ == "__main__":
  cli.run(main, define_flags)
