"""Algorithm 1 as a table, and the servo against predictors whose optimum is known."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import commands, decision, network, servo
from hand_eye.decision import Action

SIZE = 8
TABLE = 0.02
WORKSPACE = commands.Workspace(
  low=np.array([0.4, -0.2, TABLE, -math.pi], np.float32),
  high=np.array([0.7, 0.2, 0.3, math.pi], np.float32),
)
POSE = np.array([0.55, 0.0, 0.12, 0.3], np.float32)


class Observation(NamedTuple):
  pregrasp_image: np.ndarray = np.zeros((SIZE, SIZE, 3), np.uint8)
  image: np.ndarray = np.zeros((SIZE, SIZE, 3), np.uint8)
  pose: np.ndarray = POSE
  step: int = 1
  num_steps: int = 4
  table_height: float = TABLE
  workspace: tuple[np.ndarray, np.ndarray] = (WORKSPACE.low, WORKSPACE.high)


def _predictor(score):
  """A predictor that scores commands by `score(commands) -> logits`."""
  config = network.preset("small", frame_size=SIZE, crop_size=SIZE)
  return network.Predictor(
    config=config,
    init=lambda key: ({}, {}),
    apply=None,
    encode=lambda params, batch_stats, images: jnp.zeros((1, 1, 1, 1)),
    score=lambda params, batch_stats, features, commands: score(commands),
    intermediates=None,
  )


def _towards(offset, width=0.03):
  """Success is likelier the nearer the final position is to pose + offset."""
  offset = jnp.asarray(offset)

  def score(command):
    return 2 - jnp.sum(jnp.square((command[:, :2] - offset) / width), axis=-1)

  return score


def _policy(score, **options):
  return servo.ServoPolicy(_predictor(score), {}, {}, **options)


def _key(seed=0):
  return np.array([0, seed], np.uint32)


@pytest.mark.parametrize(
  ("p_null", "p_best", "is_last", "expected"),
  [
    (0.90, 1.0, False, Action.CLOSE),  # At least 90 %: the boundary closes.
    (0.89, 1.0, False, Action.MOVE),
    (0.51, 1.0, False, Action.MOVE),
    (0.50, 1.0, False, Action.RAISE),  # At most 50 %: the boundary raises.
    (0.01, 1.0, False, Action.RAISE),
    (0.09, 0.1, False, Action.CLOSE),  # The ratio counts, not the probability.
    (0.30, 0.2, False, Action.CLOSE),
    (0.01, 1.0, True, Action.CLOSE),  # T closes whatever p is.
    (math.nan, 1.0, False, Action.HOLD),
    (0.5, math.nan, True, Action.HOLD),
    (0.5, math.inf, False, Action.HOLD),
  ],
)
def test_decision_table(p_null, p_best, is_last, expected):
  p_null, p_best = np.float32(p_null), np.float32(p_best)
  assert servo.decide(p_null, p_best, is_last, servo.ServoConfig()) == expected


def test_thresholds_are_configurable():
  config = servo.ServoConfig(close_ratio=0.6, raise_ratio=0.2)
  ratios = np.array([0.7, 0.5, 0.1], np.float32)
  actions = servo.decide(ratios, np.ones(3, np.float32), np.zeros(3, bool), config)
  np.testing.assert_array_equal(actions, [Action.CLOSE, Action.MOVE, Action.RAISE])


def test_moves_to_the_best_pose_at_the_table():
  made = _policy(_towards([0.025, -0.015]))(Observation(), _key())
  assert made.action == Action.MOVE and not made.close
  np.testing.assert_allclose(made.command[:2], [0.025, -0.015], atol=0.01)
  np.testing.assert_allclose(POSE[2] + made.command[2], TABLE, atol=1e-6)
  np.testing.assert_array_equal(made.command, made.evidence["best"])


def test_raises_to_between_4_and_10_cm_above_the_table():
  policy = _policy(_towards([0.08, 0.05]))
  heights = []
  for seed in range(20):
    made = policy(Observation(), _key(seed))
    assert made.action == Action.RAISE
    np.testing.assert_array_equal(made.command[:2], made.evidence["best"][:2])
    heights.append(POSE[2] + made.command[2] - TABLE)
  assert 0.04 <= min(heights) < 0.06 and 0.08 < max(heights) <= 0.10


def test_raising_stays_below_the_ceiling():
  low = dataclasses.replace(WORKSPACE, high=np.array([0.7, 0.2, 0.05, 3.2], np.float32))
  made = _policy(_towards([0.08, 0.05]), workspace=low)(Observation(), _key())
  np.testing.assert_allclose(POSE[2] + made.command[2], 0.05, atol=1e-6)


def test_a_table_outside_the_workspace_holds():
  made = _policy(_towards([0.08, 0.05]))(Observation(table_height=-0.5), _key())
  assert made.action == Action.HOLD and "table height" in made.reason


def test_closes_where_it_is_best():
  made = _policy(_towards([0.0, 0.0]))(Observation(), _key())
  assert made.close and made.evidence["action"] == "close"
  np.testing.assert_array_equal(made.command, commands.NULL_COMMAND)


def test_closes_at_the_last_step():
  made = _policy(_towards([0.1, 0.1]))(Observation(step=4), _key())
  assert made.close and made.reason == "the last step closes"


def test_everything_scored_ends_at_the_table_and_inside():
  """The null command too. What is not so gets a score that would win."""
  inside = servo.is_feasible

  def score(command):
    turn = commands.yaw_change(command)
    motion = jnp.concatenate([command[:, :2], turn[:, None]], axis=-1)
    down = jnp.abs(command[:, 2] - (TABLE - POSE[2])) < 1e-6
    good = down & inside(motion, POSE, WORKSPACE)
    return jnp.where(good, _towards([1.0, 1.0])(command) / 1e3, 50.0)

  wide = servo.ServoConfig(initial_std=(0.2, 0.2, 2.0), num_redraws=2)
  made = _policy(score, config=wide)(Observation(), _key())
  assert made.evidence["p_best"] < 0.9 and made.evidence["p_null"] < 0.9
  assert made.evidence["candidates"].shape == (3 * 64, 5)
  assert np.max(made.evidence["probabilities"]) == np.float32(made.evidence["p_best"])
  # The optimum is outside: the best candidate is near the corner next to it.
  assert np.all(made.evidence["best"][:2] > [0.1, 0.1])


def test_pulled_motions_are_feasible_from_anywhere():
  rng = np.random.default_rng(0)
  low = np.array([0.4, -0.2, 0.0, -1.0], np.float32)
  high = np.array([0.7, 0.2, 0.3, 2.0], np.float32)
  space = commands.Workspace(low=low, high=high)
  poses = rng.uniform([0, -1, 0, -math.pi], [1, 1, 0.3, math.pi], (5000, 4))
  motions = rng.normal(size=(5000, 3)) * [0.3, 0.3, 3.0]
  poses, motions = poses.astype(np.float32), motions.astype(np.float32)

  @jax.vmap
  def check(motion, pose):
    pulled = servo.pull(motion, pose, space)
    was = servo.is_feasible(motion, pose, space)
    same = jnp.allclose(pulled, motion, atol=1e-5)
    return servo.is_feasible(pulled, pose, space), was, same

  feasible, was, same = check(motions, poses)
  assert np.all(feasible)
  assert 0 < np.sum(was) < 5000 and np.all(same[was])


def test_servoing_reaches_a_target_within_five_steps():
  """From any start, moving as commanded but for an error of actuation."""
  corner, target = np.array([0.4, -0.2]), np.array([0.47, 0.12])
  rng = np.random.default_rng(0)

  def encode(params, batch_stats, images):
    # The scripted camera writes the gripper's position, in 2 mm, into its image.
    return images[:, :1, :1, 3:].astype(jnp.float32)

  def score(params, batch_stats, features, command):
    miss = features[0, 0, 0, :2] / 500 + corner + command[:, :2] - target
    return 2 - jnp.sum(jnp.square(miss / 0.03), axis=-1)

  scripted = _predictor(None)._replace(encode=encode, score=score)
  policy = servo.ServoPolicy(scripted, {}, {})

  for attempt in range(10):
    pose = rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)
    for step in range(1, 7):
      image = np.zeros((SIZE, SIZE, 3), np.uint8)
      image[..., :2] = np.clip((pose[:2] - corner) * 500, 0, 255)
      seen = Observation(image=image, pose=pose, step=step, num_steps=9)
      made = policy(seen, _key(10 * attempt + step))
      if made.close:
        break
      command = made.command.copy()
      command[:2] *= rng.uniform(0.7, 1.0)
      pose = np.asarray(commands.apply(pose, command))
    assert made.close, f"not closed after {step} steps at {pose}"
    np.testing.assert_allclose(pose[:2], target, atol=0.03)


def test_same_key_same_decision():
  policy = _policy(_towards([0.05, 0.05]))
  one, same, other = (policy(Observation(), _key(seed)) for seed in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, one.evidence, same.evidence)
  np.testing.assert_array_equal(one.command, same.command)
  assert np.any(one.command != other.command)


def test_nonsense_is_held():
  made = _policy(lambda command: jnp.full(len(command), jnp.nan))(Observation(), _key())
  assert made.action == Action.HOLD and "not finite" in made.reason
  np.testing.assert_array_equal(made.command, commands.NULL_COMMAND)
  lost = Observation(pose=np.array([0.5, np.nan, 0.1, 0.0], np.float32))
  assert "pose" in _policy(_towards([0, 0]))(lost, _key()).reason


@pytest.mark.parametrize(
  ("broken", "message"),
  [
    ({"image": np.zeros((9, SIZE, 3), np.uint8)}, r"image is uint8\[9, 8, 3\]"),
    ({"pregrasp_image": np.zeros((SIZE, SIZE, 3))}, "pregrasp_image is float64"),
    ({"pose": np.zeros(3, np.float32)}, r"pose is float32\[3\]"),
    ({"workspace": None}, "no workspace"),
  ],
)
def test_wrong_observations_are_refused(broken, message):
  with pytest.raises(decision.ObservationError, match=message):
    _policy(_towards([0, 0]))(Observation(**broken), _key())


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"close_ratio": 0.4}, "raise_ratio"),
    ({"raise_low": 0.2}, "raise_low"),
    ({"initial_std": (0.1, 0.1)}, "initial_std"),
  ],
)
def test_wrong_configurations_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    servo.ServoConfig(**fields)


def test_network_decides_like_its_parts():
  """The real network: candidates' probabilities are those of `Predictor.apply`."""
  config = network.preset("small", channels=4, image_convs=1, command_convs=1)
  predictor = network.build_predictor(config)
  params, batch_stats = predictor.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  params["logit"]["kernel"] = rng.normal(size=(64, 1)).astype(np.float32) / 4
  frames = rng.integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  seen = Observation(pregrasp_image=frames[0], image=frames[1])
  made = servo.ServoPolicy(predictor, params, batch_stats)(seen, _key())
  candidates = made.evidence["candidates"]
  pair = np.concatenate(frames[:, 4:68, 4:68], axis=-1)
  assert np.std(made.evidence["probabilities"]) > 1e-3
  images = np.broadcast_to(pair, (len(candidates), *pair.shape))
  apply = jax.jit(predictor.apply, static_argnames="train")
  logits, _ = apply(params, batch_stats, images, candidates, train=False)
  np.testing.assert_allclose(
    made.evidence["probabilities"], jax.nn.sigmoid(logits), atol=1e-5
  )
