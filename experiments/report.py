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

from experiments import (
  _behaviour_sections,
  _blocks,
  _commands,
  _edge,
  _evaluated,
  _evaluation_sections,
  _names,
  _page,
  _pictures_section,
  _render,
  _results,
  _robustness_section,
  _training_sections,
  _words,
)
from experiments._evaluated import Evaluated
from experiments._results import Results

TITLE = "hand_eye: learned hand-eye coordination for grasping"


def write_report(workdir: str | Path, out: str | Path | None = None) -> Path:
  """Reads `workdir`, writes the page and its Markdown, and returns the page's path.

  Args:
    out: the page, by default report.html in `workdir`; the Markdown lies beside it.
  """
  workdir = Path(workdir)
  results, evaluated = _results.read(workdir), _evaluated.read(workdir)
  sections = content(results, evaluated)
  subtitle = (
    f"Work folder {workdir.name}. A predictor of grasp success learned from attempts of"
    " simulated robots; a servo chooses the commands it likes best, with no calibration"
    " (Levine et al. 2016)."
  )
  out = Path(out) if out else workdir / "report.html"
  body = [_render.html_section(section) for section in sections]
  _edge.write_atomically(out, _page.page(TITLE, subtitle, body))
  text = _render.markdown(TITLE, subtitle, sections)
  _edge.write_atomically(out.with_suffix(".md"), text)
  return out


def content(results: Results, evaluated: Evaluated) -> list[_blocks.Section]:
  """The whole report, from results that were read already.

  Of a folder that holds an evaluation alone, of a policy from elsewhere, the parts on
  data and training are left out.
  """
  workdir, evaluation = results.workdir, evaluated.evaluation
  command = _commands.evaluate(workdir, evaluation)
  own_parts = [
    _training_sections.learning(results),
    _training_sections.dataset(results),
    _training_sections.export(results),
  ]
  sections = [
    _headline(results, evaluated),
    *_evaluation_sections.sections(evaluation, workdir),
    _robustness_section.robustness(evaluated),
    _behaviour_sections.predictor(evaluation) if evaluation else None,
    _behaviour_sections.soft_and_hard(evaluation) if evaluation else None,
    _pictures_section.pictures(evaluated),
    *(own_parts if _learned_here(results) or not evaluation else ()),
    _training_sections.units(evaluated.units_image, command),
    _again(results, evaluated),
  ]
  return [section for section in sections if section is not None]


def _learned_here(results: Results) -> bool:
  return bool(results.metrics or results.datasets or results.policy_file)


def _headline(results: Results, evaluated: Evaluated) -> _blocks.Section:
  cards = []
  evaluation = evaluated.evaluation
  rates = evaluation.with_replacement if evaluation else {}
  for name in _names.POLICIES:
    if name in rates:
      words = _words.interval(*rates[name].interval)
      value = _words.percent(rates[name].rate)
      cards.append((value, f"success, {_names.policy(name)}", words))
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
  parts: list[_blocks.Block] = [_blocks.Facts(cards)] if cards else []
  if said := _words.findings(results, evaluation):
    parts.append(_blocks.Bullets(said, highlighted=True))
  return _blocks.Section("", parts)


def _again(results: Results, evaluated: Evaluated) -> _blocks.Section:
  """What was run, and the commands that run it again."""
  workdir, evaluation = results.workdir, evaluated.evaluation
  commands = [
    _commands.evaluate(workdir, evaluation),
    _commands.sweep(workdir, evaluated.sweep),
    _commands.report(workdir),
  ]
  if _learned_here(results) or not evaluation:
    commands = [
      "# everything, from nothing",
      _commands.everything(workdir),
      "# stage by stage (each has --help)",
      _commands.collect(workdir, "train"),
      _commands.collect(workdir, "held_out"),
      _commands.train(workdir),
      _commands.export(workdir),
      *commands,
    ]
  text = "\n".join(commands)
  took = ", ".join(
    f"{name} {_words.duration(s)}" for name, s in results.seconds.items()
  )
  parts: list[_blocks.Block] = [
    _blocks.Text(f"The last `make demo` took: {took}." if took else "", "soft"),
    _blocks.Code(text),
  ]
  if any(f"={name}" in text for name in (_commands.FOLDER, _commands.FILE)):
    words = (
      f"{_commands.FOLDER}: the checkpoints of a network, {_commands.FILE}: an exported"
      " policy, which this work folder does not hold. Which one it was is said below."
    )
    parts.append(_blocks.Text(words, "soft"))
  for heading, found in (("evaluated", evaluation), ("swept", evaluated.sweep)):
    if found:
      parts.append(_blocks.Details(f"What was {heading}", [_what(found)]))
  versions = list(_edge.versions().items())
  table = _blocks.Table(("software", "version"), versions)
  parts.append(_blocks.Details("Versions, of this page", [table]))
  return _blocks.Section("Run it again", parts)


def _what(found: _evaluated.Evaluation | _evaluated.Sweep) -> _blocks.Table:
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
  if isinstance(found, _evaluated.Sweep):
    rows.append(("conditions", ", ".join(found.conditions) or "none"))
  return _blocks.Table(("", ""), rows, wrap=(1,))


def define_flags() -> None:
  flags.DEFINE_string("workdir", "runs/demo", "Folder that holds the results.")
  flags.DEFINE_string("out", "", "The page to write. Default: report.html in it.")


def main(_: Sequence[str]) -> None:
  workdir = _edge.require_folder(flags.FLAGS.workdir, "workdir", "`make demo`")
  path = write_report(workdir, flags.FLAGS.out or None)
  size = path.stat().st_size / 1e6
  print(f"Report: {path} ({size:.1f} MB), and {path.with_suffix('.md').name}")


if __name__ == "__main__":
  _edge.run(main, define_flags)
