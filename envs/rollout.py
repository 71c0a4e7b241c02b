"""Runs attempts: a policy in a cell, scene after scene, or several side by side."""

import dataclasses
import functools
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from envs.attempt import (
  Attempt,
  AttemptRun,
  BatchedPolicy,
  NeedsEnv,
  Observation,
  Policy,
  Recorder,
)
from envs.control import DivergedError
from envs.grasp_env import GraspEnv
from envs.objects import sample_objects
from envs.units import Unit

MAX_DIVERGED = 20  # times that one scene may diverge
# Keep the seeds of attempts and of pushes apart from those of fillings.
_ATTEMPT, _PUSH = 1_000, 2_000


@dataclasses.dataclass(frozen=True)
class Pushing:
  """Objects are knocked about while an attempt goes on.

  step: during the motion that is decided at this step; 0: never.
  speed: m/s, each object its own way.
  """

  step: int = 0
  speed: float = 0.0


NO_PUSHING = Pushing()


@dataclasses.dataclass(frozen=True)
class SceneTask:
  """One bin filled once and attempted several times: the unit of parallel work."""

  unit: Unit
  scene_seed: int
  num_attempts: int
  num_steps: tuple[int, ...]  # T is drawn from these for each attempt
  num_objects: int
  objects: str  # a selection, see `envs.objects.choose`
  frame_size: int  # pixels
  replacement: bool = True  # what was grasped goes back into the bin
  pushing: Pushing = NO_PUSHING


@dataclasses.dataclass(frozen=True)
class SceneResult:
  """What a scene gave, and what it lost."""

  attempts: tuple[Attempt, ...]
  diverged: int  # attempts dropped because the physics became unstable
  strays: int  # objects that left the bin and were put back


def run_scene(
  task: SceneTask, policy: Policy, recorder: Recorder | None = None
) -> SceneResult:
  """Fills a bin and makes `task.num_attempts` attempts in it (Section 6).

  Without replacement what really hung in the gripper is taken away, and there are
  fewer attempts if the bin is empty before. Everything follows from the task: the
  same task and policy give the same attempts, bit for bit. After a divergence the
  bin is emptied and filled again; without replacement the attempts in it are lost,
  too, as they were made in a bin that no longer is.
  """
  (result,) = run_scenes([task], [policy], [recorder])
  return result


def run_scenes(
  tasks: Sequence[SceneTask],
  policies: Sequence[Policy],
  recorders: Sequence[Recorder | None] = (),
) -> list[SceneResult]:
  """Runs scenes side by side in this process; each as `run_scene` would.

  Whenever all of them wait for a decision, they get it: in one call where they share
  one policy that decides together, one by one else. So a network is asked for as many
  robots at once as there are scenes, while the result still follows from the tasks.

  Args:
    tasks: one a scene.
    policies: one for each. A policy that remembers (`NeedsEnv`) must not be shared.
    recorders: one for each, or none at all. What one raises ends all scenes.
  """
  watched = zip(tasks, policies, recorders or [None] * len(tasks), strict=True)
  scenes = [_scene(*one) for one in watched]
  results: dict[int, SceneResult] = {}
  answers: dict[int, Any] = dict.fromkeys(range(len(scenes)))
  try:
    while answers:
      waiting: dict[int, _Question] = {}
      for i, answer in answers.items():
        try:
          waiting[i] = scenes[i].send(answer)
        except StopIteration as stop:
          results[i] = stop.value
      asked = [policies[i] for i in waiting]
      made = _decide(asked, list(waiting.values()))
      answers = dict(zip(waiting, made, strict=True))
  finally:
    for scene in scenes:
      scene.close()  # frees the cells of those that did not end
  return [results[i] for i in range(len(scenes))]


_Question = tuple[Observation, np.ndarray]


def _decide(policies: list[Policy], questions: list[_Question]) -> Sequence[Any]:
  one = policies[0] if policies else None
  alike = all(policy is one for policy in policies)
  if len(policies) > 1 and alike and isinstance(one, BatchedPolicy):
    observations, keys = zip(*questions, strict=True)
    return one.decide_batch(observations, keys)
  return [
    policy(*question) for policy, question in zip(policies, questions, strict=True)
  ]


def _scene(
  task: SceneTask, policy: Policy, recorder: Recorder | None
) -> Generator[_Question, Any, SceneResult]:
  """One scene: yields what is to be decided, is sent the decision, gives the result."""
  attempts: list[Attempt] = []
  times = diverged = strays = 0  # diverged: attempts lost, several at a time perhaps
  finished = False
  while not finished:
    if times > MAX_DIVERGED:
      error = DivergedError(
        f"{task.unit.name}, scene seed {task.scene_seed}: diverged {times} times; the"
        " cell is broken"
      )
      error.count = diverged
      raise error
    rng = np.random.default_rng([task.scene_seed, task.unit.seed, diverged])
    env = GraspEnv(
      task.unit,
      sample_objects(rng, task.num_objects, task.objects),
      task.frame_size,
      max(getattr(who, "largest_image", 0) for who in (policy, recorder)),
    )
    if recorder:
      env.controller.on_control_step = functools.partial(recorder.frame, env)
    try:
      env.fill(rng)
      while len(attempts) < task.num_attempts and (env.remaining() or task.replacement):
        seeds = [task.scene_seed, task.unit.seed, _ATTEMPT, len(attempts)]
        rng = np.random.default_rng(seeds)
        attempt = yield from _attempt(
          env,
          policy,
          rng,
          num_steps=int(rng.choice(task.num_steps)),
          scene_seed=task.scene_seed,
          number=len(attempts),
          replacement=task.replacement,
          recorder=recorder,
          pushing=task.pushing,
        )
        attempts.append(attempt)
      finished = True
    except DivergedError:
      times += 1
      diverged += 1
      if not task.replacement:
        diverged += len(attempts)
        attempts.clear()
    finally:
      strays += env.strays_returned
      env.close()
  return SceneResult(tuple(attempts), diverged, strays)


def run_attempt(
  env: GraspEnv,
  policy: Policy,
  rng: np.random.Generator,
  *,
  num_steps: int,
  scene_seed: int,
  number: int,
  replacement: bool = True,
  recorder: Recorder | None = None,
) -> Attempt:
  """Makes one attempt in a filled bin with a policy; arguments as in `AttemptRun`.

  Raises:
    DivergedError: the physics became unstable; the bin must be filled again.
  """
  run = _attempt(
    env,
    policy,
    rng,
    num_steps=num_steps,
    scene_seed=scene_seed,
    number=number,
    replacement=replacement,
    recorder=recorder,
    pushing=NO_PUSHING,
  )
  answer = None
  while True:
    try:
      answer = policy(*run.send(answer))
    except StopIteration as stop:
      return stop.value


def _attempt(
  env: GraspEnv,
  policy: Policy,
  rng: np.random.Generator,
  *,
  num_steps: int,
  scene_seed: int,
  number: int,
  replacement: bool,
  recorder: Recorder | None,
  pushing: Pushing,
) -> Generator[_Question, Any, Attempt]:
  """One attempt: yields what is to be decided and is sent the decision."""
  pregrasp = env.begin(rng)
  if recorder:
    recorder.begin(env)
  if isinstance(policy, NeedsEnv):
    policy.begin(env)

  def push(step: int) -> None:
    # With seeds of its own: what else happens is what would happen without it.
    if step == pushing.step and pushing.speed:
      seeds = [scene_seed, env.unit.seed, _PUSH, number]
      env.push_objects(np.random.default_rng(seeds), pushing.speed)

  run = AttemptRun(env, pregrasp, rng, num_steps, push)
  while not run.must_close:
    observation = run.observation()
    key = rng.integers(2**32, size=2, dtype=np.uint32)
    decision = yield observation, key
    if recorder:
      recorder.decided(env, observation, decision)
    run.execute(decision)
  attempt = run.close(scene_seed=scene_seed, number=number, replacement=replacement)
  if recorder:
    recorder.end(env, attempt)
  return attempt
