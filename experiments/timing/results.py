"""What comes home: one folder of small files, whole after every stage.

results.json   the machine, each stage with its command, and the figures
results.md     the same for people, with the tables that the programs printed
policy.hep     the weights, ready for a robot
report.html, report.md, metrics.jsonl, attempts.jsonl
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.timing import rates
from experiments.timing.machine import Machine

LARGEST = 15 * 10**6  # bytes of a file that comes home
_FILES = {
  "policy.hep": "policy.hep",
  "report.html": "report.html",
  "report.md": "report.md",
  "train/metrics.jsonl": "metrics.jsonl",
  "evaluate/rows.jsonl": "attempts.jsonl",
}
# Of the final held-out row.
_HELD_OUT = ("step", "samples", "auc", "auc_low", "auc_high", "loss", "accuracy")


def figures(workdir: Path, machine: Machine) -> dict[str, Any]:
  """The figures of the stages that have run, for results.json."""
  found: dict[str, Any] = {}
  for name in ("held_out", "train"):
    if data := rates.collecting(workdir / "data" / name):
      found[f"collect_{name}"] = {
        "attempts": data.attempts,
        "success_rate": data.successes / data.attempts,
        "attempts_per_second": machine.cores / data.seconds,
      }
  for name in ("first_steps", "train"):
    if trained := rates.training(workdir / name):
      found[name] = {
        "samples_per_second": trained.samples_per_second,
        "wait_share": trained.wait_share,
        "compile_seconds": trained.compile_seconds,
        "steps": trained.steps,
      }
  final = rates.final(workdir / "train")
  found["prediction"] = {name: final.get(name) for name in _HELD_OUT} if final else {}
  summary = cli.read_json(workdir / "evaluate" / "summary.json")
  found["evaluation"] = summary.get("policies", {})
  for name in ("control", "training"):
    found[f"benchmark_{name}"] = cli.read_json(workdir / "benchmarks" / f"{name}.json")
  return found


def write(out: Path, workdir: Path, content: Mapping[str, Any]) -> None:
  """Writes the folder, with the files that there are by now.

  Args:
    out: the folder.
    workdir: of the run.
    content: of results.json.
  """
  too_large = []
  for source, name in _FILES.items():
    path = workdir / source
    if not path.is_file():
      continue
    if path.stat().st_size > LARGEST:
      too_large.append(str(path))
    else:
      shutil.copyfile(path, out / name)
  cli.write_json(out / "results.json", {**content, "too_large": too_large})
  cli.write_atomically(out / "results.md", text(content))


def text(content: Mapping[str, Any]) -> str:
  """results.md."""
  stages = content["stages"]
  rows = [
    (name, f"{one['limit']:.0f}", f"{one['seconds']:.0f}", one["status"], one["why"])
    for name, one in stages.items()
  ]
  header = ("stage", "seconds given", "taken", "", "why")
  parts = [
    "# A run that fits a time",
    f"{content['seconds']:.0f} seconds were given, {content['spent']:.0f} taken, on"
    f" {content['machine_line']}.",
    cli.table(header, rows, (1, 2)),
  ]
  for name in ("collect_held_out", "collect_train"):
    if data := content["figures"].get(name):
      parts.append(
        f"{name}: {data['attempts']} attempts, {data['attempts_per_second']:.1f} a"
        f" second on all cores, {100 * data['success_rate']:.0f} % succeeded."
      )
  if trained := content["figures"].get("train"):
    parts.append(
      f"Training: {trained['steps']} steps, {trained['samples_per_second']:.0f} samples"
      f" a second, waiting for data {100 * trained['wait_share']:.0f} % of the time."
    )
  for name, one in stages.items():
    command = f"python -m {one['command']}"
    parts.append(f"## {name}\n\n    {command}\n\n{one['output']}".rstrip())
  return "\n\n".join(parts) + "\n"
