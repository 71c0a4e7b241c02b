r"""Says what a dataset holds, in the terminal and as one HTML page.

  python -m experiments.describe --data=runs/demo/data/train

Counts and rates of success by unit, round, T, policy and object family; what the
commands are; how far the labels agree; and a contact sheet of attempts. Writes
describe.html, which needs no other file, and contact_sheet.jpg into --workdir, by
default the folder above the dataset's version.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from absl import flags
from PIL import Image

from data_pipeline.attempts import scenes
from envs import success
from experiments import cli
from experiments.datasets import contact_sheet, counts, dataset_figures
from experiments.datasets.counts import Agreement, Description, Family
from experiments.reporting import html
from experiments.reporting import words as words_lib
from experiments.reporting.results import Rate

PAGE, SHEET = "describe.html", "contact_sheet.jpg"
_FEW_ROWS = 12  # A longer table is folded on the page, and cut in the terminal.

# The columns of every table of rates, after the name.
_RATES = ("success", "95 % interval", "successes", "attempts")


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
    UserError, DatasetError: something that the caller can mend.
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
  cli.write_atomically(page, render(found, sheet))
  return found, page


# --- the page -----------------------------------------------------------------------


def render(found: Description, sheet: Path) -> str:
  """The page, of what was counted already."""
  return html.page(
    f"Dataset {found.name}",
    f"{found.directory.parent.name}/{found.directory.name}: grasp attempts, one an"
    " episode (Levine et al. 2016). Intervals (Wilson) take attempts as independent,"
    " though several share a bin.",
    [
      _headline(found),
      html.section(
        "A few attempts",
        html.figure(
          html.image(sheet, "Contact sheet of attempts"),
          "Of each: the scene before, the image of the first step, the image at which"
          " the gripper closed. Successes and failures half and half, so not as often"
          " as they happen.",
        ),
      ),
      _tables(found),
      _families(found),
      _commands(found),
      _labels(found),
    ],
  )


def _headline(found: Description) -> str:
  table = found.dataset.attempts
  low, high = found.total.interval
  cards = [
    (f"{found.total.attempts:,}", "attempts", f"{len(found.samples):,} samples"),
    (words_lib.percent(found.total.rate), "success", words_lib.interval(low, high)),
    (f"{len(found.tables['unit'])}", "units", _counted(found)),
    (
      f"{found.dataset.frame_size} px",
      "frames",
      f"{found.size_bytes / 1e6:,.1f} MB, {found.size_bytes / 1e3 / len(table):,.0f} kB"
      " an attempt",
    ),
  ]
  said = findings(found)
  return html.facts(cards) + (
    f'<div class="findings">{html.bullets(said)}</div>' if said else ""
  )


def _counted(found: Description) -> str:
  if "scene_seed" in found.unknown:
    return "scenes unknown"
  return f"{len(set(scenes(found.dataset.attempts).tolist())):,} scenes"


def findings(found: Description) -> list[str]:
  """What can be said of a dataset, in sentences."""
  said = []
  policies = found.tables["policy"]
  if [name for name, _ in policies] == ["random"]:
    said.append(words_lib.base_rate(found.total))
  rates = [rate for _, rate in found.tables["unit"] if rate.attempts >= 10]
  if len(rates) > 1:
    low, high = min(r.rate for r in rates), max(r.rate for r in rates)
    said.append(
      f"Units with at least 10 attempts succeed in {words_lib.percent(low)} to"
      f" {words_lib.percent(high)} of them."
    )
  for detector in found.agreement.detectors:
    if detector.name == "label":
      said.append(
        f"Our label agrees with {found.agreement.truth} in"
        f" {100 * detector.agreement:.1f} % of {found.agreement.compared:,} attempts."
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


def _tables(found: Description) -> str:
  """One table of what has few values, so that its columns stand below each other."""
  few, folded = [], []
  for name, rows in found.tables.items():
    if len(rows) > _FEW_ROWS:
      folded.append(html.details(f"By {name}: {len(rows)}", _rates((name,), rows)))
    else:
      few += [((name, label), rate) for label, rate in rows]
  few.append((("all attempts", ""), found.total))
  table = _rates(("by", ""), few)
  return html.section("How often attempts succeed", table, *folded)


def _rates(
  names: Sequence[str],
  rows: Sequence[tuple[str | tuple[str, ...], Rate]],
  counted: str = "attempts",
) -> str:
  """A table of rates; each row has as many labels as there are names."""
  cells = []
  for label, rate in rows:
    words = rate_words(rate)
    bar = html.interval_bar(rate.rate, *rate.interval) if rate.attempts else ""
    labels = (label,) if isinstance(label, str) else label
    cells.append((*labels, *words[:2], bar, *words[2:]))
  header = (*names, *_RATES[:2], "0 to 100 %", *_RATES[2:3], counted)
  first = len(names)
  return html.table(
    header,
    cells,
    numbers=(first, first + 1, first + 3, first + 4),
    raw=(first + 2,),
  )


def rate_words(rate: Rate) -> tuple[str, str, str, str]:
  """Success, interval, successes and attempts as a table shows them."""
  low, high = rate.interval
  share = f"{100 * rate.rate:.1f} %" if rate.attempts else "none"
  return (
    share,
    f"{100 * low:.1f} to {100 * high:.1f} %" if rate.attempts else "",
    f"{rate.successes:,}",
    f"{rate.attempts:,}",
  )


def _families(found: Description) -> str:
  heading = "Object families"
  if not found.families:
    return html.section(heading, html.paragraph("Not known of these attempts."))
  cells = [family_words(family) for family in found.families]
  caption = (
    "An attempt counts for every family in its bin; its success may be another's."
    " Grasped: what really hung in the gripper."
  )
  return html.section(
    heading, html.table(_FAMILY, cells, numbers=range(1, 6), caption=caption)
  )


_FAMILY = (
  "family", "attempts with it", "success of these", "objects seen", "grasped",
  "grasped per 100 seen",
)  # fmt: skip


def family_words(family: Family) -> tuple[str, ...]:
  """A row of the table of families."""
  return (
    family.name,
    f"{family.present.attempts:,}",
    f"{100 * family.present.rate:.1f} %",
    f"{family.objects:,}",
    f"{family.grasped:,}",
    f"{100 * family.grasped / family.objects:.1f}",
  )


def _commands(found: Description) -> str:
  rows = [(reach.label, reach.samples) for reach in found.reaches]
  return html.section(
    "Commands",
    html.paragraph(
      "What the network is given: p_T - p_t, from each step's image to where the"
      " gripper closed. The samples of closing itself, whose command is null, are left"
      " out of the histograms."
    ),
    html.figure(dataset_figures.commands(found.samples)),
    html.figure(_rates(("samples by length",), rows, "samples")),
    html.columns(
      html.figure(
        dataset_figures.ends(found.dataset.attempts),
        "Where the gripper closed, seen from above.",
        "small",
      ),
      html.figure(
        dataset_figures.readings(found.dataset.attempts, success.READING_THRESHOLD),
        "Gripper readings; right of the dashed line the fingers did not close fully.",
        "small",
      ),
    ),
  )


def _labels(found: Description) -> str:
  agreement = found.agreement
  header = ("gripper reading", "drop test sees a change", "drop test sees none")
  cells = [
    ("above 1 cm", f"{agreement.both:,}", f"{agreement.reading_only:,}"),
    ("below", f"{agreement.drop_test_only:,}", f"{agreement.neither:,}"),
  ]
  caption = "Attempts by what both found."
  if "drop_test" in found.unknown | found.partly_unknown:
    caption += " Where the drop test is unknown, it counts as seeing no change."
  parts = [
    html.figure(html.table(header, cells, numbers=(1, 2), caption=caption)),
  ]
  if agreement.detectors:
    parts.append(
      html.table(
        _DETECTOR,
        detector_words(agreement),
        numbers=range(1, 5),
        caption=f"Held against {agreement.truth}, {agreement.compared:,} attempts.",
      )
    )
  else:
    parts.append(html.paragraph("Nothing is known to hold the labels against.", "soft"))
  return html.section("How far the labels agree", *parts)


_DETECTOR = ("says success", "times", "precision", "recall", "agreement")


def detector_words(agreement: Agreement) -> list[tuple[str, ...]]:
  """The rows of the table of detectors."""

  def share(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %"

  return [
    (d.name, f"{d.says_success:,}", share(d.precision), share(d.recall),
     share(d.agreement))
    for d in agreement.detectors
  ]  # fmt: skip


# --- the terminal -------------------------------------------------------------------


def terminal(found: Description) -> str:
  """The same as text."""
  low, high = found.total.interval
  blocks = [
    f"{found.directory}: {found.total.attempts:,} attempts, {len(found.samples):,}"
    f" samples, frames of {found.dataset.frame_size} px,"
    f" {found.size_bytes / 1e6:,.1f} MB",
    f"success {100 * found.total.rate:.1f} % ({words_lib.interval(low, high)})",
  ]
  for name, rows in found.tables.items():
    cells = [(label, *rate_words(rate)) for label, rate in rows]
    blocks.append(text_table((name, *_RATES), cells))
  if found.families:
    blocks.append(text_table(_FAMILY, [family_words(f) for f in found.families]))
  cells = [(reach.label, *rate_words(reach.samples)) for reach in found.reaches]
  blocks.append(text_table(("samples by length", *_RATES[:3], "samples"), cells))
  if found.agreement.detectors:
    header = (f"against {found.agreement.truth}", *_DETECTOR[1:])
    blocks.append(text_table(header, detector_words(found.agreement)))
  return "\n\n".join(["\n".join(blocks[:2]), *blocks[2:], "\n".join(findings(found))])


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Aligned columns, the first to the left; a long table is cut and says so."""
  shown = [list(header), *map(list, rows[:_FEW_ROWS])]
  widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
  lines = [
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in shown
  ]
  if len(rows) > _FEW_ROWS:
    lines.append(f"and {len(rows) - _FEW_ROWS} more, on the page")
  return "\n".join(lines)


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
