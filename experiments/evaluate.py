r"""Measures policies on objects and units that were never trained on (Section 6).

  python -m experiments.evaluate --config=experiments/configs/demo.py \
    --checkpoint=runs/demo/train/checkpoints --workdir=runs/demo/evaluate

Grasping with replacement: what was grasped goes back into the bin. Every policy meets
the same scenes from the same seeds. Writes rows.jsonl (a row an attempt), summary.json,
videos/, overlay.npz and units.png; the same command continues where it was.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline.attempts import family_of
from envs import fleet, objects, rendering, rollout, units
from experiments import _edge, _media, _policies, _sheet, _stats, _train_config
from experiments._seeds import Purpose, scene_seed

# Held-out units from this seed on: those below chose the best checkpoint.
_FIRST_UNIT = 1_000


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """What decides an evaluation.

  Attributes:
    policies: of `_policies.POLICIES`, in the order of the table.
    num_attempts: of each policy.
    num_units: held-out robots, taking turns.
    attempts_per_scene: attempts before the objects are swapped out.
    num_objects: objects in the bin.
    objects: which ones, see `envs.objects.choose`.
    arm: `built_in`, or one that `envs.menagerie` knows.
    num_steps: T.
    seed: of everything.
    num_workers: processes, 0 for one a core; the rows do not depend on it.
    num_videos: scenes of the learned servo that are filmed.
    video_size: pixels, even.
  """

  policies: tuple[str, ...]
  num_attempts: int
  num_units: int
  attempts_per_scene: int
  num_objects: int
  num_steps: int
  seed: int
  num_workers: int
  num_videos: int
  video_size: int
  objects: str = "held_out"
  arm: str = "built_in"

  def __post_init__(self) -> None:
    known = tuple(_policies.POLICIES)
    unknown = sorted(set(self.policies) - set(known))
    if unknown or not self.policies or len(set(self.policies)) < len(self.policies):
      raise ValueError(f"policies is {self.policies}, expected some of {known}")
    if self.num_objects > objects.MOST:
      raise ValueError(
        f"num_objects is {self.num_objects}, but a bin holds at most {objects.MOST}"
      )
    objects.choose(self.objects)
    if self.num_workers < 0 or self.num_videos < 0:
      raise ValueError("num_workers and num_videos: expected at least 0")
    for name in ("num_attempts", "num_units", "attempts_per_scene", "num_objects"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
    if self.num_steps < 2:
      raise ValueError(f"num_steps is {self.num_steps}, expected at least 2")
    if self.video_size % 2 or not 64 <= self.video_size <= 1024:
      raise ValueError(
        f"video_size is {self.video_size}, expected an even number from 64 to 1024"
      )


@dataclasses.dataclass(frozen=True)
class EvaluationTask:
  """One policy in one scene: a unit of parallel work."""

  policy: _policies.PolicySpec
  scene: rollout.SceneTask

  @property
  def key(self) -> tuple[str, str, int]:
    return self.policy.name, self.scene.unit.name, self.scene.scene_seed


def evaluate(
  config: Mapping[str, Any], checkpoint: str | Path, workdir: str | Path
) -> dict[str, Any]:
  """Evaluates, or goes on with it.

  Args:
    config: sections `network`, `servo` and `evaluate`.
    checkpoint: folder of the network's checkpoints; the best one is used.
    workdir: where the results go.

  Returns:
    The content of summary.json.

  Raises:
    UserError, CheckpointError: something that the caller can mend.
  """
  settings = _edge.build(EvaluateConfig, config["evaluate"], "evaluate")
  network = _train_config.build_network(config["network"])
  specs = {
    name: _policies.choose(name, config, checkpoint, flag="checkpoint")
    for name in settings.policies
  }
  scenes = plan_scenes(settings, network.frame_size)
  tasks = [EvaluationTask(spec, scene) for spec in specs.values() for scene in scenes]
  workdir = _edge.prepare_workdir(workdir)
  identity = {
    "evaluate": {
      key: value
      for key, value in dataclasses.asdict(settings).items()
      if key not in ("num_workers", "num_videos", "video_size")
    },
    "policies": {
      name: {"version": spec.version, "servo": dict(spec.servo)}
      for name, spec in specs.items()
    },
    "cell": {
      "frame_size": network.frame_size,
      "objects_fingerprint": objects.choose(settings.objects).fingerprint,
      "mujoco": _edge.versions()["mujoco"],
    },
  }
  _edge.check_same(workdir / "config.json", identity, "an evaluation")

  rows = _run(tasks, workdir / "rows.jsonl", settings.num_workers)
  summary = summarise(rows, settings.policies)
  _edge.write_atomically(
    workdir / "summary.json",
    _edge.to_json(
      {
        "policies": summary,
        "detectors": _stats.detectors(rows),
        "config": identity,
        "versions": _edge.versions(),
      },
      indent=2,
    )
    + "\n",
  )
  if "servo" in specs:
    _film(specs["servo"], scenes, settings, workdir)
  _draw_units(settings, workdir / "units.png")
  return {"policies": summary}


def plan_scenes(settings: EvaluateConfig, frame_size: int) -> list[rollout.SceneTask]:
  """The scenes that every policy meets, exactly `num_attempts` in all."""
  robots = units.fleet_units(settings.num_units, "held_out", _FIRST_UNIT, settings.arm)
  scenes: list[rollout.SceneTask] = []
  remaining = settings.num_attempts
  while remaining > 0:
    scenes.append(
      rollout.SceneTask(
        unit=robots[len(scenes) % len(robots)],
        scene_seed=scene_seed(Purpose.EVALUATE, settings.seed, 0, len(scenes)),
        num_attempts=min(settings.attempts_per_scene, remaining),
        num_steps=(settings.num_steps,),
        num_objects=settings.num_objects,
        objects=settings.objects,
        frame_size=frame_size,
      )
    )
    remaining -= scenes[-1].num_attempts
  return scenes


def run_task(task: EvaluationTask) -> list[dict[str, Any]]:
  """The rows of one policy in one scene; runs in a worker process."""
  result = rollout.run_scene(task.scene, _policies.make_policy(task.policy))
  rows = []
  for attempt in result.attempts:
    actions = [str(e["action"]) for e in attempt.evidence if "action" in e]
    rows.append(
      {
        "policy": task.policy.name,
        "policy_version": task.policy.version,
        "unit": attempt.unit,
        "family": family_of(attempt.grasped),
        "scene_seed": attempt.scene_seed,
        "attempt": attempt.attempt_seed,
        "success": attempt.success,
        "gripper_reading": attempt.gripper_reading,
        "drop_test": attempt.drop_test,
        "simulator_truth": attempt.simulator_truth,
        "grasped": attempt.grasped,
        "num_steps": task.scene.num_steps[0],
        "closed_at_step": len(attempt.images),
        "actions": actions,
        "p_null": [e["p_null"] for e in attempt.evidence if "p_null" in e],
        "p_best": [e["p_best"] for e in attempt.evidence if "p_best" in e],
        "diverged_in_scene": result.diverged,
      }
    )
  return rows


def summarise(
  rows: Sequence[Mapping[str, Any]], policies: Sequence[str]
) -> dict[str, dict[str, Any]]:
  """Attempts, successes, and the rate with its 95 % Wilson interval, by policy."""
  summary = {}
  for name in policies:
    outcomes = [bool(row["success"]) for row in rows if row["policy"] == name]
    summary[name] = _stats.rate(sum(outcomes), len(outcomes))
  return summary


def describe(summary: Mapping[str, Mapping[str, Any]]) -> str:
  """The result table for the terminal."""
  lines = [f"{'policy':<10} {'attempts':>8} {'success':>8}   95 % interval"]
  for name, row in summary.items():
    lines.append(
      f"{name:<10} {row['attempts']:>8} {100 * row['rate']:>6.1f} %"
      f"   {100 * row['low']:.1f} to {100 * row['high']:.1f} %"
    )
  return "\n".join(lines)


def _run(
  tasks: list[EvaluationTask], path: Path, num_workers: int
) -> list[dict[str, Any]]:
  """Runs what rows.jsonl lacks; returns all rows, in the order of the tasks."""
  found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
  for row in _edge.read_jsonl(path):
    key = (row["policy"], row["unit"], row["scene_seed"])
    found.setdefault(key, []).append(row)
  # A scene counts when all of its rows are there: they are written together.
  done = {
    task.key: found[task.key]
    for task in tasks
    if len(found.get(task.key, ())) == task.scene.num_attempts
  }
  _edge.rewrite_jsonl(path, [row for rows in done.values() for row in rows])
  missing = [task for task in tasks if task.key not in done]
  log = _edge.JsonLines(path)
  total = sum(task.scene.num_attempts for task in tasks)
  already = sum(len(rows) for rows in done.values())
  with _edge.progress(total, "evaluate", "attempts", initial=already) as bar:
    rendering.choose_backend()
    for index, rows in fleet.map_unordered(run_task, missing, num_workers=num_workers):
      for row in rows:
        log.write(row)
      done[missing[index].key] = rows
      bar.update(len(rows))
  ordered = [row for task in tasks for row in done[task.key]]
  _edge.rewrite_jsonl(path, ordered)
  return ordered


def _film(
  spec: _policies.PolicySpec,
  scenes: list[rollout.SceneTask],
  settings: EvaluateConfig,
  workdir: Path,
) -> None:
  """Films the servo in the first scenes and keeps a picture of one decision.

  What is there already stays: the folder belongs to one configuration.
  """
  folder = workdir / "videos"
  folder.mkdir(parents=True, exist_ok=True)
  policy = _policies.make_policy(spec)
  chosen = [
    dataclasses.replace(scene, num_attempts=min(2, scene.num_attempts))
    for scene in scenes[: settings.num_videos]
  ]
  with _edge.progress(len(chosen) + 1, "film", "scenes") as bar:
    for number, scene in enumerate(chosen):
      path = folder / f"servo-{scene.unit.name}-scene-{number}.mp4"
      if not path.exists():
        with _media.VideoRecorder(path, settings.video_size) as recorder:
          rollout.run_scene(scene, policy, recorder)
      bar.update(1)
    overlay = _media.OverlayRecorder(settings.video_size)
    rollout.run_scene(chosen[0] if chosen else scenes[0], policy, overlay)
    if overlay.overlay:
      buffer = io.BytesIO()
      np.savez_compressed(buffer, allow_pickle=False, **overlay.overlay)
      _edge.write_atomically(workdir / "overlay.npz", buffer.getvalue())
    bar.update(1)


def _draw_units(settings: EvaluateConfig, path: Path) -> None:
  """Figure 6: robots that were trained with, and some of those evaluated on."""
  count = min(settings.num_units, 3)
  shown = [
    (units.fleet_units(9 - count, "training", arm=settings.arm), "training"),
    (
      units.fleet_units(count, "held_out", _FIRST_UNIT, settings.arm),
      settings.objects,
    ),
  ]
  tiles = [
    _media.unit_tile(robot, selection, settings.num_objects, 200)
    for robots, selection in shown
    for robot in robots
  ]
  _sheet.write_sheet(path, tiles, columns=3)


def define_flags() -> None:
  _edge.define_config()
  flags.DEFINE_string("checkpoint", "", "Folder of checkpoints of the network.")
  flags.DEFINE_string("objects", "", "Objects instead of the config's; a folder, too.")
  flags.DEFINE_string("arm", "", "'built_in', or 'menagerie:kuka_iiwa_14'.")
  flags.DEFINE_string("workdir", "", "Folder for the results.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.workdir:
    raise _edge.UserError("--workdir is needed: a folder for the results")
  if args.objects:
    args.config.evaluate.objects = args.objects
  if args.arm:
    args.config.evaluate.arm = args.arm
  summary = evaluate(args.config, args.checkpoint, args.workdir)
  print(describe(summary["policies"]))
  print(f"Rows and videos: {args.workdir}")


if __name__ == "__main__":
  _edge.run(main, define_flags)
