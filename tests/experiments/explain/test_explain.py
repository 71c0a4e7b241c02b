"""Attempts made again and explained: the same attempt, and all of it on the page."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from envs import rollout, units
from envs.attempt import Attempt, Target
from experiments import cli, sweep, watch
from experiments.configs import demo as demo_config
from experiments.evaluation import policies, replay, trials
from experiments.explain import attempt_page, one_attempt
from experiments.explain import evidence as evidence_lib
from hand_eye import architectures, checkpoint, optimizers, training
from hand_eye import network as network_lib

SIZE = 64


def scenes(count, **changes):
  default = rollout.SceneTask(
    unit=units.sample_unit(1_000, "held_out"),
    scene_seed=7,
    num_attempts=3,
    num_steps=(3,),
    num_objects=3,
    objects="box,hammer",
    frame_size=72,
  )
  return tuple(
    dataclasses.replace(default, scene_seed=7 + i, **changes) for i in range(count)
  )


def trial_of(policy, *tasks, condition=""):
  return trials.Trial(policy, "with_replacement", condition, 4, tasks)


class Counts:
  """Counts what it is shown."""

  largest_image = 0

  def __init__(self):
    self.begun, self.decided_on, self.ended = 0, [], []

  def begin(self, env):
    self.begun += 1

  def decided(self, env, observation, decision):
    self.decided_on.append(observation.step)

  def frame(self, env):
    pass

  def end(self, env, attempt):
    self.ended.append(attempt.attempt_seed)


@pytest.mark.parametrize("policy", [policies.RANDOM, policies.ORACLE])
def test_an_attempt_made_again_is_the_attempt_and_no_more_are_made(policy):
  pushing = rollout.Pushing(2, 0.4)
  trial = trial_of(policy, *scenes(2, pushing=pushing), condition="push=0.4")
  rows = trials.run_trial(trial)
  seen = Counts()
  made = replay.replay(trial, {(5, 1): seen})
  assert list(made) == [(5, 1)]
  assert (seen.begun, seen.ended) == (1, [1])
  (row,) = [r for r in rows if (r["repetition"], r["attempt"]) == (5, 1)]
  written = json.loads(cli.to_json(row))
  assert replay.differences(written, trial, 5, made[5, 1]) == []
  assert replay.differences({**written, "target": "x"}, trial, 5, made[5, 1]) == [
    "target"
  ]
  assert seen.decided_on == list(range(1, len(made[5, 1].evidence) + 1))


def test_a_bin_that_is_filled_anew_is_counted_anew_only_without_replacement():
  attempts = {n: type("A", (), {"attempt_seed": n}) for n in range(2)}
  for replacement, expected in ((True, [1]), (False, [0])):
    first, second = Counts(), Counts()
    watch_ = replay._Watch({0: first, 1: second}, replacement, on_end=lambda: None)
    watch_.begin("a cell")
    watch_.end("a cell", attempts[0])
    watch_.begin("a cell")  # this attempt is lost
    watch_.begin("another")
    watch_.end("another", attempts[expected[0]])
    assert (first.ended, second.ended) == (([0], [1]) if replacement else ([0, 0], []))
    assert watch_.done == replacement


def test_an_attempt_that_the_bin_does_not_come_to_is_missing():
  trial = trial_of(policies.RANDOM, *scenes(1, num_attempts=1))
  assert replay.replay(trial, {(4, 3): Counts()}) == {}


def servo_evidence(rng):
  candidates = np.zeros((192, 5), np.float32)
  candidates[:, :2] = rng.normal(scale=0.03, size=(192, 2))
  candidates[:, 2], candidates[:, 4] = -0.07, 1.0
  probabilities = rng.uniform(0.1, 0.6, 192).astype(np.float32)
  return {
    "candidates": candidates,
    "probabilities": probabilities,
    "means": np.zeros((3, 3), np.float32),
    "covariances": np.tile(np.eye(3, dtype=np.float32) * 1e-3, (3, 1, 1)),
    "best": candidates[probabilities.argmax()],
    "p_best": 0.62,
    "p_null": 0.217,
    "ratio": 0.35,
    "action": "raise",
  }


def explained(evidence, reason, rng):
  picture = rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
  pose = np.array([0.56, 0.02, 0.08, 0.5], np.float32)
  command = np.array([0.031, -0.02, 0.0, np.sin(0.2), np.cos(0.2)], np.float32)
  points, probabilities = evidence_lib.judged(evidence, pose, 0.01)
  decision = evidence_lib.Seen(
    image=picture,
    start=np.array([30.0, 30.0]),
    chosen=np.array([35.0, 35.0]),
    pixels=rng.uniform(0, SIZE, (len(points), 2)),
    probabilities=probabilities,
    pose=pose,
    command=command,
    close=False,
    reason=reason,
    evidence=evidence,
  )
  attempt = Attempt(
    pregrasp_image=picture[:48, :48],
    images=np.stack([picture[:48, :48]] * 2),
    poses=np.stack([pose, pose + np.float32(0.01)]),
    commands=np.stack([command, command]),
    success=True,
    gripper_reading=0.0234,
    drop_test=False,
    simulator_truth=True,
    grasped="hammer-000001",
    unit="held_out-1000",
    table_height=0.01,
    scene_seed=7,
    attempt_seed=2,
    objects=("hammer-000001",),
    evidence=(evidence,),
    target=Target("hammer-000001", 0.004, 0.012, ("rigid", "heavy"), 0.025),
  )
  return evidence_lib.Explained(picture, (decision,), picture, attempt)


def test_the_page_shows_all_that_a_decision_rests_on():
  rng = np.random.default_rng(0)
  spec = policies.PolicySpec("servo:no_early_close", "step-7-abc", servo=(
    ("close_ratio", float("inf")), ("raise_ratio", 0.4),
  ))  # fmt: skip
  trial = trial_of(
    spec,
    *scenes(1, num_steps=(2,), pushing=rollout.Pushing(1, 0.4)),
    condition="push=0.4",
  )
  one = explained(servo_evidence(rng), "closing here has p = 0.22 of 0.62", rng)
  page = attempt_page.page(one, trial, 4, remark="As its row says.")
  text = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S).split())
  for words in (
    "Attempt 2 of servo:no_early_close in held_out-1000",
    "scene 7, push=0.4, 1 objects in the bin, T = 2, step-7-abc",
    "As its row says.",
    "success the label", "2.3 cm gripper reading", "hammer-000001 hung in the gripper",
    "Step 1 of 2: raise", "Closing here has p = 0.22 of 0.62.",
    "every object was pushed sideways at 0.4 m/s",
    "The 192 places on the table that were judged",
    "0.217 closing here", "0.620 the best candidate",
    "0.35 their ratio closes at T only, raises up to 0.4",
    "pose 56.0 2.0 7.0 29", "command +3.1 -2.0 +0.0 +11",
    "pose after it 57.0 3.0 8.0 29", "1 +0.0 ± 3.2 +0.0 ± 3.2 +0.0 ± 1.8",
    "At step 2, the last, the gripper closes whatever a policy says.",
    "hammer-000001 (rigid, heavy)", "it had moved by 2.5 cm",
  ):  # fmt: skip
    assert words in text, words
  assert page.count("<svg") == 4  # candidates, ratio, search, closing
  assert not re.search(r'(?:src|href)="(?!data:|#)', page)
  ids = re.findall(r'\bid="([^"]+)"', page)
  assert len(ids) == len(set(ids))
  assert attempt_page.name_of(trial, one.attempt) == (
    "explain-servo-no_early_close-held_out-1000-scene-7-attempt-2.html"
  )


def test_poses_that_a_baseline_judged_are_shown_on_the_table():
  evidence = {
    "candidate_poses": np.array([[0.5, 0.1, 1.2], [0.6, -0.1, 0.3]]),
    "candidate_probabilities": np.array([0.2, 0.4]),
    "p_best": 0.4,
    "pose": np.array([0.6, -0.1, 0.3]),
  }
  places, probabilities = evidence_lib.judged(evidence, np.zeros(4), 0.01)
  np.testing.assert_array_equal(places, [[0.5, 0.1, 0.01], [0.6, -0.1, 0.01]])
  np.testing.assert_array_equal(probabilities, [0.2, 0.4])
  page = attempt_page.page(
    explained(evidence, "", np.random.default_rng(0)),
    trial_of(policies.PolicySpec("open_loop"), *scenes(1)),
    4,
  )
  assert "The 2 places on the table" in page and "[ 0.6 -0.1  0.3]" in page
  assert "their ratio" not in page and "iteration" not in page


@pytest.fixture
def config():
  config = demo_config.get_config()
  config.evaluate.update({"num_units": 1, "num_steps": 3, "num_workers": 1})
  config.sweep.update(
    {
      "policies": ("oracle",),
      "with_replacement": {"repetitions": 2, "num_attempts": 1, "num_objects": 3},
      "without_replacement": {"repetitions": 1, "num_attempts": 2, "num_objects": 2},
      "conditions": ("push=0.4",),
    }
  )
  return config


def test_any_row_of_a_sweep_is_explained_as_it_was(config, tmp_path, monkeypatch):
  none = policies.Networks()
  sweep.sweep(config, none, tmp_path)
  rows = cli.read_jsonl(tmp_path / "rows.jsonl")
  config.evaluate.num_steps = 9  # the folder says how it was
  number = len(rows) - 1
  trial, row = one_attempt.find(tmp_path, number, config, none)
  assert row == rows[number]
  assert (row["protocol"], row["condition"]) == ("without_replacement", "push=0.4")
  wanted = evidence_lib.Wanted(trial, row["repetition"], row["attempt"], SIZE)
  again = evidence_lib.make_again(wanted)
  monkeypatch.setattr(
    evidence_lib, "make_again", lambda _: again
  )  # made once is enough
  path, attempt, remark = one_attempt.explain(wanted, tmp_path / "pages", row)
  assert remark == "This is the attempt of the row: they agree in every figure."
  page = path.read_text(encoding="utf-8")
  assert remark in page and "This policy judges no candidates." in page
  assert page.count("<h2>Step ") == len(attempt.evidence) > 0
  assert attempt.success == row["success"]

  other = {**row, "closed_at_step": 8}
  _, _, remark = one_attempt.explain(wanted, tmp_path / "pages", other)
  assert remark == "This is not the attempt of the row: closed_at_step differ."
  monkeypatch.setattr(evidence_lib, "make_again", lambda _: None)
  with pytest.raises(cli.UserError, match="bin was empty before that attempt"):
    one_attempt.explain(wanted, tmp_path / "pages", row)
  with pytest.raises(cli.UserError, match=rf"--row=99: .* has {len(rows)} rows"):
    one_attempt.find(tmp_path, 99, config, none)
  facts = json.loads((tmp_path / "config.json").read_text())
  facts["cell"]["mujoco"] = "3.0.0"
  (tmp_path / "config.json").write_text(json.dumps(facts))
  with pytest.raises(cli.UserError, match=r"another mujoco: 3\.0\.0, but here is"):
    one_attempt.find(tmp_path, number, config, none)


def test_a_condition_is_planned_as_in_a_sweep(config):
  scene = watch.plan_scene(config, condition="push=0.4")
  assert scene.pushing == rollout.Pushing(2, 0.4)
  assert watch.plan_scene(config, condition="num_steps=7").num_steps == (7,)
  moved = watch.plan_scene(config, condition="camera_shift=0.05").unit
  assert moved.name == "held_out-00~camera_shift=0.05"
  with pytest.raises(cli.UserError, match="condition: 'fog'"):
    watch.plan_scene(config, condition="fog")


@pytest.mark.slow  # compiles the servo in worker processes
def test_a_row_of_the_servo_is_explained_to_the_last_digit(config, tmp_path):
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
  networks = policies.Networks(servo=str(tmp_path / "checkpoints"))
  config.sweep.policies = ("servo", "servo:no_early_close")
  sweep.sweep(config, networks, tmp_path / "run")
  rows = cli.read_jsonl(tmp_path / "run" / "rows.jsonl")
  for number in (1, len(rows) - 1):
    trial, row = one_attempt.find(tmp_path / "run", number, config, networks)
    wanted = evidence_lib.Wanted(trial, row["repetition"], row["attempt"], SIZE)
    path, attempt, remark = one_attempt.explain(wanted, tmp_path, row)
    assert "agree in every figure" in remark and row["p_best"]
    page = path.read_text(encoding="utf-8")
    assert page.count("The 192 places on the table") == len(attempt.evidence)
  assert trial.policy.name == "servo:no_early_close" and "closes at T only" in page
