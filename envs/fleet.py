"""Many units at once: tasks spread over processes, results independent of how many.

A task carries everything that decides its result, so that any number of workers,
in any order, gives the same.
"""

import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerDiedError(RuntimeError):
  """A worker process ended without an answer: killed, or out of memory."""


def num_cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def map_unordered(
  function: Callable[[Task], Result],
  tasks: Sequence[Task],
  *,
  num_workers: int = 0,
) -> Iterator[tuple[int, Result]]:
  """Yields (index of the task, its result) as results come in.

  Tasks that render: call `rendering.choose_backend` before, so that it is done once
  and the workers inherit it.

  Args:
    function: importable by name, as it travels to other processes.
    tasks: picklable.
    num_workers: processes; 0 means one for each core.

  Raises:
    WorkerDiedError: a worker ended without an answer.
  """
  num_workers = min(num_workers or num_cores(), len(tasks))
  if num_workers <= 1:
    for index, task in enumerate(tasks):
      yield index, function(task)
    return
  # Spawned, not forked: a GL context or a JAX runtime does not survive a fork.
  pool = concurrent.futures.ProcessPoolExecutor(
    num_workers,
    mp_context=multiprocessing.get_context("spawn"),
    initializer=_end_with_parent,
    initargs=(os.getpid(),),
  )
  try:
    futures = {pool.submit(function, task): i for i, task in enumerate(tasks)}
    for future in concurrent.futures.as_completed(futures):
      yield futures[future], future.result()
  except BrokenProcessPool as error:
    raise WorkerDiedError(
      "a worker process died, killed or out of memory; finished work is kept: run the"
      " same command again, with fewer workers (num_workers) if memory was short"
    ) from error
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent(parent: int) -> None:
  """Ends this worker soon after its parent is gone, even if that was killed."""

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(1.0)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
