r"""Says what a dataset holds, in the terminal and as one HTML page.

  python -m experiments.describe --data=runs/demo/data/train

Counts and rates of success by unit, round, T, policy and object family; the
distribution of commands; how well the labels agree; and a contact sheet of attempts.
Writes describe.html, which needs no other file, and contact_sheet.jpg into --workdir,
by default the folder above the dataset's version.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from absl import flags
from PIL import Image

from data_pipeline.attempts import scenes
from envs import success
from experiments import cli
from experiments.datasets import contact_sheet, counts, dataset_figures
from experiments.datasets.counts import Description
from experiments.reporting import pages, tables, words
from experiments.reporting.pages import Table

PAGE, SHEET = "describe.html", "contact_sheet.jpg"
_FEW_ROWS = 12  # A longer table is folded on the page, and cut in the terminal.


def describe(
  data: str | Path,
  workdir: str | Path | None = None,
  *,
  on_bad_record: Literal["fail", "skip"] = "fail",
  num_shown: int = 16,
) -> tuple[Description, Path]:
  """Describes a dataset and writes its page.

  Args:
    data: `<root>/<name>/<version>`, or `<root>/<name>` if it has one version.
    workdir: where to write; None: `<root>/<name>`.
    on_bad_record: whether a broken record is an error, or is named on the page.
    num_shown: attempts on the contact sheet.

  Returns:
    What was counted, and the path of the page.

  Raises:
    UserError, DatasetError: an input cannot be used.
  """
  directory = counts.find(data)
  folder = cli.prepare_workdir(workdir or directory.parent)
  found = counts.read(directory, on_bad_record=on_bad_record)
  chosen = contact_sheet.choose(found.dataset.attempts, num_shown)
  # Only here are images decoded: one that is broken is named like a broken record.
  shown, broken = counts.decode_some(found.dataset, chosen, images=True)
  found = dataclasses.replace(found, broken=(*found.broken, *broken))
  sheet = folder / SHEET
  Image.fromarray(contact_sheet.draw(shown)).save(sheet, quality=88)
  page = folder / PAGE
  drawn: dict[str, Any] = {
    "sheet": sheet,
    "commands": dataset_figures.commands(found.samples),
    "ends": dataset_figures.ends(found.dataset.attempts),
    "readings": dataset_figures.readings(
      found.dataset.attempts, success.READING_THRESHOLD
    ),
  }
  cli.write_atomically(page, pages.html(*_page(found), _values(found) | drawn))
  return found, page


def terminal(found: Description) -> str:
  """The page's words and tables as text; a long table is cut and says so."""
  values = _values(found)
  values["folded"] = [
    (name, table._replace(rows=table.rows[:_FEW_ROWS], caption="The first ones:"))
    for name, table in values["folded"]
  ]
  drawn = dict.fromkeys(("sheet", "commands", "ends", "readings"), "")
  return pages.markdown(*_page(found), values | drawn)


def findings(found: Description) -> list[str]:
  """What can be said of a dataset, in sentences."""
  said = []
  if list(found.tables["policy"]) == ["random"]:
    said.append(words.base_rate(found.total))
  shares = [r["rate"] for r in found.tables["unit"].values() if r["attempts"] >= 10]
  if len(shares) > 1:
    said.append(
      f"Units with at least 10 attempts succeed in {words.percent(min(shares))} to"
      f" {words.percent(max(shares))} of them."
    )
  if label := found.agreement.detectors.get("label"):
    said.append(
      f"Our label agrees with {found.agreement.truth} in"
      f" {100 * label['agreement']:.1f} % of {found.agreement.compared:,} attempts."
    )
  if found.unknown:
    said.append(f"Unknown of these attempts: {', '.join(sorted(found.unknown))}.")
  if found.partly_unknown:
    said.append(f"Unknown of some: {', '.join(sorted(found.partly_unknown))}.")
  if found.broken:
    said.append(
      f"{len(found.broken)} broken parts were left out, the first: {found.broken[0]}"
    )
  return said


def _page(found: Description) -> tuple[str, str, str]:
  """The template, the title and what stands below it."""
  return (
    "describe.md.j2",
    f"Dataset {found.name}",
    f"{found.directory.parent.name}/{found.directory.name}: grasp attempts, one an"
    " episode (Levine et al. 2016). Intervals (Wilson) take attempts as independent,"
    " though several share a bin.",
  )


def _values(found: Description) -> dict[str, Any]:
  """What describe.md.j2 shows, without the pictures."""
  # One table of what has few values, so that its columns stand below each other.
  few, folded = [], []
  for name, rows in found.tables.items():
    if len(rows) > _FEW_ROWS:
      heading = f"By {name}: {len(rows)}"
      folded.append((heading, tables.rates(name, rows.items())))
    else:
      few += [((name, label), rate) for label, rate in rows.items()]
  few.append((("all attempts", ""), found.total))
  return {
    "cards": _cards(found),
    "findings": findings(found),
    "rates": tables.rates(("by", ""), few),
    "folded": folded,
    "families": _families(found),
    "lengths": tables.rates(
      "samples by length", found.reaches.items(), counted="samples"
    ),
    "agreement": found.agreement,
    "detectors": _detectors(found),
    "is_drop_test_unknown": "drop_test" in found.unknown | found.partly_unknown,
  }


def _cards(found: Description) -> list[tuple[str, str, str]]:
  table, total = found.dataset.attempts, found.total
  bins = f"{len(set(scenes(table).tolist())):,} scenes"
  each = f"{found.size_bytes / 1e3 / len(table):,.0f} kB an attempt"
  return [
    (f"{total['attempts']:,}", "attempts", f"{len(found.samples):,} samples"),
    (
      words.percent(total["rate"]),
      "success",
      words.interval(total),
    ),
    (
      f"{len(found.tables['unit'])}",
      "units",
      "scenes unknown" if "scene_seed" in found.unknown else bins,
    ),
    (
      f"{found.dataset.frame_size} px",
      "frames",
      f"{found.size_bytes / 1e6:,.1f} MB, {each}",
    ),
  ]


def _families(found: Description) -> Table:
  header = (
    "family", "attempts with it", "success of these", "objects seen", "grasped",
    "grasped per 100 seen",
  )  # fmt: skip
  caption = (
    "An attempt counts for every family in its bin; its success may be another's."
    " Grasped: what really hung in the gripper."
  )
  rows = [
    (
      one.name,
      f"{one.present['attempts']:,}",
      f"{100 * one.present['rate']:.1f} %",
      f"{one.objects:,}",
      f"{one.grasped:,}",
      f"{100 * one.grasped / one.objects:.1f}",
    )
    for one in found.families
  ]
  return Table(header, rows, range(1, 6), caption)


def _detectors(found: Description) -> Table:
  agreement = found.agreement
  rows = [
    (name, f"{one['says_success']:,}")
    + tuple(map(tables.known, (one["precision"], one["recall"], one["agreement"])))
    for name, one in agreement.detectors.items()
  ]
  header = ("says success", "times", "precision", "recall", "agreement")
  caption = f"Held against {agreement.truth}, {agreement.compared:,} attempts."
  return Table(header, rows, range(1, 5), caption)


def define_flags() -> None:
  flags.DEFINE_string("data", "", "Dataset: <workdir>/<name>, or its version's folder.")
  flags.DEFINE_string("workdir", "", "Where to write; by default above the version.")
  flags.DEFINE_integer("num_shown", 16, "Attempts on the contact sheet.", lower_bound=1)
  flags.DEFINE_enum(
    "on_bad_record",
    "fail",
    ["fail", "skip"],
    "Stop at a broken record, or leave it out.",
  )


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  found, page = describe(
    args.data,
    args.workdir or None,
    on_bad_record=args.on_bad_record,
    num_shown=args.num_shown,
  )
  print(terminal(found))
  print(f"\nPage: {page}")


if __name__ == "__main__":
  cli.run(main, define_flags)
