"""Frames that show nothing new, decisions that do not come: the loop holds."""

import types

import numpy as np
import pytest

from hand_eye.decision import Action, Cause, Decision
from hand_eye.deploy import watchdog


def _decision():
  return Decision(np.array([0.1, 0, 0, 0, 1], np.float32), Action.MOVE, "", {})


def _seen(image, pose=(0.5, 0.0, 0.1, 3.1), **fields):
  rng = np.random.default_rng(99)
  pregrasp = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
  return types.SimpleNamespace(
    pregrasp_image=pregrasp, image=image, pose=np.array(pose), **fields
  )


def _image(seed):
  return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Clock:
  now = 5.0

  def __call__(self):
    return self.now


def test_a_decision_is_sent_while_it_is_fresh_and_held_after():
  clock = Clock()
  dog = watchdog.Watchdog(0.2, clock)
  made = _decision()
  assert dog.poll().cause == Cause.STALE and "no decision yet" in dog.poll().reason
  dog.feed(made)
  clock.now += 0.19
  assert dog.poll() is made
  clock.now += 0.02
  stale = dog.poll()
  assert stale.action == Action.HOLD and "no fresh decision for 200 ms" in stale.reason
  assert dog.poll() is stale and dog.expired == 2
  dog.feed(made)
  assert dog.poll() is made


@pytest.mark.parametrize("timeout", [0.0, -1.0, np.inf, np.nan])
def test_a_watchdog_that_never_bites_is_refused(timeout):
  with pytest.raises(ValueError, match="timeout is"):
    watchdog.Watchdog(timeout)


@pytest.mark.parametrize(("max_age", "most"), [(0.0, 3), (np.nan, 3), (1.0, 0)])
def test_checks_that_check_nothing_are_refused(max_age, most):
  with pytest.raises(ValueError, match="max_age is"):
    watchdog.FrameChecks(max_age, most)


def test_identical_images_are_borne_for_a_while_where_nothing_moves():
  checks = watchdog.FrameChecks(most_identical=3)
  still = _seen(_image(0))
  assert [checks.problem(still) is None for _ in range(5)] == [True] * 3 + [False] * 2
  assert checks.problem(_seen(_image(1))) is None


def test_a_turn_across_pi_is_a_small_one():
  checks = watchdog.FrameChecks()
  assert checks.problem(_seen(_image(0), (0.5, 0, 0.1, 3.14))) is None
  assert checks.problem(_seen(_image(0), (0.5, 0, 0.1, -3.14))) is None
  cause, words = checks.problem(_seen(_image(0), (0.5, 0, 0.1, 3.0)))
  assert cause == Cause.FROZEN_FRAME and "8 degrees" in words


def test_a_tally_counts_by_cause():
  tally = watchdog.Tally()
  tally.add(_decision())
  tally.add(_decision()._replace(on_time=False))
  tally.add(_decision()._replace(cause=Cause.OLD_FRAME))
  assert tally.counts() == {"decisions": 3, "late": 1, "old_frame": 1}
