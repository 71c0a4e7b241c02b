r"""Checks a whole dataset: every byte, every record, every image, every label.

  python -m experiments.check_data --data=runs/demo/data/round_00/1.0.0

Names each problem with file, record and reason; the exit status is 1 if there is one.
With --quarantine, shards with a problem are moved into the folder `quarantine` of the
dataset. From then on the dataset opens without them, with a warning; the command that
collected it makes them again.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import check, finish
from data_pipeline import plan as plan_lib
from envs import fleet
from experiments import cli

# Problems printed of one dataset; more of them are counted.
_MOST = 50


@dataclasses.dataclass(frozen=True)
class Checked:
  """A dataset, the problems found in it, and what was done about them.

  Attributes:
    directory: the dataset's folder.
    report: what was found.
    num_moved: shards that were moved away.
    is_repaired: whether the rest was declared finished, with a new index and metadata.
  """

  directory: Path
  report: check.Report
  num_moved: int
  is_repaired: bool


def check_data(
  data: Sequence[str | Path], *, quarantine: bool = False, num_threads: int = 0
) -> list[Checked]:
  """Checks datasets and moves broken shards away if asked to.

  Args:
    data: dataset folders.
    quarantine: whether to move broken shards away.
    num_threads: shards that are checked at once, 0 for one a core.

  Raises:
    UserError, DatasetError: a folder is no dataset, or cannot be written.
  """
  if not data:
    raise cli.UserError("--data is needed: one or more folders of datasets")
  num_threads = num_threads or fleet.num_cores()
  checked = []
  for folder in data:
    path = cli.require_folder(folder, "data", "python -m experiments.collect")
    num_shards = plan_lib.read_plan(path).num_shards
    with cli.progress(num_shards, f"check {path.parent.name}", "shards") as bar:
      report = check.check_dataset(path, num_threads=num_threads, on_shard=bar.update)
    num_moved, is_repaired = 0, False
    if report.problems and quarantine:
      num_moved = len(report.broken_shards)
      is_repaired = finish.quarantine(path, report.broken_shards) is not None
    checked.append(Checked(path, report, num_moved, is_repaired))
  return checked


def describe(checked: Checked) -> str:
  """What was found in a dataset, for the terminal."""
  report = checked.report
  lines = [f"{checked.directory}"]
  lines += [f"  broken: {problem}" for problem in report.problems[:_MOST]]
  if len(report.problems) > _MOST:
    lines.append(f"  ... and {len(report.problems) - _MOST} problems more")
  lines.append(
    f"  {report.num_attempts} attempts are sound; {len(report.problems)} problems in"
    f" {len(report.broken_shards)} of {report.num_shards} shards"
  )
  if report.pending:
    lines.append(
      f"  {len(report.pending)} shards are not there yet or in quarantine: "
      f"{list(report.pending[:10])}; run the collection again to make them"
    )
  if checked.num_moved:
    lines.append(
      f"  moved {checked.num_moved} shards into"
      f" {checked.directory / 'quarantine'}; run the collection again to make them"
    )
  elif checked.is_repaired:
    lines.append(
      "  no shard is broken, none was moved; the index and the metadata were rewritten"
    )
  elif report.broken_shards:
    lines.append("  --quarantine moves them away, so that the rest can be used")
  elif report.problems:
    lines.append("  no shard is broken: run the collection again to repair the rest")
  return "\n".join(lines)


def define_flags() -> None:
  flags.DEFINE_list("data", [], "Dataset folders, comma-separated.")
  flags.DEFINE_bool("quarantine", False, "Move shards with a problem out of the way.")
  flags.DEFINE_integer("num_threads", 0, "Shards checked at once; 0: one a core.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  results = check_data(
    args.data, quarantine=args.quarantine, num_threads=args.num_threads
  )
  for checked in results:
    print(describe(checked), flush=True)
  if any(checked.report.problems for checked in results):
    sys.exit(1)


if __name__ == "__main__":
  cli.run(main, define_flags)
