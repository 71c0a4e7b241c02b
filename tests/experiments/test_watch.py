"""A policy to look at: videos, lines, and the pace of a window."""

import dataclasses
import re
import sys
from pathlib import Path

import av
import jax
import numpy as np
import pytest

import hand_eye
from envs import objects, rollout, units
from envs.attempt import Attempt
from experiments import cli, evaluate, watch
from experiments.configs import demo as demo_config
from experiments.evaluation import policies as policies_lib
from experiments.pictures import window
from hand_eye import architectures, checkpoint, optimizers, training
from hand_eye import network as network_lib


@pytest.fixture
def config():
  config = demo_config.get_config()
  config.evaluate.num_steps = 3
  config.evaluate.with_replacement.num_objects = 4
  return config


def choose(config, name, checkpoint=""):
  return policies_lib.choose(name, config, policies_lib.Networks(servo=str(checkpoint)))


class Counts:
  """Counts control periods between an attempt's begin and end."""

  largest_image = 0

  def __init__(self):
    self.periods = 0
    self._active = False

  def begin(self, env):
    self._active = True

  def decided(self, env, observation, decision):
    pass

  def frame(self, env):
    self.periods += self._active

  def end(self, env, attempt):
    self._active = False


def test_a_video_shows_every_attempt_and_changes_none(config, tmp_path):
  scene = watch.plan_scene(config, unit=2, num_attempts=2, seed=5)
  lines = []
  policy = policies_lib.RANDOM
  path = watch.film(scene, policy, tmp_path / "new", 96, lines.append)
  assert path == tmp_path / "new" / "watch-random-held_out-02-scene-5.mp4"
  assert [p.name for p in path.parent.iterdir()] == [path.name]

  counts = Counts()
  result = rollout.run_scene(scene, policies_lib.make_policy(policy), counts)
  assert result.diverged == 0
  told = [watch.describe(n, a) for n, a in enumerate(result.attempts, start=1)]
  assert lines == told
  with av.open(str(path)) as video:
    frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
  # Half a second of I0, every second control period, a second of the outcome.
  assert len(frames) == 2 * (12 + 24) + counts.periods // 2
  assert frames[0].shape[1] == 96
  shown = frames[0][:96].astype(float)
  small = result.attempts[0].pregrasp_image
  rows = np.arange(96) * small.shape[0] // 96
  assert np.corrcoef(shown.ravel(), small[rows][:, rows].ravel())[0, 1] > 0.9


@pytest.mark.slow  # compiles the servo
def test_the_servo_is_told_with_its_decisions(config, tmp_path):
  small = {"channels": 4, "image_convs": 1}
  config.network.update(small)
  network = network_lib.preset(config.network.preset, **small)
  state = training.init_state(
    architectures.build(network),
    optimizers.make_optimizer(optimizers.OptimizerConfig()),
    jax.random.key(0),
  )
  with checkpoint.Checkpointer(tmp_path / "checkpoints", network) as checkpointer:
    checkpointer.save(state, score=0.5)
  policy = choose(config, "servo", tmp_path / "checkpoints")
  lines = []
  scene = watch.plan_scene(config, num_attempts=1)
  path = watch.film(scene, policy, tmp_path, 96, lines.append)
  assert path.name == "watch-servo-held_out-00-scene-0.mp4"
  decision = r"(move|raise|close) \(0\.\d\d here, 0\.\d\d best\)"
  assert re.search(rf"closed at step \d after: {decision}(, {decision})*$", lines[0])


def test_a_scene_is_as_the_flags_and_the_config_say(config):
  scene = watch.plan_scene(config)
  assert scene.unit == units.sample_unit(0, "held_out")
  wanted = config.evaluate.objects
  assert (scene.objects, scene.num_objects, scene.num_steps) == (wanted, 4, (3,))
  other = watch.plan_scene(
    config, unit=1, unit_family="training", selection="box", num_steps=7, seed=9,
    arm="menagerie:kuka_iiwa_14",
  )  # fmt: skip
  assert other.unit == dataclasses.replace(
    units.sample_unit(1, "training"), arm="menagerie:kuka_iiwa_14"
  )
  assert (other.objects, other.num_steps, other.scene_seed) == ("box", (7,), 9)


def test_a_scene_of_an_evaluation_is_planned_again_from_its_row(config):
  config.evaluate.objects = "box,hammer"
  config.evaluate.with_replacement.update({"repetitions": 3, "num_attempts": 9})
  settings = evaluate.build_config(config.evaluate)
  for scene in evaluate.plan_scenes(settings, "with_replacement", 72):
    again = watch.plan_scene(
      config,
      unit=int(scene.unit.name.removeprefix("held_out-")),  # as rows.jsonl names it
      num_attempts=scene.num_attempts,
      seed=scene.scene_seed,
    )
    assert again == scene


def test_an_attempt_in_a_line():
  attempt = Attempt(
    pregrasp_image=np.zeros((8, 8, 3), np.uint8),
    images=np.zeros((3, 8, 8, 3), np.uint8),
    poses=np.zeros((3, 4), np.float32),
    commands=np.zeros((3, 5), np.float32),
    success=True,
    gripper_reading=0.0234,
    drop_test=False,
    simulator_truth=True,
    grasped="hammer-000001",
    unit="held_out-00",
    table_height=0.0,
    scene_seed=0,
    attempt_seed=0,
    objects=("hammer-000001",),
    evidence=({"action": "raise", "p_null": 0.1, "p_best": 0.62}, {"action": "close"}),
  )
  assert watch.describe(3, attempt) == (
    "attempt 3: success; hammer-000001 hung in the gripper, fingers 2.3 cm apart,"
    " drop test saw none; closed at step 3 after: raise (0.10 here, 0.62 best), close"
  )


def test_a_lost_attempt_is_told():
  lines = []
  teller = watch.Teller(lines.append)
  teller.begin(None)
  teller.begin(None)
  assert lines == ["attempt 1: lost; the physics became unstable"]


@pytest.mark.parametrize(
  "name",
  [n for n in policies_lib.POLICIES if n not in ("servo", "open_loop", "exported")],
)
def test_every_policy_without_a_network_can_be_watched(config, name):
  policy = policies_lib.make_policy(choose(config, name))
  scene = watch.plan_scene(config, num_attempts=1, num_steps=2)
  (attempt,) = rollout.run_scene(scene, policy).attempts
  assert watch.describe(1, attempt).startswith("attempt 1: ")


def test_the_shipped_policy_can_be_watched(config):
  """Two robots have it side by side, each with frames of its own."""
  file = Path(hand_eye.__file__).parent / "pretrained" / "small.hep"
  networks = policies_lib.Networks(exported=str(file))
  spec = policies_lib.choose("exported", config, networks)
  policies = [policies_lib.make_policy(spec) for _ in range(2)]
  assert policies[0] is not policies[1]
  scene = watch.plan_scene(config, num_attempts=1, num_steps=2)
  for result in rollout.run_scenes([scene, scene], policies):
    (evidence,) = result.attempts[0].evidence
    assert 0 < evidence["p_null"] < 1 and evidence["action"] != "hold"
  config.network.preset = "levine2016"
  with pytest.raises(cli.UserError, match="frames of 72 pixels.*512"):
    policies_lib.choose("exported", config, networks)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda c, p: choose(c, "servo"), "--checkpoint is needed: .*train"),
    (
      lambda c, p: choose(c, "servo", p / "none"),
      "--checkpoint=.*none does not exist; .*experiments.train",
    ),
    (lambda c, p: choose(c, "guess"), "policy 'guess' .*random, .*servo"),
    (lambda c, p: watch.plan_scene(c, selection="teapots"), "'teapots' is not known"),
    (lambda c, p: watch.plan_scene(c, unit_family="x"), "unit family 'x'"),
    (lambda c, p: watch.plan_scene(c, unit=-1), "unit seed -1"),
    (lambda c, p: watch.plan_scene(c, num_attempts=0), "--num_attempts=0"),
    (lambda c, p: watch.plan_scene(c, num_steps=1), "--num_steps=1: .*least 2"),
    (lambda c, p: watch.plan_scene(c, seed=-1), "--seed=-1"),
    (
      lambda c, p: watch.film(watch.plan_scene(c), policies_lib.RANDOM, p, 97),
      "--size=97: expected an even number",
    ),
    (
      lambda c, p: watch.film(watch.plan_scene(c), policies_lib.RANDOM, "", 96),
      "--workdir is needed",
    ),
  ],
)
def test_what_a_person_can_mend_is_one_line(config, tmp_path, call, words):
  with pytest.raises((cli.UserError, objects.ObjectsError), match=words) as caught:
    call(config, tmp_path)
  assert cli.message_for_user(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="displays are named so on Linux")
@pytest.mark.parametrize(
  ("display", "words"),
  [("", "neither DISPLAY nor WAYLAND_DISPLAY is set"), (":4711", "cannot open a win")],
)
def test_without_a_display_a_window_is_refused(config, monkeypatch, display, words):
  monkeypatch.setenv("DISPLAY", display)
  monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
  with pytest.raises(cli.UserError, match=words + ".*--workdir"):
    watch.show(watch.plan_scene(config), policies_lib.RANDOM)


class Clock:
  """A clock that only moves when somebody sleeps or works."""

  def __init__(self):
    self.now = 100.0
    self.slept = []

  def __call__(self):
    return self.now

  def sleep(self, seconds):
    self.slept.append(seconds)
    self.now += seconds


def test_a_window_shows_things_as_fast_as_they_happen_and_no_faster():
  clock = Clock()
  pace = window.Pace(clock, clock.sleep)
  simulated = 3.0
  for _ in range(10):
    pace.wait_until(simulated)
    clock.now += 0.005  # to simulate and draw
    simulated += 0.02
  np.testing.assert_allclose(clock.slept, [0.015] * 9)

  clock.slept.clear()
  clock.now += 2.0  # a decision
  pace.wait_until(simulated)
  simulated += 0.02
  pace.wait_until(simulated)
  np.testing.assert_allclose(clock.slept, [0.02])  # nothing is made up for

  clock.slept.clear()
  pace.wait_until(0.0)  # another bin
  pace.wait_until(0.02)
  np.testing.assert_allclose(clock.slept, [0.02])
