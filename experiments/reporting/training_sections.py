"""What the report says of the data, the training and the exported policy."""

from pathlib import Path

from experiments.datasets.distances import RANGES
from experiments.reporting import blocks
from experiments.reporting import commands as commands_lib
from experiments.reporting import words as words_lib
from experiments.reporting.evaluation_sections import rates_table
from experiments.reporting.results import Results


def learning(results: Results) -> blocks.Section:
  """The curves, and what the best weights predict of held-out attempts."""
  from experiments.pictures import plots

  heading = "How it learned"
  if not results.metrics:
    command = commands_lib.train(results.workdir)
    return blocks.Section(heading, [blocks.Missing("Training", command)])
  curves = plots.learning_curves(
    results.split("train"), results.split("held_out"), _boundaries(results)
  )
  parts: list[blocks.Block] = [
    blocks.Columns([blocks.Picture(curve, "") for curve in curves]),
    blocks.Text(
      "Dotted lines: the curriculum moves on, from commands that close where the"
      " gripper is, to near commands, to all of them.",
      "soft",
    ),
    blocks.Text(words_lib.learning(results)),
    *_ranges(results),
  ]
  if results.predictions is not None and len(results.predictions["label"]):
    drawn = plots.calibration(
      results.predictions["label"], results.predictions["probability"]
    )
    caption = (
      "Reliability on held-out attempts: a calibrated network lies on the dashed line."
      " Ten bins of equally many samples, 95 % intervals."
    )
    parts.append(blocks.Picture(drawn, caption, "small"))
  return blocks.Section(heading, parts)


def _ranges(results: Results) -> list[blocks.Block]:
  """AUC by how far commands reach."""
  final, rows = results.final(), []
  for suffix, label, _, _ in RANGES:
    auc, low, high, count = (
      final.get(name)
      for name in (
        f"auc{suffix}", f"auc{suffix}_low", f"auc{suffix}_high", f"samples{suffix}",
      )
    )  # fmt: skip
    if auc is not None:
      known = low is not None and high is not None
      between = f"{low:.3f} to {high:.3f}" if known else ""
      rows.append((label, f"{auc:.3f}", between, f"{count:,}" if count else ""))
  header = ("commands", "AUC", "95 % interval", "held-out samples")
  return [blocks.Table(header, rows, numbers=(1, 2, 3))] if rows else []


def _boundaries(results: Results) -> list[int]:
  phases = results.config.get("train", {}).get("phases", ())
  ends, step = [], 0
  for steps, _ in phases[:-1]:
    step += steps
    ends.append(step)
  return ends


def dataset(results: Results) -> blocks.Section:
  """How often the collected attempts succeeded, by unit."""
  parts: list[blocks.Block] = []
  for name, label in (("train", "Training"), ("held_out", "Held-out")):
    facts = results.datasets.get(name)
    if facts is None:
      command = commands_lib.collect(results.workdir, name)
      parts.append(blocks.Missing(f"{label} attempts", command))
    elif facts.problem:
      parts.append(blocks.Text(f"{label} attempts: {facts.problem}", "missing"))
    else:
      caption = (
        f"{label} attempts: {facts.total.attempts:,}, {facts.samples:,} samples,"
        f" {facts.size_bytes / 1e6:,.1f} MB"
      )
      rows = [*facts.by_unit.items(), ("all units", facts.total)]
      parts.append(rates_table("unit", rows, caption))
  return blocks.Section("What it learned from", parts)


def units(image: Path | None, command: str) -> blocks.Section:
  """What the units' cameras see, as in Figure 6."""
  heading = "The robots"
  if image is None:
    part = blocks.Missing("Montage of the cameras", command)
    return blocks.Section(heading, [part])
  caption = (
    "What each unit's camera sees: cameras, lights, finger wear and friction differ,"
    " and the servo is not told how."
  )
  return blocks.Section(heading, [blocks.Picture(image, caption)])


def export(results: Results) -> blocks.Section:
  """The one-file policy and its manifest."""
  heading = "The exported policy"
  if results.policy_file is None:
    command = commands_lib.export(results.workdir)
    return blocks.Section(heading, [blocks.Missing("Export", command)])
  size = results.policy_file.stat().st_size
  rows = [("file", f"{results.policy_file.name}, {size / 1e6:.2f} MB")]
  for key, value in sorted(results.policy_manifest.items()):
    if isinstance(value, str | int | float | bool):
      rows.append((key.replace("_", " "), str(value)))
    elif isinstance(value, list) and all(isinstance(v, str | int) for v in value):
      rows.append((key.replace("_", " "), ", ".join(map(str, value))))
  words = (
    "The file's checksums were checked for this page. When it was exported it was"
    " loaded again and gave its stored answer to its stored input, as it must wherever"
    " it is loaded."
  )
  return blocks.Section(
    heading, [blocks.Text(words), blocks.Table(("", ""), rows, wrap=(1,))]
  )
