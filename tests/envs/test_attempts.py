"""Attempts, labels and the fleet."""

import dataclasses
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from envs import fleet, grasp_env, objects, rollout, success, units
from envs.attempt import Attempt, Decision, Observation
from envs.baselines import RandomPolicy
from envs.control import DivergedError
from envs.grasp_env import NULL_COMMAND, GraspEnv

BOX = objects.ObjectSpec(
  "box-0",
  "box",
  (objects.Part("box", (0.03, 0.018, 0.02)),),
  400.0,
  0.9,
  (1.0, 0.3, 0.1),
)


def task(**changes):
  default = rollout.SceneTask(
    unit=units.sample_unit(1),
    scene_seed=11,
    num_attempts=2,
    num_steps=(3,),
    num_objects=6,
    objects="training",
    frame_size=48,
  )
  return dataclasses.replace(default, **changes)


def same(a: Attempt, b: Attempt) -> bool:
  arrays = ("pregrasp_image", "images", "poses", "commands")
  rest = ("success", "gripper_reading", "drop_test", "simulator_truth", "grasped")
  return all(
    np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays
  ) and all(getattr(a, name) == getattr(b, name) for name in rest)


def run_task(one: rollout.SceneTask) -> tuple[Attempt, ...]:
  return rollout.run_scene(one, RandomPolicy()).attempts


def die(_: int) -> None:
  os._exit(3)


def die_answering(_: int) -> None:
  """Ends in the middle of what the worker has to say."""
  pipe = sys._getframe(2).f_locals["pipe"]
  os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half an answer")
  os.kill(os.getpid(), signal.SIGKILL)


def test_an_attempt_has_t_images_and_ends_with_the_null_command():
  for attempt in run_task(task(num_steps=(2, 4), num_attempts=3)):
    steps = len(attempt.images)
    assert steps in (2, 4)
    assert attempt.images.shape == (steps, 48, 48, 3)
    assert attempt.poses.shape == (steps, 4)
    assert attempt.commands.shape == (steps, 5)
    np.testing.assert_array_equal(attempt.commands[-1], NULL_COMMAND)
    # The arm went where commands said, up to actuation and what stood in its way.
    moved = attempt.poses[1:, :2] - attempt.poses[:-1, :2]
    assert np.median(np.abs(moved - attempt.commands[:-1, :2])) < 0.01
    assert attempt.success == (attempt.gripper_reading > 0.01 or attempt.drop_test)


def test_random_motions_end_near_the_table():
  attempts = run_task(task(num_attempts=4))
  heights = [a.poses[-1, 2] - a.table_height for a in attempts]
  # An object below a finger can keep the gripper up; it cannot keep all of them.
  assert min(heights) < 0.01


def test_one_task_one_set_of_attempts_at_any_number_of_workers():
  tasks = [task(scene_seed=seed) for seed in (1, 2)]
  here = [run_task(one) for one in tasks]
  there = dict(fleet.map_unordered(run_task, tasks, num_workers=2))
  for index, attempts in enumerate(here):
    assert all(same(a, b) for a, b in zip(attempts, there[index], strict=True))
  assert not same(here[0][0], here[1][0])


def test_a_recorder_changes_nothing():
  class Watches:
    largest_image = 96
    frames = 0

    def begin(self, env):
      env.image(96)

    def decided(self, env, observation, decision):
      env.image(96)

    def frame(self, env):
      Watches.frames += 1
      if Watches.frames % 20 == 0:
        env.image(96)

    def end(self, env, attempt):
      env.image(96)

  watched = rollout.run_scene(task(), RandomPolicy(), Watches()).attempts
  assert Watches.frames > 100
  assert all(same(a, b) for a, b in zip(watched, run_task(task()), strict=True))


def test_a_dead_worker_is_reported():
  with pytest.raises(fleet.WorkerDiedError, match="again"):
    list(fleet.map_unordered(die, [1, 2], num_workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_that_are_not_done_in_time_are_given_up(workers):
  """With an hour's sleep in each, the test would not end."""
  until = time.monotonic() + (0.2 if workers > 1 else 0.0)
  answers = fleet.map_unordered(
    time.sleep, [3600, 3600, 3600], num_workers=workers, until=until
  )
  assert list(answers) == []


def test_a_worker_that_dies_while_it_answers_is_reported():
  with pytest.raises(fleet.WorkerDiedError, match="exit code -9"):
    list(fleet.map_unordered(die_answering, [1, 2], num_workers=2))


@dataclasses.dataclass
class Scripted:
  """Answers with the decisions of a list, and keeps what it was asked."""

  decisions: list

  def __post_init__(self):
    self.seen = []

  def __call__(self, observation, key):
    self.seen.append(observation)
    return self.decisions[observation.step - 1]


CLOSE = Decision(NULL_COMMAND, close=True)
STAY = Decision(NULL_COMMAND, close=False)


def test_closing_above_the_table_descends_first():
  policy = Scripted([CLOSE])
  (attempt,) = rollout.run_scene(
    task(num_attempts=1, num_steps=(6,), num_objects=0), policy
  ).attempts
  # It was asked once; going down is a motion of its own, as Appendix A wants it.
  assert len(policy.seen) == 1
  assert len(attempt.images) == 2
  assert attempt.poses[0, 2] - attempt.table_height > 0.03
  assert abs(attempt.poses[1, 2] - attempt.table_height) < 0.006
  assert attempt.commands[0, 2] < -0.03
  assert not attempt.success


def test_the_last_step_closes_whatever_the_policy_says():
  policy = Scripted([STAY] * 3)
  (attempt,) = rollout.run_scene(
    task(num_attempts=1, num_steps=(4,), num_objects=0), policy
  ).attempts
  assert [o.step for o in policy.seen] == [1, 2, 3]
  assert all(o.num_steps == 4 for o in policy.seen)
  assert len(attempt.images) == 4
  assert abs(attempt.poses[-1, 2] - attempt.table_height) < 0.006


def test_commands_beyond_the_workspace_stop_at_its_edge():
  far = Decision(np.array([9, 9, 9, 0, 1], np.float32), close=False)
  policy = Scripted([far] * 2)
  (attempt,) = rollout.run_scene(
    task(num_attempts=1, num_steps=(3,), num_objects=0), policy
  ).attempts
  _, high = units.sample_unit(1).workspace()
  assert np.all(attempt.poses[1, :3] < high[:3] + 0.012)


def grasp_known_box(seed: int) -> grasp_env.Outcome:
  env = GraspEnv(units.sample_unit(seed), [BOX], 72)
  rng = np.random.default_rng(seed)
  env.fill(rng)
  env.begin(rng)
  low, high = env.unit.workspace()
  x, y = np.clip(env.object_positions()[0, :2], low[:2], high[:2])
  w, qx, qy, qz = env.scene.bodies[0].quaternion(env.data)
  yaw = np.arctan2(2 * (w * qz + qx * qy), 1 - 2 * (qy**2 + qz**2))
  yaw = (yaw + np.pi / 2) % np.pi - np.pi / 2
  pose = np.array([x, y, env.unit.table_height + 0.08, yaw])
  env.approach(pose)
  pose[2] = env.unit.table_height
  env.controller.move_to(pose)
  outcome = env.grasp(rng)
  env.close()
  return outcome


def test_who_knows_where_a_box_lies_can_grasp_it():
  outcomes = [grasp_known_box(seed) for seed in range(5)]
  held = [outcome for outcome in outcomes if outcome.simulator_truth]
  assert len(held) >= 4
  for outcome in held:
    assert outcome.success and outcome.grasped == "box-0" and outcome.grade == "held"


def test_an_attempt_is_graded_by_what_became_of_the_objects():
  before = np.zeros((3, 3))
  pushed = before + np.array([[0, 0, 0], [0.006, 0, 0], [0, 0, 0]])
  shaken = before + 0.002
  assert success.grade(before, pushed, risen=True, held=True) == "held"
  assert success.grade(before, pushed, risen=True, held=False) == "lifted"
  assert success.grade(before, pushed, risen=False, held=False) == "touched"
  assert success.grade(before, shaken, risen=False, held=False) == "missed"


def test_an_attempt_beside_everything_is_a_miss():
  env, rng = GraspEnv(units.sample_unit(0), [BOX], 64), np.random.default_rng(0)
  env.fill(rng)
  env.begin(rng)
  x, y = env.object_positions()[0, :2]
  (low_x, low_y, *_), (high_x, high_y, *_) = env.unit.workspace()
  far = max(
    ((a, b) for a in (low_x, high_x) for b in (low_y, high_y)),
    key=lambda corner: np.hypot(corner[0] - x, corner[1] - y),
  )
  env.approach(np.array([*far, env.unit.table_height + 0.08, 0.0]))
  outcome = env.grasp(rng)
  env.close()
  assert outcome.grade == "missed" and not outcome.simulator_truth


def test_workers_end_with_their_parent(tmp_path):
  program = tmp_path / "parent.py"
  program.write_text(
    "import os, time\n"
    "from envs import fleet\n"
    "def sleep(_):\n"
    "  print(os.getpid(), flush=True)\n"
    "  time.sleep(60)\n"
    "if __name__ == '__main__':\n"
    "  list(fleet.map_unordered(sleep, [1, 2], num_workers=2))\n"
  )
  root = str(Path(__file__).resolve().parents[2])
  parent = subprocess.Popen(
    [sys.executable, program],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": root},
  )
  workers = [int(parent.stdout.readline()) for _ in range(2)]
  parent.kill()
  parent.wait()
  # Their end closes the pipe: this returns when both are gone.
  parent.stdout.read()
  for worker in workers:
    with pytest.raises(ProcessLookupError):
      for _ in range(100):
        os.kill(worker, 0)
        time.sleep(0.1)


def test_gripper_reading_threshold():
  assert not success.reading_says_grasped(0.010)
  assert success.reading_says_grasped(0.0101)


@pytest.mark.parametrize("size", [72, 512])
def test_drop_test_sees_an_object_and_no_noise(size):
  rng = np.random.default_rng(0)
  before = rng.integers(100, 140, (size, size, 3)).astype(np.uint8)
  noisy = np.clip(before + rng.integers(-6, 7, before.shape), 0, 255).astype(np.uint8)
  assert not success.drop_test_says_grasped(before, noisy)
  after = noisy.copy()
  side = size // 6  # about 6 cm of a 40 cm view
  after[side : 2 * side, side : 2 * side] = (220, 30, 30)
  assert success.drop_test_says_grasped(before, after)


def test_an_attempt_whose_physics_diverge_is_dropped_and_counted(monkeypatch):
  step, calls = GraspEnv.step, []

  def breaks(env, command, rng):
    calls.append(command)
    if len(calls) == 2:
      raise DivergedError("planted")
    step(env, command, rng)

  monkeypatch.setattr(GraspEnv, "step", breaks)
  result = rollout.run_scene(task(num_steps=(2,), num_attempts=3), RandomPolicy())
  assert len(result.attempts) == 3
  assert result.diverged == 1


def test_a_divergence_late_in_a_bin_without_replacement_is_one(monkeypatch):
  calls = []
  late = rollout.MAX_DIVERGED + 2  # so many attempts are lost by it

  def breaks(env, command, rng):
    calls.append(command)
    if len(calls) == late:
      raise DivergedError("planted")

  nothing = grasp_env.Outcome(0.0, False, False, False, "", ())
  for name, instead in {
    "step": breaks,
    "fill": lambda env, rng: None,
    "begin": lambda env, rng: env.image(),
    "approach": lambda env, pose: None,
    "grasp": lambda env, rng: nothing,
  }.items():
    monkeypatch.setattr(GraspEnv, name, instead)
  one = task(num_steps=(1,), num_attempts=late, num_objects=1, replacement=False)
  result = rollout.run_scene(one, RandomPolicy())
  assert (len(result.attempts), result.diverged) == (late, late)
  assert len(calls) == 2 * late


def test_unstable_physics_are_noticed():
  env = GraspEnv(units.sample_unit(0), [BOX], 48)
  env.data.qvel[env.scene.object_qvel[:6]] = np.nan
  with pytest.raises(DivergedError, match="diverged"):
    env.controller.wait(0.1)
  env.close()


def test_a_stray_object_is_put_back_and_counted():
  env = GraspEnv(units.sample_unit(0), [BOX], 48)
  rng = np.random.default_rng(0)
  env.fill(rng)
  env.controller.wait(1.0)  # long enough to fall asleep
  env.scene.bodies[0].place(env.data, [0.9, 0.5, 0.1], [1, 0, 0, 0])
  env.begin(rng)
  assert env.strays_returned == 1
  x, y, z = env.object_positions()[0]
  assert abs(x - 0.56) < 0.2 and abs(y) < 0.22
  assert z - env.unit.table_height < 0.06  # awake again, it has fallen
  env.close()


def test_what_was_taken_away_is_gone_and_what_lay_on_it_falls():
  env = GraspEnv(units.sample_unit(0), [BOX, BOX, BOX], 72)
  floor = env.unit.table_height
  for index, x, z in ((0, 0.56, 0.02), (1, 0.56, 0.06), (2, 0.64, 0.02)):
    env.scene.bodies[index].place(env.data, [x, 0.0, floor + z], [1, 0, 0, 0])
  env.begin(np.random.default_rng(0))
  env.controller.wait(1.5)
  before = env.image()
  env.take_away([0])
  env.controller.wait(0.5)
  after = env.image()
  env.take_away([1, 2])
  env.controller.wait(0.5)
  assert env.remaining() == []
  heights = env.object_positions()[:, 2] - floor
  assert env.begin(np.random.default_rng(1)).shape == (72, 72, 3)
  assert env.strays_returned == 0  # the shelf is no place to be returned from
  env.close()
  assert np.all(np.abs(heights) < 0.06)
  assert success.drop_test_says_grasped(before, after)


def test_without_replacement_the_bin_empties():
  class Finds:
    """Goes to where the first object left lies; told by the simulator."""

    def begin(self, env):
      index = env.remaining()[0]
      w, x, y, z = env.scene.bodies[index].quaternion(env.data)
      self.yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
      self.place = env.object_positions()[index, :2]

    def __call__(self, observation, key):
      turn = (self.yaw - observation.pose[3] + np.pi / 2) % np.pi - np.pi / 2
      dx, dy = self.place - observation.pose[:2]
      command = np.array([dx, dy, 0.0, np.sin(turn), np.cos(turn)], np.float32)
      return Decision(command, close=False)

  without = task(
    num_attempts=12, num_objects=2, objects="capsule", replacement=False, num_steps=(4,)
  )
  attempts = rollout.run_scene(without, Finds()).attempts
  in_bin = [len(attempt.objects) for attempt in attempts]
  taken = [attempt.simulator_truth for attempt in attempts]
  assert in_bin[0] == 2 and 1 in in_bin
  for now, later, truth in zip(in_bin, in_bin[1:], taken, strict=False):
    assert (later < now) == truth
  if len(attempts) < 12:
    assert in_bin[-1] - taken[-1] <= 0
  kept = rollout.run_scene(
    dataclasses.replace(without, replacement=True, num_attempts=3), Finds()
  ).attempts
  assert [len(attempt.objects) for attempt in kept] == [2, 2, 2]


def test_an_attempt_tells_how_far_its_target_was_pushed():
  class Waits:
    """Stays above everything: it touches nothing before it goes down to close."""

    def __call__(self, observation, key):
      rise = observation.table_height + 0.18 - observation.pose[2]
      return Decision(np.array([0, 0, rise, 0, 1], np.float32), close=False)

  quiet = task(num_attempts=1, num_steps=(4,))
  pushed = dataclasses.replace(quiet, pushing=rollout.Pushing(2, 0.6))
  (still,) = rollout.run_scene(quiet, Waits()).attempts
  (moved,) = rollout.run_scene(pushed, Waits()).attempts
  assert still.target.moved < 0.002 < 0.01 < moved.target.moved
  (late,) = rollout.run_scene(
    dataclasses.replace(quiet, pushing=rollout.Pushing(3, 0.6)), Waits()
  ).attempts
  assert late.target.moved < 0.002  # after the last decision: nobody could see it


def test_random_commands_are_seeded_and_stay_in_the_workspace():
  low, high = units.sample_unit(0).workspace()
  image = np.zeros((8, 8, 3), np.uint8)
  rng = np.random.default_rng(0)
  for step in (1, 2):
    for _ in range(100):
      pose = rng.uniform(low, high).astype(np.float32)
      observation = Observation(image, image, pose, step, 3, float(low[2]), (low, high))
      key = rng.integers(2**32, size=2, dtype=np.uint32)
      command = RandomPolicy()(observation, key).command
      np.testing.assert_array_equal(command, RandomPolicy()(observation, key).command)
      reached = grasp_env.apply_command(pose, command)
      assert np.all(reached[[0, 1, 3]] >= low[[0, 1, 3]] - 1e-5)
      assert np.all(reached[[0, 1, 3]] <= high[[0, 1, 3]] + 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [2, 3, 5, 10])
@pytest.mark.parametrize("group", ["training", "held_out"])
def test_random_commands_succeed_in_ten_to_thirty_percent(num_steps, group):
  tasks = [
    task(
      unit=units.sample_unit(seed % 6, group),
      scene_seed=seed,
      num_attempts=8,
      num_steps=(num_steps,),
      num_objects=6,  # as in experiments/configs/demo.py
      objects=group,
    )
    for seed in range(40)
  ]
  results = dict(fleet.map_unordered(run_task, tasks)).values()
  rate = np.mean([attempt.success for attempts in results for attempt in attempts])
  assert 0.10 < rate < 0.30


def test_every_attempt_begins_with_the_gripper_open_and_the_bin_at_rest():
  class Reads:
    largest_image = 48

    def __init__(self):
      self.readings, self.speeds = [], []

    def begin(self, env):
      self.speeds.append(np.abs(env.data.qvel[env.scene.object_qvel]).max())

    def decided(self, env, observation, decision):
      if observation.step == 1:
        self.readings.append(env.controller.gripper_reading())

    def frame(self, env):
      pass

    def end(self, env, attempt):
      pass

  reads = Reads()
  rollout.run_scene(task(num_attempts=5, num_objects=12), RandomPolicy(), reads)
  assert len(reads.readings) == 5
  assert min(reads.readings) > 0.085  # whatever was held before
  assert max(reads.speeds) < grasp_env.STILL


def test_there_is_room_for_all_that_is_taken_away():
  env = GraspEnv(units.sample_unit(0), [BOX] * 20, 48)
  env.fill(np.random.default_rng(0))
  for index in range(19):
    env.take_away([index])
  heights = env.object_positions()[:, 2] - env.unit.table_height
  env.close()
  assert env.remaining() == [19]
  assert heights.min() > -0.1


def test_more_geoms_than_usual_are_all_drawn():
  mugs = [objects.sample_object("mug", instance) for instance in range(40)]
  env = GraspEnv(units.sample_unit(0), mugs, 48)
  env.image()
  # 1 would say that geoms were left out.
  assert env.scene.model.ngeom > 500 and env._renderer._scene.status == 0
  env.close()
