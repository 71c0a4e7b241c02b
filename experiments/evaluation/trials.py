"""Trials: a policy in a few bins under one condition, and the rows that result.

An evaluation or a sweep is a list of trials and resumes at the first missing one. The
bins of a trial run side by side, so that a network decides for all in one call.
"""

import collections
import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from data_pipeline.attempts import family_of
from envs import fleet, rendering, rollout
from envs.attempt import Attempt
from experiments import cli
from experiments.evaluation import conditions
from experiments.evaluation import policies as policies_lib

SIDE_BY_SIDE = 8  # bins of a trial
RETRIES = 2  # of a trial whose worker died

# Runs a function over trials: yields (index, rows) as they come.
Runner = Callable[..., Iterator[tuple[int, list[dict[str, Any]]]]]


@dataclasses.dataclass(frozen=True)
class Trial:
  """A unit of parallel work; a stopped run keeps whole trials.

  Attributes:
    policy: the one that decides.
    protocol: of `envs.protocols.NAMES`.
    condition: as text, '' for none.
    first: number of the first of these repetitions.
    scenes: one bin for each repetition.
  """

  policy: policies_lib.PolicySpec
  protocol: str
  condition: str
  first: int
  scenes: tuple[rollout.SceneTask, ...]

  @property
  def key(self) -> str:
    """Tells the trials of one work folder apart."""
    name = (self.policy.name, self.protocol, self.condition, f"bin {self.first}")
    return " / ".join(part for part in name if part)

  @property
  def num_attempts(self) -> int:
    """Upper bound; a bin may empty early."""
    return sum(scene.num_attempts for scene in self.scenes)


def split(
  policy: policies_lib.PolicySpec,
  protocol: str,
  condition: conditions.Condition,
  scenes: Sequence[rollout.SceneTask],
) -> list[Trial]:
  """The trials of one policy in the bins of a protocol."""
  return [
    Trial(policy, protocol, str(condition), i, tuple(scenes[i : i + SIDE_BY_SIDE]))
    for i in range(0, len(scenes), SIDE_BY_SIDE)
  ]


def run_trial(trial: Trial) -> list[dict[str, Any]]:
  """The rows of a trial, one an attempt; runs in a worker process."""
  rendering.choose_backend()  # a worker on another machine has not inherited it
  policies = [policies_lib.make_policy(trial.policy) for _ in trial.scenes]
  results = rollout.run_scenes(trial.scenes, policies)
  rows = [
    {**row_of(trial, repetition, attempt), "diverged_in_scene": result.diverged}
    for repetition, result in enumerate(results, start=trial.first)
    for attempt in result.attempts
  ]
  return [{**row, "rows_of_trial": len(rows)} for row in rows]


def row_of(trial: Trial, repetition: int, attempt: Attempt) -> dict[str, Any]:
  """An attempt as a row: plain numbers and words; lengths in m."""
  scene = trial.scenes[repetition - trial.first]
  told = [e for e in attempt.evidence if "p_null" in e]
  held = 0 if scene.replacement else attempt.num_held
  return {
    "trial": trial.key,
    "policy": trial.policy.name,
    "policy_version": trial.policy.version,
    "protocol": trial.protocol,
    "condition": trial.condition,
    "repetition": repetition,
    "attempt": attempt.attempt_seed,
    "unit": attempt.unit.partition("~")[0],
    "scene_seed": attempt.scene_seed,
    "success": attempt.success,
    "gripper_reading": attempt.gripper_reading,
    "drop_test": attempt.drop_test,
    "simulator_truth": attempt.simulator_truth,
    "grasped": attempt.grasped,
    "grade": attempt.grade,
    "target": attempt.target.name,
    "target_family": family_of(attempt.target.name),
    "target_properties": list(attempt.target.properties),
    "target_across": attempt.target.across,
    "target_along": attempt.target.along,
    "target_moved": attempt.target.moved,
    "in_bin": len(attempt.objects),
    "remaining": len(attempt.objects) - held,
    "num_steps": scene.num_steps[0],
    "closed_at_step": len(attempt.images),
    "actions": [str(e["action"]) for e in attempt.evidence if "action" in e],
    "p_null": [e["p_null"] for e in told],
    "p_best": [e["p_best"] for e in told],
  }


def settings_of(trial: Trial) -> dict[str, Any]:
  """What else a trial's rows depend on: its bins, and fields of ServoConfig."""
  scene = trial.scenes[0]
  names = ("num_attempts", "num_objects", "objects", "frame_size")
  return {
    **{name: getattr(scene, name) for name in names},
    "arm": scene.unit.arm,
    "servo": dict(trial.policy.servo),
  }


def run(
  trials: Sequence[Trial],
  path: Path,
  *,
  num_workers: int = 0,
  label: str = "evaluate",
  runner: Runner = fleet.map_unordered,
) -> list[dict[str, Any]]:
  """Runs the trials that are missing in a file of rows; returns all rows, in order.

  A trial counts when all of its rows are there; the runner may give up some, whose
  rows are then missing. Rows of other trials stay. Every row
  names its configuration and the software that made it; another version of the
  simulator is refused by the work folder's config.json, see `cli.check_same`.

  Args:
    path: of the JSONL file.
    num_workers: processes, 0 for one a core; the rows do not depend on it.
    runner: `fleet.map_unordered`, or one with its arguments.
  """
  versions = cli.versions()
  software = {name: versions[name] for name in ("hand_eye", "jax", "mujoco", "numpy")}
  found = collections.defaultdict(list)
  for row in cli.read_jsonl(path):
    found[row["trial"]].append(row)
  keys = [trial.key for trial in trials]
  # Whole trials of any policy; an incomplete one is run again.
  done = {
    key: rows for key, rows in found.items() if len(rows) == rows[0]["rows_of_trial"]
  }
  cli.rewrite_jsonl(path, [row for rows in done.values() for row in rows])
  log = cli.JsonLines(path)
  missing = [trial for trial in trials if trial.key not in done]

  def tell(death: fleet.Death) -> None:
    logging.warning(
      "a worker died (exit code %s) at %s; it is tried again (%d of %d)",
      death.exit_code, missing[death.index].key, death.number, RETRIES,
    )  # fmt: skip

  total = sum(trial.num_attempts for trial in trials)
  left = sum(trial.num_attempts for trial in missing)
  with cli.progress(total, label, "attempts", initial=total - left) as bar:
    rendering.choose_backend()
    with one_thread_each():
      answers = runner(
        run_trial,
        missing,
        num_workers=num_workers,
        retries=RETRIES,
        on_death=tell,
      )
      for index, rows in answers:
        more = {"config": settings_of(missing[index]), "software": software}
        # As when read back: the same whether or not the run was stopped.
        rows = json.loads(cli.to_json([{**row, **more} for row in rows]))
        log.write_all(rows)
        done[missing[index].key] = rows
        bar.update(missing[index].num_attempts)
  others = [key for key in done if key not in set(keys)]
  keys = [key for key in keys if key in done]
  cli.rewrite_jsonl(path, [row for key in [*keys, *others] for row in done[key]])
  return [row for key in keys for row in done[key]]


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
  """Processes that start in this block have one thread of XLA each.

  Each has a core of its own; and the last digits of a score, which decide the next
  samples of a search, are then the same with any number of workers.
  """
  with _environment("NPROC", "1"):
    yield


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
  """Processes that start in this block share what they compile, which saves seconds.

  Compiled programs fit this machine only, so they are deleted at the end of the block.
  """
  with tempfile.TemporaryDirectory() as folder:
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    with _environment("JAX_COMPILATION_CACHE_DIR", given or folder):
      yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
  before = os.environ.get(name)
  os.environ[name] = value
  try:
    yield
  finally:
    if before is None:
      del os.environ[name]
    else:
      os.environ[name] = before
