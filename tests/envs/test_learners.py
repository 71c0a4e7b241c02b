"""Stable-Baselines3 takes the environment as it is: its checker, PPO and SAC."""

import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import pytest

from envs import gym_env

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

pytestmark = pytest.mark.slow

SMALL = {"frame_size": 48, "num_objects": 2, "num_steps": 3, "keep_bin": True}


def make():
  return gymnasium.make(gym_env.ID, **SMALL)


def test_its_checker_has_nothing_to_say():
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    env = make()
    check_env(env)
    env.close()


@pytest.mark.parametrize(
  ("learner", "settings"),
  [
    (PPO, {"n_steps": 5, "batch_size": 5, "n_epochs": 1}),
    (SAC, {"learning_starts": 4, "batch_size": 4, "buffer_size": 20}),
  ],
)
@pytest.mark.parametrize(
  "vector", [DummyVecEnv, lambda f: SubprocVecEnv(f, start_method="spawn")]
)
def test_ten_steps_of_learning(learner, settings, vector):
  envs = vector([make, make])
  model = learner("MultiInputPolicy", envs, device="cpu", seed=0, **settings)
  model.learn(total_timesteps=10)
  assert model.num_timesteps >= 10
  observation = envs.reset()
  action, _ = model.predict(observation)
  assert action.shape == (2, 6)
  envs.close()


def test_forked_processes_of_a_parent_that_has_drawn_say_what_to_do():
  script = f"""
import gymnasium, envs.gym_env
from stable_baselines3.common.vec_env import SubprocVecEnv
make = lambda: gymnasium.make("{gym_env.ID}", **{SMALL})
make().reset(seed=0)
SubprocVecEnv([make], start_method="fork").reset()
"""
  done = subprocess.run(
    [sys.executable, "-c", script],
    cwd=Path(__file__).parents[2],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode != 0
  assert "start_method='spawn'" in done.stderr
