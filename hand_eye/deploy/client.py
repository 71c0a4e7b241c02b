"""Asks a policy server for decisions, and holds if none come.

Standard library and NumPy; see `wire` for the format.
"""

import math
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hand_eye import observations
from hand_eye.decision import Cause, Decision, Observation, hold
from hand_eye.deploy import answers, wire


class Client:
  """Asks a policy server for decisions. One robot each, one thread.

  Whatever goes wrong with the server or the way to it is a HOLD, and the next call
  connects again: a control loop needs no second path for errors. Answers are checked
  against limits of the client's own.

  Args:
    address: path of a Unix socket, or (IP address, port).
    timeout: seconds for a whole exchange: connecting, asking and the answer.
    limits: what the client accepts of a server.

  Raises:
    ValueError: for a timeout that is not finite and positive.
  """

  def __init__(
    self,
    address: wire.Address,
    timeout: float = 1.0,
    limits: answers.AnswerLimits | None = None,
  ):
    if not 0 < timeout < math.inf:
      raise ValueError(f"timeout is {timeout!r}, expected a finite number > 0 (s).")
    self._address, self._timeout = address, timeout
    self._limits = limits or answers.AnswerLimits()
    self._connection: socket.socket | None = None
    self._sequence = 0

  def info(self) -> dict[str, Any]:
    """What the server says of its policy: frame_size, needs_ms and more.

    Raises:
      WireError, OSError: there is no such server, or it answers otherwise.
    """
    try:
      reply = self._ask(lambda n: wire.pack(wire.INFO, n, {}))
    except BaseException:
      self.close()
      raise
    if reply.kind != wire.INFO_REPLY:
      raise wire.WireError(f"INFO was answered by kind {reply.kind}: {reply.fields}")
    return reply.fields

  def __call__(
    self, observation: Observation, key: np.ndarray, deadline: float | None = None
  ) -> Decision:
    """Returns the server's decision, or HOLD; arguments as for a loaded policy.

    Raises:
      ObservationError: for a field or key of another shape or type.
    """
    seen, key = observations.read(observation), observations.read_key(key)
    problem = observations.not_finite(seen)
    if problem:
      return hold(problem, Cause.BAD_INPUT)
    if deadline == math.inf:
      deadline = None
    if deadline is not None and not math.isfinite(deadline):
      return hold(f"the deadline is {deadline} s", Cause.NO_TIME)
    try:
      reply = self._ask(lambda n: wire.request_bytes(n, seen, key, deadline))
      if reply.kind == wire.DECISION:
        made = wire.read_decision(reply.fields)
        rule = answers.broken_rule(made, seen.pose, self._limits, seen.workspace)
        if not rule:
          return made
        cause, said = Cause.BAD_ANSWER, f"the server's answer is refused: {rule}"
      else:
        cause = Cause.NO_ANSWER
        said = f"the server refused: {reply.fields.get('error', reply.kind)}"[:400]
    except (wire.WireError, OSError) as error:
      cause, said = Cause.NO_ANSWER, f"no answer from the server: {error}"
    self.close()
    return hold(said, cause)

  def close(self) -> None:
    """Closes the connection; the next call opens another."""
    if self._connection is not None:
      self._connection.close()
      self._connection = None

  def __enter__(self) -> "Client":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _ask(self, message: Callable[[int], bytes]) -> wire.Message:
    """One exchange. An old connection that the server has left is replaced once."""
    end = time.monotonic() + self._timeout
    if self._connection is not None and not _is_quiet(self._connection):
      self.close()
    if self._connection is not None:
      try:
        reply = self._exchange(self._connection, message, end)
      except ConnectionError:
        reply = None
      if reply is not None:
        return reply
      self.close()
    self._connection = _connect(self._address, end)
    reply = self._exchange(self._connection, message, end)
    if reply is None:
      raise wire.WireError("it closed the connection")
    return reply

  def _exchange(
    self, connection: socket.socket, message: Callable[[int], bytes], end: float
  ) -> wire.Message | None:
    """Asks and returns the reply; None if the server closed the connection instead."""
    self._sequence = (self._sequence + 1) % 2**32
    connection.settimeout(_left(end))
    connection.sendall(message(self._sequence))
    reply = wire.receive(
      connection, max_json=wire.MAX_REPLY_JSON, max_payload=0, end=end
    )
    # An error about bytes that made no header carries 0.
    if reply and reply.sequence != self._sequence and reply.kind != wire.ERROR:
      raise wire.WireError(f"reply {reply.sequence} to request {self._sequence}")
    return reply


def _connect(address: wire.Address, end: float) -> socket.socket:
  family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
  connection = socket.socket(family, socket.SOCK_STREAM)
  try:
    connection.settimeout(_left(end))
    connection.connect(address)
  except BaseException:
    connection.close()
    raise
  return connection


def _is_quiet(connection: socket.socket) -> bool:
  """Whether nothing has come unasked: no byte, and no end of the stream."""
  connection.setblocking(False)
  try:
    connection.recv(1, socket.MSG_PEEK)
  except BlockingIOError:
    return True
  except OSError:
    return False
  return False


def _left(end: float) -> float:
  left = end - time.monotonic()
  if left <= 0:
    raise TimeoutError("the time for the exchange is over")
  return left
