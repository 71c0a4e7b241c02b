"""A policy server: one process, one device, many robots over a local socket.

One thread per connection reads requests; one worker decides, in the order of arrival.
Each connection keeps what its robot has sent. See docs/wire_format.md.
"""

import contextlib
import dataclasses
import os
import queue
import socket
import threading
import time
from concurrent import futures
from typing import Any

from experiments.control import listening
from hand_eye.decision import Cause, Decision, ObservationError, hold
from hand_eye.deploy import wire
from hand_eye.deploy.runtime import LoadedPolicy


@dataclasses.dataclass(frozen=True)
class Limits:
  """Load limits of a server.

  Attributes:
    clients: connections at the same time; more get an error and are closed.
    waiting: requests that wait for the device; more are answered by HOLD at once.
    idle: seconds that a connection may be silent; it is then closed without a word.
    spare: seconds after which a silent connection gives its place to a new one, if all
      are taken.
    message: seconds from the first byte of a message to its last.
    answer: seconds that a decision may take before the robot gets a HOLD.
  """

  clients: int = 32
  waiting: int = 32
  idle: float = 60.0
  spare: float = 1.0
  message: float = 2.0
  answer: float = 10.0

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}, expected a finite number > 0")


@dataclasses.dataclass(eq=False)
class _Place:
  """One of the connections that the server keeps.

  Attributes:
    connection: its socket.
    silent_since: time of `time.monotonic`, or None while a request is read or answered.
    asked: whether a request ever came.
  """

  connection: socket.socket
  silent_since: float | None
  asked: bool = False


@dataclasses.dataclass(frozen=True)
class _Job:
  policy: LoadedPolicy
  request: wire.Request
  arrived: float
  done: "futures.Future[Decision]"


class Server:
  """Serves a policy until it is closed. A context manager.

  Attributes:
    address: where it listens; for port 0, the port that the system chose.
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
    self._listener = listening.listen(address)
    self._inode = os.stat(address).st_ino if isinstance(address, str) else None
    self.address: wire.Address = (
      address if isinstance(address, str) else self._listener.getsockname()[:2]
    )
    self._jobs: queue.Queue[_Job | None] = queue.Queue(self._limits.waiting)
    self._closing = threading.Event()
    self._lock = threading.Lock()
    self._places: set[_Place] = set()
    names = ("connections", "turned_away", "given_away", "requests", "refused")
    self._counts = dict.fromkeys(names, 0)
    self._worker = threading.Thread(target=self._decide, name="decide", daemon=True)
    self._worker.start()

  def counts(self) -> dict[str, int]:
    """Connections and requests so far, those refused, and who is `connected` now."""
    with self._lock:
      return {**self._counts, "connected": len(self._places)}

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
      place = self._take_place(connection)
      if place is None:
        _refuse(connection, 0, f"{self._limits.clients} clients are connected already")
        connection.close()
        continue
      threading.Thread(target=self._attend, args=(place,), daemon=True).start()

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
      for place in self._places:
        _end(place.connection)
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

  def _take_place(self, connection: socket.socket) -> _Place | None:
    """A place for a new connection, or None if all are taken by robots that talk.

    A silent connection gives its own up: those that never asked first, then those that
    were silent longest.
    """
    now = time.monotonic()
    with self._lock:
      if len(self._places) >= self._limits.clients:
        silent = [
          (place.asked, place.silent_since, place)
          for place in self._places
          if place.silent_since is not None
          and now - place.silent_since >= self._limits.spare
        ]
        if not silent:
          self._counts["turned_away"] += 1
          return None
        given = min(silent, key=lambda one: one[:2])[2]
        self._places.discard(given)
        self._counts["given_away"] += 1
        _end(given.connection)
      place = _Place(connection, now)
      self._places.add(place)
      self._counts["connections"] += 1
      return place

  def _attend(self, place: _Place) -> None:
    """Answers one robot until it goes, or breaks the rules."""
    policy = self._policy.for_robot()
    try:
      while not self._closing.is_set() and self._answer_one(place, policy):
        with self._lock:
          place.silent_since, place.asked = time.monotonic(), True
    except OSError:
      pass  # it has gone, or was silent too long
    finally:
      with self._lock:
        self._places.discard(place)
      place.connection.close()

  def _answer_one(self, place: _Place, policy: LoadedPolicy) -> bool:
    """Receives and answers one message; whether the connection goes on."""
    connection, sequence = place.connection, 0

    def begun() -> None:
      with self._lock:
        place.silent_since = None

    try:
      message = wire.receive(
        connection,
        max_json=wire.MAX_JSON,
        max_payload=6 * policy.frame_size**2,
        idle=self._limits.idle,
        whole=self._limits.message,
        begun=begun,
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
    except wire.IdleError:
      return False  # a word now would be read as the answer to the next request
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
      "network": manifest["network"].get("name", ""),
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


def _end(connection: socket.socket) -> None:
  """Ends a connection that another thread reads; that thread closes it."""
  with contextlib.suppress(OSError):
    connection.shutdown(socket.SHUT_RDWR)


def _refuse(connection: socket.socket, sequence: int, error: str) -> None:
  """Says what was wrong; a robot that reads only the action holds."""
  fields = {"error": error[:400], "action": "hold", "command": [0, 0, 0, 0, 1]}
  with contextlib.suppress(OSError):
    _send(connection, wire.pack(wire.ERROR, sequence, fields))


def _send(connection: socket.socket, data: bytes) -> None:
  connection.settimeout(2.0)  # replies are small: who does not read them is gone
  connection.sendall(data)
