"""Many units at once: tasks spread over processes, results independent of how many.

A task carries everything that decides its result, so that any number of workers,
in any order, gives the same.
"""

import dataclasses
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

# Spawned, not forked: a GL context or a JAX runtime does not survive a fork.
_CONTEXT = multiprocessing.get_context("spawn")
_IDLE = -1  # in place of the index of a task


class WorkerDiedError(RuntimeError):
  """A worker process ended without an answer: killed, or out of memory."""


@dataclasses.dataclass(frozen=True)
class Death:
  """A worker that died, and what it was at.

  index: of its task; exit_code: of the process, negative for a signal;
  number: how often this task has now been lost.
  """

  index: int
  exit_code: int | None
  number: int


def num_cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def map_unordered(
  function: Callable[[Task], Result],
  tasks: Sequence[Task],
  *,
  num_workers: int = 0,
  retries: int = 0,
  on_death: Callable[[Death], None] = lambda death: None,
  until: float = math.inf,
) -> Iterator[tuple[int, Result]]:
  """Yields (index of the task, its result) as results come in.

  Tasks that render: call `rendering.choose_backend` before, so that it is done once
  and the workers inherit it.

  Args:
    function: importable by name, as it travels to other processes.
    tasks: picklable.
    num_workers: processes; 0 means one for each core.
    retries: how often a task is given to another worker when its own has died.
    on_death: called with each death before the task is tried again.
    until: on the clock `time.monotonic`: tasks that are not done by then are given up.

  Raises:
    WorkerDiedError: a task's worker has died more often than `retries`.
    Exception: what the function raised, with the worker's traceback as a note.
  """
  num_workers = min(num_workers or num_cores(), len(tasks))
  if num_workers <= 1 and not retries:
    for index, task in enumerate(tasks):
      if time.monotonic() >= until:
        return
      yield index, function(task)
    return
  waiting = list(range(len(tasks)))[::-1]
  deaths = dict.fromkeys(waiting, 0)
  workers = [Worker(function) for _ in range(num_workers)]
  try:
    for worker in workers:
      worker.give(waiting.pop(), tasks)
    while busy := [worker for worker in workers if worker.index >= 0]:
      left = None if until == math.inf else max(0.0, until - time.monotonic())
      # A pipe ends with its process.
      if not connection.wait([worker.pipe for worker in busy], left) or left == 0.0:
        return
      for worker in busy:
        if not worker.pipe.poll():
          continue  # another one had something to say
        index = worker.index
        received = worker.receive()
        if received is not None:
          yield index, received[0]
        else:
          deaths[index] += 1
          death = Death(index, worker.process.exitcode, deaths[index])
          if deaths[index] > retries:
            raise WorkerDiedError(
              f"a worker process died (exit code {death.exit_code}), killed or out of"
              f" memory, at task {index} of {len(tasks)}; finished work is kept: run"
              " the same command again, with fewer workers (num_workers) if memory was"
              " short"
            )
          on_death(death)
          waiting.append(index)
          workers[workers.index(worker)] = worker = Worker(function)
        if waiting:
          worker.give(waiting.pop(), tasks)
        else:
          worker.index = _IDLE
  finally:
    for worker in workers:
      worker.stop()


class Worker:
  """A process that answers one task after the other.

  Attributes:
    index: of the task that `map_unordered` gave it.
    pipe: to wait for its answers with `multiprocessing.connection.wait`.
    process: the process.
  """

  def __init__(self, function: Callable[[Any], Any]):
    """Starts it; the function is pickled once and keeps its state between tasks."""
    self.index = _IDLE
    self.pipe, end = _CONTEXT.Pipe()
    self.process = _CONTEXT.Process(
      target=_work, args=(function, end, os.getpid()), daemon=True
    )
    self.process.start()
    end.close()  # so that the pipe ends with the process

  def give(self, index: int, tasks: Sequence[Any]) -> None:
    self.index = index
    self.send(tasks[index])

  def send(self, task: Any) -> None:
    """Hands it a task; `receive` waits for the answer."""
    try:
      self.pipe.send(task)
    except ConnectionError:
      pass  # it died before it had all of it; its death is found like any other

  def receive(self) -> tuple[Any] | None:
    """The answer in a tuple; None if the process died before it was sent.

    Raises:
      Exception: what the function raised, with the worker's traceback as a note.
    """
    try:
      found = self.pipe.recv()
    except (EOFError, OSError):  # the latter in the middle of an answer
      self.process.join()
      return None
    if isinstance(found, Failure):
      raise found.error()
    return (found,)

  def stop(self) -> None:
    """Ends the process, whatever it is doing."""
    self.process.terminate()
    self.process.join()
    self.pipe.close()


def _work(function: Callable[[Any], Any], pipe: Any, parent: int) -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
  threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
  while True:
    try:
      task = pipe.recv()
    except EOFError:
      return
    pipe.send(answer(function, task))


@dataclasses.dataclass(frozen=True)
class Failure:
  """An error on its way from another process.

  Attributes:
    content: the pickled error, or its class, arguments and attributes.
    text: type and message, for an error that does not travel at all.
    traceback: of the other process.
  """

  content: bytes
  text: str
  traceback: str

  def error(self) -> Exception:
    """The error with its type, message and attributes; its traceback is a note."""
    found = _opened(self.content) or RuntimeError(self.text)
    found.add_note(f"In a worker process:\n{self.traceback}")
    return found


def answer(function: Callable[[Task], Result], task: Task) -> Result | Failure:
  """What the function returns, or the error that it raised, fit to be sent."""
  try:
    return function(task)
  except Exception as error:
    text = "".join(traceback.format_exception(error))
    return Failure(_closed(error), f"{type(error).__name__}: {error}", text)


def _closed(error: Exception) -> bytes:
  """An error as bytes; empty if it cannot be sent.

  Some cannot be pickled: Python rebuilds an exception from its `args`, and their
  classes take other arguments.
  """
  parts = (type(error), error.args, {**vars(error), "__notes__": []})
  for content in (error, parts):
    try:
      data = pickle.dumps(content)
      found = _opened(data)
    except Exception:
      continue
    if type(found) is type(error) and str(found) == str(error):
      return data
  return b""


def _opened(data: bytes) -> Exception | None:
  content = pickle.loads(data) if data else None
  if not isinstance(content, tuple):
    return content
  kind, args, attributes = content
  found = kind.__new__(kind, *args)
  found.args = args
  vars(found).update(attributes)
  return found


def _end_with_parent(parent: int) -> None:
  """Ends this worker soon after its parent is gone, even if that was killed."""
  while os.getppid() == parent:
    time.sleep(1.0)
  os._exit(1)
