"""A policy server: one process, one device, many robots over a local socket.

A thread a connection reads requests; one worker decides, in the order of arrival. What
a robot has sent before belongs to its connection. See docs/wire_format.md.
"""

import contextlib
import dataclasses
import os
import queue
import socket
import stat
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

from experiments import cli
from hand_eye import wire
from hand_eye.decision import Cause, Decision, ObservationError, hold
from hand_eye.runtime import LoadedPolicy

_BACKLOG = 128  # connections that wait to be accepted


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server stands.

  Attributes:
    clients: connections at the same time; more are told so and closed.
    waiting: requests that wait for the device; more are answered by HOLD at once.
    idle: seconds that a connection may say nothing.
    message: seconds from the first byte of a message to its last.
    answer: seconds that a decision may take before the robot is told to HOLD.
  """

  clients: int = 32
  waiting: int = 32
  idle: float = 60.0
  message: float = 2.0
  answer: float = 10.0

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}, expected a finite number > 0")


@dataclasses.dataclass(frozen=True)
class _Job:
  policy: LoadedPolicy
  request: wire.Request
  arrived: float
  done: "futures.Future[Decision]"


class Server:
  """Serves a policy until it is closed. A context manager.

  Attributes:
    address: where it listens; for port 0, the port that it was given.
  """

  def __init__(
    self,
    policy: LoadedPolicy,
    address: wire.Address,
    limits: Limits | None = None,
  ):
    """Listens at once; `serve_forever` or `start` answers.

    Raises:
      UserError: the address cannot be used.
    """
    self._policy, self._limits = policy, limits or Limits()
    self._listener = _listen(address)
    self._inode = os.stat(address).st_ino if isinstance(address, str) else None
    self.address: wire.Address = (
      address if isinstance(address, str) else self._listener.getsockname()[:2]
    )
    self._jobs: queue.Queue[_Job | None] = queue.Queue(self._limits.waiting)
    self._closing = threading.Event()
    self._lock = threading.Lock()
    self._connections: set[socket.socket] = set()
    self._counts = {"connections": 0, "turned_away": 0, "requests": 0, "refused": 0}
    self._worker = threading.Thread(target=self._decide, name="decide", daemon=True)
    self._worker.start()

  def counts(self) -> dict[str, int]:
    """Connections and requests so far, and those that were refused."""
    with self._lock:
      return dict(self._counts)

  def serve_forever(self) -> None:
    """Accepts connections until `close`."""
    while not self._closing.is_set():
      try:
        connection, _ = self._listener.accept()
      except TimeoutError:
        continue
      except OSError:
        if self._closing.is_set():
          return
        time.sleep(0.05)  # out of file descriptors, say: connections will end
        continue
      with self._lock:
        full = len(self._connections) >= self._limits.clients
        self._counts["turned_away" if full else "connections"] += 1
        if not full:
          self._connections.add(connection)
      if full:
        _refuse(connection, 0, f"{self._limits.clients} clients are connected already")
        connection.close()
        continue
      threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

  def start(self) -> threading.Thread:
    """Serves in a thread of its own."""
    thread = threading.Thread(target=self.serve_forever, name="accept", daemon=True)
    thread.start()
    return thread

  def close(self) -> None:
    """Stops listening and ends all connections."""
    self._closing.set()
    self._listener.close()
    with self._lock:
      connections = list(self._connections)
    for connection in connections:
      with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    if isinstance(self.address, str):
      with contextlib.suppress(OSError):
        if os.stat(self.address).st_ino == self._inode:
          os.unlink(self.address)

  def __enter__(self) -> "Server":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _count(self, name: str) -> None:
    with self._lock:
      self._counts[name] += 1

  def _attend(self, connection: socket.socket) -> None:
    """Answers one robot until it goes, or breaks the rules."""
    policy = self._policy.for_robot()
    try:
      while not self._closing.is_set() and self._answer_one(connection, policy):
        pass
    except (OSError, TimeoutError):
      pass  # it has gone, or says nothing
    finally:
      with self._lock:
        self._connections.discard(connection)
      connection.close()

  def _answer_one(self, connection: socket.socket, policy: LoadedPolicy) -> bool:
    """Receives and answers one message; whether the connection goes on."""
    sequence = 0
    try:
      message = wire.receive(
        connection,
        max_json=wire.MAX_JSON,
        max_payload=6 * policy.frame_size**2,
        idle=self._limits.idle,
        whole=self._limits.message,
      )
      if message is None:
        return False
      arrived = time.monotonic()
      sequence = message.sequence
      self._count("requests")
      kind, fields = self._reply(message, policy, arrived)
    except wire.WireError as error:
      self._count("refused")
      _refuse(connection, sequence or error.sequence, str(error))
      return error.keep
    except TimeoutError as error:
      self._count("refused")
      _refuse(connection, sequence, f"too slow: {error}")
      return False
    _send(connection, wire.pack(kind, sequence, fields))
    return True

  def _reply(
    self, message: wire.Message, policy: LoadedPolicy, arrived: float
  ) -> tuple[int, dict[str, Any]]:
    if message.kind == wire.INFO:
      return wire.INFO_REPLY, self._info(policy)
    if message.kind != wire.DECIDE:
      raise wire.WireError(f"kind {message.kind} is no request", keep=True)
    request = wire.read_request(message, policy.frame_size)
    job = _Job(policy, request, arrived, futures.Future())
    try:
      self._jobs.put_nowait(job)
      made = job.done.result(self._limits.answer)
    except queue.Full:
      made = hold("the server is busy: too many requests wait", Cause.NO_ANSWER)
    except TimeoutError:
      job.done.cancel()
      made = hold("the device gave no answer in time", Cause.NO_ANSWER)
    except ObservationError as error:
      raise wire.WireError(str(error), keep=True) from error
    return wire.DECISION, wire.decision_fields(made)

  def _info(self, policy: LoadedPolicy) -> dict[str, Any]:
    manifest = policy.manifest
    return {
      "frame_size": policy.frame_size,
      "network": manifest["network"]["name"],
      "step": manifest["step"],
      "workspace": manifest["workspace"],
      "iterations": manifest["servo"]["num_iterations"],
      "needs_ms": 1e3 * policy.needs,
      "server": self.counts(),
      "robot": policy.tally.counts(),
    }

  def _decide(self) -> None:
    """The one thread that uses the device."""
    while True:
      job = self._jobs.get()
      if job is None:
        return
      if not job.done.set_running_or_notify_cancel():
        continue
      try:
        job.done.set_result(_on_time(job, time.monotonic()))
      except ObservationError as error:
        job.done.set_exception(error)
      except Exception as error:
        # One robot's mishap must not stop the others.
        line = f"{type(error).__name__}: {error}"[:200]
        job.done.set_result(hold(f"the decision failed: {line}", Cause.FAILED))


def _on_time(job: _Job, now: float) -> Decision:
  """Decides; what was lost by waiting counts for age and deadline."""
  waited = now - job.arrived
  observation, deadline = job.request.observation, job.request.deadline
  if observation.age is not None:
    observation = observation._replace(age=observation.age + waited)
  if deadline is not None:
    deadline -= waited
  made = job.policy(observation, job.request.key, deadline)
  return made._replace(seconds=made.seconds + waited)


def _listen(address: wire.Address) -> socket.socket:
  unix = isinstance(address, str)
  listener = socket.socket(
    socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM
  )
  try:
    if isinstance(address, str):
      _remove_stale(address)
      before = os.umask(0o177)  # this user alone
      try:
        listener.bind(address)
      finally:
        os.umask(before)
    else:
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind(address)
    listener.listen(_BACKLOG)
  except OSError as error:
    listener.close()
    where = f"--socket={address}" if unix else f"--port={address[1]}"
    raise cli.UserError(f"{where} cannot be used: {error.strerror or error}") from (
      error
    )
  listener.settimeout(0.2)
  return listener


def _remove_stale(path: str) -> None:
  """Removes the socket of a server that is gone."""
  if not Path(path).exists():
    return
  if not stat.S_ISSOCK(os.stat(path).st_mode):
    raise cli.UserError(f"--socket={path} is there already, and is no socket")
  probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  try:
    probe.settimeout(0.5)
    probe.connect(path)
  except OSError:
    os.unlink(path)
    return
  finally:
    probe.close()
  raise cli.UserError(f"--socket={path}: a server listens there already")


def _refuse(connection: socket.socket, sequence: int, error: str) -> None:
  """Says what was wrong; a robot that reads only the action holds."""
  fields = {"error": error[:400], "action": "hold", "command": [0, 0, 0, 0, 1]}
  with contextlib.suppress(OSError):
    _send(connection, wire.pack(wire.ERROR, sequence, fields))


def _send(connection: socket.socket, data: bytes) -> None:
  connection.settimeout(2.0)  # replies are small: who does not read them is gone
  connection.sendall(data)
