r"""Writes a work folder's results as one self-contained HTML page, and as Markdown.

  python -m experiments.report --workdir=runs/demo

The page holds Table 1 of the paper beside ours, what policies grasp, robustness, the
predictor, pictures and videos, training and data, and how to run all of it again. The
Markdown has the same words and tables. Parts that were not made yet are named together
with the command that makes them.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.campaigns import state, view
from experiments.campaigns.state import State
from experiments.evaluation import policy_names
from experiments.reporting import (
  behaviour_sections,
  blocks,
  evaluation_sections,
  html,
  pictures_section,
  render,
  robustness_section,
  training_sections,
)
from experiments.reporting import commands as commands_lib
from experiments.reporting import evaluated as evaluated_lib
from experiments.reporting import results as results_lib
from experiments.reporting import words as words_lib
from experiments.reporting.evaluated import Evaluated
from experiments.reporting.results import Results

TITLE = "hand_eye: learned hand-eye coordination for grasping"


def write_report(workdir: str | Path, out: str | Path | None = None) -> Path:
  """Reads `workdir`, writes the page and its Markdown, and returns the page's path.

  Args:
    out: the page, by default report.html in `workdir`; the Markdown lies beside it.
  """
  workdir = Path(workdir)
  results, evaluated = results_lib.read(workdir), evaluated_lib.read(workdir)
  campaign = state.Reader(workdir).read() if state.is_there(workdir) else None
  sections = content(results, evaluated, campaign)
  subtitle = (
    f"Work folder {workdir.name}. A predictor of grasp success learned from attempts of"
    " simulated robots; a servo chooses the commands it likes best, with no calibration"
    " (Levine et al. 2016)."
  )
  out = Path(out) if out else workdir / "report.html"
  body = [render.html_section(section) for section in sections]
  cli.write_atomically(out, html.page(TITLE, subtitle, body))
  text = render.markdown(TITLE, subtitle, sections)
  cli.write_atomically(out.with_suffix(".md"), text)
  return out


def content(
  results: Results, evaluated: Evaluated, campaign: State | None = None
) -> list[blocks.Section]:
  """The whole report, from results that were read already.

  Of a folder that holds an evaluation alone, of a policy from elsewhere, the parts on
  data and training are left out.
  """
  workdir, evaluation = results.workdir, evaluated.evaluation
  command = commands_lib.evaluate(workdir, evaluation)
  own_parts = [
    *([view.campaign_section(campaign)] if campaign else ()),
    training_sections.learning(results),
    training_sections.dataset(results),
    training_sections.export(results),
  ]
  sections = [
    _headline(results, evaluated),
    *evaluation_sections.sections(evaluation, workdir),
    robustness_section.robustness(evaluated),
    behaviour_sections.predictor(evaluation) if evaluation else None,
    behaviour_sections.soft_and_hard(evaluation) if evaluation else None,
    pictures_section.pictures(evaluated),
    *(own_parts if _learned_here(results) or not evaluation else ()),
    training_sections.units(evaluated.units_image, command),
    _again(results, evaluated, campaign),
  ]
  return [section for section in sections if section is not None]


def _learned_here(results: Results) -> bool:
  return bool(results.metrics or results.datasets or results.policy_file)


def _headline(results: Results, evaluated: Evaluated) -> blocks.Section:
  cards = []
  evaluation = evaluated.evaluation
  rates = evaluation.with_replacement if evaluation else {}
  for name in policy_names.KINDS:
    if name in rates:
      words = words_lib.interval(*rates[name].interval)
      value = words_lib.percent(rates[name].rate)
      cards.append((value, f"success, {policy_names.label(name)}", words))
  final = results.final()
  if final.get("auc") is not None:
    remark = "0.5 is chance"
    if final.get("auc_low") is not None:
      remark = f"95 % interval {final['auc_low']:.2f} to {final['auc_high']:.2f}"
    cards.append((f"{final['auc']:.2f}", "AUC on held-out attempts", remark))
  if train := results.datasets.get("train"):
    cards.append(
      (
        f"{train.total.attempts:,}",
        "attempts to learn from",
        f"{train.samples:,} samples, {len(train.by_unit)} units",
      )
    )
  parts: list[blocks.Block] = [blocks.Facts(cards)] if cards else []
  if said := words_lib.findings(results, evaluation):
    parts.append(blocks.Bullets(said, highlighted=True))
  return blocks.Section("", parts)


def _again(
  results: Results, evaluated: Evaluated, campaign: State | None
) -> blocks.Section:
  """What was run, and the commands that run it again."""
  workdir, evaluation = results.workdir, evaluated.evaluation
  commands = [
    commands_lib.evaluate(workdir, evaluation),
    commands_lib.sweep(workdir, evaluated.sweep),
    commands_lib.report(workdir),
  ]
  if _learned_here(results) or not evaluation:
    commands = [
      "# everything, from nothing",
      commands_lib.everything(workdir),
      "# stage by stage (each has --help)",
      *(
        [commands_lib.campaign(workdir)]
        if campaign
        else [
          commands_lib.collect(workdir, "train"),
          commands_lib.collect(workdir, "held_out"),
          commands_lib.train(workdir),
        ]
      ),
      commands_lib.export(workdir),
      *commands,
    ]
  text = "\n".join(commands)
  took = ", ".join(
    f"{name} {words_lib.duration(s)}" for name, s in results.seconds.items()
  )
  parts: list[blocks.Block] = [
    blocks.Text(f"The last `make demo` took: {took}." if took else "", "soft"),
    blocks.Code(text),
  ]
  if any(f"={name}" in text for name in (commands_lib.FOLDER, commands_lib.FILE)):
    words = (
      f"{commands_lib.FOLDER}: the checkpoints of a network, {commands_lib.FILE}: an"
      " exported policy, which this work folder does not hold. Which one it was is said"
      " below."
    )
    parts.append(blocks.Text(words, "soft"))
  for heading, found in (("evaluated", evaluation), ("swept", evaluated.sweep)):
    if found:
      parts.append(blocks.Details(f"What was {heading}", [_what(found)]))
  versions = list(cli.versions().items())
  table = blocks.Table(("software", "version"), versions)
  parts.append(blocks.Details("Versions, of this page", [table]))
  return blocks.Section("Run it again", parts)


def _what(found: evaluated_lib.Evaluation | evaluated_lib.Sweep) -> blocks.Table:
  """The settings and policies of an evaluation or a sweep."""
  rows = []
  for facts in (found.settings, found.cell):
    for name, value in facts.items():
      text = str(value)
      if isinstance(value, dict):
        text = ", ".join(f"{key.replace('_', ' ')} {v}" for key, v in value.items())
      if text:
        rows.append((name.replace("_", " "), text))
  for name, spec in found.specs.items():
    servo = ", ".join(f"{key} {v}" for key, v in (spec.get("servo") or {}).items())
    version = spec.get("version") or "without a network"
    rows.append((f"policy {name}", f"{version}{'; ' if servo else ''}{servo}"))
  if isinstance(found, evaluated_lib.Sweep):
    rows.append(("conditions", ", ".join(found.conditions) or "none"))
  return blocks.Table(("", ""), rows, wrap=(1,))


def define_flags() -> None:
  flags.DEFINE_string("workdir", "runs/demo", "Folder that holds the results.")
  flags.DEFINE_string("out", "", "The page to write. Default: report.html in it.")


def main(_: Sequence[str]) -> None:
  workdir = cli.require_folder(flags.FLAGS.workdir, "workdir", "`make demo`")
  path = write_report(workdir, flags.FLAGS.out or None)
  size = path.stat().st_size / 1e6
  print(f"Report: {path} ({size:.1f} MB), and {path.with_suffix('.md').name}")


if __name__ == "__main__":
  cli.run(main, define_flags)
