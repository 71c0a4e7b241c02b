"""Tasks on the processes of a Ray cluster, with the arguments of `fleet.map_unordered`.

Ray sends the tasks to the machines; a task whose worker died is retried. The rest of
the project does not depend on Ray. Every machine needs this project, and the
checkpoints under the same path.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from envs import fleet
from experiments import cli

# Seconds after which the size of the cluster is looked up again.
_LOOK_AGAIN = 10.0

LOCAL = "local"  # an address: a cluster of this machine, for the time of the program


def runner(address: str) -> Callable[..., Iterator[tuple[int, Any]]]:
  """What runs tasks on the cluster at an address.

  Args:
    address: such as 'auto', 'ray://head:10001', or 'local'.

  Raises:
    UserError: Ray is not installed, or there is no cluster.
  """
  try:
    import ray
  except ImportError as error:
    raise cli.UserError(
      f"--ray_address={address}: Ray is not installed; pip install -c constraints.txt"
      " -e .[cluster]"
    ) from error
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
  try:
    ray.init(
      address,  # never None: Ray would look for a cluster that is there already
      runtime_env=environment(),
      log_to_driver=False,
      include_dashboard=False if address == LOCAL else None,
      logging_level=logging.ERROR,
    )
  except (ConnectionError, RuntimeError, ValueError) as error:
    raise cli.UserError(f"--ray_address={address}: no cluster ({error})") from error
  return map_unordered


def environment() -> dict[str, Any]:
  """Of the processes of the cluster: a core and a thread each, and this project."""
  return {
    "env_vars": {
      "NPROC": "1",
      "LP_NUM_THREADS": "1",
      "PYTHONPATH": os.pathsep.join(_path()),
    }
  }


def map_unordered(
  function: Callable[[Any], Any],
  tasks: Sequence[Any],
  *,
  num_workers: int = 0,
  retries: int = 0,
  on_death: Callable[[fleet.Death], None] = lambda death: None,
) -> Iterator[tuple[int, Any]]:
  """Yields (index of the task, its result) as results come in.

  Arguments and errors are those of `fleet.map_unordered`; `num_workers` is how many
  tasks are on the cluster at once, 0: as many as it has cores.
  """
  import ray

  # Deaths are counted here, not by Ray, so that they can be told.
  remote = ray.remote(max_retries=0, num_cpus=1)(fleet.answer)
  died = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.OutOfMemoryError,
  )
  waiting = list(range(len(tasks)))[::-1]
  deaths = dict.fromkeys(waiting, 0)
  running: dict[Any, int] = {}
  try:
    while waiting or running:
      # Nodes come and go.
      cores = int(ray.cluster_resources().get("CPU", 1))
      while waiting and len(running) < (num_workers or max(1, cores)):
        index = waiting.pop()
        running[remote.remote(function, tasks[index])] = index
      done, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_AGAIN)
      for finished in done:
        index = running.pop(finished)
        try:
          found = ray.get(finished)
        except died as error:
          deaths[index] += 1
          if deaths[index] > retries:
            raise fleet.WorkerDiedError(
              f"a worker of the cluster died at task {index} of {len(tasks)} again;"
              " finished work is kept: run the same command again"
            ) from error
          on_death(fleet.Death(index, None, deaths[index]))
          waiting.append(index)
          continue
        # Not by way of Ray, which would hide type and message in a traceback.
        if isinstance(found, fleet.Failure):
          raise found.error()
        yield index, found
  finally:
    for left in running:
      ray.cancel(left, force=True)


def _path() -> list[str]:
  """Where this project is imported from, for workers that did not install it."""
  here = str(Path(__file__).resolve().parents[2])
  return [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
