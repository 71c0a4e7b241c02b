r"""Writes a work folder's results as one self-contained HTML page, and as Markdown.

  python -m experiments.report --workdir=runs/demo

The page holds Table 1 of the paper with our figures, results by object and unit,
robustness, the predictor, pictures and videos, training and data, and the commands that
made them. The Markdown has the same text and tables. For a missing part, it names the
command that makes it.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import cli
from experiments.campaigns import state, view
from experiments.reporting import content, evaluated, pages
from experiments.reporting import results as results_lib

TITLE = "hand_eye: learned hand-eye coordination for grasping"


def write_report(workdir: str | Path, out: str | Path | None = None) -> Path:
  """Reads `workdir`, writes the page and its Markdown, and returns the page's path.

  Args:
    out: the page, by default report.html in `workdir`; the Markdown lies beside it.
  """
  workdir = Path(workdir)
  results, found = results_lib.read(workdir), evaluated.read(workdir)
  subtitle = (
    f"Work folder {workdir.name}. A predictor of grasp success learned from attempts of"
    " simulated robots; a servo chooses the commands it likes best, with no calibration"
    " (Levine et al. 2016)."
  )
  commands = _commands(workdir)
  if found.evaluation and found.evaluation.others:
    names = ",".join((*found.evaluation.policies, *found.evaluation.others))
    commands["evaluate"] += f" --policies={names}"
  campaign = state.Reader(workdir).read() if state.is_there(workdir) else None
  own = list(commands.values())
  if found.evaluation and not results.is_learned_here:
    own = [commands["evaluate"]]
  values = content.values(results, found) | {
    "campaign": view.report_values(campaign) if campaign else None,
    "commands": commands,
    "again": _made_by(workdir) or own,
  }
  out = Path(out) if out else workdir / "report.html"
  page = ("report.md.j2", TITLE, subtitle)
  cli.write_atomically(out, pages.html(*page, values))
  cli.write_atomically(out.with_suffix(".md"), pages.markdown(*page, values))
  return out


def _commands(workdir: Path) -> dict[str, str]:
  """The commands that make each part of a work folder with the demo's config."""
  data = workdir / "data"
  checkpoints = results_lib.training_folder(workdir) / "checkpoints"
  train, held_out = (data / name / "1.0.0" for name in ("train", "held_out"))
  program = "python -m experiments."
  return {
    "collect_train": f"{program}collect --workdir={data} --name=train",
    "collect_held_out": f"{program}collect --workdir={data} --name=held_out",
    "train": f"{program}train --data={train} --held_out={held_out}"
    f" --workdir={workdir / 'train'}",
    "evaluate": f"{program}evaluate --checkpoint={checkpoints}"
    f" --workdir={workdir / 'evaluate'}",
    "sweep": f"{program}sweep --checkpoint={checkpoints} --workdir={workdir / 'sweep'}",
    "export_policy": f"{program}export_policy --checkpoint={checkpoints}"
    f" --out={workdir / 'policy.hep'}",
  }


def _made_by(workdir: Path) -> list[str]:
  """The commands that the programs recorded, stage by stage."""
  parts = ("", "data", "train", "open_loop", "evaluate", "sweep")
  return [line for part in parts for line in cli.recorded_commands(workdir / part)]


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
