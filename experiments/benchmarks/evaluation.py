r"""How fast an evaluation goes, against its simulation and its decisions alone.

  python -m experiments.benchmarks.evaluation --checkpoint=runs/demo/train/checkpoints \
    --workdir=runs/benchmarks

In every process, one a core: some bins of the evaluation, side by side, as
`experiments.evaluate` makes them; then the same attempts again with the decisions
replayed, which is the simulation alone; then the same decisions again without a cell.
An evaluation that did nothing else would take the sum of the two. Says what share of
the time goes where, and writes evaluation.json.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from envs import fleet, rendering, rollout
from experiments import cli, evaluate
from experiments.benchmarks import harness
from experiments.evaluation import conditions, policies
from experiments.evaluation import trials as trials_lib
from experiments.fitting import train_config

TARGET = 0.7  # of the rate of simulation and decisions alone


@dataclasses.dataclass
class Asked:
  """A policy that decides together, and what it was asked and answered."""

  policy: Any
  batches: list[tuple[Any, Any, Any]] = dataclasses.field(default_factory=list)
  seconds: float = 0.0

  def __call__(self, observation: Any, key: np.ndarray) -> Any:
    return self.together([observation], [key])[0]

  def together(self, observations: Sequence[Any], keys: Sequence[Any]) -> Any:
    start = time.perf_counter()
    made = self.policy.together(observations, keys)
    self.seconds += time.perf_counter() - start
    self.batches.append((observations, keys, made))
    return made


class Replayed:
  """Gives recorded decisions again: the same attempts, without a network."""

  def __init__(self, asked: Asked):
    self._made = iter([made for _, _, made in asked.batches])

  def __call__(self, observation: Any, key: np.ndarray) -> Any:
    return next(self._made)[0]

  def together(self, observations: Sequence[Any], keys: Sequence[Any]) -> Any:
    return next(self._made)


def measure(trial: trials_lib.Trial) -> dict[str, Any]:
  """Seconds of one trial and of its parts; runs in a worker process."""
  rendering.choose_backend()
  policy = policies.make_policy(trial.policy)
  count = len(trial.scenes)
  warm = [dataclasses.replace(scene, num_attempts=1) for scene in trial.scenes]
  for size in range(count, 0, -1):  # compiles every batch that can come
    rollout.run_scenes(warm[:size], [policy] * size)
  asked = Asked(policy)
  start = time.perf_counter()
  results = rollout.run_scenes(trial.scenes, [asked] * count)
  whole = time.perf_counter() - start
  start = time.perf_counter()
  rollout.run_scenes(trial.scenes, [Replayed(asked)] * count)
  simulation = time.perf_counter() - start
  start = time.perf_counter()
  for observations, keys, _ in asked.batches:
    policy.together(observations, keys)  # type: ignore[attr-defined]
  decisions = time.perf_counter() - start
  return {
    "attempts": sum(len(result.attempts) for result in results),
    "decisions": sum(len(keys) for _, keys, _ in asked.batches),
    "calls": len(asked.batches),
    "whole": whole,
    "deciding": asked.seconds,
    "simulation_alone": simulation,
    "decisions_alone": decisions,
  }


def benchmark(
  config: Any,
  networks: policies.Networks,
  workdir: str | Path,
  *,
  attempts: int,
) -> dict[str, Any]:
  """Measures; returns and writes what evaluation.json holds.

  Args:
    attempts: in each bin.
  """
  workdir = cli.prepare_workdir(workdir)
  workers = fleet.num_cores()
  config.evaluate.with_replacement.update(
    {"repetitions": workers * trials_lib.SIDE_BY_SIDE, "num_attempts": attempts}
  )
  config.evaluate.without_replacement.repetitions = 0
  settings = evaluate.build_config(config.evaluate)
  frame_size = train_config.build_network(config.network).frame_size
  spec = policies.choose("servo", config, networks)
  trials = evaluate.plan(settings, [spec], conditions.NOTHING, frame_size)
  rendering.choose_backend()
  with trials_lib.one_thread_each():
    found = [
      row for _, row in fleet.map_unordered(measure, trials, num_workers=workers)
    ]
  total = {name: sum(row[name] for row in found) for name in found[0]}
  alone = total["simulation_alone"] + total["decisions_alone"]
  return harness.write(
    workdir,
    "evaluation",
    {
      **total,
      "processes": workers,
      # Every process worked through its seconds beside the others.
      "attempts_per_second": total["attempts"] * workers / total["whole"],
      "alone_attempts_per_second": total["attempts"] * workers / alone,
      "share_of_alone": alone / total["whole"],
    },
  )


def describe(result: dict[str, Any]) -> str:
  """The figures for the terminal."""
  whole = result["whole"]
  parts = {
    "simulation": result["simulation_alone"],
    "decisions": result["deciding"],
  }
  parts["rest"] = whole - sum(parts.values())
  each = result["decisions"] / result["calls"]
  held = "held" if result["share_of_alone"] >= TARGET else "missed"
  shares = ", ".join(f"{name} {100 * s / whole:.0f} %" for name, s in parts.items())
  return (
    f"{result['attempts_per_second']:.1f} attempts a second in"
    f" {result['processes']} processes, {result['attempts']} attempts,"
    f" {each:.1f} decisions in a call\n"
    f"of the time: {shares}\n"
    f"simulation and decisions alone: {result['alone_attempts_per_second']:.1f}"
    f" attempts a second; of that it reaches {100 * result['share_of_alone']:.0f} %,"
    f" target {100 * TARGET:.0f} % {held}"
  )


def define_flags() -> None:
  cli.define_config()
  policies.define_flags()
  flags.DEFINE_string("workdir", "", "Folder for evaluation.json.")
  flags.DEFINE_integer("attempts", 8, "In each bin.", lower_bound=1)


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  result = benchmark(
    args.config,
    policies.networks_from_flags(),
    args.workdir,
    attempts=args.attempts,
  )
  print(describe(result))


if __name__ == "__main__":
  cli.run(main, define_flags)
