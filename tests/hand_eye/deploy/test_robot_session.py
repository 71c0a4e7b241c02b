"""A robot's attempts behind any carrier of messages; what falls silent stops it."""

import threading
from pathlib import Path

import numpy as np
import pytest
import yaml

import hand_eye.deploy
from hand_eye.decision import Action, Cause, Decision, hold
from hand_eye.deploy import robot_config, robot_messages
from hand_eye.deploy.robot_session import RobotSession, State

pytest.importorskip("ruckig")

SETTINGS = yaml.safe_load(
  (Path(hand_eye.deploy.__file__).parent / "ros2.yaml").read_text()
)
CONFIG = robot_config.read_session_config({"table_height": 0.01, "num_steps": 4})
START = np.array([0.5, 0.0, 0.1, 0.2])
FRAME = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Robot:
  """Follows its set-points exactly, and says where it is; `silent` parts do not."""

  def __init__(self, ask, config=CONFIG):
    self.now, self.where, self.silent, self.lost = 50.0, START.copy(), set(), 0.0
    self.session = RobotSession(ask, config, clock=lambda: self.now, seed=0)
    self.outputs = []

  def speak(self):
    if "image" not in self.silent:
      self.session.image(FRAME, self.now)
    if "pose" not in self.silent:
      self.session.pose(self.where + [self.lost, 0, 0, 0], self.now)

  def run(self, seconds, decide=True):
    """Lives on; a decision every third of a second, unless told otherwise."""
    for tick in range(round(seconds * CONFIG.rate)):
      self.now += 1 / CONFIG.rate
      self.speak()
      if decide and tick % 33 == 0:
        self.session.decide()
      output = self.session.tick()
      if output.pose is not None:
        self.where = output.pose
      self.outputs.append(output)
    return self.outputs[-1]

  def begin(self):
    self.speak()
    assert self.session.look() == "" and self.session.start() == ""


def _answers(*actions):
  """Asks that answer in turn, then HOLD; and what was asked."""
  asked, left = [], list(actions)

  def ask(seen, key, deadline):
    asked.append((seen, key, deadline))
    action = left.pop(0) if left else Action.HOLD
    if action == Action.HOLD:
      return hold("no", Cause.NO_ANSWER)
    command = np.array([0.03, 0.0, -0.02, 0.0, 1.0], np.float32)
    return Decision(command, action, "", {})

  return ask, asked


def test_an_attempt_from_look_to_close():
  ask, asked = _answers(Action.MOVE, Action.RAISE, Action.MOVE, Action.CLOSE)
  robot = Robot(ask)
  robot.begin()
  last = robot.run(3.0)
  assert last.state == State.CLOSED and last.close
  np.testing.assert_allclose(last.pose[2], 0.01, atol=1e-3)
  assert last.pose[0] > START[0] + 0.05
  assert [seen.step for seen, _, _ in asked] == [1, 2, 3, 4]
  assert all(seen.num_steps == 4 and seen.table_height == 0.01 for seen, _, _ in asked)
  keys = {tuple(key) for _, key, _ in asked}
  assert len(keys) == 4 and asked[0][2] == pytest.approx(0.24)
  closed = [output.close for output in robot.outputs]
  assert closed == sorted(closed)  # once closed it stays closed
  # The next attempt: the gripper leaves the view, looks, and starts.
  robot.begin()
  assert robot.run(0.1).state == State.SERVOING


def test_a_hold_is_no_step():
  ask, asked = _answers(Action.HOLD, Action.MOVE, Action.HOLD, Action.MOVE)
  robot = Robot(ask)
  robot.begin()
  robot.run(1.3)
  assert [seen.step for seen, _, _ in asked] == [1, 1, 2, 2]


def test_an_attempt_needs_a_pregrasp_image_and_fresh_messages():
  robot = Robot(_answers()[0])
  assert "no image for 500 ms" in robot.session.look()
  assert "no pregrasp image" in robot.session.start()
  robot.speak()
  assert robot.session.look() == ""
  robot.now += 0.6
  assert "no image for 500 ms" in robot.session.start()
  robot.silent = {"pose"}
  robot.speak()
  assert "no pose for 500 ms" in robot.session.start()
  robot.silent = set()
  robot.begin()
  assert "under way" in robot.session.start() and "under way" in robot.session.look()


def test_stamps_of_another_clock_are_not_fresh():
  robot = Robot(_answers()[0])
  robot.session.image(FRAME, robot.now + 3600)
  assert "no image" in robot.session.look()


@pytest.mark.parametrize(
  ("silent", "decides", "words"),
  [
    ("image", True, "no image for 500 ms"),
    ("pose", True, "no pose for 500 ms"),
    ("server", False, ""),
  ],
)
def test_whatever_falls_silent_the_robot_stops(silent, decides, words):
  ask, _ = _answers(*[Action.MOVE] * 50)
  robot = Robot(ask)
  robot.begin()
  before = robot.run(0.6)
  robot.silent = {silent}
  robot.run(2.0, decide=decides)
  last = robot.outputs[-1]
  assert words in last.reason
  where = [output.pose for output in robot.outputs[-50:] if output.pose is not None]
  assert not where or np.ptp(where, axis=0).max() < 1e-9
  assert robot.where[0] > before.pose[0]  # it braked, it did not jump
  if silent == "pose":
    assert last.state == State.IDLE and last.pose is None
  else:
    assert last.state == State.SERVOING  # and goes on when it speaks again
    robot.silent = set()
    robot.run(0.5)
    assert robot.where[0] > where[-1][0]


def test_a_robot_that_does_not_follow_is_stopped():
  robot = Robot(_answers(*[Action.MOVE] * 9)[0])
  robot.begin()
  robot.run(0.5)
  robot.lost = 0.2
  last = robot.run(1.0)
  assert last.state == State.IDLE and last.pose is None
  assert "from its set-point" in last.reason


def test_stopping_brakes_and_then_sends_nothing():
  robot = Robot(_answers(*[Action.MOVE] * 9)[0])
  robot.begin()
  before = robot.run(0.5)
  assert robot.session.stop() == ""
  after = robot.run(1.0)
  assert after.state == State.IDLE and after.pose is None and not after.close
  assert before.pose[0] < robot.where[0] < before.pose[0] + 0.05


def test_the_control_loop_goes_on_while_a_decision_waits():
  entered, leave = threading.Event(), threading.Event()

  def ask(seen, key, deadline):
    entered.set()
    assert leave.wait(5)
    return hold("late", Cause.NO_ANSWER)

  robot = Robot(ask)
  robot.begin()
  thread = threading.Thread(target=robot.session.decide)
  thread.start()
  assert entered.wait(5)
  robot.run(0.3, decide=False)
  assert robot.session.stop() == ""
  leave.set()
  thread.join()
  assert robot.session.tick().reason == "stopped"  # not the late answer


def test_frames_become_square_by_averages():
  rng = np.random.default_rng(1)
  frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
  small = robot_messages.square_frame(frame, 16)
  blocks = frame[:, 8:56].reshape(16, 3, 16, 3, 3).astype(float).mean(axis=(1, 3))
  np.testing.assert_allclose(small, blocks, atol=0.51)
  uneven = robot_messages.square_frame(frame, 20)
  assert abs(uneven.mean() - frame[:, 8:56].mean()) < 0.1
  np.testing.assert_array_equal(robot_messages.square_frame(frame, 48), frame[:, 8:56])
  assert np.all(
    robot_messages.square_frame(np.full((50, 50, 3), 255, np.uint8), 7) == 255
  )
  with pytest.raises(ValueError, match="48 pixels a side, expected at least 72"):
    robot_messages.square_frame(frame, 72)
  with pytest.raises(ValueError, match=r"uint8\[48, 64\]"):
    robot_messages.square_frame(frame[..., 0], 8)


def test_images_of_ros_become_frames():
  frame = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
  padded = np.zeros((4, 20), np.uint8)
  padded[:, :18] = frame.reshape(4, 18)
  made = robot_messages.frame_of(padded.tobytes(), 4, 6, 20, "rgb8")
  np.testing.assert_array_equal(made, frame)
  blue = robot_messages.frame_of(frame[..., ::-1].tobytes(), 4, 6, 18, "bgr8")
  np.testing.assert_array_equal(blue, frame)
  alpha = np.concatenate([frame[..., ::-1], np.ones((4, 6, 1), np.uint8)], axis=-1)
  made = robot_messages.frame_of(alpha.tobytes(), 4, 6, 24, "bgra8")
  np.testing.assert_array_equal(made, frame)
  with pytest.raises(ValueError, match="the encoding is 'mono8', expected one of rgb8"):
    robot_messages.frame_of(b"", 4, 6, 6, "mono8")
  with pytest.raises(ValueError, match="expected 4 rows of at least 18"):
    robot_messages.frame_of(b"12", 4, 6, 18, "rgb8")


def test_yaws_and_quaternions_of_a_gripper_that_points_down():
  for yaw in np.linspace(-3.1, 3.1, 9):
    quaternion = robot_messages.quaternion_of(yaw)
    assert robot_messages.yaw_of(*quaternion) == pytest.approx(yaw)
    opposite = (-value for value in quaternion)  # the same orientation
    assert robot_messages.yaw_of(*opposite) == pytest.approx(yaw)
  # A turn about the base's z axis, after pointing down, is the yaw.
  half = np.pi / 4
  assert robot_messages.yaw_of(np.cos(half), np.sin(half), 0, 0) == pytest.approx(
    np.pi / 2
  )
  with pytest.raises(ValueError, match="180 degrees from pointing down"):
    robot_messages.yaw_of(0, 0, 0, 1)
  with pytest.raises(ValueError, match="no unit quaternion"):
    robot_messages.yaw_of(0, 0, 0, 0)


def test_the_file_that_ships_is_a_configuration():
  config = robot_config.read_ros_config(SETTINGS)
  assert config.server == "/tmp/policy.sock" and config.session.rate == 100
  assert set(config.topics) == set(robot_config.TOPICS)
  at_port = robot_config.read_ros_config(SETTINGS | {"server": "127.0.0.1:7400"})
  assert at_port.server == ("127.0.0.1", 7400)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"servr": 1}, "the file has unknown servr, expected server, decisions"),
    ({"topics": {}}, "topics has no image, pose"),
    ({"topics": None}, "topics is None, expected settings by name"),
    ({"server": 5}, "server is 5, expected a name"),
    ({"decisions_per_second": "often"}, "decisions_per_second is 'often'"),
    ({"session": {}}, "session has no table_height"),
    ({"session": {"table_height": "low"}}, "table_height is 'low', expected a number"),
    ({"session": {"table_height": 0.0, "rate": 0}}, "rate is 0, expected a finite"),
    ({"session": {"table_height": 0.0, "num_steps": 1.5}}, "num_steps is 1.5"),
    (
      {"session": {"table_height": 0.0, "limits": {"spd": 1}}},
      "limits has unknown spd",
    ),
  ],
)
def test_settings_that_make_no_sense_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    robot_config.read_ros_config(SETTINGS | fields)
