"""The ROS 2 node with stand-ins for ROS, which cannot be installed here.

It shows that messages reach the session and come back from it, not that a real ROS
accepts the node.
"""

import importlib
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import yaml

import hand_eye.deploy
from hand_eye.decision import Action, Decision
from hand_eye.deploy import robot_config, robot_messages

pytest.importorskip("ruckig")

SETTINGS = yaml.safe_load(
  (Path(hand_eye.deploy.__file__).parent / "ros2.yaml").read_text()
)


class Node:
  """What `ServoNode` uses of rclpy.node.Node, kept for the test to call."""

  now = 7_000_000_000

  def __init__(self, name):
    self.published, self.callbacks, self.timers, self.errors = {}, {}, [], []

  def create_publisher(self, kind, topic, depth):
    sent = self.published.setdefault(topic, [])
    return types.SimpleNamespace(publish=sent.append)

  def create_subscription(self, kind, topic, call, qos, callback_group):
    self.callbacks[topic] = call

  def create_timer(self, period, call, callback_group):
    self.timers.append((period, call))

  def create_service(self, kind, name, call, callback_group):
    self.callbacks[name] = call

  def get_clock(self):
    stamp = _stamp(self.now)
    return types.SimpleNamespace(
      now=lambda: types.SimpleNamespace(nanoseconds=self.now, to_msg=lambda: stamp)
    )

  def get_logger(self):
    return types.SimpleNamespace(error=lambda text, **_: self.errors.append(text))


def _stamp(nanoseconds):
  return types.SimpleNamespace(nanoseconds=nanoseconds)


class PoseStamped:
  def __init__(self):
    self.header = types.SimpleNamespace(stamp=None, frame_id="")
    self.pose = types.SimpleNamespace(
      position=types.SimpleNamespace(), orientation=types.SimpleNamespace()
    )


def _data_class(name):
  return type(
    name, (), {"__init__": lambda self, data=None: setattr(self, "data", data)}
  )


@pytest.fixture
def module(monkeypatch):
  """The node's module, imported with stand-ins in place of ROS."""
  trigger = type("Trigger", (), {"Request": object, "Response": object})
  parts = {
    "rclpy": {},
    "rclpy.callback_groups": {"MutuallyExclusiveCallbackGroup": object},
    "rclpy.executors": {"MultiThreadedExecutor": object},
    "rclpy.node": {"Node": Node},
    "rclpy.qos": {"qos_profile_sensor_data": None},
    "rclpy.time": {"Time": types.SimpleNamespace(from_msg=lambda stamp: stamp)},
    "geometry_msgs.msg": {"PoseStamped": PoseStamped},
    "sensor_msgs.msg": {"Image": _data_class("Image")},
    "std_msgs.msg": {"Bool": _data_class("Bool"), "String": _data_class("String")},
    "std_srvs.srv": {"Trigger": trigger},
  }
  for name, contents in parts.items():
    part = types.ModuleType(name)
    part.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, name, part)
  monkeypatch.delitem(sys.modules, "hand_eye.deploy.ros2_node", raising=False)
  return importlib.import_module("hand_eye.deploy.ros2_node")


class Server:
  """In place of `Client`: moves once, then closes."""

  def __init__(self):
    self.asked = []

  def info(self):
    return {"frame_size": 8}

  def __call__(self, seen, key, deadline):
    self.asked.append(seen)
    action = Action.CLOSE if len(self.asked) > 1 else Action.MOVE
    move = [0.03, 0.0, 0.0, 0.0, 1.0] if action == Action.MOVE else [0.0] * 4 + [1.0]
    return Decision(np.array(move, np.float32), action, "as told", {})


def _image(node):
  frame = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
  return types.SimpleNamespace(
    data=frame.tobytes(), height=16, width=20, step=60, encoding="rgb8",
    header=types.SimpleNamespace(stamp=_stamp(node.now)),
  )  # fmt: skip


def _pose(node, xyz=(0.5, 0.0, 0.1), frame="base_link"):
  message = PoseStamped()
  message.header = types.SimpleNamespace(stamp=_stamp(node.now), frame_id=frame)
  message.pose.position.__dict__.update(zip("xyz", xyz, strict=True))
  turn = robot_messages.quaternion_of(0.2)
  message.pose.orientation.__dict__.update(zip("xyzw", turn, strict=True))
  return message


def test_messages_reach_the_session_and_come_back(module):
  server = Server()
  node = module.ServoNode(robot_config.read_ros_config(SETTINGS), server)
  topics = SETTINGS["topics"]
  target, close, beats = (
    node.published[topics[name]] for name in ("target", "close", "heartbeat")
  )
  (decide_period, decide), (period, tick), (_, beat) = node.timers
  assert decide_period == pytest.approx(1 / 3) and period == 0.01

  def call(name):
    response = types.SimpleNamespace(success=None, message=None)
    return node.callbacks[f"~/{name}"](None, response)

  assert not call("start").success and "pregrasp" in call("start").message
  tick()
  assert not target  # nothing is sent before an attempt

  def speak():
    node.callbacks[topics["image"]](_image(node))
    xyz = (0.5, 0.0, 0.1)
    if target:
      at = target[-1].pose.position
      xyz = (at.x, at.y, at.z)
    node.callbacks[topics["pose"]](_pose(node, xyz))

  speak()
  assert call("look").success and call("start").success
  for i in range(250):
    node.now += 10_000_000
    speak()
    if i % 40 == 0:
      decide()
    tick()
    if i % 10 == 0:
      beat()
  assert len(server.asked) == 2 and server.asked[0].image.shape == (8, 8, 3)
  assert server.asked[0].pose[3] == pytest.approx(0.2)
  assert len(target) == 250 and target[-1].header.frame_id == "base_link"
  end = target[-1].pose
  assert end.position.z == pytest.approx(0.01, abs=1e-3)
  assert end.orientation.x == pytest.approx(np.cos(0.1), abs=1e-3)
  assert [message.data for message in close] == [True]
  said = [json.loads(message.data) for message in beats]
  assert said[-1]["state"] == "closed" and said[-1]["beat"] == 25
  assert {one["state"] for one in said} == {"servoing", "closing", "closed"}
  assert call("stop").success
  assert not node.errors


def test_messages_of_another_form_are_errors_in_the_log(module):
  node = module.ServoNode(robot_config.read_ros_config(SETTINGS), Server())
  topics = SETTINGS["topics"]
  node.callbacks[topics["pose"]](_pose(node, frame="map"))
  wrong = _image(node)
  wrong.encoding = "mono8"
  node.callbacks[topics["image"]](wrong)
  assert "its frame is 'map', expected 'base_link'" in node.errors[0]
  assert "the encoding is 'mono8'" in node.errors[1]


def test_the_file_stays_thin(module):
  assert len(Path(module.__file__).read_text().splitlines()) < 150
