"""Repeats attempts of a trial exactly, and shows them to recorders.

The last digits of a score, and so the next samples of a search, depend on the number of
robots in a batch and on XLA's threads. So the whole trial is repeated, as far as
needed, in a worker process like the first one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from envs import fleet, rendering, rollout
from envs.attempt import Attempt, Observation, Recorder
from envs.grasp_env import GraspEnv
from experiments import cli
from experiments.evaluation import policies as policies_lib
from experiments.evaluation import trials

Task = TypeVar("Task")
Result = TypeVar("Result")

Which = tuple[int, int]  # (repetition, attempt) within a trial


class Together(Recorder):
  """Several recorders as one."""

  def __init__(self, *recorders: Recorder):
    self.largest_image = max(recorder.largest_image for recorder in recorders)
    self._recorders = recorders

  def begin(self, env: GraspEnv) -> None:
    for recorder in self._recorders:
      recorder.begin(env)

  def decided(self, env: GraspEnv, observation: Observation, decision: Any) -> None:
    for recorder in self._recorders:
      recorder.decided(env, observation, decision)

  def frame(self, env: GraspEnv) -> None:
    for recorder in self._recorders:
      recorder.frame(env)

  def end(self, env: GraspEnv, attempt: Attempt) -> None:
    for recorder in self._recorders:
      recorder.end(env, attempt)


def replay(
  trial: trials.Trial, recorders: Mapping[Which, Recorder], *, to_the_end: bool = False
) -> dict[Which, Attempt]:
  """Repeats a trial and shows some of its attempts; call it by `in_workers`.

  Args:
    recorders: by the attempt that each watches.
    to_the_end: run past these attempts. Without replacement, a bin that is refilled
      after unstable physics starts over.

  Returns:
    The attempts that were watched, without those that the bin never reached.
  """

  def check() -> None:
    if not to_the_end and all(watch.done for watch in watches):
      raise _AllSeenError

  watches = [
    _Watch(
      {number: one for (bin_, number), one in recorders.items() if bin_ == repetition},
      scene.replacement,
      on_end=check,
    )
    for repetition, scene in enumerate(trial.scenes, start=trial.first)
  ]
  policies = [policies_lib.make_policy(trial.policy) for _ in trial.scenes]
  try:
    rollout.run_scenes(trial.scenes, policies, watches)
  except _AllSeenError:
    pass
  return {
    (repetition, number): attempt
    for repetition, watch in enumerate(watches, start=trial.first)
    for number, attempt in watch.seen.items()
  }


def differences(
  row: Mapping[str, Any], trial: trials.Trial, repetition: int, attempt: Attempt
) -> list[str]:
  """The fields in which an attempt differs from its row in a file."""
  again = json.loads(cli.to_json(trials.row_of(trial, repetition, attempt)))
  return [name for name in again if name in row and again[name] != row[name]]


def in_workers(
  function: Callable[[Task], Result], tasks: Sequence[Task], num_workers: int = 0
) -> Iterator[tuple[int, Result]]:
  """Yields (index of the task, its result) from processes like those of `trials`."""
  rendering.choose_backend()
  with trials.one_thread_each():
    yield from fleet.map_unordered(
      function, tasks, num_workers=num_workers, retries=trials.RETRIES
    )


class _AllSeenError(Exception):
  """Not an error: every watched attempt is done."""


class _Watch:
  """Passes each attempt of one scene to a recorder of its own; a Recorder."""

  def __init__(
    self,
    recorders: Mapping[int, Recorder],
    replacement: bool,
    on_end: Callable[[], None],
  ):
    self.recorders = recorders
    self.largest_image = max([r.largest_image for r in recorders.values()], default=0)
    self.seen: dict[int, Attempt] = {}
    self._on_end = on_end
    self._replacement = replacement
    self._env: GraspEnv | None = None
    self._number = 0

  @property
  def done(self) -> bool:
    return set(self.seen) == set(self.recorders)

  @property
  def _now(self) -> Recorder | None:
    return self.recorders.get(self._number)

  def begin(self, env: GraspEnv) -> None:
    if env is not self._env:
      self._env = env
      if not self._replacement:  # a refilled bin: its attempts start over
        self._number = 0
        self.seen.clear()
    if self._now:
      self._now.begin(env)

  def decided(self, env: GraspEnv, observation: Observation, decision: Any) -> None:
    if self._now:
      self._now.decided(env, observation, decision)

  def frame(self, env: GraspEnv) -> None:
    if self._now:
      self._now.frame(env)

  def end(self, env: GraspEnv, attempt: Attempt) -> None:
    if self._now:
      self._now.end(env, attempt)
      self.seen[self._number] = attempt
    self._number += 1
    self._on_end()
