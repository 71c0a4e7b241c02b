"""The Gymnasium environment: the same cell, the same rules, a checked interface."""

import ast
import dataclasses
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.utils.env_checker import check_env

from envs import grasp_env, gym_env, objects, rollout, units
from envs.attempt import Attempt, Decision
from envs.baselines import RandomPolicy
from envs.control import DivergedError

NAME = f"envs.gym_env:{gym_env.ID}"  # as another program writes it
SMALL = {"frame_size": 48, "num_objects": 4, "num_steps": 3}
CLOSE = np.array([0, 0, 0, 0, 1, 1], np.float32)
STAY = np.array([0, 0, 0, 0, 1, -1], np.float32)


@pytest.fixture
def make():
  """Makes environments and closes them."""
  made = []

  def build(**changes):
    made.append(gym_env.HandEyeGraspEnv(**{**SMALL, **changes}))
    return made[-1]

  yield build
  for env in made:
    env.close()


def test_the_checker_and_its_wrappers_have_nothing_to_say():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    env = gymnasium.make(NAME, **SMALL, render_mode="rgb_array", render_size=64)
    check_env(env.unwrapped)
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    ended = False
    while not ended:
      observation, reward, ended, _, _ = env.step(env.action_space.sample())
      assert observation in env.observation_space
      assert env.render().shape == (64, 64, 3)
    assert reward in (0.0, 1.0)
    env.close()


def test_one_seed_one_episode(make):
  def episode(env, seed):
    first, info = env.reset(seed=seed)
    rest = [env.step(STAY) for _ in range(SMALL["num_steps"] - 1)]
    return [first, *(step[0] for step in rest)], info, rest[-1][4]

  env = make()
  one, two, other = episode(env, 7), episode(make(), 7), episode(env, 8)
  again = episode(env, 7)  # whatever the environment did before
  for same in (two, again):
    assert one[1:] == same[1:]
    for a, b in zip(one[0], same[0], strict=True):
      assert all(np.array_equal(a[name], b[name]) for name in a)
  assert one[1] != other[1]
  assert not np.array_equal(one[0][0]["image"], other[0][0]["image"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_episode_is_the_attempt_that_run_attempt_makes(make, seed):
  def policy(observation, key):
    decision = RandomPolicy()(observation, key)
    # Early and above the table for one seed, at step T for the others.
    close = seed == 2 and observation.step == 2
    return gym_env.decision_of(gym_env.action_of(decision._replace(close=close)))

  rng, _ = seeding.np_random(seed)
  things = objects.sample_objects(rng, 4, "held_out")
  cell = grasp_env.GraspEnv(units.sample_unit(1, "held_out"), things, 48)
  cell.fill(rng)
  expected = rollout.run_attempt(cell, policy, rng, num_steps=4, scene_seed=0, number=0)
  cell.close()

  env = make(unit=1, unit_family="held_out", objects="held_out", num_steps=4)
  seen = [env.reset(seed=seed)[0]]
  ended = False
  while not ended:
    key = env.np_random.integers(2**32, size=2, dtype=np.uint32)
    action = gym_env.action_of(policy(env.observation(), key))
    observation, reward, ended, truncated, info = env.step(action)
    seen.append(observation)
  assert not truncated
  for field in dataclasses.fields(Attempt):
    found, wanted = getattr(env.attempt, field.name), getattr(expected, field.name)
    assert np.array_equal(found, wanted), field.name
  assert reward == expected.success == info["success"]
  for t, image in enumerate(expected.images):
    assert np.array_equal(seen[t]["image"], image)
    assert seen[t]["step"] == [t + 1]
    assert np.array_equal(seen[t]["pregrasp_image"], expected.pregrasp_image)


def test_closing_above_the_table_descends_and_ends_the_episode(make):
  env = make(num_objects=0, num_steps=6)
  first, _ = env.reset(seed=1)
  last, reward, terminated, truncated, info = env.step(CLOSE)
  assert terminated and not truncated
  assert first["pose"][2] - first["table_height"] > 0.03
  assert abs(last["pose"][2] - last["table_height"]) < 0.006
  assert reward == 0.0
  assert info["grasped"] == "" and not info["simulator_truth"]
  with pytest.raises(gymnasium.error.ResetNeeded):
    env.step(STAY)


def test_a_kept_bin_holds_what_it_held(make):
  env = make()
  _, first = env.reset(seed=3, options={"keep_bin": True})
  assert first["filled"]  # as there was none
  env.step(CLOSE)
  before = env._cell.object_positions()
  _, second = env.reset(options={"keep_bin": True})
  assert not second["filled"]
  assert second["objects"] == first["objects"]
  np.testing.assert_allclose(env._cell.object_positions(), before, atol=0.02)
  _, third = env.reset()
  assert not third["filled"]  # nothing else was said
  _, other = env.reset(options={"keep_bin": False})
  assert other["filled"] and other["objects"] != first["objects"]
  assert env.reset()[1]["filled"]


def test_a_seed_alone_gives_the_same_episode_whatever_was_kept(make):
  env, other = make(keep_bin=True), make()
  wanted, _ = other.reset(seed=4)
  env.reset(seed=3)
  assert not env.reset()[1]["filled"]
  found, info = env.reset(seed=4)
  assert info["filled"]
  assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
  assert not env.reset()[1]["filled"]  # as __init__ says


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_an_autoreset_keeps_the_bin(mode):
  # It calls reset() without seed and options.
  both = gymnasium.make_vec(
    NAME,
    num_envs=1,
    vectorization_mode="sync",
    vector_kwargs={"autoreset_mode": mode},
    **SMALL,
  )
  _, first = both.reset(seed=3, options={"keep_bin": True})
  for _ in range(2):
    *_, info = both.step(CLOSE[None])
    if mode == "NextStep":
      *_, info = both.step(CLOSE[None])
    assert not info["filled"].any()
    assert info["objects"][0] == first["objects"][0]
  both.close()


def test_what_a_caller_does_with_an_observation_does_not_reach_the_attempt(make):
  env = make()
  observation, _ = env.reset(seed=0)
  wanted = observation["image"].copy()
  for array in (observation["image"], observation["pregrasp_image"]):
    array[:] = 0
  env.step(CLOSE)
  np.testing.assert_array_equal(env.attempt.images[0], wanted)
  assert env.attempt.pregrasp_image.max() > 0


def test_unstable_physics_truncate_and_the_bin_is_filled_again(make, monkeypatch):
  env = make(render_mode="rgb_array", render_size=64)
  env.reset(seed=0)
  picture = env.render()
  env._cell.data.qvel[env._cell.scene.object_qvel[:6]] = np.nan
  observation, reward, terminated, truncated, info = env.step(STAY)
  assert truncated and not terminated and reward == 0.0
  assert "diverged" in info["diverged"]
  assert observation in env.observation_space
  np.testing.assert_array_equal(env.render(), picture)
  _, info = env.reset(options={"keep_bin": True})
  assert info["filled"]

  def never_rests(*_):
    raise DivergedError("planted")

  monkeypatch.setattr(grasp_env.GraspEnv, "fill", never_rests)
  with pytest.raises(DivergedError, match="training-00.*the cell is broken"):
    env.reset(options={"keep_bin": False})


@pytest.mark.parametrize(
  ("sin_cos", "expected"),
  [
    ((0.0, 1.0), (0.0, 1.0)),
    ((0.6, 0.8), (0.6, 0.8)),
    ((0.5, 0.5), (0.5**0.5, 0.5**0.5)),
    ((-0.1, 0.0), (-1.0, 0.0)),
    ((0.0, 0.0), (0.0, 1.0)),  # names no angle: no turn
  ],
)
def test_actions_are_parts_of_the_workspace_and_angles_of_any_length(sin_cos, expected):
  action = np.array([0.5, -1.0, 0.1, *sin_cos, -1.0], np.float32)
  decision = gym_env.decision_of(action)
  np.testing.assert_allclose(
    decision.command, [0.10, -0.24, 0.02, *expected], rtol=1e-6
  )
  assert not decision.close


def test_close_is_a_number_above_zero():
  assert gym_env.decision_of(CLOSE).close
  assert gym_env.decision_of(CLOSE * 0.01).close
  assert not gym_env.decision_of(CLOSE * 0).close
  for close in (True, False):
    decision = Decision(np.array([0.1, 0, 0, 0, 1], np.float32), close)
    back = gym_env.decision_of(gym_env.action_of(decision))
    assert back.close == close
    np.testing.assert_allclose(back.command, decision.command, rtol=1e-6)


FORKED = f"""
import os, sys
import gymnasium
import numpy as np

small = {SMALL | {"num_objects": 1}}
env = gymnasium.make("{NAME}", **small, render_mode="rgb_array", render_size=64)
env.reset(seed=0)
if sys.argv[1] == "vector":
  both = gymnasium.make_vec(
    "{NAME}", num_envs=1, vectorization_mode="async",
    vector_kwargs={{"context": "fork"}}, **small
  )
  both.reset(seed=0)
elif os.fork() == 0:
  calls = {{
    "reset": lambda: env.reset(seed=1),
    "step": lambda: env.step(np.zeros(6, np.float32)),
    "render": env.render,
    "depth": lambda: env.unwrapped._cell.depth(32),
    "close": lambda: env.close() or sys.exit(7),
    "nothing": lambda: sys.exit(7),
  }}
  calls[sys.argv[1]]()
else:
  sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize(
  ("call", "raises"),
  [("vector", True), ("reset", True), ("step", True), ("render", True)]
  + [("depth", True), ("close", False), ("nothing", False)],
)
def test_a_forked_process_raises_where_it_would_hang(call, raises):
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", FORKED, call],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == (1 if raises else 7), done.stderr
  if raises:
    last = done.stderr.strip().splitlines()[-1]
    assert "ForkedRendererError" in last and "{'context': 'spawn'}" in last


@pytest.mark.parametrize(
  ("mode", "settings"), [("sync", {}), ("async", {"context": "spawn"})]
)
def test_two_at_once_are_as_each_alone(make, mode, settings):
  alone = make(num_steps=2)
  wanted = []
  for seed in (5, 6):  # Gymnasium counts seeds up from the one it is given
    first, _ = alone.reset(seed=seed)
    last, reward, *_ = alone.step(STAY)
    wanted.append((first["image"], last["image"], reward))
  both = gymnasium.make_vec(
    NAME,
    num_envs=2,
    vectorization_mode=mode,
    vector_kwargs=settings,
    **{**SMALL, "num_steps": 2},
  )
  first, _ = both.reset(seed=5)
  first = {name: value.copy() for name, value in first.items()}
  last, rewards, terminated, *_ = both.step(np.stack([STAY, STAY]))
  both.close()
  assert terminated.all()
  for i, (begin, end, reward) in enumerate(wanted):
    np.testing.assert_array_equal(first["image"][i], begin)
    np.testing.assert_array_equal(last["image"][i], end)
    assert rewards[i] == reward


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_steps": 1}, "num_steps is 1, expected at least 2"),
    ({"num_objects": 99}, "num_objects is 99, expected 0 to 40"),
    ({"frame_size": 8}, "frame_size is 8"),
    ({"objects": "teapots"}, "'teapots' is not known"),
    ({"unit_family": "nobody"}, "'nobody': expected one of"),
    ({"render_mode": "human"}, "'human', expected 'rgb_array'"),
  ],
)
def test_wrong_arguments_are_named(make, changes, words):
  with pytest.raises(ValueError, match=words):
    make(**changes)


def test_wrong_calls_are_named(make):
  env = make(render_mode="rgb_array")
  for call in (lambda: env.step(STAY), env.observation, env.render):
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
      call()
  with pytest.raises(ValueError, match="'keep': expected keep_bin"):
    env.reset(options={"keep": True})
  env.reset(seed=0)
  for action in (STAY[:5], STAY * np.nan):
    with pytest.raises(ValueError, match="expected 6 finite numbers"):
      env.step(action)


def test_without_gymnasium_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "gymnasium", None)
  monkeypatch.delitem(sys.modules, "envs.gym_env")
  with pytest.raises(ImportError, match=r"pip install 'hand_eye\[gym\]'"):
    importlib.import_module("envs.gym_env")


def test_nothing_else_in_envs_needs_gymnasium():
  room = Path(gym_env.__file__).parent
  for path in room.rglob("*.py"):
    named = {
      name
      for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
      if isinstance(node, ast.Import | ast.ImportFrom)
      for name in [getattr(node, "module", ""), *(alias.name for alias in node.names)]
    }
    if path.name not in ("gym_env.py", "vector_env.py"):
      assert not named & {"gymnasium", "envs.gym_env", "envs.vector_env"}, path
