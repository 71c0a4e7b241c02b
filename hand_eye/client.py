"""Asks a policy server for decisions, and holds where none come.

Standard library and NumPy; see `wire` for what is said.
"""

import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from hand_eye import wire
from hand_eye.decision import Cause, Decision, Observation, hold


class Client:
  """Asks a policy server for decisions. One robot each, one thread.

  Whatever goes wrong with the server or the way to it is a HOLD, and the next call
  connects again: a control loop needs no second path for errors.

  Args:
    address: path of a Unix socket, or (host, port).
    timeout: seconds that a decision may take in all.
  """

  def __init__(self, address: wire.Address, timeout: float = 1.0):
    self._address, self._timeout = address, timeout
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
    """Returns the server's decision, or HOLD; arguments as of a loaded policy."""
    try:
      reply = self._ask(lambda n: wire.request_bytes(n, observation, key, deadline))
      if reply.kind == wire.DECISION:
        return wire.read_decision(reply.fields)
      said = f"the server refused: {reply.fields.get('error', reply.kind)}"
    except (wire.WireError, OSError) as error:
      said = f"no answer from the server: {error}"
    self.close()
    return hold(said, Cause.NO_ANSWER)

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
    if self._connection is None:
      unix = isinstance(self._address, str)
      family = socket.AF_UNIX if unix else socket.AF_INET
      self._connection = socket.socket(family, socket.SOCK_STREAM)
      self._connection.settimeout(self._timeout)
      self._connection.connect(self._address)
    self._sequence = (self._sequence + 1) % 2**32
    self._connection.settimeout(self._timeout)
    self._connection.sendall(message(self._sequence))
    reply = wire.receive(
      self._connection,
      max_json=wire.MAX_REPLY_JSON,
      max_payload=0,
      idle=self._timeout,
      whole=self._timeout,
    )
    if reply is None:
      raise wire.WireError("it closed the connection")
    # An error about bytes that made no header carries 0.
    if reply.sequence != self._sequence and reply.kind != wire.ERROR:
      raise wire.WireError(f"reply {reply.sequence} to request {self._sequence}")
    return reply
