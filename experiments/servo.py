r"""Closed-loop control of a simulated unit by an exported policy, at a fixed rate.

  python -m experiments.servo --policy=runs/demo/policy.hep --workdir=runs/servo
  python -m experiments.servo --policy=runs/demo/policy.hep --viewer --rate=10 \
    --push=0.4 --push_step=3

--robot=my_robot:make servoes a robot of your own (envs/robots.py), which waits for
each decision.

Decisions come while the arm moves: the cell goes on for as long as each one takes on
this machine. The video, or a corner of the window, shows the camera's image with the
scored candidates from red to green, the decision, and how long it took. At the end come
the median, 99th percentile and worst latency, and the missed deadlines, as text and in
servo.json. --engine=openvino_bfloat16 is the fastest on CPUs
with the full network (docs/inference.md).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from envs import control, grasp_env, objects, units
from envs.attempt import Recorder
from envs.rollout import Pushing
from experiments import cli
from experiments.control import exported, own_robot, real_time
from experiments.pictures import servo_video
from experiments.pictures import window as window_lib
from hand_eye.decision import Cause
from hand_eye.deploy import runtime

_MOST_LOST = 5  # attempts that the physics may spoil

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class ServoTask:
  """What is servoed, see the flags of the same names."""

  unit: units.Unit
  objects: str = "held_out"
  num_objects: int = 6
  num_attempts: int = 3
  num_steps: int = 10
  rate: float = 5.0  # Hz
  deadline: float = 0.0  # s; 0 is four fifths of the period
  pushing: Pushing = Pushing()
  seed: int = 0

  def __post_init__(self) -> None:
    for flag, value, least in (
      ("num_objects", self.num_objects, 1),
      ("num_attempts", self.num_attempts, 1),
      ("num_steps", self.num_steps, 1),
      ("seed", self.seed, 0),
      ("push", self.pushing.speed, 0),
      ("push_step", self.pushing.step, 0),
      ("deadline_ms", self.deadline, 0),
    ):
      if not value >= least:
        raise cli.UserError(f"--{flag}={value}: expected at least {least}")
    if not 0.1 <= self.rate <= 50:
      raise cli.UserError(f"--rate={self.rate}: expected 0.1 to 50 decisions a second")
    try:
      objects.choose(self.objects)
    except ValueError as error:
      raise cli.UserError(str(error)) from error


def run(
  task: ServoTask,
  policy: real_time.DeadlinePolicy,
  frame_size: int,
  recorder: Recorder,
  say: Say = print,
) -> dict[str, Any]:
  """Makes the attempts of a task; returns the closing report, see `summarize`.

  Args:
    policy: of images of `frame_size` pixels.
    say: called with one line per attempt.

  Raises:
    DivergedError: the physics became unstable again and again.
  """
  deadline = task.deadline or 0.8 / task.rate
  made: list[real_time.Servoed] = []
  lost = 0
  stopwatch = cli.Stopwatch()
  while len(made) < task.num_attempts:
    rng = np.random.default_rng([task.seed, task.unit.seed, lost])
    env = grasp_env.GraspEnv(
      task.unit,
      objects.sample_objects(rng, task.num_objects, task.objects),
      frame_size,
      recorder.largest_image,
    )
    env.controller.on_control_step = functools.partial(recorder.frame, env)
    try:
      env.fill(rng)
      while len(made) < task.num_attempts:
        made.append(
          real_time.servo(
            env,
            policy,
            np.random.default_rng([task.seed, task.unit.seed, lost, len(made)]),
            rate=task.rate,
            deadline=deadline,
            num_steps=task.num_steps,
            pushing=task.pushing,
            recorder=recorder,
          )
        )
        say(describe(len(made), made[-1]))
    except control.DivergedError:
      lost += 1
      say(f"attempt {len(made) + 1}: lost; the physics became unstable")
      if lost > _MOST_LOST:
        raise
    finally:
      env.close()
  report = summarize(task, deadline, made)
  return {**report, "lost": lost, "wall_seconds": round(stopwatch.seconds, 2)}


def describe(number: int, attempt: real_time.Servoed) -> str:
  """An attempt as a line."""
  outcome = attempt.outcome
  actions = ", ".join(
    f"{d.action.name.lower()} ({d.confidence:.2f}, {1e3 * d.seconds:.0f} ms)"
    for d in attempt.decisions
  )
  return (
    f"attempt {number}: {'success' if outcome.success else 'failure'};"
    f" {outcome.grasped or 'nothing'} hung in the gripper after"
    f" {attempt.seconds:.1f} s: {actions}"
  )


def summarize(
  task: ServoTask, deadline: float, attempts: Sequence[real_time.Servoed]
) -> dict[str, Any]:
  """The closing report: latencies in ms, missed deadlines, outcomes."""
  made = [decision for attempt in attempts for decision in attempt.decisions]
  latency = 1e3 * np.array([decision.seconds for decision in made])
  held = [d.cause.name.lower() for d in made if d.cause != Cause.NONE]
  return {
    "unit": task.unit.name,
    "rate_hz": task.rate,
    "deadline_ms": 1e3 * deadline,
    "attempts": len(attempts),
    "successes": sum(attempt.outcome.success for attempt in attempts),
    "decisions": len(made),
    "latency_ms": {
      "p50": float(np.percentile(latency, 50)),
      "p99": float(np.percentile(latency, 99)),
      "worst": float(latency.max()),
    },
    "missed_deadlines": sum(d.seconds > deadline for d in made),
    "fewer_iterations": sum(not d.complete and d.cause == Cause.NONE for d in made),
    "skipped_ticks": sum(attempt.skipped for attempt in attempts),
    "watchdog_stops": sum(attempt.stopped for attempt in attempts),
    "held": {cause: held.count(cause) for cause in sorted(set(held))},
    "pushed_at_step": task.pushing.step,
    "pushed_with_m_s": task.pushing.speed,
  }


def in_words(report: dict[str, Any]) -> str:
  """The report at the end, as text."""
  latency = report["latency_ms"]
  held = ", ".join(f"{name} {count}" for name, count in report["held"].items())
  return (
    f"{report['successes']} of {report['attempts']} attempts succeeded."
    f" {report['decisions']} decisions at {report['rate_hz']:g} Hz: latency p50"
    f" {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, worst"
    f" {latency['worst']:.1f} ms; {report['missed_deadlines']} missed the deadline of"
    f" {report['deadline_ms']:.0f} ms, {report['fewer_iterations']} made fewer"
    f" iterations to keep it, {report['skipped_ticks']} ticks had no decision, the"
    f" watchdog stopped the arm {report['watchdog_stops']} times. Held:"
    f" {held or 'never'}."
  )


def film(
  task: ServoTask,
  policy: runtime.LoadedPolicy,
  workdir: str | Path,
  size: int,
  say: Say = print,
) -> dict[str, Any]:
  """Servoes, writes servo.mp4 and servo.json to a folder, returns the report."""
  if size % 2 or not 64 <= size <= 1024:
    raise cli.UserError(f"--size={size}: expected an even number from 64 to 1024")
  folder = cli.prepare_workdir(workdir)
  with servo_video.ServoVideo(folder / "servo.mp4", size) as video:
    report = run(task, policy, policy.frame_size, video, say)
  cli.write_json(folder / "servo.json", report)
  return report


def show(
  task: ServoTask, policy: runtime.LoadedPolicy, say: Say = print
) -> dict[str, Any] | None:
  """Servoes in a window in real time; the report, or None if it was closed before."""
  window_lib.check_display()
  window = servo_video.ServoWindow()
  try:
    return run(task, policy, policy.frame_size, window, say)
  except (window_lib.WindowClosedError, KeyboardInterrupt):
    return None  # either is how one stops looking
  finally:
    window.close()


def run_robot(
  robot: str,
  policy: real_time.DeadlinePolicy,
  *,
  num_attempts: int,
  num_steps: int,
  deadline: float,
  seed: int = 0,
  say: Say = print,
) -> dict[str, Any]:
  """Makes attempts with a robot of one's own, which waits for each decision.

  Returns:
    Attempts, successes, spoilt ones with their reasons, and latencies in ms.
  """
  seconds: list[float] = []

  def timed(observation: Any, key: np.ndarray) -> Any:
    seen = real_time.Observed(**observation._asdict(), age=0.0)
    decision = policy(seen, key, deadline)
    seconds.append(decision.seconds)
    return decision

  successes = 0
  with own_robot.opened(robot) as cell:
    attempts = own_robot.Attempts(cell, (num_steps,), seed, say)
    for number in range(num_attempts):
      attempt = attempts.make(timed, number)
      successes += attempt.success
      result = "success" if attempt.success else "failure"
      say(f"attempt {number + 1}: {result} after {len(attempt.images)} steps")
  latency = 1e3 * np.array(seconds)
  return {
    "robot": cell.unit.name,
    "attempts": num_attempts,
    "successes": successes,
    "spoilt": attempts.spoilt,
    "latency_ms": {
      "p50": float(np.percentile(latency, 50)),
      "p99": float(np.percentile(latency, 99)),
      "worst": float(latency.max()),
    },
    "missed_deadlines": int(np.sum(latency > 1e3 * deadline)),
  }


def define_flags() -> None:
  exported.define_flags()
  own_robot.define_flags()
  flags.DEFINE_float("rate", 5.0, "Decisions a second.")
  flags.DEFINE_float("deadline_ms", 0.0, "Of each; 0: four fifths of the period.")
  flags.DEFINE_integer("unit", 0, "Which robot of its family.")
  flags.DEFINE_enum("unit_family", "held_out", sorted(units.FAMILIES), "Of robots.")
  flags.DEFINE_string("objects", "held_out", "Which objects; a folder, too.")
  flags.DEFINE_integer("num_objects", 6, "In the bin.")
  flags.DEFINE_integer("num_attempts", 3, "In one bin.")
  flags.DEFINE_integer("num_steps", 10, "T of each attempt.")
  flags.DEFINE_integer("seed", 0, "Of the scene.")
  flags.DEFINE_float("push", 0.0, "Objects are knocked about with this speed, m/s.")
  flags.DEFINE_integer("push_step", 3, "Before this step of each attempt.")
  flags.DEFINE_integer("size", 480, "Of the video's picture, pixels, even.")
  flags.DEFINE_string("workdir", "", "Folder for servo.mp4 and servo.json.")
  flags.DEFINE_bool("viewer", False, "A window instead of a video.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if args.robot:
    made = run_robot(
      args.robot,
      exported.load(),
      num_attempts=args.num_attempts,
      num_steps=args.num_steps,
      deadline=args.deadline_ms / 1e3 or 0.8 / args.rate,
      seed=args.seed,
    )
    print(cli.to_json(made))
    if args.workdir:
      cli.write_json(cli.prepare_workdir(args.workdir) / "servo.json", made)
    return
  if args.viewer == bool(args.workdir):
    raise cli.UserError(
      "expected either --workdir, a folder for a video, or --viewer for a window"
    )
  try:
    (robot,) = units.fleet_units(1, args.unit_family, args.unit)
  except ValueError as error:  # says which, and what there is
    raise cli.UserError(str(error)) from error
  task = ServoTask(
    unit=robot,
    objects=args.objects,
    num_objects=args.num_objects,
    num_attempts=args.num_attempts,
    num_steps=args.num_steps,
    rate=args.rate,
    deadline=args.deadline_ms / 1e3,
    pushing=Pushing(args.push_step if args.push else 0, args.push),
    seed=args.seed,
  )
  policy = exported.load()
  if args.viewer:
    report = show(task, policy)
  else:
    report = film(task, policy, args.workdir, args.size)
    print(f"Video: {Path(args.workdir) / 'servo.mp4'}")
  if report is not None:
    print(in_words(report))


if __name__ == "__main__":
  cli.run(main, define_flags)
