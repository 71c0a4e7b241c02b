"""The wire format between robots and a policy server.

docs/wire_format.md describes it for clients in other languages; `client` is the one in
Python. Standard library and NumPy. Nothing that comes from the wire is executed, every
size is compared with a limit before memory is allocated, and a checksum covers each
message.
"""

import json
import math
import socket
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hand_eye.decision import Action, Cause, Decision
from hand_eye.observations import Seen

MAGIC = b"HEYE"
VERSION = 2
# Magic, version, kind, sequence, bytes of JSON and of payload, CRC-32 of both.
HEADER = struct.Struct("<4sHHIIII")
MAX_JSON = 4096  # bytes of a request
MAX_REPLY_JSON = 65536

INFO, DECIDE = 1, 2  # of requests
INFO_REPLY, DECISION, ERROR = 129, 130, 255  # of replies

Address = str | tuple[str, int]  # path of a Unix socket, or (host, port)


class WireError(Exception):
  """Bytes that are no message of this format.

  Attributes:
    keep: whether the connection is still in step, so that it may go on.
    sequence: of the message, 0 where it is not known.
  """

  def __init__(self, message: str, *, keep: bool = False, sequence: int = 0):
    super().__init__(message)
    self.keep, self.sequence = keep, sequence


class IdleError(TimeoutError):
  """No message began in the time given."""


class Message(NamedTuple):
  """One message. `fields` is its JSON object."""

  kind: int
  sequence: int
  fields: dict[str, Any]
  payload: bytes


def pack(
  kind: int, sequence: int, fields: Mapping[str, Any], payload: bytes = b""
) -> bytes:
  """Returns the bytes of a message."""
  text = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()
  crc = zlib.crc32(payload, zlib.crc32(text))
  header = HEADER.pack(MAGIC, VERSION, kind, sequence, len(text), len(payload), crc)
  return header + text + payload


def receive(
  connection: socket.socket,
  *,
  max_json: int,
  max_payload: int,
  idle: float = math.inf,
  end: float = math.inf,
  whole: float = math.inf,
  begun: Callable[[], None] = lambda: None,
  clock: Callable[[], float] = time.monotonic,
) -> Message | None:
  """Receives one message; None at the end of the stream.

  Args:
    connection: to receive from.
    max_json, max_payload: bytes; a header that announces more is refused unread.
    idle: seconds to wait for the first byte.
    whole: seconds from the first byte, in which all of it must have come.
    end: time of `clock` by which all of it must have come.
    begun: called after the first byte.
    clock: seconds that only grow.

  Raises:
    WireError: for anything that is not such a message.
    IdleError: it did not begin in time.
    TimeoutError: it did not end in time.
    OSError: the connection broke.
  """
  try:
    _wait(connection, min(idle, end - clock()))
    first = connection.recv(1)
  except TimeoutError as error:
    raise IdleError("no message began in time") from error
  if not first:
    return None
  begun()
  end = min(end, clock() + whole)
  header = first + _exactly(connection, HEADER.size - 1, end, clock)
  magic, version, kind, sequence, json_size, payload_size, crc = HEADER.unpack(header)
  if magic != MAGIC:
    raise WireError(f"the first bytes are {magic!r}, expected {MAGIC!r}")
  if version != VERSION:
    raise WireError(f"version {version}, expected {VERSION}")
  for name, size, most in (
    ("JSON", json_size, max_json),
    ("payload", payload_size, max_payload),
  ):
    if size > most:
      raise WireError(f"{size} bytes of {name}, expected at most {most}")
  text = _exactly(connection, json_size, end, clock)
  payload = _exactly(connection, payload_size, end, clock)
  found = zlib.crc32(payload, zlib.crc32(text))
  if found != crc:
    raise WireError(
      f"the checksum is {found:#010x}, expected {crc:#010x} as the header says: bytes"
      " were lost, added or changed on the way",
      sequence=sequence,
    )
  try:
    return Message(kind, sequence, _parse(text), payload)
  except WireError as error:
    raise WireError(str(error), keep=True, sequence=sequence) from error


def _exactly(
  connection: socket.socket, count: int, end: float, clock: Callable[[], float]
) -> bytes:
  data = bytearray(count)
  view, at = memoryview(data), 0
  while at < count:
    try:
      _wait(connection, end - clock())
      got = connection.recv_into(view[at:])
    except TimeoutError as error:
      raise TimeoutError(f"{at} of {count} bytes came in time") from error
    if not got:
      raise WireError(f"the stream ended after {at} of {count} bytes")
    at += got
  return bytes(data)


def _wait(connection: socket.socket, left: float) -> None:
  """Lets the next operation wait for `left` seconds."""
  if left <= 0:
    raise TimeoutError
  connection.settimeout(None if left == math.inf else left)


def _parse(text: bytes) -> dict[str, Any]:
  def refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")

  try:
    fields = json.loads(text.decode(), parse_constant=refuse) if text else {}
  except (ValueError, RecursionError) as error:
    raise WireError(f"no JSON: {error}", keep=True) from error
  if not isinstance(fields, dict):
    raise WireError("the JSON is no object", keep=True)
  return fields


class Request(NamedTuple):
  """A request for a decision. deadline: seconds from its arrival, or None."""

  observation: Seen
  key: np.ndarray
  deadline: float | None


def request_bytes(
  sequence: int, seen: Seen, key: np.ndarray, deadline: float | None
) -> bytes:
  """Returns the message that asks for a decision.

  Raises:
    ValueError: a number is not finite, which JSON cannot say.
  """
  fields: dict[str, Any] = {
    "pose": seen.pose.tolist(),
    "step": seen.step,
    "num_steps": seen.num_steps,
    "table_height": seen.table_height,
    "key": key.tolist(),
  }
  if seen.workspace is not None:
    fields["workspace"] = [end.tolist() for end in seen.workspace]
  if seen.age is not None:
    fields["age_ms"] = 1e3 * seen.age
  if deadline is not None:
    fields["deadline_ms"] = 1e3 * deadline
  return pack(
    DECIDE, sequence, fields, seen.pregrasp_image.tobytes() + seen.image.tobytes()
  )


def read_request(message: Message, frame_size: int) -> Request:
  """Returns what a DECIDE message asks for.

  Raises:
    WireError: a field is missing or of another form; the message names it.
  """
  fields, size = message.fields, 3 * frame_size**2
  known = {
    "pose", "step", "num_steps", "table_height", "key", "workspace", "age_ms",
    "deadline_ms",
  }  # fmt: skip
  unknown = sorted(set(fields) - known)
  if unknown:
    raise WireError(f"unknown fields {', '.join(unknown)}"[:200], keep=True)
  if len(message.payload) != 2 * size:
    raise WireError(
      f"the payload has {len(message.payload)} bytes, expected {2 * size}: two images"
      f" uint8[{frame_size}, {frame_size}, 3]",
      keep=True,
    )
  images = np.frombuffer(message.payload, np.uint8)
  images = images.reshape(2, frame_size, frame_size, 3)
  workspace = None
  if "workspace" in fields:
    ends = fields["workspace"]
    if not isinstance(ends, list) or len(ends) != 2:
      raise WireError(
        f"workspace is {_shown(ends)}, expected two lists of four numbers", keep=True
      )
    low, high = (_numbers("workspace", end, 4) for end in ends)
    workspace = np.array(low, np.float32), np.array(high, np.float32)
  observation = Seen(
    pregrasp_image=images[0],
    image=images[1],
    pose=np.array(_numbers("pose", fields.get("pose"), 4), np.float32),
    step=_integer(fields, "step", 1, 10**6),
    num_steps=_integer(fields, "num_steps", 1, 10**6),
    table_height=_number(fields, "table_height"),
    workspace=workspace,
    age=_number(fields, "age_ms") / 1e3 if "age_ms" in fields else None,
  )
  key = fields.get("key")
  if (
    not isinstance(key, list)
    or len(key) != 2
    or not all(type(part) is int and 0 <= part < 2**32 for part in key)
  ):
    raise WireError(
      f"key is {_shown(key)}, expected two integers from 0 to 4294967295", keep=True
    )
  deadline = None
  if "deadline_ms" in fields:
    deadline = _number(fields, "deadline_ms") / 1e3
  return Request(observation, np.array(key, np.uint32), deadline)


def decision_fields(made: Decision) -> dict[str, Any]:
  """Returns the JSON of a DECISION reply."""
  fields: dict[str, Any] = {
    "action": made.action.name.lower(),
    "cause": made.cause.name.lower(),
    "command": np.asarray(made.command, float).tolist(),
    "reason": made.reason,
    "confidence": made.confidence,
    "iterations": made.iterations,
    "complete": made.complete,
    "on_time": made.on_time,
    "seconds": made.seconds,
  }
  for name in ("p_null", "p_best"):
    if name in made.evidence:
      fields[name] = float(made.evidence[name])
  return fields


def read_decision(fields: Mapping[str, Any]) -> Decision:
  """Returns the decision of a DECISION reply.

  Raises:
    WireError: it is none, or a number is not finite.
  """
  try:
    action = Action[str(fields["action"]).upper()]
    cause = Cause[str(fields["cause"]).upper()]
  except KeyError as error:
    raise WireError(f"the reply is no decision: {error}", keep=True) from error
  evidence: dict[str, Any] = {"action": action.name.lower()}
  for name in ("p_null", "p_best"):
    if name in fields:
      evidence[name] = _number(fields, name)
  return Decision(
    np.array(_numbers("command", fields.get("command"), 5), np.float32),
    action,
    str(fields.get("reason", "")),
    evidence,
    confidence=_number(fields, "confidence"),
    cause=cause,
    iterations=_integer(fields, "iterations", 0, 10**6),
    complete=fields.get("complete") is True,
    seconds=_number(fields, "seconds"),
    on_time=fields.get("on_time") is True,
  )


def _number(fields: Mapping[str, Any], name: str) -> float:
  return _numbers(name, [fields.get(name)], 1)[0]


def _numbers(name: str, values: Any, count: int) -> list[float]:
  good = isinstance(values, list) and len(values) == count
  if good:
    # bool is an int to Python, and integers may be too large for a float.
    good = all(type(v) in (int, float) and abs(v) <= 1e9 for v in values)
  if not good or not all(math.isfinite(v) for v in values):
    form = "a finite number" if count == 1 else f"{count} finite numbers"
    shown = _shown(values[0] if count == 1 and isinstance(values, list) else values)
    raise WireError(f"{name} is {shown}, expected {form} up to 1e9", keep=True)
  return [float(v) for v in values]


def _integer(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
  value = fields.get(name)
  if type(value) is not int or not least <= value <= most:
    raise WireError(
      f"{name} is {_shown(value)}, expected an integer from {least} to {most}",
      keep=True,
    )
  return value


def _shown(value: Any) -> str:
  """A value of a message, in JSON and short."""
  text = "missing" if value is None else json.dumps(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
