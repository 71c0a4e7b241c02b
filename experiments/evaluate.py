r"""Measures policies on unseen objects and units (Section 6).

  python -m experiments.evaluate --config=experiments/configs/demo.py \
    --checkpoint=runs/demo/train/round_01/checkpoints --workdir=runs/demo/evaluate \
    --policies=random,hand_designed,servo

Both protocols: with replacement, where grasped objects go back into the bin, and
without. Every policy gets the same bins from the same seeds. Writes rows.jsonl (a row
an attempt), summary.json, videos/, overlay.npz and units.png; the same command
continues where it stopped. `experiments.sweep` evaluates under many conditions.

--stop_when_decided compares two policies with only as many bins as are needed;
--robot=my_robot:make measures on a robot of your own (envs/robots.py).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import fleet, objects, protocols, rollout, units
from experiments import cli
from experiments.control import own_robot
from experiments.evaluation import conditions, policy_names, scores, sequential
from experiments.evaluation import policies as policies_lib
from experiments.evaluation import trials as trials_lib
from experiments.evaluation.seeds import Purpose, scene_seed
from experiments.fitting import train_config
from experiments.pictures import films, sheets, video

# Held-out units from this seed on; those below selected the best checkpoint.
_FIRST_UNIT = 1_000


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """What an evaluation depends on.

  Attributes:
    policies: see `policy_names`, in the order of the table.
    with_replacement, without_replacement: the protocols.
    num_units: held-out robots, taking turns.
    objects: which ones, see `envs.objects.choose`.
    arm: `built_in`, or one that `envs.menagerie` knows.
    num_steps: T.
    seed: of everything.
    num_workers: processes, 0 for one a core; the rows do not depend on it.
    num_videos: successes, corrections and failures of the first learned policy that
      are filmed, of each kind at most so many.
    video_size: pixels, even.
  """

  policies: tuple[str, ...]
  with_replacement: protocols.Protocol
  without_replacement: protocols.Protocol
  num_units: int
  num_steps: int
  seed: int
  num_workers: int
  num_videos: int
  video_size: int
  objects: str = "held_out"
  arm: str = "built_in"

  def __post_init__(self) -> None:
    for name in self.policies:
      policy_names.parse(name)
    if not self.policies or len(set(self.policies)) < len(self.policies):
      raise ValueError(
        f"policies is {self.policies}, expected each once, and one at least"
      )
    objects.choose(self.objects)
    if self.num_workers < 0 or self.num_videos < 0:
      raise ValueError("num_workers and num_videos: expected at least 0")
    for name in ("num_units", "num_steps"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
    if self.video_size % 2 or not 64 <= self.video_size <= 1024:
      raise ValueError(
        f"video_size is {self.video_size}, expected an even number from 64 to 1024"
      )

  def deciding(self) -> dict[str, Any]:
    """The fields on which a policy's rows depend."""
    spared = ("policies", "num_workers", "num_videos", "video_size")
    fields = dataclasses.asdict(self)
    return {key: value for key, value in fields.items() if key not in spared}


def build_config(section: Mapping[str, Any]) -> EvaluateConfig:
  """The configuration from a config file's section `evaluate`.

  Raises:
    UserError: names the field that is wrong.
  """
  made = {
    name: cli.build(protocols.Protocol, section[name], f"evaluate.{name}")
    for name in protocols.NAMES
    if name in section
  }
  return cli.build(EvaluateConfig, {**dict(section.items()), **made}, "evaluate")


def evaluate(
  config: Mapping[str, Any],
  networks: policies_lib.Networks,
  workdir: str | Path,
  runner: trials_lib.Runner = fleet.map_unordered,
  *,
  stop_when_decided: bool = False,
  seconds: float = math.inf,
) -> dict[str, Any]:
  """Evaluates, or continues an evaluation.

  Args:
    config: sections `network`, `servo` and `evaluate`.
    networks: of the learned policies; the best checkpoints are used.
    workdir: where the results go.
    runner: of the trials, see `trials.run`.
    stop_when_decided: of two policies, make no more bins than it takes to tell which
      is better, see `sequential`.
    seconds: after which the bins that were finished will do, for a runner that takes
      `until`. The first ones of all policies and protocols come first.

  Returns:
    The content of summary.json.

  Raises:
    UserError, CheckpointError: an input cannot be used.
  """
  settings = build_config(config["evaluate"])
  if stop_when_decided:
    check_two(settings)
  frame_size = train_config.build_network(config["network"]).frame_size
  specs = [policies_lib.choose(name, config, networks) for name in settings.policies]
  trials = plan(settings, specs, conditions.NOTHING, frame_size)
  if seconds < math.inf:
    runner = functools.partial(runner, until=time.monotonic() + seconds)
    trials.sort(key=lambda trial: trial.first)
  workdir = cli.prepare_workdir(workdir)
  facts = identity(settings, specs, frame_size)
  with cli.locked(workdir), trials_lib.compiled_once():
    cli.check_same(
      workdir / "config.json", facts, "an evaluation", growing=("policies",)
    )
    run = functools.partial(
      trials_lib.run,
      path=workdir / "rows.jsonl",
      num_workers=settings.num_workers,
      runner=runner,
    )
    rows = until_decided([trials], run) if stop_when_decided else run(trials)
    summary = scores.summarise(rows, settings.policies)
    if len(settings.policies) == 2:
      test = sequential.over_bins(rows, *settings.policies)
      summary["comparison"] = test.to_json(*settings.policies)
    write_summary(workdir, summary, facts)
    servos = [s for s in specs if policy_names.parse(s.name).is_servo]
    if servos and rows:
      films.film(
        workdir,
        trials,
        rows,
        _plan_pushed(settings, servos[0], frame_size),
        servos[0].name,
        count=settings.num_videos,
        size=settings.video_size,
        num_workers=settings.num_workers,
      )
  _draw_units(settings, workdir / "units.png")
  return summary


def growing(trials: Sequence[trials_lib.Trial]) -> list[list[trials_lib.Trial]]:
  """Ever more of the trials: with each part, some more bins of all policies."""
  bins = dict.fromkeys((trial.protocol, trial.first) for trial in trials)
  wanted: set[tuple[str, int]] = set()
  parts = []
  for one in bins:
    wanted.add(one)
    parts.append([t for t in trials if (t.protocol, t.first) in wanted])
  return parts


def check_two(settings: EvaluateConfig) -> None:
  """Raises UserError where there are not two policies to compare."""
  if len(settings.policies) != 2:
    raise cli.UserError(
      f"--stop_when_decided compares two policies, found {len(settings.policies)}:"
      f" {', '.join(settings.policies)}; name two with --policies"
    )


def until_decided(
  plans: Sequence[Sequence[trials_lib.Trial]],
  run: Callable[[list[trials_lib.Trial]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
  """The rows of plans for two policies, each plan until one is known to be better.

  Args:
    plans: one a condition; each is decided for itself, at its own risk of 5 %.
    run: of trials; those that were run before are free.
  """
  parts = [growing(plan) for plan in plans]
  reached = [0] * len(plans)
  while True:
    chosen = [t for part, n in zip(parts, reached, strict=True) for t in part[n]]
    names = list(dict.fromkeys(trial.policy.name for trial in chosen))
    rows = run(chosen)
    undecided = [
      i
      for i, plan in enumerate(plans)
      if reached[i] + 1 < len(parts[i])
      and not sequential.over_bins(
        [row for row in rows if row["condition"] == plan[0].condition], *names
      ).decided
    ]
    if not undecided:
      return rows
    for i in undecided:
      reached[i] += 1


def evaluate_robot(
  robot: str,
  config: Mapping[str, Any],
  networks: policies_lib.Networks,
  workdir: str | Path,
) -> dict[str, Any]:
  """Measures the policies on a robot of one's own, see `own_robot.evaluate`.

  Each makes as many attempts as the config's protocol with replacement asks for.
  """
  settings = build_config(config["evaluate"])
  usual = settings.with_replacement
  specs = [policies_lib.choose(name, config, networks) for name in settings.policies]
  with own_robot.opened(robot) as cell:
    return own_robot.evaluate(
      cell,
      {spec.name: policies_lib.make_policy(spec) for spec in specs},
      workdir,
      num_attempts=usual.repetitions * usual.num_attempts,
      num_steps=settings.num_steps,
      seed=settings.seed,
    )


def identity(
  settings: EvaluateConfig, specs: Sequence[policies_lib.PolicySpec], frame_size: int
) -> dict[str, Any]:
  """What may not change within a work folder."""
  return {
    "evaluate": settings.deciding(),
    "policies": {
      spec.name: {"version": spec.version, "servo": dict(spec.servo)} for spec in specs
    },
    "cell": {
      "frame_size": frame_size,
      "objects_fingerprint": objects.choose(settings.objects).fingerprint,
      "mujoco": cli.versions()["mujoco"],
    },
  }


def plan(
  settings: EvaluateConfig,
  specs: Sequence[policies_lib.PolicySpec],
  condition: conditions.Condition,
  frame_size: int,
) -> list[trials_lib.Trial]:
  """The trials of all policies in the bins of both protocols: the same for all."""
  return [
    trial
    for protocol in protocols.NAMES
    for scenes in [plan_scenes(settings, protocol, frame_size, condition)]
    for spec in specs
    for trial in trials_lib.split(spec, protocol, condition, scenes)
  ]


def plan_scenes(
  settings: EvaluateConfig,
  protocol: str,
  frame_size: int,
  condition: conditions.Condition = conditions.NOTHING,
) -> list[rollout.SceneTask]:
  """The bins of a protocol, one a repetition."""
  robots = units.fleet_units(settings.num_units, "held_out", _FIRST_UNIT, settings.arm)
  number = protocols.NAMES.index(protocol)
  return protocols.plan(
    protocol,
    getattr(settings, protocol),
    condition.robots(robots),
    lambda repetition: scene_seed(Purpose.EVALUATE, settings.seed, number, repetition),
    num_steps=condition.num_steps(settings.num_steps),
    objects=settings.objects,
    frame_size=frame_size,
    pushing=condition.pushing,
  )


def write_summary(
  workdir: Path,
  summary: Mapping[str, Any],
  identity: Mapping[str, Any],
) -> None:
  """Writes summary.json: the figures, what was run, and with what."""
  content = {**summary, "config": identity, "versions": cli.versions()}
  cli.write_json(workdir / "summary.json", content)


def _plan_pushed(
  settings: EvaluateConfig, spec: policies_lib.PolicySpec, frame_size: int
) -> list[trials_lib.Trial]:
  """The trials in which corrections are looked for, one attempt a bin."""
  usual = settings.with_replacement
  number = min(films.MOST_PUSHED, usual.repetitions * usual.num_attempts)
  few = dataclasses.replace(
    settings,
    with_replacement=dataclasses.replace(usual, repetitions=number, num_attempts=1),
    without_replacement=dataclasses.replace(
      settings.without_replacement, repetitions=0
    ),
  )
  return plan(few, [spec], films.PUSH, frame_size)


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
    video.unit_tile(robot, selection, settings.with_replacement.num_objects, 200)
    for robots, selection in shown
    for robot in robots
  ]
  sheets.write_sheet(path, tiles, columns=3)


def define_shared_flags() -> None:
  """Those of a sweep, too."""
  cli.define_config()
  policies_lib.define_flags()
  flags.DEFINE_list(
    "policies", [], "Instead of the config's: random,servo:no_raise,my_module:factory"
  )
  flags.DEFINE_string("objects", "", "Objects instead of the config's; a folder, too.")
  flags.DEFINE_string("arm", "", "'built_in', or 'menagerie:kuka_iiwa_14'.")
  flags.DEFINE_string("workdir", "", "Folder for the results.")
  flags.DEFINE_bool(
    "stop_when_decided", False, "Of two policies, stop when one is known to be better."
  )


def define_flags() -> None:
  define_shared_flags()
  flags.DEFINE_float(
    "seconds", 0.0, "End after so long with the bins that are done; 0: all bins.", 0.0
  )
  own_robot.define_flags()


def config_from_flags(
  networks: policies_lib.Networks, section: str = "evaluate"
) -> Any:
  """The config with the overrides of the flags.

  Without --policies and --checkpoint, the shipped policy is the servo.
  """
  args = flags.FLAGS
  names = tuple(args.policies) or args.config[section].policies
  if not args.policies and not networks.servo:
    names = tuple("exported" if name == policy_names.SERVO else name for name in names)
  args.config[section].policies = names
  for name in ("objects", "arm"):
    if args[name].value:
      args.config.evaluate[name] = args[name].value
  return policies_lib.for_exported(args.config, names, networks)


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  networks = policies_lib.networks_from_flags()
  config = config_from_flags(networks)
  if args.robot:
    evaluate_robot(args.robot, config, networks, args.workdir)
    return
  summary = evaluate(
    config,
    networks,
    args.workdir,
    stop_when_decided=args.stop_when_decided,
    seconds=args.seconds or math.inf,
  )
  print(scores.describe(summary))
  if found := summary.get("comparison"):
    print(sequential.from_json(found).in_words(*found["policies"]))
  print(f"Rows and videos: {args.workdir}")


if __name__ == "__main__":
  cli.run(main, define_flags)
