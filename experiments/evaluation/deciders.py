"""One process on an accelerator decides for all collectors of a Ray cluster.

Collectors on CPU nodes simulate and render. They send observations to the decider,
which answers all waiting ones in one call of the device. If its node is lost, Ray
starts it elsewhere and repeats the requests.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.attempt import Decision, Observation
from experiments.evaluation import policies

NAMESPACE = "hand_eye"
NAME = "decider"
# Seconds that the first of several questions waits for others. A decision takes longer.
GATHER = 0.002
LARGEST = 64  # decisions in one call


class Decider:
  """Answers many collectors at once; an asynchronous Ray actor."""

  def __init__(self) -> None:
    self._waiting: dict[policies.PolicySpec, list[tuple[Any, asyncio.Future]]] = {}
    self._running: set[asyncio.Task] = set()
    self._busy = asyncio.Lock()
    self.largest = 0  # batch so far

  async def decide(
    self, spec: policies.PolicySpec, observation: Observation, key: np.ndarray
  ) -> Decision:
    """One decision of the policy of `spec`."""
    future = asyncio.get_running_loop().create_future()
    waiting = self._waiting.setdefault(spec, [])
    waiting.append(((observation, key), future))
    if len(waiting) == 1:
      task = asyncio.create_task(self._answer(spec))
      self._running.add(task)
      task.add_done_callback(self._running.discard)
    return await future

  async def largest_batch(self) -> int:
    """How many decisions were made in one call, at most."""
    return self.largest

  async def _answer(self, spec: policies.PolicySpec) -> None:
    """Answers all that wait for a policy. While the device is busy, more come."""
    await asyncio.sleep(GATHER)
    async with self._busy:
      asked = self._waiting.pop(spec)
      for begin in range(0, len(asked), LARGEST):
        part = asked[begin : begin + LARGEST]
        self.largest = max(self.largest, len(part))
        try:
          made = await asyncio.to_thread(_together, spec, [one for one, _ in part])
        except Exception as error:
          for _, future in part:
            future.set_exception(error)
          continue
        for (_, future), decision in zip(part, made, strict=True):
          future.set_result(decision)


def _together(
  spec: policies.PolicySpec, asked: Sequence[tuple[Observation, np.ndarray]]
) -> list[Decision]:
  policy = policies.make_policy(spec)
  observations, keys = zip(*asked, strict=True)
  made = policy.decide_batch(observations, keys)  # type: ignore[attr-defined]
  return [Decision(one.command, one.close) for one in made]


class Remote:
  """A policy whose decisions are made by the decider of the cluster."""

  def __init__(self, spec: policies.PolicySpec):
    import ray

    self._spec = dataclasses.replace(spec, noise=(), decider="")
    self._decider = ray.get_actor(spec.decider, namespace=NAMESPACE)

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    import ray

    answer: Any = self._decider.decide.remote(self._spec, observation, key)
    return ray.get(answer)


def start(wanted: str) -> str:
  """Starts the decider of a cluster where one is wanted; it ends with the program.

  Args:
    wanted: 'together': on an accelerator, else on a CPU; 'auto': where the cluster has
      an accelerator; 'apart': nowhere.

  Returns:
    The name for `PolicySpec.decider`; '' if each collector decides for itself.
  """
  import ray

  found = ray.cluster_resources()
  kind = next((name for name in ("GPU", "TPU") if found.get(name, 0) >= 1), "")
  if wanted == "apart" or (wanted == "auto" and not kind):
    return ""
  # A CPU has the network of each collector beside it already: it is there for tests.
  needs: dict[str, Any] = {"num_cpus": 1 if kind else 0}
  if kind:
    needs |= {"num_gpus": 1} if kind == "GPU" else {"resources": {kind: 1}}
  decider: Any = (
    ray.remote(Decider)
    .options(
      name=NAME,
      namespace=NAMESPACE,
      get_if_exists=True,
      max_concurrency=1024,
      max_restarts=-1,
      max_task_retries=-1,
      **needs,
    )
    .remote()
  )
  ray.get(decider.largest_batch.remote())  # it has a place, or this waits for one
  _KEPT.append(decider)
  return NAME


_KEPT: list[Any] = []  # an actor ends when nobody holds it
