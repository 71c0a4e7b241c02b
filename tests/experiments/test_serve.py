"""A policy server: answers, garbage, floods, slow robots, and robots that go away."""

import contextlib
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments import cli, serve
from experiments.control import constraint_flags
from experiments.control import server as server_lib
from hand_eye import observations
from hand_eye.constraints import Constraints
from hand_eye.decision import Action, Cause, Decision
from hand_eye.deploy import answers, runtime, watchdog, wire
from hand_eye.deploy.client import Client

SIZE = 16
KEY = np.array([7, 4_000_000_000], np.uint32)
MANIFEST = {
  "network": {"frame_size": SIZE, "name": "small"},
  "servo": {"num_iterations": 1},
  "workspace": {"low": [0.3, -0.3, 0.0, -3.0], "high": [0.7, 0.3, 0.3, 3.0]},
  "step": 5,
}


class Program:
  """In place of compiled functions: moves by what the red corner of the image says."""

  clock = staticmethod(time.perf_counter)

  def __init__(self):
    self.seconds = 0.0
    self.error = None

  needs = 0.001

  def whole(self, inputs):
    time.sleep(self.seconds)
    if self.error:
      raise self.error
    command = np.array([inputs.image[0, 0, 0] / 1000, 0, 0, 0, 1], np.float32)
    return {
      "command": command, "action": 0, "cause": 0, "p_null": 0.2, "p_best": 0.25,
      "ratio": 0.8, "best": command, "candidates": command[None], "iterations": 1,
      "probabilities": np.array([0.25]), "means": np.zeros((1, 3)),
      "covariances": np.zeros((1, 3, 3)),
    }  # fmt: skip

  def until(self, end, inputs):
    return self.whole(inputs)


class Observation(NamedTuple):
  pregrasp_image: np.ndarray
  image: np.ndarray
  pose: np.ndarray = np.array([0.5, 0.0, 0.1, 0.0], np.float32)
  step: int = 1
  num_steps: int = 4
  table_height: float = 0.01
  age: float | None = None


def _observation(seed=0, **fields):
  shape = (2, SIZE, SIZE, 3)
  frames = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
  return Observation(frames[0], frames[1])._replace(**fields)


@pytest.fixture
def program():
  return Program()


@pytest.fixture
def make_server(program, tmp_path):
  servers = []

  def make(**limits):
    policy = runtime.LoadedPolicy(
      MANIFEST, program, watchdog.FrameChecks, Constraints()
    )
    address = str(tmp_path / "policy.sock")
    server = server_lib.Server(policy, address, server_lib.Limits(**limits))
    servers.append(server)
    server.start()
    return server

  yield make
  for server in servers:
    server.close()


def _works(server, seed=0):
  with Client(server.address) as client:
    made = client(_observation(seed), KEY)
  assert made.action == Action.MOVE, made.reason
  return made


def _raw(server):
  connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
  connection.settimeout(60)
  connection.connect(server.address)
  return connection


def _reply(connection):
  return wire.receive(connection, max_json=65536, max_payload=0, idle=5, whole=5)


def test_a_robot_gets_the_decision_of_the_policy(make_server):
  server = make_server()
  with Client(server.address) as client:
    info = client.info()
    assert info["frame_size"] == SIZE and info["step"] == 5
    for seed in range(3):
      seen = _observation(seed)
      made = client(seen, KEY, deadline=0.5)
      assert made.action == Action.MOVE and made.confidence == 0.25
      assert made.command[0] == pytest.approx(seen.image[0, 0, 0] / 1000)
      assert made.evidence["p_null"] == 0.2 and "closing here has" in made.reason
      assert made.complete and made.on_time and made.seconds > 0
    assert client.info()["robot"] == {"decisions": 3}


def test_a_port_of_this_machine_serves_as_well(program):
  policy = runtime.LoadedPolicy(MANIFEST, program, watchdog.FrameChecks, Constraints())
  with server_lib.Server(policy, ("127.0.0.1", 0)) as server:
    server.start()
    assert server.address[1] > 0
    _works(server)


def test_the_socket_is_this_users_alone_and_goes_with_the_server(make_server):
  server = make_server()
  assert os.stat(server.address).st_mode & 0o777 == 0o600
  with pytest.raises(cli.UserError, match="a server listens there already"):
    make_server()
  _works(server)
  server.close()
  assert not os.path.exists(server.address)
  with Client(server.address, timeout=0.5) as client:
    made = client(_observation(), KEY)
  assert made.cause == Cause.NO_ANSWER and made.action == Action.HOLD


def test_the_socket_of_a_server_that_died_is_taken_over(make_server, tmp_path):
  left = socket.socket(socket.AF_UNIX)
  left.bind(str(tmp_path / "policy.sock"))
  left.close()
  _works(make_server())
  (tmp_path / "policy.sock").unlink()
  (tmp_path / "policy.sock").write_text("a person's file")
  with pytest.raises(cli.UserError, match="is no socket"):
    make_server()


@pytest.mark.parametrize(
  ("broken", "cause", "words"),
  [
    ({"age": 9.0}, Cause.OLD_FRAME, "ms old, expected 0 to 500"),
    ({"image": np.zeros((SIZE, SIZE, 3), np.uint8)}, Cause.BLACK_FRAME, "nothing"),
    ({"table_height": 0.9}, Cause.BAD_INPUT, "table height"),
  ],
)
def test_the_policys_checks_hold_over_the_wire(make_server, broken, cause, words):
  server = make_server()
  with Client(server.address) as client:
    made = client(_observation(**broken), KEY)
    assert made.cause == cause and words in made.reason
    assert client.info()["robot"] == {"decisions": 1, cause.name.lower(): 1}


def test_each_robot_has_frames_of_its_own(make_server):
  """The same image from two robots is no frozen camera; from one that moved it is."""
  server = make_server()
  moved = _observation(pose=np.array([0.6, 0.0, 0.1, 0.0], np.float32))
  with (
    Client(server.address) as one,
    Client(server.address) as other,
  ):
    assert one(_observation(), KEY).action == Action.MOVE
    assert other(moved, KEY).action == Action.MOVE
    assert one(moved, KEY).cause == Cause.FROZEN_FRAME


def _decide(fields=None, payload=None):
  """A DECIDE message with some fields replaced; None removes one."""
  message = wire.request_bytes(3, observations.read(_observation()), KEY, None)
  size = wire.HEADER.unpack(message[: wire.HEADER.size])[4]
  start = wire.HEADER.size
  body = json.loads(message[start : start + size]) | (fields or {})
  body = {name: value for name, value in body.items() if value is not None}
  data = message[start + size :] if payload is None else payload
  return _message(json.dumps(body).encode(), data)


def _message(text, data=b"", *, magic=b"HEYE", version=wire.VERSION, kind=wire.DECIDE):
  """A message of any bytes, with the checksum that belongs to them."""
  crc = zlib.crc32(data, zlib.crc32(text))
  sizes = len(text), len(data)
  return wire.HEADER.pack(magic, version, kind, 3, *sizes, crc) + text + data


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"pose": [1, 2, 3]}, "pose is [1, 2, 3], expected 4 finite numbers up to 1e9"),
    ({"pose": [1, 2, 3, float("nan")]}, "NaN is no JSON"),
    ({"pose": [1, 2, 3, 10**400]}, "..., expected 4 finite numbers"),
    ({"pose": [1, 2, 3, True]}, "pose is [1, 2, 3, true], expected 4"),
    ({"pose": None}, "pose is missing, expected 4"),
    ({"step": 0}, "step is 0, expected an integer from 1"),
    ({"step": 1.5}, "step is 1.5, expected an integer"),
    ({"key": [1, -1]}, "key is [1, -1], expected two integers from 0 to 4294967295"),
    ({"key": [1, True]}, "key is [1, true], expected two integers"),
    ({"key": "ab"}, 'key is "ab", expected two integers'),
    ({"table_height": "low"}, 'table_height is "low", expected a finite number'),
    ({"table_height": [0.1]}, "table_height is [0.1], expected a finite number"),
    ({"workspace": [[1, 2, 3, 4]]}, "workspace is [[1, 2, 3, 4]], expected two lists"),
    ({"workspace": [1, 2]}, "workspace is 1, expected 4 finite numbers"),
    ({"deadline_ms": "soon"}, 'deadline_ms is "soon", expected'),
    ({"eval": "print(1)"}, "unknown fields eval"),
  ],
)
def test_a_wrong_field_is_named_and_the_connection_goes_on(make_server, fields, words):
  connection = _raw(make_server())
  connection.sendall(_decide(fields))
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and reply.sequence == 3
  assert words in reply.fields["error"]
  assert reply.fields["action"] == "hold"
  assert reply.fields["command"] == [0, 0, 0, 0, 1]
  connection.sendall(_decide())
  assert _reply(connection).kind == wire.DECISION
  connection.close()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (b"not json", "no JSON"),
    (b"\xff\xfe", "no JSON"),
    (b"[" * 4000, "no JSON"),
    (b"[1]", "the JSON is no object"),
    (b'{"pose": 1' + b"0" * 4000, "no JSON"),
  ],
)
def test_texts_that_are_no_request_are_refused(make_server, text, words):
  connection = _raw(make_server())
  connection.sendall(_message(text))
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and words in reply.fields["error"]
  connection.close()


@pytest.mark.parametrize(
  ("header", "words"),
  [
    ((b"GET ", 2, 2, 0, 0, 0, 0), "expected b'HEYE'"),
    ((b"HEYE", 1, 2, 0, 0, 0, 0), "version 1, expected 2"),
    ((b"HEYE", 2, 2, 0, 2**32 - 1, 0, 0), "4294967295 bytes of JSON, expected at most"),
    ((b"HEYE", 2, 2, 0, 10, 2**32 - 1, 0), "bytes of payload, expected at most 1536"),
  ],
)
def test_headers_that_are_none_end_the_connection_unread(make_server, header, words):
  server = make_server()
  connection = _raw(server)
  connection.sendall(struct.pack("<4sHHIIII", *header))
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and words in reply.fields["error"]
  assert _reply(connection) is None
  _works(server)


@pytest.mark.parametrize("change", ["flip", "insert", "drop", "text"])
def test_a_message_that_changed_on_the_way_is_refused(make_server, program, change):
  """Bytes inserted into pixels or lost from them; nothing is decided on the rest."""
  data = bytearray(_decide())
  at = len(data) - 700
  if change == "flip":
    data[at] ^= 1
  elif change == "insert":
    data[at:at] = b"12345"
  elif change == "drop":
    del data[at : at + 5]
    data += _decide()[:5]
  else:
    data = data.replace(b'"step": 1,', b'"step": 3,')
  assert data != _decide()
  server = make_server()
  connection = _raw(server)
  connection.sendall(data)
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and "the checksum is" in reply.fields["error"]
  with contextlib.suppress(ConnectionResetError):  # what was left was not read
    assert _reply(connection) is None
  _works(server)
  assert server.counts()["refused"] == 1


def test_a_payload_of_another_size_and_an_unknown_kind_are_refused(make_server):
  connection = _raw(make_server())
  connection.sendall(_decide(payload=b"x" * 10))
  assert "expected 1536: two images" in _reply(connection).fields["error"]
  connection.sendall(wire.pack(77, 1, {}))
  assert "kind 77 is no request" in _reply(connection).fields["error"]
  connection.close()


def test_garbage_and_a_flood_leave_the_server_answering(make_server):
  """Random bytes from many robots, requests cut short, and floods without reading."""
  server = make_server(message=0.5, clients=64)
  rng = np.random.default_rng(0)
  good = _decide()
  for i in range(60):
    connection = _raw(server)
    data = bytearray(good if i % 2 else rng.bytes(rng.integers(1, 4000)))
    for at in rng.integers(0, len(data), 20):
      data[at] = rng.integers(256)
    try:
      connection.sendall(bytes(data[: rng.integers(1, len(data) + 1)]))
    except OSError:
      pass  # refused and closed before all of it was sent
    connection.close()
  flood = _raw(server)
  flood.settimeout(0.5)
  try:
    for _ in range(3000):  # and never reads an answer
      flood.sendall(good)
  except OSError:
    pass
  _works(server)
  flood.close()
  _works(server, seed=1)
  _until(lambda: not server.counts()["connected"])
  assert server.counts()["connections"] >= 60


def _until(condition):
  """Waits for what another thread does."""
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError("it did not come to pass")


def test_a_message_that_trickles_in_is_cut_off(make_server):
  server = make_server(message=0.2)
  slow = _raw(server)
  slow.sendall(_decide()[:100])
  assert "too slow" in _reply(slow).fields["error"]
  assert _reply(slow) is None
  _works(server)


def test_a_robot_that_says_nothing_is_let_go_without_a_word(make_server):
  silent = _raw(make_server(idle=0.2))
  assert _reply(silent) is None


def test_a_pause_longer_than_the_server_waits_gives_no_false_hold(make_server):
  """The client finds its connection closed and connects once more."""
  server = make_server(idle=0.1)
  with Client(server.address) as client:
    for seed in range(3):
      made = client(_observation(seed), KEY)
      assert made.action == Action.MOVE, made.reason
      _until(lambda: not server.counts()["connected"])
    assert client.info()["frame_size"] == SIZE
  assert server.counts()["connections"] == 4 and server.counts()["refused"] == 0


def test_a_server_that_was_started_again_is_found_again(make_server):
  server = make_server()
  with Client(server.address) as client:
    assert client(_observation(), KEY).action == Action.MOVE
    server.close()
    make_server()
    assert client(_observation(1), KEY).action == Action.MOVE


def test_silent_connections_give_their_places_to_robots_that_talk(make_server):
  """Those that never asked go first; a robot that lost its place gets it back."""
  server = make_server(clients=4, spare=0.05)
  with Client(server.address) as robot:
    assert robot(_observation(), KEY).action == Action.MOVE
    silent = [_raw(server) for _ in range(3)]
    _until(lambda: server.counts()["connected"] == 4)
    time.sleep(0.1)
    for seed in range(3):
      _works(server, seed)
    assert server.counts()["given_away"] >= 1
    assert server.counts()["turned_away"] == 0
    assert any(_reply(connection) is None for connection in silent[:1])
    connections = server.counts()["connections"]
    assert robot(_observation(1), KEY).action == Action.MOVE
    assert server.counts()["connections"] == connections


def test_more_robots_than_allowed_are_told_so(make_server):
  server = make_server(clients=2)
  first, second = _raw(server), _raw(server)
  _until(lambda: server.counts()["connections"] == 2)
  with Client(server.address) as third:
    made = third(_observation(), KEY)
    assert made.cause == Cause.NO_ANSWER
    first.close()
    _until(lambda: server.counts()["connected"] == 1)
    assert third(_observation(), KEY).action == Action.MOVE
  second.close()


def test_a_busy_device_is_said_at_once(make_server, program):
  server = make_server(waiting=1)
  program.seconds = 0.3
  answers = []

  def ask(seed):
    with Client(server.address, timeout=5) as client:
      answers.append(client(_observation(seed), KEY))

  robots = [threading.Thread(target=ask, args=(seed,)) for seed in range(5)]
  for robot in robots:
    robot.start()
  for robot in robots:
    robot.join()
  busy = [made for made in answers if made.cause == Cause.NO_ANSWER]
  assert 1 <= len(busy) <= 4 and "busy" in busy[0].reason
  assert len(busy) + sum(m.action == Action.MOVE for m in answers) == 5


def test_waiting_counts_for_age_and_deadline():
  seen = observations.Seen(*_observation()[:6], workspace=None, age=0.3)
  given = []

  def policy(observation, key, deadline):
    given.append((observation.age, deadline))
    return Decision(np.zeros(5), Action.MOVE, "", {})

  job = server_lib._Job(policy, wire.Request(seen, KEY, 0.1), 10.0, None)
  made = server_lib._on_time(job, 10.04)
  assert given == [(pytest.approx(0.34), pytest.approx(0.06))]
  assert made.seconds == pytest.approx(0.04)


def test_an_error_while_deciding_holds_one_robot_and_stops_no_other(
  make_server, program
):
  server = make_server()
  program.error = MemoryError("too much")
  with Client(server.address) as client:
    made = client(_observation(), KEY)
    assert made.cause == Cause.FAILED and "MemoryError" in made.reason
    program.error = None
    assert client(_observation(1), KEY).action == Action.MOVE


@contextlib.contextmanager
def _lying_server(*pieces, pause=0.0):
  """Its address: it sends pieces of an answer to the first robot, whatever it asks."""
  listener = socket.create_server(("127.0.0.1", 0))

  def serve_once():
    connection, _ = listener.accept()
    connection.settimeout(2)
    with connection, contextlib.suppress(OSError):
      connection.recv(1)
      for piece in pieces:
        connection.sendall(piece)
        time.sleep(pause)
      while connection.recv(65536):
        pass

  thread = threading.Thread(target=serve_once)
  thread.start()
  yield listener.getsockname()
  thread.join()
  listener.close()


@pytest.mark.parametrize(
  ("answer", "words"),
  [
    (b"", "no message began in time"),
    (b"HTTP/1.1 200 OK\r\n\r\n.......", "expected b'HEYE'"),
    (wire.pack(wire.DECISION, 1, {"action": "move"}), "is no decision"),
    (wire.pack(wire.DECISION, 9, {}), "reply 9 to request 1"),
    (
      wire.pack(wire.DECISION, 1, {"action": "move", "cause": "none"}),
      "command is missing, expected 5",
    ),
    (
      wire.HEADER.pack(b"HEYE", 2, wire.DECISION, 1, 2**31, 0, 0),
      "bytes of JSON, expected at most",
    ),
    (wire.HEADER.pack(b"HEYE", 2, wire.DECISION, 1, 2, 0, 7) + b"{}", "checksum"),
    (wire.pack(wire.ERROR, 1, {"error": "no"}), "the server refused: no"),
  ],
)
def test_a_server_that_is_slow_or_sends_nonsense_is_a_hold(answer, words):
  with _lying_server(answer) as address, Client(address, timeout=0.3) as client:
    made = client(_observation(), KEY)
  assert made.action == Action.HOLD and made.cause == Cause.NO_ANSWER
  assert words in made.reason, made.reason


HONEST = {
  "action": "move", "cause": "none", "command": [0.1, 0, -0.05, 0.6, 0.8],
  "reason": "", "confidence": 0.5, "p_null": 0.2, "p_best": 0.5, "iterations": 1,
  "complete": True, "on_time": True, "seconds": 0.01,
}  # fmt: skip
STILL = [0, 0, 0, 0, 1]


def _lies(**fields):
  return wire.pack(wire.DECISION, 1, HONEST | fields)


def test_an_honest_server_is_obeyed():
  with _lying_server(_lies()) as address, Client(address) as client:
    made = client(_observation(), KEY)
  assert made.action == Action.MOVE, made.reason


@pytest.mark.parametrize(
  ("lie", "words"),
  [
    ({"command": [1e9, 0, 0, 0, 1]}, "a motion of 1e+09 m, expected at most 0.6"),
    ({"command": [0.5, 0.5, 0, 0, 1]}, "a motion of 0.707 m"),
    ({"command": [0.1, 0, 0, 0, 0]}, "is no (sin, cos)"),
    ({"command": [0.1, 0, 0, 7, 0]}, "is no (sin, cos)"),
    ({"command": [0.1, 0, 0, 1, 0]}, "a turn of 1.57 rad, expected at most 1"),
    ({"command": [0.25, 0, 0, 0, 1]}, "ends outside the workspace"),  # the client's
    ({"command": [0, 0.25, 0, 0, 1]}, "ends outside the workspace"),  # the robot's
    ({"action": "hold"}, "HOLD with the cause NONE"),
    ({"action": "hold", "cause": "unsafe"}, "HOLD with a motion of 0.112 m"),
    ({"action": "hold", "cause": "unsafe", "command": [0, 0, 0, 1, 0]}, "1.57 rad"),
    ({"action": "close"}, "CLOSE with a motion"),
    ({"action": "close", "cause": "no_time", "command": STILL}, "the cause NO_TIME"),
    ({"cause": "unsafe"}, "MOVE with the cause UNSAFE"),
    ({"action": "raise", "cause": "stale"}, "RAISE with the cause STALE"),
    ({"confidence": 7}, "confidence is 7, expected a probability"),
    ({"confidence": -0.1}, "confidence is -0.1"),
    ({"p_null": 2.5}, "p_null is 2.5"),
    ({"p_best": -1}, "p_best is -1"),
    ({"seconds": -1}, "seconds is -1"),
  ],
)
def test_the_client_has_limits_of_its_own(lie, words):
  limits = answers.AnswerLimits(
    max_turn=1.0, workspace=([0.3, -0.3, 0.0, -3.0], [0.7, 0.3, 0.3, 3.0])
  )
  robot = (np.float32([0.3, -0.2, 0, -3]), np.float32([0.8, 0.2, 0.3, 3]))
  with _lying_server(_lies(**lie)) as address, Client(address, 1.0, limits) as client:
    made = client(_remote(workspace=robot), KEY)
  assert made.action == Action.HOLD and made.cause == Cause.BAD_ANSWER
  assert words in made.reason, made.reason
  assert made.command.tolist() == STILL and made.confidence == 0


def _remote(**fields):
  return observations.read(_observation())._replace(**fields)


def test_from_outside_the_client_accepts_the_way_back():
  box = ([0.3, -0.3, 0.0, 2.0], [0.45, 0.3, 0.3, 4.0])  # a yaw range across pi
  away = np.array([0.5, 0.0, 0.1, -3.0], np.float32)
  still, turned = Cause.NONE, Cause.BAD_ANSWER
  for command, cause in (
    ([-0.1, 0, 0, 0, 1], still),
    ([0.1, 0, 0, 0, 1], turned),
    ([-0.1, 0, 0, 0.6, 0.8], still),
    ([-0.1, 0, 0, 0.96, 0.28], turned),
  ):
    made = wire.read_decision(HONEST | {"command": command})
    rule = answers.broken_rule(made, away, answers.AnswerLimits(workspace=box))
    assert bool(rule) == (cause == turned), (command, rule)


@pytest.mark.parametrize(
  "fields",
  [{"max_step": 0}, {"max_turn": math.nan}, {"workspace": ([0] * 4, [0] * 4)}],
)
def test_limits_of_a_client_that_limit_nothing_are_refused(fields):
  with pytest.raises(ValueError, match=next(iter(fields))):
    answers.AnswerLimits(**fields)
  with pytest.raises(ValueError, match="timeout is"):
    Client("nowhere", timeout=math.inf)


def test_the_timeout_is_one_deadline_for_the_whole_exchange():
  """An answer that trickles in: each piece in time, the whole too late."""
  whole = _lies()
  pieces = [whole[i : i + 20] for i in range(0, len(whole), 20)]
  assert len(pieces) > 8
  with _lying_server(*pieces, pause=0.15) as address, Client(address, 0.4) as client:
    start = time.monotonic()
    made = client(_observation(), KEY)
    seconds = time.monotonic() - start
  assert made.cause == Cause.NO_ANSWER and "bytes came in time" in made.reason
  assert seconds < 0.8  # all pieces take 1.5 s or more


def test_a_server_that_leaves_again_and_again_is_asked_twice_at_most():
  asked = []
  listener = socket.create_server(("127.0.0.1", 0))
  listener.settimeout(2)

  def serve():
    with contextlib.suppress(OSError):
      while True:
        connection, _ = listener.accept()
        with connection:
          connection.recv(65536)
          if not asked:
            connection.sendall(_lies())
            while not connection.recv(65536).endswith(b"end"):
              break
          asked.append(1)

  thread = threading.Thread(target=serve)
  thread.start()
  with Client(listener.getsockname(), timeout=1.0) as client:
    assert client(_observation(), KEY).action == Action.MOVE
    made = client(_observation(1), KEY)
  listener.close()
  thread.join()
  assert made.cause == Cause.NO_ANSWER and "closed the connection" in made.reason
  assert len(asked) == 2


@pytest.mark.parametrize(
  ("broken", "words"),
  [
    ({"pose": np.full(4, np.nan)}, "pose is not finite"),
    ({"pose": np.array([0.5, 1e39, 0.1, 0.0])}, "pose is not finite"),
    ({"pose": np.array([500.0, 0.0, 100.0, 0.0])}, "measured x is 500 m"),
    ({"pose": np.array([0.5, 0.0, 5.0, 0.0])}, "measured z is 5 m"),
    ({"pose": np.array([0.5, 0.0, 0.1, 7.0])}, "measured yaw is 7 rad"),
    ({"table_height": np.inf}, "table height is not finite"),
    ({"age": np.nan}, "age is not finite"),
  ],
)
def test_inputs_that_cannot_be_used_hold_over_the_wire(make_server, broken, words):
  with Client(make_server().address) as client:
    made = client(_observation(**broken), KEY)
  assert made.action == Action.HOLD and made.cause == Cause.BAD_INPUT
  assert words in made.reason, made.reason


@pytest.mark.parametrize(
  ("broken", "words"),
  [
    ({"pose": "home"}, "pose is str 'home'"),
    ({"image": np.zeros((SIZE, SIZE), np.uint8)}, "image is uint8"),
    ({"table_height": np.zeros(1)}, "table_height is float64"),
    ({"step": 1.5}, "step is float 1.5"),
  ],
)
def test_wrong_types_are_mistakes_of_the_program_with_a_client_too(broken, words):
  with pytest.raises(observations.ObservationError, match=words):
    Client("nowhere")(_observation(**broken), KEY)
  with pytest.raises(observations.ObservationError, match="key is int 7"):
    Client("nowhere")(_observation(), 7)


@pytest.mark.parametrize("deadline", [math.nan, -math.inf])
def test_a_deadline_that_is_none_holds(deadline):
  made = Client("nowhere")(_observation(), KEY, deadline)
  assert made.cause == Cause.NO_TIME


@pytest.mark.parametrize(
  ("path", "port", "words"),
  [
    ("", -1, "either --socket, a path, or --port"),
    ("a", 5, "either --socket, a path, or --port"),
    ("", 70000, "--port=70000"),
    ("x" * 200, -1, "at most 100 bytes"),
  ],
)
def test_addresses_that_are_none_are_refused(path, port, words):
  with pytest.raises(cli.UserError, match=words):
    serve.address_of(path, port)


def test_constraints_as_flags():
  made = constraint_flags.parse("0.4,-0.1,0.6,0.1", ["0.5,0,0.55,0.05"], "-90,45")
  assert made.grasp_in == (0.4, -0.1, 0.6, 0.1) and len(made.keep_out) == 1
  np.testing.assert_allclose(made.yaw_range, [-np.pi / 2, np.pi / 4])
  assert constraint_flags.parse("", [], "") == Constraints()
  for flags in (("1,2", [], ""), ("", ["a"], ""), ("", [], "5,1")):
    with pytest.raises(cli.UserError, match="--(grasp_in|keep_out|yaw_range)"):
      constraint_flags.parse(*flags)


_CPP = r"""
#include <sys/socket.h>
#include <sys/un.h>
#include <zlib.h>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>
%s
int main(int, char** argv) {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
  if (connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at)) return 1;
  std::vector<uint8_t> images(6 * %d * %d);
  for (size_t i = 0; i < images.size(); i++) images[i] = i * i %% 251;
  if (!request(fd, 7, argv[2], images)) return 2;
  Header h;
  if (recv(fd, &h, sizeof h, MSG_WAITALL) != sizeof h) return 3;
  std::string json(h.json_size, ' ');
  recv(fd, &json[0], json.size(), MSG_WAITALL);
  printf("%%s", json.c_str());
  return h.kind == 130 && h.sequence == 7 ? 0 : 4;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_the_request_in_cpp_of_the_docs_is_answered(make_server, tmp_path):
  docs = Path(__file__).parents[2] / "docs" / "wire_format.md"
  snippet = docs.read_text().split("```cpp\n")[1].split("```")[0]
  source, program = tmp_path / "robot.cc", tmp_path / "robot"
  source.write_text(_CPP % (snippet, SIZE, SIZE))
  subprocess.run(["g++", "-std=c++17", source, "-o", program, "-lz"], check=True)
  fields = {"pose": [0.5, 0, 0.1, 0], "step": 1, "num_steps": 4, "key": [1, 2]}
  text = json.dumps(fields | {"table_height": 0.01})
  ran = subprocess.run(
    [program, make_server().address, text], check=True, capture_output=True, text=True
  )
  assert wire.read_decision(json.loads(ran.stdout)).action == Action.MOVE
