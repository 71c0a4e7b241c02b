r"""Shows a policy in a cell: as a video, in a window, or decision by decision.

  python -m experiments.watch --policy=random --workdir=runs/watch
  python -m experiments.watch --policy=servo --objects=hammer,bottle --unit=3 \
    --checkpoint=runs/demo/train/round_01/checkpoints --viewer
  python -m experiments.watch --policy=oracle --unit=3 --attempt=2 \
    --condition=push=0.4 --explain --workdir=runs/explain
  python -m experiments.watch --evaluation=runs/demo/evaluate --row=17 \
    --checkpoint=runs/demo/train/round_01/checkpoints --explain --workdir=runs/explain

The video shows what the policy's camera sees, enlarged; the window shows any view, in
real time, until it is closed. Every attempt is summed up in a line. With --explain a
page shows each decision of one attempt: the images, the candidates, their
probabilities, the ratio and the reason. Watching does not change an attempt.

Any row of an evaluation or a sweep can be explained: --row counts the rows of
rows.jsonl from 0. The folder's config.json has the rest, except the network: give
--checkpoint (--open_loop, --exported, --checkpoints), and --config if it is not the
demo's. The row's whole trial is repeated, because the last digits of scores may depend
on the other decisions of the same call; the page says whether it is the same attempt.
Without a folder, --unit and --seed of a row and the --config that config.json names
also give its attempts, up to such digits if a network decides.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import grasp_env, objects, rollout, units
from envs.attempt import Attempt, Recorder
from experiments import cli, evaluate
from experiments.evaluation import conditions, policies, policy_names, trials
from experiments.evaluation.replay import Together
from experiments.explain import evidence as evidence_lib
from experiments.explain import one_attempt
from experiments.fitting import train_config
from experiments.pictures import animation
from experiments.pictures import video as video_lib
from experiments.pictures import window as window_lib

NUM_ATTEMPTS = 3  # of a video
_IN_ONE_BIN = 20  # before a window shows other objects

Say = Callable[[str], None]


def plan_scene(
  config: Mapping[str, Any],
  *,
  unit: int = 0,
  unit_family: str = "held_out",
  selection: str = "",
  arm: str = "",
  num_attempts: int = NUM_ATTEMPTS,
  num_steps: int = 0,
  seed: int = 0,
  condition: str = "",
) -> rollout.SceneTask:
  """The scene that is watched.

  Args:
    config: sections `network`, for the size of frames, and `evaluate`, for the rest.
    unit, unit_family: the robot.
    selection: of objects, see `envs.objects.choose`; '' is the config's.
    arm: see `envs.units.Unit`; '' is the config's.
    num_attempts: in this one bin.
    num_steps: T; 0 is the config's.
    seed: of the scene. Nothing is trained or measured on scenes with small numbers
      (`evaluation.seeds`).
    condition: one change from the training setup, see `evaluation.conditions`.

  Raises:
    UserError, ObjectsError, MeshError: one of them names nothing that there is.
  """
  settings = evaluate.build_config(config["evaluate"])
  for flag, value, least in (
    ("num_attempts", num_attempts, 1),
    ("num_steps", num_steps or settings.num_steps, 2),
    ("seed", seed, 0),
  ):
    if value < least:
      raise cli.UserError(f"--{flag}={value}: expected at least {least}")
  changed = conditions.parse(condition, "condition")
  try:
    (robot,) = units.fleet_units(1, unit_family, unit, arm or settings.arm)
  except ValueError as error:  # says what there is
    raise cli.UserError(str(error)) from error
  objects.choose(selection or settings.objects)
  return rollout.SceneTask(
    unit=changed.robots([robot])[0],
    scene_seed=seed,
    num_attempts=num_attempts,
    num_steps=(changed.num_steps(num_steps or settings.num_steps),),
    num_objects=settings.with_replacement.num_objects,
    objects=selection or settings.objects,
    frame_size=train_config.build_network(config["network"]).frame_size,
    pushing=changed.pushing,
  )


def film(
  scene: rollout.SceneTask,
  policy: policies.PolicySpec,
  workdir: str | Path,
  size: int,
  say: Say = print,
) -> Path:
  """Writes watch-<policy>-<unit>-scene-<seed>.mp4 to a folder; returns its path.

  Args:
    size: of the picture without its caption, pixels, even, from 64 to 1024.
    say: called with one line per attempt.

  Raises:
    UserError: the folder or the size cannot be used.
  """
  _check_size(size)
  who = f"{policy_names.slug(policy.name)}-{scene.unit.name}"
  path = cli.prepare_workdir(workdir) / f"watch-{who}-scene-{scene.scene_seed}.mp4"
  pushed_at = scene.pushing.step if scene.pushing.speed else 0
  with video_lib.VideoRecorder(path, size, pushed_at=pushed_at) as video:
    rollout.run_scene(scene, policies.make_policy(policy), Together(video, Teller(say)))
  return path


def _check_size(size: int) -> None:
  if size % 2 or not 64 <= size <= 1024:
    raise cli.UserError(f"--size={size}: expected an even number from 64 to 1024")


def show(
  scene: rollout.SceneTask, policy: policies.PolicySpec, say: Say = print
) -> None:
  """Shows the attempts in a window in real time, until it is closed, or Ctrl-C.

  After the scene's attempts, the next seed fills the bin and a new window opens.

  Raises:
    UserError: no window can be opened here.
  """
  window_lib.check_display()
  act = policies.make_policy(policy)  # loads and compiles before the window opens
  window = window_lib.Window()
  recorder = Together(window, Teller(say))
  try:
    for seed in itertools.count(scene.scene_seed):
      following = dataclasses.replace(scene, scene_seed=seed)
      rollout.run_scene(following, act, recorder)
  except (window_lib.WindowClosedError, KeyboardInterrupt):
    pass  # either ends the show
  finally:
    window.close()


def describe(number: int, attempt: Attempt) -> str:
  """An attempt as a line: the label, what it is based on, and the decisions."""
  held = attempt.grasped or ("something" if attempt.simulator_truth else "nothing")
  return (
    f"attempt {number}: {'success' if attempt.success else 'failure'};"
    f" {held} hung in the gripper, fingers {100 * attempt.gripper_reading:.1f} cm"
    f" apart, drop test {'saw a change' if attempt.drop_test else 'saw none'};"
    f" closed at step {len(attempt.images)} after:"
    f" {', '.join(_word(e) for e in attempt.evidence) or 'no decision'}"
  )


def _word(evidence: Mapping[str, Any]) -> str:
  action = str(evidence.get("action", "random motion"))
  if "p_null" not in evidence:
    return action
  return f"{action} ({evidence['p_null']:.2f} here, {evidence['p_best']:.2f} best)"


class Teller(Recorder):
  """Prints a line for each attempt, and for each one that was lost."""

  largest_image = 0

  def __init__(self, say: Say):
    self._say = say
    self._begun = 0
    self._under_way = False

  def begin(self, env: grasp_env.GraspEnv) -> None:
    if self._under_way:
      self._say(f"attempt {self._begun}: lost; the physics became unstable")
    self._begun += 1
    self._under_way = True

  def end(self, env: grasp_env.GraspEnv, attempt: Attempt) -> None:
    self._say(describe(self._begun, attempt))
    self._under_way = False


def define_flags() -> None:
  cli.define_config()
  policies.define_flags()
  flags.DEFINE_string(
    "policy", "exported", f"One of {', '.join(policy_names.KINDS)}, or module:factory."
  )
  flags.DEFINE_integer("unit", 0, "Which robot of its family.")
  flags.DEFINE_enum("unit_family", "held_out", sorted(units.FAMILIES), "Of robots.")
  flags.DEFINE_string("objects", "", "Objects instead of the config's; a folder, too.")
  flags.DEFINE_string("arm", "", "'built_in', or 'menagerie:kuka_iiwa_14'.")
  flags.DEFINE_integer(
    "num_attempts", 0, f"In one bin; 0: {NUM_ATTEMPTS}, {_IN_ONE_BIN} with --viewer."
  )
  flags.DEFINE_integer("num_steps", 0, "T of each attempt; 0: the config's.")
  flags.DEFINE_integer("seed", 0, "Of the scene.")
  flags.DEFINE_integer("size", 480, "Of the video's picture, pixels, even.")
  flags.DEFINE_string("condition", "", "As in a sweep: push=0.4, camera_shift=0.05")
  flags.DEFINE_string("workdir", "", "Folder for the video or page.")
  flags.DEFINE_bool("viewer", False, "A window instead of a video.")
  flags.DEFINE_bool("gif", False, "The video as an animated GIF, too.")
  flags.DEFINE_bool("explain", False, "A page on one attempt instead of a video.")
  flags.DEFINE_integer(
    "attempt", 0, "Which one is explained, in its bin, from 0.", lower_bound=0
  )
  flags.DEFINE_string("evaluation", "", "Explain a row of this work folder.")
  flags.DEFINE_integer("row", 0, "Which one, from 0.", lower_bound=0)


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if args.viewer == bool(args.workdir):
    raise cli.UserError(
      "expected either --workdir, a folder for a video or page, or --viewer for a"
      " window"
    )
  if args.explain and args.viewer:
    raise cli.UserError("--explain writes a page; --viewer opens a window: choose one")
  networks = policies.networks_from_flags()
  if args.evaluation:
    _explain_row(networks)
    return
  config = policies.for_exported(args.config, [args.policy], networks)
  usual = _IN_ONE_BIN if args.viewer else NUM_ATTEMPTS
  scene = plan_scene(
    config,
    unit=args.unit,
    unit_family=args.unit_family,
    selection=args.objects,
    arm=args.arm,
    num_attempts=args.attempt + 1 if args.explain else args.num_attempts or usual,
    num_steps=args.num_steps,
    seed=args.seed,
    condition=args.condition,
  )
  policy = policies.choose(args.policy, config, networks)
  if args.explain:
    trial = trials.Trial(policy, "with_replacement", args.condition, 0, (scene,))
    _tell(evidence_lib.Wanted(trial, 0, args.attempt, args.size))
  elif args.viewer:
    show(scene, policy)
  else:
    path = film(scene, policy, args.workdir, args.size)
    print(f"Video: {path}")
    if args.gif:
      print(f"Animation: {animation.write_gif(path, path.with_suffix('.gif'))}")


def _explain_row(networks: policies.Networks) -> None:
  args = flags.FLAGS
  if not args.explain:
    raise cli.UserError("--evaluation needs --explain: a row is one attempt")
  trial, row = one_attempt.find(args.evaluation, args.row, args.config, networks)
  which = row["repetition"], row["attempt"]
  _tell(
    evidence_lib.Wanted(trial, *which, args.size, row["diverged_in_scene"] > 0), row
  )


def _tell(wanted: evidence_lib.Wanted, row: Mapping[str, Any] | None = None) -> None:
  _check_size(wanted.size)
  path, attempt, remark = one_attempt.explain(wanted, flags.FLAGS.workdir, row)
  print(describe(wanted.number, attempt), remark)
  print(f"Page: {path}")


if __name__ == "__main__":
  cli.run(main, define_flags)
