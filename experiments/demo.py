r"""The main job: from simulated robots to a servoing policy and a report.

  python -m experiments.demo --workdir=runs/demo

Collects, trains, evaluates, exports and reports, each stage with the same function that
its own program calls. The same command continues where it was interrupted.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import cli


def demo(config: Mapping[str, Any], workdir: str | Path) -> dict[str, float]:
  """Runs all stages; returns the seconds that each took.

  Args:
    config: every section of a file in experiments/configs.
    workdir: gets data/, train/, evaluate/, policy.hep and report.html.

  Raises:
    What the stages raise.
  """
  workdir = cli.prepare_workdir(workdir)
  seconds: dict[str, float] = {}

  def stage(name: str, function: Callable[[], Any]) -> Any:
    print(f"\n[{len(seconds) + 1}/5] {name}", flush=True)
    begin = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - begin
    return result

  data, held_out = stage("collect", lambda: _collect(config, workdir))
  trained = stage("train", lambda: _train(config, data, held_out, workdir))
  summary = stage("evaluate", lambda: _evaluate(config, workdir))
  stage("export", lambda: _export(config, workdir))
  cli.write_atomically(
    workdir / "demo.json",
    cli.to_json({"seconds": seconds, "versions": cli.versions()}, indent=2) + "\n",
  )
  page = stage("report", lambda: _report(workdir))

  from experiments.evaluation import scores
  from experiments.fitting import loop

  print(f"\nHeld-out prediction\n{loop.describe(trained.metrics)}")
  print(f"\nHeld-out objects and units\n{scores.describe(summary)}")
  times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
  print(f"\n{times}\nReport: {page}", flush=True)
  return seconds


# Each stage imports what it needs: the collection starts before JAX is loaded.


def _collect(config: Mapping[str, Any], workdir: Path) -> tuple[Path, Path]:
  from experiments import collect

  data = collect.collect(config, workdir / "data", "train")
  return data, collect.collect(config, workdir / "data", "held_out")


def _train(config: Mapping[str, Any], data: Path, held_out: Path, workdir: Path) -> Any:
  from experiments import train

  return train.train(config, [data], [held_out], workdir / "train")


def _evaluate(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
  from experiments import evaluate
  from experiments.evaluation import policies

  networks = policies.Networks(servo=str(workdir / "train" / "checkpoints"))
  return evaluate.evaluate(config, networks, workdir / "evaluate")


def _export(config: Mapping[str, Any], workdir: Path) -> Path:
  from experiments import export_policy

  return export_policy.export(
    config, workdir / "train" / "checkpoints", workdir / "policy.hep"
  )


def _report(workdir: Path) -> Path:
  from experiments import report

  return report.write_report(workdir)


def define_flags() -> None:
  cli.define_config()
  flags.DEFINE_string("workdir", "runs/demo", "Folder for everything the demo makes.")


def main(_: Sequence[str]) -> None:
  demo(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == "__main__":
  cli.run(main, define_flags)
