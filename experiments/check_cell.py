r"""Checks that the cell is fair, its labels true and its physics stable (Section 5).

  python -m experiments.check_cell --workdir=runs/cell --num_attempts=10000

Sends arms to a grid of poses; lets the random policy and an oracle make attempts with
all training and some held-out units and all families of objects, with T = 3 and 10;
compares both detectors with the simulator's truth. Prints tables, writes cell.json and
cell.md; the same command continues where it stopped.
"""

import dataclasses
import itertools
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline.attempts import family_of
from envs import arm, fleet, gripper, objects, rendering, rollout, units
from envs.arm import BUILT_IN
from envs.attempt import Attempt
from envs.control import DivergedError
from envs.grasp_env import GraspEnv
from experiments import cli
from experiments.cell import cell_page, cell_tables
from experiments.evaluation import policies
from experiments.evaluation.seeds import Purpose, scene_seed

NUM_STEPS = (3, 10)
ORACLE_SHARE = 0.25  # of all attempts; the random policy makes the others
_SPECS = {spec.name: spec for spec in (policies.RANDOM, policies.ORACLE)}
# Grid of the workspace: of x and y, of heights, of yaws.
_GRID = (3, 3, 5)
_FINE = (9, 9, 25)  # where only the joint angles are asked for
_COMMANDS = 60  # of a unit, with actuation noise


@dataclasses.dataclass(frozen=True)
class CheckConfig:
  """What decides a check.

  Attributes:
    num_attempts: about, of both policies, both T and both groups together.
    num_units: training robots.
    num_held_out_units: held-out robots.
    attempts_per_scene: attempts before the objects are swapped out.
    num_objects: objects in the bin.
    objects: a selection for both groups, see `envs.objects.choose`; '' is each group's
      own, without the soft ones for the oracle.
    arm: of all robots, see `envs.units.Unit`.
    frame_size: pixels.
    seed: of everything.
    num_workers: processes, 0 for one a core; only the clock depends on it.
  """

  num_attempts: int = 1000
  num_units: int = units.NUM_TRAINING_UNITS
  num_held_out_units: int = 6
  attempts_per_scene: int = 5
  num_objects: int = 6
  objects: str = ""
  arm: str = BUILT_IN
  frame_size: int = 72
  seed: int = 0
  num_workers: int = 0

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, str):
        continue
      least = 0 if field.name in ("seed", "num_workers") else 1
      if value < least:
        raise cli.UserError(f"--{field.name}={value}: expected at least {least}")
    if self.num_objects > objects.MOST:
      raise cli.UserError(
        f"--num_objects={self.num_objects}: a bin holds at most {objects.MOST}"
      )
    objects.choose(self.selection("training"))  # refuses it before hours of work

  def selection(self, group: str) -> str:
    """Of objects, for the robots of a group."""
    return self.objects or group

  def deciding(self) -> dict[str, Any]:
    """What may not change within a folder; more attempts may be asked for later."""
    fields = dataclasses.asdict(self)
    chosen = objects.choose(self.selection("training"))
    return {
      **{k: v for k, v in fields.items() if k not in ("num_workers", "num_attempts")},
      "objects_fingerprint": chosen.fingerprint,
      "mujoco": cli.versions()["mujoco"],
    }


@dataclasses.dataclass(frozen=True)
class CellTask:
  """One policy in one scene."""

  policy: str
  group: str
  scene: rollout.SceneTask

  @property
  def key(self) -> tuple[str, int]:
    return self.policy, self.scene.scene_seed


def check(config: CheckConfig, workdir: str | Path) -> dict[str, Any]:
  """Checks the cell, or goes on with it; returns the content of cell.json.

  Raises:
    UserError: an input cannot be used.
  """
  workdir = cli.prepare_workdir(workdir)
  with cli.locked(workdir):
    cli.check_same(workdir / "config.json", config.deciding(), "a check")
    moved = _move(config, workdir / "reach.jsonl")
    rows = _run(plan(config), workdir / "rows.jsonl", config.num_workers)
  summary = {
    **cell_tables.summarise(rows, moved),
    "config": dataclasses.asdict(config),
    "versions": cli.versions(),
  }
  cli.write_json(workdir / "cell.json", summary)
  cli.write_atomically(workdir / "cell.md", cell_page.markdown(summary))
  return summary


def plan(config: CheckConfig) -> list[CellTask]:
  """All scenes; policies, T and groups take turns, so that any beginning is mixed.

  More attempts have the same scenes first, and others after them.
  """
  streams: list[list[CellTask]] = []
  for policy, steps, group in itertools.product(
    _SPECS, NUM_STEPS, ("training", "held_out")
  ):
    share = ORACLE_SHARE if policy == "oracle" else 1 - ORACLE_SHARE
    wanted = share * config.num_attempts / (len(NUM_STEPS) * 2)
    number = max(1, round(wanted / config.attempts_per_scene))
    streams.append(
      [
        _task(config, policy, steps, group, len(streams), index)
        for index in range(number)
      ]
    )
  turns = itertools.zip_longest(*streams)
  return [task for turn in turns for task in turn if task is not None]


def _task(
  config: CheckConfig, policy: str, steps: int, group: str, stream: int, index: int
) -> CellTask:
  count = config.num_units if group == "training" else config.num_held_out_units
  kind = f"{group}:rigid" if policy == "oracle" else group
  (unit,) = units.fleet_units(1, group, index % count, config.arm)
  return CellTask(
    policy,
    group,
    rollout.SceneTask(
      unit=unit,
      scene_seed=scene_seed(Purpose.CHECK, config.seed, stream, index),
      num_attempts=config.attempts_per_scene,
      num_steps=(steps,),
      num_objects=config.num_objects,
      objects=config.selection(kind),
      frame_size=config.frame_size,
    ),
  )


def run_task(task: CellTask) -> dict[str, Any]:
  """The row of one scene; runs in a worker process. A crash is a finding, too."""
  watch = time.perf_counter()
  attempts: list[dict[str, Any]] = []
  diverged = strays = 0
  error = ""
  try:
    result = rollout.run_scene(task.scene, policies.make_policy(_SPECS[task.policy]))
    attempts = [_attempt(attempt) for attempt in result.attempts]
    diverged, strays = result.diverged, result.strays
  except Exception as problem:
    where = traceback.extract_tb(problem.__traceback__)[-1]
    if isinstance(problem, DivergedError):
      diverged = problem.count  # of a scene that was given up
    error = f"{type(problem).__name__}: {problem} ({where.name}, line {where.lineno})"
  return {
    "policy": task.policy,
    "group": task.group,
    "unit": task.scene.unit.name,
    "scene_seed": task.scene.scene_seed,
    "num_steps": task.scene.num_steps[0],
    "objects": task.scene.objects,
    "attempts": attempts,
    "diverged": diverged,
    "strays": strays,
    "error": error,
    "seconds": round(time.perf_counter() - watch, 2),
  }


def _attempt(attempt: Attempt) -> dict[str, Any]:
  return {
    "success": attempt.success,
    "gripper_reading": attempt.gripper_reading,
    "drop_test": attempt.drop_test,
    "simulator_truth": attempt.simulator_truth,
    "grasped": attempt.grasped,
    "closed_at_step": len(attempt.images),
    "families": [family_of(name) for name in attempt.objects],
  }


def reach_unit(unit: units.Unit) -> dict[str, Any]:
  """Errors of one empty-handed robot's motions; runs in a worker process.

  Raises:
    UnreachableError: a pose of the workspace is out of the arm's reach.
  """
  low, high = (np.asarray(bound, np.float64) for bound in unit.workspace())
  arm.inverse_kinematics(_grid(low, high, _FINE), gripper.TOOL_LENGTH)
  env = GraspEnv(unit, [], frame_size=48)
  exact, noisy = [], []
  try:
    rng = np.random.default_rng([units.FAMILIES[unit.family], unit.seed])
    env.begin(rng)
    env.approach((low + high) / 2)
    for pose in _grid(low, high, _GRID):
      env.controller.move_to(pose)
      exact.append(_miss(env.pose(), pose))
    for _ in range(_COMMANDS):
      target = rng.uniform(low, high)
      env.step(_command(env.pose(), target), rng)
      noisy.append(_miss(env.pose(), target))
  finally:
    env.close()
  return {"unit": unit.name, "exact": exact, "noisy": noisy}


def _grid(
  low: np.ndarray, high: np.ndarray, counts: tuple[int, int, int]
) -> np.ndarray:
  """Poses [N, 4] of the workspace, its corners among them."""
  flat, heights, yaws = counts
  lines = [
    np.linspace(a, b, n)
    for a, b, n in zip(low, high, (flat, flat, heights, yaws), strict=True)
  ]
  return np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 4)


def _command(pose: np.ndarray, target: np.ndarray) -> np.ndarray:
  motion = target - pose
  return np.array([*motion[:3], np.sin(motion[3]), np.cos(motion[3])])


def _miss(pose: np.ndarray, target: np.ndarray) -> list[float]:
  x, y, z, yaw = (float(value) for value in pose - target)
  return [x, y, z, (yaw + np.pi) % (2 * np.pi) - np.pi]


def _move(config: CheckConfig, path: Path) -> list[dict[str, Any]]:
  robots = [
    *units.fleet_units(config.num_units, arm=config.arm),
    *units.fleet_units(config.num_held_out_units, "held_out", arm=config.arm),
  ]
  done = {row["unit"]: row for row in cli.read_jsonl(path)}
  missing = [unit for unit in robots if unit.name not in done]
  log = cli.JsonLines(path)
  with cli.progress(
    len(robots), "reach", "units", initial=len(robots) - len(missing)
  ) as bar:
    workers = config.num_workers
    rendering.choose_backend()
    for _, row in fleet.map_unordered(reach_unit, missing, num_workers=workers):
      log.write(row)
      done[row["unit"]] = row
      bar.update(1)
  return [done[unit.name] for unit in robots]


def _run(tasks: list[CellTask], path: Path, num_workers: int) -> list[dict[str, Any]]:
  """Runs what rows.jsonl lacks; returns all rows, in the order of the tasks."""
  # What crashed is tried again.
  found = {
    (row["policy"], row["scene_seed"]): row
    for row in cli.read_jsonl(path)
    if not row["error"]
  }
  missing = [task for task in tasks if task.key not in found]
  cli.rewrite_jsonl(path, found.values())
  log = cli.JsonLines(path)
  total = sum(task.scene.num_attempts for task in tasks)
  already = total - sum(task.scene.num_attempts for task in missing)
  with cli.progress(total, "check", "attempts", initial=already) as bar:
    rendering.choose_backend()
    for index, row in fleet.map_unordered(run_task, missing, num_workers=num_workers):
      log.write(row)
      found[missing[index].key] = row
      bar.update(missing[index].scene.num_attempts)
  return [found[task.key] for task in tasks]


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for the results.")
  helps = {
    "num_attempts": "Attempts, of both policies, both T and both groups together.",
    "num_units": "Training robots.",
    "num_held_out_units": "Held-out robots.",
    "attempts_per_scene": "Attempts before the objects are swapped out.",
    "num_objects": "Objects in the bin.",
    "frame_size": "Of the images, pixels.",
    "seed": "Of everything.",
    "num_workers": "Processes; 0 is one a core.",
  }
  for name, text in helps.items():
    flags.DEFINE_integer(name, getattr(CheckConfig, name), text)
  flags.DEFINE_string("objects", "", "Families, a group or a folder, for both groups.")
  flags.DEFINE_string("arm", BUILT_IN, "'built_in', or 'menagerie:kuka_iiwa_14'.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  names = [field.name for field in dataclasses.fields(CheckConfig)]
  values: dict[str, Any] = {name: args[name].value for name in names}
  config = CheckConfig(**values)
  summary = check(config, args.workdir)
  print(cell_page.markdown(summary))
  done = summary["health"]
  print(
    f"{done['attempts']} attempts in {done['scenes']} scenes,"
    f" {done['attempts_per_second']:.2f} attempts a second of one process."
    f" Also in {args.workdir}: cell.json, cell.md, rows.jsonl"
  )


if __name__ == "__main__":
  cli.run(main, define_flags)
