"""Set-points between decisions: bounded whatever they are, and a smooth stop."""

import builtins
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_eye.decision import Action, Cause, Decision, hold
from hand_eye.deploy import interpolator
from hand_eye.deploy.interpolator import Interpolator, MotionLimits
from hand_eye.observations import Seen

pytest.importorskip("ruckig")

LIMITS = MotionLimits()
LOW = np.array([0.4, -0.2, 0.02, -3.1])
HIGH = np.array([0.7, 0.2, 0.3, 3.1])
START = np.array([0.55, 0.0, 0.1, 0.0])
IMAGE = np.zeros((4, 4, 3), np.uint8)


class Clock:
  """Moves when it is moved."""

  now = 3.0

  def __call__(self):
    return self.now


def _seen(pose=START):
  return Seen(IMAGE, IMAGE, np.asarray(pose, np.float32), 1, 4, LOW[2])


def _move(dx=0.0, dy=0.0, dz=0.0, turn=0.0, action=Action.MOVE):
  command = np.array([dx, dy, dz, math.sin(turn), math.cos(turn)], np.float32)
  return Decision(command, action, "", {})


def _close():
  return _move(action=Action.CLOSE)


def _make(rate=100.0, **options):
  clock = Clock()
  return Interpolator(START, LIMITS, rate=rate, clock=clock, **options), clock


def _run(motion, clock, seconds, rate=100.0):
  """The set-points of some seconds in which no decision comes."""
  made = []
  for _ in range(round(seconds * rate)):
    clock.now += 1 / rate
    made.append(motion.step())
  return made


def _check(points, rate, limits=LIMITS):
  """Speed, acceleration and jerk of a stream of set-points, that starts at rest."""
  pose, speed, acceleration = (
    np.array([getattr(point, name) for point in points])
    for name in ("pose", "velocity", "acceleration")
  )
  jerk = np.diff(acceleration, axis=0, prepend=np.zeros((1, 4))) * rate
  for values, name in (
    (speed, "speed"),
    (acceleration, "acceleration"),
    (jerk, "jerk"),
  ):
    most = getattr(limits, name), getattr(limits, f"yaw_{name}")
    assert np.linalg.norm(values[:, :3], axis=-1).max() <= most[0] * (1 + 1e-6)
    assert np.abs(values[:, 3]).max() <= most[1] * (1 + 1e-6)
  # The velocities are those of the poses: no jumps.
  moved = np.diff(pose, axis=0) * rate
  mean = (speed[1:] + speed[:-1]) / 2
  np.testing.assert_allclose(moved, mean, atol=limits.yaw_jerk / rate**2)


_ACTIONS = [Action.MOVE, Action.MOVE, Action.MOVE, Action.RAISE, Action.HOLD]


@st.composite
def _streams(draw):
  """(seconds until the next decision, action, share of the workspace to go to)."""
  pause = st.floats(0.0, 1.2)
  share = st.tuples(*[st.floats(0, 1) for _ in range(4)])
  one = st.tuples(pause, st.sampled_from([*_ACTIONS, Action.CLOSE]), share)
  return draw(st.lists(one, min_size=1, max_size=12))


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_set_points_are_bounded_whatever_the_decisions_are(count):
  @settings(max_examples=count, deadline=None, database=None)
  @given(
    stream=_streams(),
    rate=st.sampled_from([50.0, 100.0, 250.0, 500.0]),
    late=st.floats(0.0, 0.3),
  )
  def check(stream, rate, late):
    motion, clock = _make(rate)
    points, targets = [motion.step()], [START]
    for pause, action, share in stream:
      # The observation is older than the decision: the robot has moved on since.
      then = points[max(0, len(points) - 1 - round(late * rate))].pose
      target = LOW + np.array(share) * (HIGH - LOW)
      if action == Action.CLOSE:
        target = np.array([*then[:2], LOW[2], then[3]])
      turn = float(np.clip(target[3] - then[3], -math.pi, math.pi))
      target[3] = then[3] + turn
      made = _move(*(target - then)[:3], turn, action=action)
      if action == Action.HOLD:
        made = hold("no", Cause.NO_ANSWER)
      seen = _seen([*then[:3], math.remainder(then[3], 2 * math.pi)])
      motion.follow(made, seen)
      targets.append(target)
      points += _run(motion, clock, pause, rate)
    points += _run(motion, clock, 1.5, rate)
    _check(points, rate)
    # Nowhere beyond the targets, though they change on the way, and at rest in the end.
    where = np.array([point.pose for point in points])
    assert np.all(where >= np.min(targets, axis=0) - 1e-5)
    assert np.all(where <= np.max(targets, axis=0) + 1e-5)
    if stream[-1][1] != Action.CLOSE:
      assert points[-1].stopping and np.all(np.abs(points[-1].velocity) < 1e-9)

  check()


def test_a_motion_is_straight_and_ends_where_it_was_decided():
  motion, clock = _make(timeout=5.0)
  motion.follow(_move(0.1, -0.05, -0.08, 1.0), _seen())
  points = _run(motion, clock, 2.0)
  _check(points, 100.0)
  np.testing.assert_allclose(
    points[-1].pose, START + [0.1, -0.05, -0.08, 1.0], atol=1e-6
  )
  assert not points[-1].close and not points[-1].stopping
  off = np.array([point.pose[:3] - START[:3] for point in points])
  across = np.cross(off, [0.1, -0.05, -0.08])
  assert np.abs(across).max() < 1e-6


def test_it_stops_smoothly_when_decisions_stop():
  motion, clock = _make(timeout=0.3)
  motion.follow(_move(0.15, 0.1, 0.0, 3.0), _seen())
  points = _run(motion, clock, 2.0)
  _check(points, 100.0)
  speeds = [float(np.linalg.norm(point.velocity[:3])) for point in points]
  assert max(speeds) > 0.05
  assert not points[28].stopping and points[31].stopping
  at_rest = next(i for i in range(31, 200) if speeds[i] < 1e-9)
  assert at_rest < 31 + 50
  assert np.linalg.norm(points[-1].pose[:2] - START[:2]) < 0.15
  # The next decision goes on from there.
  motion.follow(_move(0.02), _seen(points[-1].pose))
  more = _run(motion, clock, 0.3)
  assert more[-1].pose[0] > points[-1].pose[0] + 0.01


def test_a_hold_stops_at_once():
  motion, clock = _make()
  motion.follow(_move(0.15), _seen())
  before = _run(motion, clock, 0.3)
  motion.follow(hold("no answer", Cause.NO_ANSWER), _seen())
  after = _run(motion, clock, 0.6)
  _check(before + after, 100.0)
  assert after[0].stopping and np.all(np.abs(after[-1].velocity) < 1e-9)
  assert after[-1].pose[0] < START[0] + 0.15


def test_close_goes_straight_down_and_says_when_it_is_there():
  """Even if no decision follows: CLOSE ends an attempt."""
  motion, clock = _make(timeout=0.2)
  motion.follow(_close(), _seen())
  points = _run(motion, clock, 1.5)
  _check(points, 100.0)
  closes = [point.close for point in points]
  first = closes.index(True)
  assert all(closes[first:]) and first > 20
  np.testing.assert_allclose(points[first].pose, [*START[:2], LOW[2], 0.0], atol=1e-3)
  motion.follow(_move(0.0, 0.0, 0.1), _seen(points[-1].pose))
  assert not motion.step().close


def test_a_hold_after_close_stops_the_descent():
  motion, clock = _make()
  motion.follow(_close(), _seen())
  _run(motion, clock, 0.2)
  motion.follow(hold("no", Cause.NO_ANSWER), _seen())
  points = _run(motion, clock, 1.0)
  assert points[-1].pose[2] > LOW[2] + 0.01 and not points[-1].close


@pytest.mark.parametrize("turn", [0.5, -0.5])
def test_turns_keep_their_direction_across_pi(turn):
  start = np.array([0.5, 0.0, 0.1, math.copysign(3.0, turn)])
  clock = Clock()
  motion = Interpolator(start, LIMITS, clock=clock, timeout=5.0)
  motion.follow(_move(turn=turn), _seen(start))
  end = _run(motion, clock, 2.0)[-1].pose[3]
  assert end == pytest.approx(start[3] + turn, abs=1e-5)  # not wrapped: no jump
  # The robot measures a wrapped yaw.
  wrapped = math.remainder(end, 2 * math.pi)
  motion.follow(_move(turn=turn), _seen([*start[:3], wrapped]))
  assert _run(motion, clock, 2.0)[-1].pose[3] == pytest.approx(end + turn, abs=1e-4)


def test_a_target_that_is_not_finite_is_refused_and_stops():
  motion, clock = _make()
  motion.follow(_move(0.1), _seen())
  _run(motion, clock, 0.2)
  with pytest.raises(ValueError, match="the target is .*nan"):
    motion.follow(_move(math.nan), _seen())
  points = _run(motion, clock, 1.0)
  assert points[0].stopping and np.all(np.abs(points[-1].velocity) < 1e-9)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"pose": [0.5, 0.0, 0.1]}, "pose is .* expected 4"),
    ({"pose": [0.5, 0.0, math.nan, 0.0]}, "pose is"),
    ({"rate": 5.0}, "rate is 5.0, expected 10 to 1000"),
    ({"timeout": 0.0}, "timeout is 0.0"),
  ],
)
def test_arguments_that_make_no_sense_are_refused(fields, message):
  pose = fields.pop("pose", START)
  with pytest.raises(ValueError, match=message):
    Interpolator(pose, **fields)
  with pytest.raises(ValueError, match="speed is -1"):
    MotionLimits(speed=-1)


def test_without_ruckig_it_says_what_to_install(monkeypatch):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name == "ruckig":
      raise ImportError(name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without)
  with pytest.raises(interpolator.InterpolatorError, match="pip install ruckig"):
    Interpolator(START)
