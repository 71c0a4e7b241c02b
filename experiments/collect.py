r"""Lets a fleet of simulated robots make grasp attempts (Section 5.2).

  python -m experiments.collect --config=experiments/configs/demo.py \
    --workdir=runs/demo/data --name=train

Writes a TFDS dataset to <workdir>/<name>/1.0.0. The same command continues an
interrupted collection; the same config gives the same attempts, byte for byte, with any
number of workers.

--robot=my_robot:make collects with a robot of your own (envs/robots.py).

Several machines fill one dataset in a shared folder with the same command and
--worker_index=0 (1, 2, ...) --worker_count=3; the last one declares it finished.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline import finish, writer
from data_pipeline import plan as plan_lib
from envs import fleet, objects, rollout, units
from experiments import cli
from experiments.control import own_robot
from experiments.datasets import shard_tasks
from experiments.evaluation import policies
from experiments.evaluation.seeds import Purpose, scene_seed
from experiments.fitting import train_config

# Which family of units a dataset of that name is made with.
GROUPS = {"train": "training", "held_out": "held_out"}
_PURPOSES = {"train": Purpose.TRAIN, "held_out": Purpose.HELD_OUT}


@dataclasses.dataclass(frozen=True)
class CollectConfig:
  """What decides a collection.

  Attributes:
    num_attempts: of the dataset `train`; exactly so many are written.
    num_held_out: of the dataset `held_out`.
    num_units: robots that make the dataset `train`, each with its own camera, light,
      finger wear, friction and actuation.
    num_held_out_units: robots that make the dataset `held_out`.
    attempts_per_scene: attempts before the objects are swapped out.
    scenes_per_shard: scenes in one file.
    num_objects: objects in the bin.
    objects: what the dataset `train` is made with, see `envs.objects.choose`.
    held_out_objects: the same for the dataset `held_out`; shares no family with it, and
      no mesh of the same geometry.
    arm: `built_in`, or one that `envs.menagerie` knows.
    num_steps: T of an attempt is drawn from these.
    seed: of everything.
    num_workers: processes, 0 for one a core; the attempts do not depend on it.
  """

  num_attempts: int
  num_held_out: int
  num_units: int
  num_held_out_units: int
  attempts_per_scene: int
  scenes_per_shard: int
  num_objects: int
  num_steps: tuple[int, ...]
  seed: int
  num_workers: int
  objects: str = "training"
  held_out_objects: str = "held_out"
  arm: str = "built_in"

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, str):
        continue
      least = 0 if field.name in ("seed", "num_workers") else 1
      if field.name == "num_steps":
        if not value or any(int(t) != t or t < 2 for t in value):
          raise ValueError(f"num_steps is {value}, expected whole numbers from 2")
      elif value < least:
        raise ValueError(f"{field.name} is {value}, expected at least {least}")
    if self.num_objects > objects.MOST:
      raise ValueError(
        f"num_objects is {self.num_objects}, but a bin holds at most {objects.MOST}"
      )

    training = objects.choose(self.objects)
    if shared := training.shared(objects.choose(self.held_out_objects)):
      raise ValueError(
        f"objects and held_out_objects share {', '.join(shared)}; what is held"
        " out must never be trained on"
      )

  def deciding(self, name: str) -> dict[str, Any]:
    """The fields on which the attempts of the dataset `name` depend."""
    other = {"train": ("num_held_out", "num_held_out_units", "held_out_objects")}.get(
      name, ("num_attempts", "num_units", "objects")
    )
    fields = dataclasses.asdict(self)
    chosen = objects.choose(
      self.held_out_objects if name == "held_out" else self.objects
    )
    return {
      **{k: v for k, v in fields.items() if k not in ("num_workers", *other)},
      "objects_fingerprint": chosen.fingerprint,
    }


def collect(
  config: Mapping[str, Any],
  workdir: str | Path,
  name: str,
  *,
  policy: str = "random",
  round_number: int = 0,
  worker_index: int = 0,
  worker_count: int = 1,
  runner: shard_tasks.Runner = fleet.map_unordered,
  seconds: float = math.inf,
) -> Path:
  """Collects a dataset, or what is missing of it.

  Args:
    config: sections `network` (for the size of frames), `collect` and `servo`.
    workdir: the folder of datasets.
    name: `train` or `held_out`: which units and objects.
    policy: `random`, another policy that needs no network (see `policy_names`), or the
      folder of checkpoints whose network decides.
    round_number: recorded with every attempt.
    worker_index: which share of the shards to make, 0 <= worker_index < worker_count.
    worker_count: how many programs like this one, which need no word between them,
      fill the dataset.
    runner: of the shards, see `shard_tasks.fill`.
    seconds: after which the shards that there are will do; for a runner that takes
      `until`.

  Returns:
    The dataset's folder; finished if no shard of another worker is missing.

  Raises:
    UserError, DatasetError: an input cannot be used, or the time was too short for one
      shard.
  """
  if seconds < math.inf:
    runner = functools.partial(runner, until=time.monotonic() + seconds)
  if name not in GROUPS:
    raise cli.UserError(f"--name={name}: expected one of {sorted(GROUPS)}")
  settings = cli.build(CollectConfig, config["collect"], "collect")
  network = train_config.build_network(config["network"])
  spec = _policy_spec(config, policy)
  scenes = plan_scenes(settings, name, network.frame_size, round_number)
  shards = [
    tuple(scenes[i : i + settings.scenes_per_shard])
    for i in range(0, len(scenes), settings.scenes_per_shard)
  ]
  versions = cli.versions()
  directory = plan_lib.begin(
    cli.prepare_workdir(workdir),
    plan_lib.Plan(
      name=name,
      num_shards=len(shards),
      frame_size=network.frame_size,
      config={
        **settings.deciding(name),
        "policy": spec.name,
        "policy_version": spec.version,
        "servo": dict(spec.servo),
        "round": round_number,
        "mujoco": versions["mujoco"],
      },
    ),
  )
  software = cli.to_json(versions)
  tasks = [
    shard_tasks.ShardTask(
      str(directory.absolute()), shard, shards[shard], spec, round_number, software
    )
    for shard in writer.pending_shards(
      directory, worker_index=worker_index, worker_count=worker_count
    )
  ]
  mine = shards[worker_index::worker_count]
  num_attempts = sum(scene.num_attempts for shard in mine for scene in shard)
  shard_tasks.fill(
    tasks,
    num_attempts,
    sum(scene.num_attempts for task in tasks for scene in task.scenes),
    label=f"collect {name}",
    num_workers=settings.num_workers,
    in_process=settings.num_workers == 1,
    runner=runner,
  )
  if worker_count == 1 or not writer.pending_shards(directory):
    finish.finalize(directory, partly=seconds < math.inf)
  return directory


def plan_scenes(
  settings: CollectConfig, name: str, frame_size: int, round_number: int = 0
) -> list[rollout.SceneTask]:
  """The scenes of a dataset: units take turns, each scene has its own seed."""
  held_out = name == "held_out"
  group = GROUPS[name]
  robots = units.fleet_units(
    settings.num_held_out_units if held_out else settings.num_units,
    group,
    arm=settings.arm,
  )
  remaining = settings.num_held_out if held_out else settings.num_attempts
  scenes: list[rollout.SceneTask] = []
  while remaining > 0:
    scenes.append(
      rollout.SceneTask(
        unit=robots[len(scenes) % len(robots)],
        scene_seed=scene_seed(
          _PURPOSES[name], settings.seed, round_number, len(scenes)
        ),
        num_attempts=min(settings.attempts_per_scene, remaining),
        num_steps=settings.num_steps,
        num_objects=settings.num_objects,
        objects=settings.held_out_objects if held_out else settings.objects,
        frame_size=frame_size,
      )
    )
    remaining -= scenes[-1].num_attempts
  return scenes


def collect_robot(
  robot: str,
  config: Mapping[str, Any],
  workdir: str | Path,
  name: str,
  *,
  policy: str = "random",
  round_number: int = 0,
) -> Path:
  """Collects with a robot of one's own, `module:factory`; see `own_robot.collect`.

  Of section `collect`, num_attempts (num_held_out for `held_out`), num_steps and seed
  count.
  """
  settings = cli.build(CollectConfig, config["collect"], "collect")
  spec = _policy_spec(config, policy)
  with own_robot.opened(robot) as cell:
    return own_robot.collect(
      cell,
      policies.make_policy(spec),
      workdir,
      name,
      policy_name=spec.label,
      policy_version=spec.version,
      round_number=round_number,
      num_attempts=settings.num_held_out
      if name == "held_out"
      else settings.num_attempts,
      num_steps=settings.num_steps,
      seed=settings.seed,
    )


def _policy_spec(config: Mapping[str, Any], policy: str) -> policies.PolicySpec:
  network = train_config.build_network(config["network"])
  # A folder may not be there yet; names have no slash.
  is_folder = "/" in policy or Path(policy).is_dir()
  if is_folder:
    return policies.servo_spec(policy, config["servo"], network, flag="policy")
  return policies.choose(policy, config, policies.Networks())


def define_flags() -> None:
  cli.define_config()
  own_robot.define_flags()
  flags.DEFINE_string("workdir", "", "Folder of datasets.")
  flags.DEFINE_enum("name", "train", sorted(GROUPS), "Which dataset to collect.")
  flags.DEFINE_string("objects", "", "Objects instead of the config's; a folder, too.")
  flags.DEFINE_string("arm", "", "'built_in', or 'menagerie:kuka_iiwa_14'.")
  flags.DEFINE_string(
    "policy",
    "random",
    "random, oracle, module:factory, ... or a folder of checkpoints.",
  )
  flags.DEFINE_integer("round", 0, "Number of the collection round, recorded.")
  flags.DEFINE_integer("worker_index", 0, "Which of --worker_count programs this is.")
  flags.DEFINE_integer("worker_count", 1, "Programs that fill one dataset together.")
  flags.DEFINE_float(
    "seconds", 0.0, "End after so long with what there is; 0: with all of it.", 0.0
  )


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.workdir:
    raise cli.UserError("--workdir is needed: a folder for datasets")
  if args.objects:
    field = "held_out_objects" if args.name == "held_out" else "objects"
    args.config.collect[field] = args.objects
  if args.arm:
    args.config.collect.arm = args.arm
  if args.robot:
    directory = collect_robot(
      args.robot,
      args.config,
      args.workdir,
      args.name,
      policy=args.policy,
      round_number=args.round,
    )
    print(f"Dataset: {directory}")
    return
  directory = collect(
    args.config,
    args.workdir,
    args.name,
    policy=args.policy,
    round_number=args.round,
    worker_index=args.worker_index,
    worker_count=args.worker_count,
    seconds=args.seconds or math.inf,
  )
  if missing := writer.pending_shards(directory):
    print(f"{len(missing)} shards are still missing; the same command makes them")
  print(f"Dataset: {directory}")


if __name__ == "__main__":
  cli.run(main, define_flags)
