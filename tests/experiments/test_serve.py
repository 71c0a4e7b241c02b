"""A policy server: answers, garbage, floods, slow robots, and robots that go away."""

import json
import os
import socket
import struct
import threading
import time
from typing import NamedTuple

import numpy as np
import pytest

from experiments import cli, serve
from experiments.control import constraint_flags
from experiments.control import server as server_lib
from hand_eye import runtime, watchdog, wire
from hand_eye.client import Client
from hand_eye.constraints import Constraints
from hand_eye.decision import Action, Cause, Decision

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

  def expected(self, *_):
    return 0.001

  def whole(self, pregrasp_image, image, *_):
    time.sleep(self.seconds)
    if self.error:
      raise self.error
    command = np.array([image[0, 0, 0] / 1000, 0, 0, 0, 1], np.float32)
    return {
      "command": command, "action": 0, "cause": 0, "p_null": 0.2, "p_best": 0.25,
      "ratio": 0.8, "best": command, "samples": command[None], "iterations": 1,
      "probabilities": np.array([0.25]), "means": np.zeros((1, 3)),
      "covariances": np.zeros((1, 3, 3)),
    }  # fmt: skip

  def until(self, end, *inputs):
    return self.whole(*inputs)


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
    ({"age": 9.0}, Cause.OLD_FRAME, "9000 ms old"),
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
  message = wire.request_bytes(3, _observation(), KEY, None)
  sizes = wire.HEADER.unpack(message[: wire.HEADER.size])[4:]
  start = wire.HEADER.size
  body = json.loads(message[start : start + sizes[0]]) | (fields or {})
  body = {name: value for name, value in body.items() if value is not None}
  data = message[start + sizes[0] :] if payload is None else payload
  text = json.dumps(body).encode()
  header = wire.HEADER.pack(b"HEYE", 1, wire.DECIDE, 3, len(text), len(data))
  return header + text + data


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"pose": [1, 2, 3]}, "pose: expected 4 finite numbers"),
    ({"pose": [1, 2, 3, float("nan")]}, "NaN is no JSON"),
    ({"pose": [1, 2, 3, 10**400]}, "pose: expected 4"),
    ({"pose": [1, 2, 3, True]}, "pose: expected 4"),
    ({"pose": None}, "pose: expected 4"),
    ({"step": 0}, "step: expected an integer from 1"),
    ({"step": 1.5}, "step: expected an integer"),
    ({"key": [1, -1]}, "expected an integer from 0 to 4294967295"),
    ({"key": "ab"}, "key: expected two integers"),
    ({"table_height": "low"}, "table_height: expected 1 finite"),
    ({"workspace": [[1, 2, 3, 4]]}, "workspace: expected two lists"),
    ({"deadline_ms": "soon"}, "deadline_ms: expected"),
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
  connection.sendall(wire.HEADER.pack(b"HEYE", 1, wire.DECIDE, 9, len(text), 0) + text)
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and words in reply.fields["error"]
  connection.close()


@pytest.mark.parametrize(
  ("header", "words"),
  [
    ((b"GET ", 1, 2, 0, 0, 0), "expected b'HEYE'"),
    ((b"HEYE", 2, 2, 0, 0, 0), "version 2, expected 1"),
    ((b"HEYE", 1, 2, 0, 2**32 - 1, 0), "4294967295 bytes of JSON, expected at most"),
    ((b"HEYE", 1, 2, 0, 10, 2**32 - 1), "bytes of payload, expected at most 1536"),
  ],
)
def test_headers_that_are_none_end_the_connection_unread(make_server, header, words):
  server = make_server()
  connection = _raw(server)
  connection.sendall(struct.pack("<4sHHIII", *header))
  reply = _reply(connection)
  assert reply.kind == wire.ERROR and words in reply.fields["error"]
  assert _reply(connection) is None
  _works(server)


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
  _until(lambda: not server._connections)
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


def test_a_robot_that_says_nothing_is_let_go(make_server):
  silent = _raw(make_server(idle=0.2))
  assert "too slow" in _reply(silent).fields["error"]
  assert _reply(silent) is None


def test_more_robots_than_allowed_are_told_so(make_server):
  server = make_server(clients=2)
  first, second = _raw(server), _raw(server)
  _until(lambda: server.counts()["connections"] == 2)
  with Client(server.address) as third:
    made = third(_observation(), KEY)
    assert made.cause == Cause.NO_ANSWER
    first.close()
    _until(lambda: len(server._connections) == 1)
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
  seen = wire.RemoteObservation(*_observation()[:6], workspace=None, age=0.3)
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


def test_a_server_that_is_slow_or_lies_is_a_hold():
  """The client believes no server, either."""
  for answer, words in (
    (None, "timed out"),
    (b"HTTP/1.1 200 OK\r\n\r\n....", "expected b'HEYE'"),
    (wire.pack(wire.DECISION, 1, {"action": "move"}), "is no decision"),
    (wire.pack(wire.DECISION, 9, {}), "reply 9 to request 1"),
    (
      wire.pack(wire.DECISION, 1, {"action": "move", "cause": "none"}),
      "command: expected 5",
    ),
    (
      wire.HEADER.pack(b"HEYE", 1, wire.DECISION, 1, 2**31, 0),
      "bytes of JSON, expected at most",
    ),
  ):
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_once(listener=listener, answer=answer):
      connection, _ = listener.accept()
      with connection:
        if answer is not None:
          connection.sendall(answer)
        connection.settimeout(2)
        try:
          while connection.recv(65536):
            pass
        except OSError:
          pass

    thread = threading.Thread(target=serve_once)
    thread.start()
    with Client(listener.getsockname(), timeout=0.3) as client:
      made = client(_observation(), KEY)
    thread.join()
    listener.close()
    assert made.action == Action.HOLD and made.cause == Cause.NO_ANSWER
    assert words in made.reason, made.reason


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
