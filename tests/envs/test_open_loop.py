"""Open loop: what a patch shows, and that the best one is found and reached."""

import dataclasses

import numpy as np
import pytest

from envs import objects, rollout, units
from envs.baselines import OpenLoopPolicy, patches
from envs.baselines.open_loop import Search
from envs.grasp_env import GraspEnv
from envs.units import BIN_CENTRE
from tests.envs.oracle_score import OracleScore

SQUARE = patches.SQUARE
SIZE = 64
# Still and exact, with plain surfaces: what is seen and reached is the policy's doing.
EXACT = units.Actuation(bias=(0.0,) * 4, noise=(0.0,) * 4)
FEW = Search(num_candidates=128, num_refined=128, batch_size=64)
RED = (0.9, 0.05, 0.05)


def unit_with(seed: int, **changes) -> units.Unit:
  return dataclasses.replace(units.sample_unit(seed, "held_out"), **changes)


def task(**changes) -> rollout.SceneTask:
  default = rollout.SceneTask(
    unit=unit_with(0, actuation=EXACT),
    scene_seed=7,
    num_attempts=1,
    num_steps=(4,),
    num_objects=2,
    objects="box,cylinder",
    frame_size=72,
  )
  return dataclasses.replace(default, **changes)


def red_box_in_a_patch(
  unit: units.Unit, spot: tuple[float, float], pose: tuple[float, float, float]
) -> np.ndarray:
  """The middle (row, column) of a flat red box's pixels in the patch at a pose."""
  part = objects.Part("box", (0.012, 0.012, 0.002))
  thing = objects.ObjectSpec("a-0", "a", (part,), 400.0, 0.8, RED)
  env = GraspEnv(unit, [thing], 256)
  try:
    # Its top is in the plane that patches show.
    height = unit.table_height + SQUARE.height - 0.002
    env.scene.bodies[0].place(
      env.data, np.array([*spot, height]), np.array([1.0, 0.0, 0.0, 0.0])
    )
    env._retract()  # out of view; and it is computed where everything is
    patch = patches.cut_patches(
      env.image(), unit.camera, unit.table_height, np.array([pose]), SIZE, SQUARE
    )[0].astype(int)
  finally:
    env.close()
  is_red = patch[..., 0] - patch[..., 1:].max(axis=-1) > 60
  assert is_red.any()
  return np.argwhere(is_red).mean(axis=0) + 0.5


@pytest.mark.parametrize("seed", [0, 1])
def test_a_place_is_at_the_same_pixel_of_a_patch_for_every_camera(seed):
  x, y = BIN_CENTRE
  middle = red_box_in_a_patch(unit_with(seed), (x, y), (x, y, 0.0))
  np.testing.assert_allclose(middle, SIZE / 2, atol=1.0)
  # Forward is up and left is left for a gripper at yaw 0.
  aside = red_box_in_a_patch(unit_with(seed), (x + 0.04, y + 0.02), (x, y, 0.0))
  pixels = SIZE / SQUARE.side
  np.testing.assert_allclose(
    aside, SIZE / 2 - pixels * np.array([0.04, 0.02]), atol=1.0
  )


def test_a_patch_turns_with_the_gripper():
  x, y = BIN_CENTRE
  pixels = SIZE / SQUARE.side
  # What lies forward is on the right of a gripper that has turned left.
  turned = red_box_in_a_patch(unit_with(2), (x + 0.04, y), (x, y, np.pi / 2))
  np.testing.assert_allclose(turned, SIZE / 2 + pixels * np.array([0.0, 0.04]), atol=1)


def test_half_a_turn_turns_the_picture():
  rng = np.random.default_rng(0)
  unit = units.sample_unit(0)
  image = rng.integers(0, 256, (72, 72, 3), np.uint8)
  poses = np.array([[*BIN_CENTRE, 0.4], [*BIN_CENTRE, 0.4 + np.pi]])
  one, other = patches.cut_patches(
    image, unit.camera, unit.table_height, poses, SIZE, SQUARE
  ).astype(int)
  assert np.abs(one - other[::-1, ::-1]).max() <= 1


def test_patches_of_a_plain_image_are_plain_even_beyond_its_border():
  unit = units.sample_unit(0)
  poses = np.array([[0.56, 0.0, 0.0], [1.5, 0.9, 1.0]])
  image = np.full((72, 72, 3), (10, 20, 30), np.uint8)
  cut = patches.cut_patches(image, unit.camera, 0.0, poses, 16, SQUARE)
  assert np.all(cut == [10, 20, 30])


def near(target: np.ndarray):
  """A score that is best at a grasp, and the same half a turn on."""

  def score(cut: np.ndarray, poses: np.ndarray) -> np.ndarray:
    assert cut.shape == (len(poses), SIZE, SIZE, 3)
    assert cut.dtype == np.uint8
    apart = np.linalg.norm(poses[:, :2] - target[:2], axis=1) / 0.05
    turned = np.sin(poses[:, 2] - target[2])
    return np.exp(-(apart**2) - turned**2)

  return score


@pytest.mark.parametrize("num_steps", [2, 3, 5])
def test_the_best_patch_is_found_and_reached(num_steps):
  target = np.array([BIN_CENTRE[0] - 0.07, BIN_CENTRE[1] + 0.09, 1.2])
  policy = OpenLoopPolicy(near(target), SIZE)
  one = task(num_steps=(num_steps,), num_objects=1)
  (attempt,) = rollout.run_scene(one, policy).attempts
  chosen = attempt.evidence[0]["pose"]
  assert np.abs(chosen[:2] - target[:2]).max() < 0.004
  assert abs(np.sin(chosen[2] - target[2])) < 0.1
  assert np.abs(attempt.poses[-1, :2] - chosen[:2]).max() < 0.003
  assert abs(np.sin(attempt.poses[-1, 3] - chosen[2])) < np.sin(np.deg2rad(3.0))
  assert all(np.array_equal(e["pose"], chosen) for e in attempt.evidence)


def test_the_evidence_holds_all_candidates_within_reach():
  policy = OpenLoopPolicy(near(np.array([*BIN_CENTRE, 0.0])), SIZE, search=FEW)
  (attempt,) = rollout.run_scene(task(), policy).attempts
  evidence = attempt.evidence[0]
  poses, scores = evidence["candidate_poses"], evidence["candidate_probabilities"]
  assert len(poses) == len(scores) == evidence["num_candidates"] == 128 + 2 * 128
  low, high = task().unit.workspace()
  assert np.all((poses[:, :2] >= low[:2]) & (poses[:, :2] <= high[:2]))
  assert np.all(np.abs(poses[:, 2]) <= np.pi / 2)
  assert evidence["p_best"] == scores.max()
  assert evidence["action"] == "above"
  assert "candidate_poses" not in attempt.evidence[1]


def test_the_same_seed_is_the_same_attempt():
  policy = OpenLoopPolicy(OracleScore(), SIZE, search=FEW)
  two = task(num_attempts=2)
  first = rollout.run_scene(two, policy).attempts
  rollout.run_scene(task(scene_seed=3), policy)  # nothing is carried over
  for one, other in zip(first, rollout.run_scene(two, policy).attempts, strict=True):
    np.testing.assert_array_equal(one.poses, other.poses)
    assert one.success == other.success


def test_a_calibration_that_is_wrong_moves_what_patches_show():
  unit = unit_with(0)
  seen = []

  def remember(cut, poses):
    seen.append(cut)
    return np.zeros(len(poses))

  x, y, z = unit.camera.position
  wrong = dataclasses.replace(unit.camera, position=(x + 0.1, y, z))
  for robot in (unit, dataclasses.replace(unit, calibration=wrong)):
    policy = OpenLoopPolicy(remember, SIZE, search=FEW)
    rollout.run_scene(task(unit=robot), policy)
  half = len(seen) // 2
  assert not np.array_equal(seen[0], seen[half])


def test_without_a_cell_it_says_so():
  policy = OpenLoopPolicy(near(np.zeros(3)), SIZE)
  with pytest.raises(RuntimeError, match="begin"):
    policy(None, np.zeros(2, np.uint32))  # type: ignore[arg-type]
  with pytest.raises(RuntimeError, match="begin"):
    OracleScore()(np.zeros((1, 4, 4, 3), np.uint8), np.zeros((1, 3)))


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"num_candidates": 100}, "num_candidates is 100"),
    ({"num_refined": 0}, "num_refined is 0"),
    ({"num_elites": 0}, "num_elites is 0"),
  ],
)
def test_a_wrong_search_is_named(changes, words):
  with pytest.raises(ValueError, match=words):
    Search(**changes)


def test_the_oracle_likes_the_middle_of_a_box_across_its_short_side():
  part = objects.Part("box", (0.05, 0.015, 0.02))
  thing = objects.ObjectSpec("a-0", "a", (part,), 400.0, 0.8, RED)
  env = GraspEnv(units.sample_unit(0), [thing], 48)
  try:
    height = env.unit.table_height + 0.02
    env.scene.bodies[0].place(
      env.data, np.array([*BIN_CENTRE, height]), np.array([1.0, 0.0, 0.0, 0.0])
    )
    score = OracleScore()
    score.begin(env)
    x, y = BIN_CENTRE
    good, off, beside, across, landing = score(
      np.empty((5, 1, 1, 3), np.uint8),
      np.array(
        [
          (x, y, 0.0),
          (x + 0.04, y, 0.0),
          (x, y + 0.08, 0.0),
          (x, y, np.pi / 2),
          (x, y + 0.04, 0.0),
        ]
      ),
    )
  finally:
    env.close()
  assert good > 0.8
  assert good > off > beside
  assert max(beside, across, landing) < 0.2


@pytest.mark.slow
def test_with_the_oracles_scores_it_grasps():
  outcomes = []
  for seed in range(16):
    one = task(
      unit=units.sample_unit(1000 + seed % 8, "held_out"),
      scene_seed=seed,
      num_attempts=5,
      num_steps=(2, 3, 5),
      num_objects=6,
      objects="held_out:rigid",
    )
    policy = OpenLoopPolicy(OracleScore(), 8)
    attempts = rollout.run_scene(one, policy).attempts
    outcomes += [attempt.success for attempt in attempts]
  assert np.mean(outcomes) > 0.8
