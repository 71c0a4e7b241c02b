"""Attempts of your own robot: collected, servoed, evaluated.

A robot is named `module:factory`, see `envs.robots.Robot`. An attempt
that is spoilt by the hardware ends, is counted and is not kept; earlier ones are.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import finish, writer
from data_pipeline import plan as plan_lib
from envs import rollout
from envs.attempt import Attempt, NeedsEnv, Policy
from envs.robots import RobotCell, RobotError
from experiments import cli, statistics
from experiments.datasets import attempt_records
from experiments.evaluation import sequential
from hand_eye import factories
from hand_eye.decision import Action

MOST_FAILURES = 5  # attempts in a row that the hardware may spoil
PER_SHARD = 8  # attempts of one file: what a power cut may cost

Say = Callable[[str], None]


def define_flags() -> None:
  flags.DEFINE_string(
    "robot", "", "A robot of your own, module:factory; see envs/robots.py."
  )


def load(name: str) -> RobotCell:
  """The robot that module:factory names, ready for attempts.

  Raises:
    UserError: it cannot be imported or made.
    RobotError: it is no robot.
  """
  try:
    factory = factories.load(name)
  except ValueError as error:
    raise cli.UserError(f"--robot: {error}") from error
  return RobotCell(factory())


@contextlib.contextmanager
def opened(name: str) -> Iterator[RobotCell]:
  """The robot, let go at the end of the block if it has a method `shut_down`."""
  cell = load(name)
  try:
    yield cell
  finally:
    getattr(cell.robot, "shut_down", lambda: None)()


class Attempts:
  """Makes attempts, one after the other, and counts those that were spoilt.

  Attributes:
    spoilt: reasons, one an attempt.
  """

  def __init__(
    self, cell: RobotCell, num_steps: Sequence[int], seed: int, say: Say = print
  ):
    self.spoilt: list[str] = []
    self._cell, self._num_steps, self._seed, self._say = cell, num_steps, seed, say
    self._in_a_row = 0

  def make(self, policy: Policy, number: int) -> Attempt:
    """Attempt `number`, tried again until the hardware does not spoil it.

    Raises:
      UserError: the hardware spoilt MOST_FAILURES in a row, or the policy needs a
        simulator.
    """
    if isinstance(policy, NeedsEnv):
      raise cli.UserError(
        f"policy {type(policy).__name__} looks into a simulated cell, which a robot of"
        " your own has not"
      )
    while True:
      seeds = [self._seed, number, len(self.spoilt)]
      rng = np.random.default_rng(seeds)
      try:
        attempt = rollout.run_attempt(
          self._cell,  # type: ignore[arg-type]  # has what an attempt needs
          functools.partial(_heeded, policy),
          rng,
          num_steps=int(rng.choice(self._num_steps)),
          scene_seed=0,
          number=number,
        )
      except Exception as error:
        self.spoilt.append(f"{type(error).__name__}: {error}")
        self._in_a_row += 1
        self._say(f"attempt {number + 1}: spoilt; {self.spoilt[-1]}")
        if self._in_a_row == MOST_FAILURES:
          raise cli.UserError(
            f"the robot {self._cell.unit.name} spoilt {MOST_FAILURES} attempts in a"
            f" row, the last with {self.spoilt[-1]}; earlier attempts are kept, and"
            " the same command continues"
          ) from error
        continue
      self._in_a_row = 0
      return attempt


def _heeded(policy: Policy, observation: Any, key: np.ndarray) -> Any:
  """What the policy decides; HOLD ends the attempt, which would else go down."""
  decision = policy(observation, key)
  if getattr(decision, "action", None) == Action.HOLD:
    raise RobotError(f"the policy holds: {decision.reason}")
  return decision


def collect(
  cell: RobotCell,
  policy: Policy,
  workdir: str | Path,
  name: str,
  *,
  policy_name: str,
  policy_version: str = "",
  round_number: int = 0,
  num_attempts: int,
  num_steps: Sequence[int],
  seed: int = 0,
  say: Say = print,
) -> Path:
  """Makes a dataset of a robot's attempts, or what is missing of it.

  Raises:
    UserError: the hardware spoilt too many attempts; earlier ones are kept.
    DatasetError: the folder cannot be written, or holds another dataset.
  """
  frame_size = len(cell.begin(np.random.default_rng(seed)))
  plan = plan_lib.Plan(
    name=name,
    num_shards=-(-num_attempts // PER_SHARD),
    frame_size=frame_size,
    config={
      "robot": cell.unit.name,
      "num_attempts": num_attempts,
      "num_steps": list(num_steps),
      "seed": seed,
      "policy": policy_name,
      "policy_version": policy_version,
      "round": round_number,
    },
  )
  directory = plan_lib.begin(cli.prepare_workdir(workdir), plan)
  software = cli.to_json(cli.versions())
  pending = writer.pending_shards(directory)
  attempts = Attempts(cell, num_steps, seed, say)
  successes = 0
  with cli.progress(
    num_attempts, f"collect {name}", "attempts",
    initial=num_attempts - _number_in(pending, num_attempts),
  ) as bar:  # fmt: skip
    for shard in pending:
      stopped: BaseException | None = None
      with writer.ShardWriter(directory, shard) as file:
        for number in _numbers(shard, num_attempts):
          try:
            attempt = attempts.make(policy, number)
          except (cli.UserError, KeyboardInterrupt) as error:
            if not file.num_attempts:
              raise
            stopped = error  # the shard is kept, shorter than planned
            break
          file.write(
            attempt_records.measured(
              attempt,
              policy=policy_name,
              policy_version=policy_version,
              round_number=round_number,
              software=software,
            )
          )
          successes += attempt.success
          bar.update(1)
      if stopped is not None:
        raise stopped
  finish.finalize(directory)
  log = cli.JsonLines(directory.parent / "collection.jsonl")
  made = _number_in(pending, num_attempts)
  log.write({"robot": cell.unit.name, "attempts": made, "spoilt": attempts.spoilt})
  say(f"{successes} of {made} attempts succeeded, {len(attempts.spoilt)} were spoilt")
  return directory


def _numbers(shard: int, num_attempts: int) -> range:
  return range(shard * PER_SHARD, min((shard + 1) * PER_SHARD, num_attempts))


def _number_in(shards: Sequence[int], num_attempts: int) -> int:
  return sum(len(_numbers(shard, num_attempts)) for shard in shards)


def evaluate(
  cell: RobotCell,
  policies: Mapping[str, Policy],
  workdir: str | Path,
  *,
  num_attempts: int,
  num_steps: int,
  seed: int = 0,
  say: Say = print,
) -> dict[str, Any]:
  """Measures policies on a robot, in turns, so that all meet the same kind of bin.

  Of two policies, it stops as soon as their difference is decided, see `sequential`.
  Writes rows.jsonl and summary.json; the same command continues.

  Returns:
    The content of summary.json: rates by policy, spoilt attempts, the comparison.

  Raises:
    UserError: the hardware spoilt too many attempts; the rows so far are kept.
  """
  folder = cli.prepare_workdir(workdir)
  path = folder / "rows.jsonl"
  rows = [*cli.read_jsonl(path)]
  done = {(row["policy"], row["attempt"]): row for row in rows}
  attempts = Attempts(cell, (num_steps,), seed, say)
  log = cli.JsonLines(path)
  test = sequential.PairedTest() if len(policies) == 2 else None
  for number in range(num_attempts):
    for name, policy in policies.items():
      if (name, number) in done:
        continue
      attempt = attempts.make(policy, number)
      row = {
        "policy": name,
        "attempt": number,
        "unit": attempt.unit,
        "success": attempt.success,
        "gripper_reading": attempt.gripper_reading,
        "drop_test": attempt.drop_test,
        "closed_at_step": len(attempt.images),
      }
      log.write(row)
      done[name, number] = json.loads(json.dumps(row))
    if test is not None:
      test.update(*(bool(done[name, number]["success"]) for name in policies))
      if test.decided:
        break
  made = {name: [r for r in done.values() if r["policy"] == name] for name in policies}
  summary: dict[str, Any] = {
    "robot": cell.unit.name,
    "rates": {
      name: statistics.rate(sum(r["success"] for r in mine), len(mine))
      for name, mine in made.items()
    },
    "spoilt": attempts.spoilt,
  }
  if test is not None:
    summary["comparison"] = test.to_json(*policies)
  cli.write_json(folder / "summary.json", summary)
  for name, rate in summary["rates"].items():
    say(
      f"{name}: {100 * rate['rate']:.0f} % ({100 * rate['low']:.0f} to"
      f" {100 * rate['high']:.0f}) of {rate['attempts']}"
    )
  if test is not None:
    say(test.in_words(*policies))
  return summary
