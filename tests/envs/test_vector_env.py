"""Many cells on a few processes: each does what it would do alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs import fleet, gym_env, units, vector_env

NAME = f"envs.gym_env:{gym_env.ID}"
SMALL = {"frame_size": 48, "num_objects": 2, "num_steps": 2}
CLOSE = np.array([0, 0, 0, 0, 1, 1], np.float32)
STAY = np.array([0, 0, 0, 0, 1, -1], np.float32)


@pytest.fixture
def make():
  """Makes vector environments and closes them."""
  made = []

  def build(**changes):
    made.append(gymnasium.make_vec(NAME, **{**SMALL, **changes}))
    return made[-1]

  yield build
  for envs in made:
    envs.close()


def test_each_cell_is_as_it_would_be_alone_on_any_number_of_processes(make):
  robots = [3, 5, units.sample_unit(1, "held_out")]
  wanted = []
  for i, robot in enumerate(robots):
    alone = gym_env.HandEyeGraspEnv(**SMALL, unit=robot)
    first, info = alone.reset(seed=5 + i)
    last, reward, *_, end = alone.step(STAY)
    wanted.append((first, info, last, reward, end))
    alone.close()
  for num_workers in (1, 2):
    envs = make(num_envs=3, num_workers=num_workers, units=robots)
    assert isinstance(envs, vector_env.HandEyeVectorEnv)
    first, infos = envs.reset(seed=5)
    last, rewards, terminated, truncated, ends = envs.step(np.stack([STAY] * 3))
    assert first in envs.observation_space and last in envs.observation_space
    assert terminated.all() and not truncated.any()
    for i, (begin, info, end, reward, words) in enumerate(wanted):
      for name in begin:
        np.testing.assert_array_equal(first[name][i], begin[name])
        np.testing.assert_array_equal(last[name][i], end[name])
      assert rewards[i] == reward
      assert {name: infos[name][i] for name in info} == info
      assert {name: ends[name][i] for name in words} == words
    envs.close()


def test_cells_reset_by_themselves_and_keep_their_bins(make):
  envs = make(num_envs=2, num_workers=2, keep_bin=True)
  _, first = envs.reset(seed=0)
  assert first["filled"].all()
  # One closes at once, the other at step T.
  _, _, terminated, *_ = envs.step(np.stack([CLOSE, STAY]))
  assert terminated.all()
  seen, rewards, terminated, _, infos = envs.step(np.stack([CLOSE, CLOSE]))
  assert not terminated.any() and not rewards.any()
  assert (seen["step"] == 1).all()
  assert not infos["filled"].any()
  assert infos["objects"].tolist() == first["objects"].tolist()

  same = make(num_envs=1, autoreset_mode="SameStep")
  first, _ = same.reset(seed=0)
  seen, _, terminated, _, infos = same.step(CLOSE[None])
  assert terminated.all() and (seen["step"] == 1).all()
  assert infos["final_obs"][0]["step"] == [2]
  assert "success" in infos["final_info"]
  assert infos["filled"].all()


def test_some_cells_are_reset_by_a_mask(make):
  envs = make(num_envs=2, num_workers=1, autoreset_mode=AutoresetMode.DISABLED)
  envs.reset(seed=0)
  last, _, terminated, *_ = envs.step(np.stack([STAY, CLOSE]))
  assert terminated.all()
  mask = np.array([False, True])
  seen, infos = envs.reset(options={"reset_mask": mask})
  assert seen["step"].tolist() == [[2], [1]]
  np.testing.assert_array_equal(seen["image"][0], last["image"][0])
  assert infos["_filled"].tolist() == mask.tolist()
  with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
    envs.step(np.stack([STAY, STAY]))
  with pytest.raises(ValueError, match="expected bool.2., True somewhere"):
    envs.reset(options={"reset_mask": [0, 0]})


def test_pictures_and_methods_of_each_cell(make):
  envs = make(num_envs=2, num_workers=1, render_mode="rgb_array", render_size=64)
  envs.reset(seed=0)
  one, two = envs.render()
  assert one.shape == (64, 64, 3) and not np.array_equal(one, two)
  assert [each.step for each in envs.call("observation")] == [1, 1]
  envs.close()
  envs.close()
  with pytest.raises(gymnasium.error.ClosedEnvironmentError):
    envs.reset()


def test_a_process_that_dies_is_named(make):
  envs = make(num_envs=2, num_workers=2)
  os.kill(envs._workers[1].process.pid, signal.SIGKILL)
  with pytest.raises(fleet.WorkerDiedError, match=r"cells 1 to 1 died.*-9.*__main__"):
    envs.reset(seed=0)
  assert not any(worker.process.is_alive() for worker in envs._workers)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_envs": 0}, "num_envs is 0"),
    ({"num_envs": 2, "units": [1]}, "units names 1 robots, expected 2"),
    ({"num_envs": 2, "num_steps": 1}, "num_steps is 1"),
    ({"num_envs": 2, "autoreset_mode": "never"}, "'never' is not a valid"),
  ],
)
def test_wrong_arguments_are_named_before_a_process_starts(make, changes, words):
  with pytest.raises(ValueError, match=words):
    make(**changes)


def test_wrong_calls_are_named_and_leave_it_usable(make):
  envs = make(num_envs=2, num_workers=1)
  for call, words in (
    (lambda: envs.reset(seed=[1]), "there are 1 seeds, expected 2"),
    (lambda: envs.reset(options={"keep": True}), "'keep': expected keep_bin"),
    (lambda: envs.step(STAY), "expected 2x6 finite"),
    (lambda: envs.step(np.stack([STAY, STAY * np.nan])), "expected 2x6 finite"),
  ):
    with pytest.raises(ValueError, match=words):
      call()
  with pytest.raises(gymnasium.error.ResetNeeded):
    envs.step(np.stack([STAY, STAY]))
  assert envs.reset(seed=[1, 2])[1]["filled"].all()


def test_a_parent_that_has_drawn_can_make_one(make):
  alone = gym_env.HandEyeGraspEnv(**SMALL)
  wanted, _ = alone.reset(seed=0)
  seen, _ = make(num_envs=1).reset(seed=0)
  np.testing.assert_array_equal(seen["image"][0], wanted["image"])
  alone.close()


def test_a_script_without_its_guard_gets_one_clear_error(tmp_path):
  script = tmp_path / "script.py"
  script.write_text(
    "import gymnasium\n"
    f"gymnasium.make_vec('{NAME}', num_envs=1, num_objects=1).reset(seed=0)\n"
  )
  done = subprocess.run(
    [sys.executable, str(script)],
    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert "WorkerDiedError" in done.stderr.splitlines()[-1]
  assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]
