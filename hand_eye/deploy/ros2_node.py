"""A ROS 2 node that servoes one robot by a policy server. Not yet run with ROS.

  python -m experiments.serve --policy=policy.hep --socket=/tmp/policy.sock
  python -m hand_eye.deploy.ros2_node ros2.yaml

All but the passing of messages is in `robot_session` and `robot_messages`, which are
tested; this file was written from rclpy's documentation (Jazzy) without ROS.
docs/ros2.md describes topics, frames and services.
"""

import json
import sys
from pathlib import Path

import numpy as np
import rclpy
import yaml
from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from hand_eye.deploy import robot_messages as messages
from hand_eye.deploy.client import Client
from hand_eye.deploy.robot_config import RosConfig, read_ros_config
from hand_eye.deploy.robot_session import RobotSession, State
from hand_eye.deploy.wire import WireError


class ServoNode(Node):
  """Carries messages between a robot and a `RobotSession`."""

  def __init__(self, config: RosConfig, client: Client):
    super().__init__("hand_eye")
    self._config, self._size = config, int(client.info()["frame_size"])
    self._session = RobotSession(client, config.session, clock=self._now)
    topics = config.topics
    self._target = self.create_publisher(PoseStamped, topics["target"], 1)
    self._gripper = self.create_publisher(Bool, topics["close"], 1)
    self._heartbeat = self.create_publisher(String, topics["heartbeat"], 1)
    # A group each, so that a decision that waits holds nothing up.
    receive, decide, control, serve = (
      MutuallyExclusiveCallbackGroup() for _ in range(4)
    )
    self.create_subscription(
      Image, topics["image"], self._on_image, qos_profile_sensor_data,
      callback_group=receive,
    )  # fmt: skip
    self.create_subscription(
      PoseStamped, topics["pose"], self._on_pose, qos_profile_sensor_data,
      callback_group=receive,
    )  # fmt: skip
    period = 1 / config.decisions_per_second
    self.create_timer(period, self._session.decide, callback_group=decide)
    self.create_timer(1 / config.session.rate, self._tick, callback_group=control)
    self.create_timer(0.1, self._beat, callback_group=control)
    for act in (self._session.look, self._session.start, self._session.stop):
      name, call = f"~/{act.__name__}", self._service(act)
      self.create_service(Trigger, name, call, callback_group=serve)
    self._beats, self._output = 0, self._session.tick()

  def _now(self) -> float:
    return self.get_clock().now().nanoseconds / 1e9

  def _on_image(self, message: Image) -> None:
    try:
      frame = messages.frame_of(
        message.data, message.height, message.width, message.step, message.encoding
      )
      frame = messages.square_frame(frame, self._size)
    except ValueError as error:
      self.get_logger().error(f"image: {error}", throttle_duration_sec=5.0)
      return
    self._session.image(frame, _seconds(message))

  def _on_pose(self, message: PoseStamped) -> None:
    at, turn = message.pose.position, message.pose.orientation
    try:
      if message.header.frame_id != self._config.base_frame:
        raise ValueError(
          f"its frame is {message.header.frame_id!r}, expected"
          f" {self._config.base_frame!r}"
        )
      yaw = messages.yaw_of(turn.x, turn.y, turn.z, turn.w)
    except ValueError as error:
      self.get_logger().error(f"pose: {error}", throttle_duration_sec=5.0)
      return
    self._session.pose(np.array([at.x, at.y, at.z, yaw]), _seconds(message))

  def _tick(self) -> None:
    before, self._output = self._output.state, self._session.tick()
    pose = self._output.pose
    if pose is not None:
      message = PoseStamped()
      message.header.stamp = self.get_clock().now().to_msg()
      message.header.frame_id = self._config.base_frame
      at, turn = message.pose.position, message.pose.orientation
      at.x, at.y, at.z = (float(value) for value in pose[:3])
      turn.x, turn.y, turn.z, turn.w = messages.quaternion_of(float(pose[3]))
      self._target.publish(message)
    if self._output.state == State.CLOSED and before != State.CLOSED:
      self._gripper.publish(Bool(data=True))

  def _beat(self) -> None:
    self._beats += 1
    words = {
      "beat": self._beats,
      "state": self._output.state.value,
      "cause": self._output.cause.name.lower(),
      "reason": self._output.reason,
    }
    self._heartbeat.publish(String(data=json.dumps(words)))

  def _service(self, act):
    def call(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
      response.message = act()
      response.success = not response.message
      return response

    return call


def _seconds(message: Image | PoseStamped) -> float:
  return Time.from_msg(message.header.stamp).nanoseconds / 1e9


def main() -> None:
  rclpy.init()
  try:
    config = read_ros_config(yaml.safe_load(Path(sys.argv[1]).read_text()))
    node = ServoNode(config, Client(config.server, config.session.deadline))
  except (OSError, ValueError, WireError) as error:
    sys.exit(f"hand_eye: {error}")
  executor = MultiThreadedExecutor(num_threads=4)
  executor.add_node(node)
  try:
    executor.spin()
  finally:
    rclpy.shutdown()


if __name__ == "__main__":
  main()
