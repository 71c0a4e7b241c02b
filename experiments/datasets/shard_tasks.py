"""Shards of attempts as tasks of worker processes: complete on the disk, or absent."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from data_pipeline import writer
from envs import fleet, rendering, rollout
from experiments import cli
from experiments.datasets import attempt_records
from experiments.evaluation import policies, trials

RETRIES = 2  # of a shard whose worker died
LOG_FILE = "collection.jsonl"

# Runs a function over tasks, with the arguments of `fleet.map_unordered`.
Runner = Callable[..., Iterator[tuple[int, Any]]]


@dataclasses.dataclass(frozen=True)
class ShardTask:
  """The attempts of one file: a unit of parallel work."""

  directory: str
  shard: int
  scenes: tuple[rollout.SceneTask, ...]
  policy: policies.PolicySpec
  round: int
  software: str


@dataclasses.dataclass(frozen=True)
class SceneReport:
  """What one bin gave, for the monitor of the fleet.

  Attributes:
    unit: the robot.
    attempts, successes: that were written.
    diverged: attempts dropped because the physics became unstable.
    strays: objects that left the bin and were put back.
    brightness: mean of the darkest pregrasp image, 0 to 255.
    contrast: standard deviation of the flattest pregrasp image.
  """

  unit: str
  attempts: int
  successes: int
  diverged: int
  strays: int
  brightness: float
  contrast: float


@dataclasses.dataclass(frozen=True)
class ShardReport:
  """What a shard gave and what was lost on the way.

  Attributes:
    attempts, successes, diverged, strays: sums over its scenes.
    policy, policy_version: which made the attempts.
    seconds: that it took.
    finished: when, seconds since 1970.
    scenes: one report for each bin.
  """

  attempts: int
  successes: int
  diverged: int
  strays: int
  policy: str
  policy_version: str
  seconds: float
  finished: float
  scenes: tuple[SceneReport, ...]


def collect_shard(task: ShardTask) -> ShardReport:
  """Makes and writes the attempts of one shard; runs in a worker process."""
  rendering.choose_backend()  # a worker on another machine has not inherited it
  begin = time.perf_counter()
  scenes = []
  with writer.ShardWriter(task.directory, task.shard) as shard:
    for scene in task.scenes:
      result = rollout.run_scene(scene, policies.make_policy(task.policy))
      for attempt in result.attempts:
        shard.write(
          attempt_records.simulated(
            attempt,
            policy=task.policy.label,
            policy_version=task.policy.version,
            round_number=task.round,
            software=task.software,
          )
        )
      scenes.append(_report(scene, result))
    report = ShardReport(
      attempts=sum(scene.attempts for scene in scenes),
      successes=sum(scene.successes for scene in scenes),
      diverged=sum(scene.diverged for scene in scenes),
      strays=sum(scene.strays for scene in scenes),
      policy=task.policy.label,
      policy_version=task.policy.version,
      seconds=round(time.perf_counter() - begin, 2),
      finished=round(time.time(), 1),
      scenes=tuple(scenes),
    )
    # Before the shard has its name: no finished shard lacks its row, whenever the
    # program was ended. Of several rows of a shard the last one counts.
    log = cli.JsonLines(Path(task.directory).parent / LOG_FILE)
    log.write({"shard": task.shard, **dataclasses.asdict(report)})
  return report


def _report(scene: rollout.SceneTask, result: rollout.SceneResult) -> SceneReport:
  images = [attempt.pregrasp_image for attempt in result.attempts]
  return SceneReport(
    unit=scene.unit.name,
    attempts=len(images),
    successes=sum(attempt.success for attempt in result.attempts),
    diverged=result.diverged,
    strays=result.strays,
    brightness=round(min((float(i.mean()) for i in images), default=0.0), 1),
    contrast=round(min((float(i.std()) for i in images), default=0.0), 1),
  )


def fill(
  tasks: Sequence[ShardTask],
  num_attempts: int,
  missing: int,
  *,
  label: str,
  num_workers: int,
  in_process: bool = False,
  runner: Runner = fleet.map_unordered,
) -> None:
  """Runs tasks until all of their shards are there.

  Args:
    tasks: shards that are missing. Each is taken from the sequence when a worker is
      free for it, and not before.
    num_attempts: of the whole dataset, for the progress bar.
    missing: attempts of these tasks.
    label: of the progress bar.
    num_workers: processes, 0 for one a core.
    in_process: whether one worker alone works in this process, which must be the thread
      that draws.
    runner: `fleet.map_unordered`, or one with its arguments.
  """
  attempts = successes = 0

  def tell(death: fleet.Death) -> None:
    logging.warning(
      "a worker died (exit code %s) at shard %d; it is made again (%d of %d)",
      death.exit_code, tasks[death.index].shard, death.number, RETRIES,
    )  # fmt: skip

  done = num_attempts - missing
  with (
    cli.progress(num_attempts, label, "attempts", initial=done) as bar,
    trials.one_thread_each(),
    trials.compiled_once(),
  ):
    rendering.choose_backend()
    for _, report in runner(
      collect_shard,
      tasks,
      num_workers=num_workers,
      retries=0 if in_process else RETRIES,
      on_death=tell,
    ):
      attempts += report.attempts
      successes += report.successes
      bar.update(report.attempts)
      bar.set_postfix_str(
        f"success {100 * successes / max(attempts, 1):.0f} %", refresh=False
      )
