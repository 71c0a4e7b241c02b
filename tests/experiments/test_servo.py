"""Continuous servoing in a cell that does not wait, and its closing report."""

import json
import types

import av
import numpy as np
import pytest

from envs import grasp_env, units
from envs.rollout import Pushing
from experiments import cli, servo
from experiments.control import real_time
from experiments.pictures import servo_video
from experiments.pictures import window as window_lib
from hand_eye.decision import Action, Cause, Decision, hold

UNIT = units.sample_unit(0, "held_out")
SIZE = 48


class Scripted:
  """Sends the gripper to a fixed place, closes there; an answer takes `seconds`."""

  def __init__(self, target=(0.55, 0.05), seconds=0.03):
    self.target, self.seconds = np.array(target), seconds
    self.seen = []

  def __call__(self, observation, key, deadline=None):
    self.seen.append((observation, deadline))
    miss = self.target - observation.pose[:2]
    down = observation.table_height - observation.pose[2]
    command = np.array([*miss, down, 0, 1], np.float32)
    last = observation.step == observation.num_steps
    close = last or np.linalg.norm(miss) < 0.02
    evidence = {
      "candidates": np.tile(command, (4, 1)), "best": command, "action": "move",
      "probabilities": np.linspace(0, 1, 4), "p_null": 0.3, "p_best": 0.5,
    }  # fmt: skip
    return Decision(
      command,
      Action.CLOSE if close else Action.MOVE,
      "scripted",
      evidence,
      confidence=0.5,
      iterations=3,
      seconds=self.seconds,
      on_time=self.seconds <= deadline,
    )


class Recorder:
  """Keeps where the gripper and the objects were, every control period."""

  largest_image = 0

  def __init__(self):
    self.poses, self.times, self.things, self.decided_at = [], [], [], []

  def begin(self, env):
    pass

  def decided(self, env, observation, decision):
    self.decided_at.append(env.data.time)

  def frame(self, env):
    self.poses.append(env.pose())
    self.times.append(env.data.time)
    self.things.append(env.object_positions().copy())

  def end(self, env, outcome):
    self.outcome = outcome


def _task(**fields):
  fields = {"num_objects": 3, "objects": "box", "num_attempts": 1, **fields}
  return servo.ServoTask(unit=UNIT, **fields)


@pytest.fixture(scope="module")
def attempt():
  """One attempt at 5 Hz: (policy, recorder, report, lines)."""
  policy, recorder, lines = Scripted(), Recorder(), []
  report = servo.run(_task(rate=5.0), policy, SIZE, recorder, lines.append)
  return policy, recorder, report, lines


def test_it_closes_at_the_target_at_the_rate_that_was_asked_for(attempt):
  policy, recorder, report, lines = attempt
  assert report["attempts"] == 1 and report["missed_deadlines"] == 0
  assert report["skipped_ticks"] == 0 and report["held"] == {}
  assert 1 < report["decisions"] < 10
  seen = [observation for observation, _ in policy.seen]
  assert [o.step for o in seen] == list(range(1, len(seen) + 1))
  np.testing.assert_allclose(seen[-1].pose[:2], policy.target, atol=0.02)
  # The arm moves on between decisions, and each comes a period after the one before.
  np.testing.assert_allclose(np.diff(recorder.decided_at), 0.2, atol=0.021)
  assert policy.seen[0][1] == pytest.approx(0.16)  # four fifths of the period
  assert lines[0].startswith("attempt 1: ") and "move (0.50, 30 ms)" in lines[0]
  assert seen[0].image.shape == (SIZE, SIZE, 3)


def test_the_gripper_is_at_the_table_when_it_closes(attempt):
  lowest = min(pose[2] for pose in attempt[1].poses)
  assert abs(lowest - UNIT.table_height) < 0.02


def test_the_cell_lives_on_while_the_policy_thinks():
  """Answers that take longer than the period: ticks are skipped, the dog stops it."""
  slow = Scripted(seconds=0.5)
  recorder = Recorder()
  report = servo.run(_task(rate=5.0, num_steps=4), slow, SIZE, recorder, lambda _: None)
  assert report["missed_deadlines"] == report["decisions"]
  assert report["skipped_ticks"] >= report["decisions"] - 1
  assert report["watchdog_stops"] >= 1
  assert report["latency_ms"]["worst"] == pytest.approx(500)
  # Half a second passes in the cell between seeing and doing.
  np.testing.assert_allclose(np.diff(recorder.decided_at), 0.6, atol=0.05)


def test_a_policy_that_holds_moves_nothing():
  def never(observation, key, deadline=None):
    return hold("no", Cause.OLD_FRAME)

  recorder = Recorder()
  report = servo.run(_task(num_steps=5), never, SIZE, recorder, lambda _: None)
  assert report["held"] == {"old_frame": 5}
  at = np.array(recorder.times)
  begin, end = (np.argmin(np.abs(at - recorder.decided_at[i])) for i in (0, -1))
  moved = np.ptp(np.array(recorder.poses[begin : end + 1])[:, :3], axis=0)
  assert end > begin + 10 and np.all(moved < 0.003)


def test_objects_are_pushed_during_the_attempt():
  still, pushed = Recorder(), Recorder()
  servo.run(_task(num_steps=4), Scripted((0.4, 0.1)), SIZE, still, lambda _: None)
  servo.run(
    _task(num_steps=4, pushing=Pushing(2, 0.8)),
    Scripted((0.4, 0.1)),
    SIZE,
    pushed,
    lambda _: None,
  )

  def travelled(recorder):
    at = np.array(recorder.times)
    first, last = (np.argmin(np.abs(at - recorder.decided_at[i])) for i in (0, -1))
    change = recorder.things[last] - recorder.things[first]
    return np.linalg.norm(change[:, :2], axis=1).max()

  assert travelled(pushed) > travelled(still) + 0.01


def test_the_report_in_numbers_and_words():
  made = [
    Decision(np.zeros(5), Action.MOVE, "", {}, seconds=0.001 * i, on_time=i <= 90)
    for i in range(1, 100)
  ]
  made.append(hold("x", Cause.NO_TIME)._replace(seconds=0.1, on_time=False))
  made[0] = made[0]._replace(complete=False)
  outcome = grasp_env.Outcome(0.02, False, True, True, "box", (0,))
  attempt = real_time.Servoed(tuple(made), outcome, skipped=2, stopped=1, seconds=3.0)
  report = servo.summarize(_task(rate=10), 0.0905, [attempt, attempt])
  assert report["latency_ms"]["p50"] == pytest.approx(50.5)
  assert report["latency_ms"]["worst"] == pytest.approx(100)
  assert report["missed_deadlines"] == 20 and report["fewer_iterations"] == 2
  assert report["held"] == {"no_time": 2} and report["successes"] == 2
  words = servo.in_words(report)
  assert "2 of 2 attempts succeeded. 200 decisions at 10 Hz" in words
  assert "p50 50.5 ms" in words and "20 missed the deadline of 90 ms" in words
  assert "Held: no_time 2." in words
  json.loads(cli.to_json(report))


def test_the_video_shows_candidates_and_latency(tmp_path):
  with servo_video.ServoVideo(tmp_path / "servo.mp4", 96) as video:
    servo.run(_task(num_steps=4), Scripted(), SIZE, video, lambda _: None)
  with av.open(str(tmp_path / "servo.mp4")) as file:
    frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
  assert len(frames) > 40 and frames[0].shape[1] == 96

  assert max(map(_green, frames[13:])) > _green(frames[0]) + 3  # the best candidate


def _green(image):
  """Pixels of the colour that the likeliest candidates are drawn in."""
  r, g, b = np.moveaxis(image.astype(int), -1, 0)
  return np.sum((g > 150) & (r < 90) & (b < 110))


class Viewer:
  """In place of MuJoCo's, which needs a display."""

  def __init__(self):
    self.images, self.texts = [], []
    self.cam = types.SimpleNamespace()

  def is_running(self):
    return True

  def sync(self):
    pass

  def set_images(self, image):
    self.images.append(image)

  def set_texts(self, text):
    self.texts.append(text)

  def close(self):
    pass


def test_the_window_shows_candidates_and_latency(monkeypatch):
  viewer = Viewer()
  monkeypatch.setattr(window_lib, "_launch", lambda model, data: (viewer, []))
  window = servo_video.ServoWindow()
  window._pace = window_lib.Pace(sleep=lambda seconds: None)
  report = servo.run(_task(num_steps=2), Scripted(), SIZE, window, lambda _: None)
  window.close()
  assert len(viewer.images) == len(viewer.texts) == report["decisions"] == 2
  viewport, image = viewer.images[0]
  assert image.shape == (viewport.height, viewport.width, 3) and _green(image) > 3
  text = viewer.texts[0][2]
  assert text == "1/2 MOVE 0.50, here 0.30 | 30 ms, 3 iterations"


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"rate": 0.0}, "--rate=0.0"),
    ({"num_steps": 0}, "--num_steps=0"),
    ({"objects": "teapots"}, "'teapots' is not known"),
    ({"pushing": Pushing(1, -1.0)}, "--push=-1.0"),
    ({"deadline": float("nan")}, "--deadline_ms=nan"),
  ],
)
def test_tasks_that_make_no_sense_are_refused(fields, words):
  with pytest.raises(cli.UserError, match=words):
    _task(**fields)
