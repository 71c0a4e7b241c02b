"""Algorithm 1 as a table, and the servo against predictors whose optimum is known."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import commands, decision, limits, network, servo
from hand_eye.constraints import Constraints
from hand_eye.decision import Action, Cause

pytestmark = pytest.mark.usefixtures("compiled_once")

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
  """A predictor that scores commands by `score(weights, commands) -> logits`."""
  config = network.preset("small", frame_size=SIZE, crop_size=SIZE)
  return network.Predictor(
    config=config,
    init=lambda key: ({}, {}),
    apply=None,
    encode=lambda params, batch_stats, images: jnp.zeros((1, 1, 1, 1)),
    score=lambda params, batch_stats, features, commands: score(params, commands),
    intermediates=None,
  )


def _near(weights, command):
  """Success is likelier the nearer the final position is to pose + offset."""
  miss = (command[:, :2] - weights["offset"]) / weights["width"]
  return 2 - jnp.sum(jnp.square(miss), axis=-1)


def _towards(offset, width=0.03):
  """Weights of `_near`: as such, one compiled decision does for all of them."""
  return {"offset": np.array(offset, np.float32), "width": np.float32(width)}


def _policy(weights, score=_near, **options):
  return servo.ServoPolicy(_predictor(score), weights, {}, **options)


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
  decide = jax.jit(servo.decide, static_argnums=3)
  assert decide(p_null, p_best, is_last, servo.ServoConfig()) == expected


def test_thresholds_are_configurable():
  config = servo.ServoConfig(close_ratio=0.6, raise_ratio=0.2)
  ratios = np.array([0.7, 0.5, 0.1], np.float32)
  decide = jax.jit(servo.decide, static_argnums=3)
  actions = decide(ratios, np.ones(3, np.float32), np.zeros(3, bool), config)
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


def test_a_long_motion_is_cut_short():
  config = servo.ServoConfig(max_step=0.05, max_turn=0.1)
  for offset in ([0.1, 0.05], [0.03, 0.03]):
    made = _policy(_towards(offset), config=config)(Observation(), _key())
    best, sent = made.evidence["best"], made.command
    assert np.linalg.norm(best[:3]) > 0.05
    assert np.linalg.norm(sent[:3]) <= 0.05 + 1e-6
    assert abs(commands.yaw_change(sent)) <= 0.1 + 1e-6
    np.testing.assert_allclose(sent[0] * best[1], sent[1] * best[0], atol=1e-5)


def test_goes_where_the_person_allows_and_closes_nowhere_else():
  """The best place is where the gripper is, but there it is to keep out."""
  constraints = Constraints(keep_out=((0.5, -0.05, 0.6, 0.05),), yaw_range=(0.5, 0.9))
  policy = _policy(_towards([0.0, 0.0], width=0.1), constraints=constraints)
  made = policy(Observation(), _key())
  assert made.action == Action.MOVE and "may not close here" in made.reason
  assert made.evidence["p_null"] > made.evidence["p_best"]
  end = np.asarray(commands.apply(POSE, made.command))
  assert np.max(np.abs(end[:2] - [0.55, 0.0])) == pytest.approx(0.05, abs=0.01)
  assert 0.5 - 1e-4 <= end[3] <= 0.9 + 1e-4
  last = policy(Observation(step=4), _key())
  assert last.cause == Cause.MAY_NOT_CLOSE and last.evidence["p_best"] > 0.5
  there = policy(Observation(step=4, pose=end), _key())
  assert there.close


def test_limits_that_leave_nothing_hold():
  nowhere = Constraints(keep_out=((0.3, -0.3, 0.8, 0.3),))
  made = _policy(_towards([0, 0]), constraints=nowhere)(Observation(step=4), _key())
  assert made.cause == Cause.NOTHING_ALLOWED and "leave no motion" in made.reason


def test_regions_that_touch_leave_no_seam():
  """Two of them forbid the whole workspace: their common edge is forbidden, too."""
  halves = ((0.40, -0.2, 0.56, 0.2), (0.56, -0.2, 0.70, 0.2))
  policy = _policy(_towards([0.0, 0.0]), constraints=Constraints(keep_out=halves))
  rng = np.random.default_rng(0)
  for seed in range(40):
    pose = rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)
    pose[0] = 0.56 if seed % 4 == 0 else pose[0]
    made = policy(Observation(pose=pose, step=1 + 3 * (seed % 2)), _key(seed))
    assert made.cause == Cause.NOTHING_ALLOWED


def test_motions_end_outside_an_l_of_two_regions():
  """The best place is where the two meet."""
  corner = ((0.40, -0.2, 0.56, 0.2), (0.56, 0.0, 0.70, 0.2))
  policy = _policy(_towards([0.0, 0.0]), constraints=Constraints(keep_out=corner))
  rng = np.random.default_rng(0)
  moved = 0
  for seed in range(40):
    pose = rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)
    made = policy(Observation(pose=pose), _key(seed))
    if made.action in (Action.MOVE, Action.RAISE):
      moved += 1
      x, y = pose[:2] + made.command[:2]
      assert x > 0.56 and y < 0.0
  assert moved > 10


def test_a_gripper_outside_comes_back_or_holds():
  away = Observation(pose=np.array([0.8, 0.0, 0.12, 0.3], np.float32))
  back = _policy(_towards([-0.15, 0.0], width=0.2))(away, _key())
  assert away.pose[0] + back.command[0] <= 0.7 + 1e-5
  config = servo.ServoConfig(max_step=0.04)
  part = _policy(_towards([-0.15, 0.0], width=0.2), config=config)(away, _key())
  assert part.action != Action.HOLD and -0.04 <= part.command[0] < -0.02


def test_a_fleet_decides_together_like_each_alone():
  """`jax.vmap` over robots: poses, workspaces, constraints, keys of their own."""
  config = network.preset("small", channels=4, image_convs=1, command_convs=1)
  predictor = network.build(config)
  params, batch_stats = predictor.init(jax.random.key(0))
  rng = np.random.default_rng(0)
  params["logit"]["kernel"] = rng.normal(size=(64, 1)).astype(np.float32) / 4
  robots = 3
  frames = rng.integers(0, 256, (2, robots, 72, 72, 3), dtype=np.uint8)
  low = np.tile(WORKSPACE.low, (robots, 1))
  low[:, 0] += [0.0, 0.05, 0.1]
  regions = [
    Constraints(), Constraints(keep_out=((0.5, -0.1, 0.6, 0.1),)),
    Constraints(yaw_range=(0.0, 0.5)),
  ]  # fmt: skip
  arrays = [constraints.arrays() for constraints in regions]
  inputs = decision.Inputs(
    pregrasp_image=frames[0],
    image=frames[1],
    pose=rng.uniform(WORKSPACE.low, WORKSPACE.high, (robots, 4)).astype(np.float32),
    table_height=np.full(robots, TABLE, np.float32),
    low=low,
    high=np.tile(WORKSPACE.high, (robots, 1)),
    is_last=np.array([False, False, True]),
    key=rng.integers(0, 2**32, (robots, 2), dtype=np.uint32),
    **jax.tree.map(lambda *each: np.stack(each), *arrays),
  )
  weights = {"params": params, "batch_stats": batch_stats}
  decide = servo.Servo(predictor).decide
  together = jax.jit(jax.vmap(decide, in_axes=(None, 0)))(weights, inputs)
  alone = jax.jit(decide)
  for i in range(robots):
    one = alone(weights, jax.tree.map(lambda x, i=i: x[i], inputs))
    assert together.action[i] == one.action
    for name in ("p_null", "p_best", "command", "probabilities", "candidates"):
      np.testing.assert_allclose(together[name][i], one[name], atol=1e-4)
  assert together.action[2] in (Action.CLOSE, Action.HOLD)
  assert len({tuple(np.asarray(c)) for c in together.best}) == robots


def test_closes_where_it_is_best():
  made = _policy(_towards([0.0, 0.0]))(Observation(), _key())
  assert made.close and made.evidence["action"] == "close"
  np.testing.assert_array_equal(made.command, commands.NULL_COMMAND)


def test_closes_at_the_last_step():
  made = _policy(_towards([0.1, 0.1]))(Observation(step=4), _key())
  assert made.close and made.reason == "the last step closes"


def test_everything_scored_ends_at_the_table_and_inside():
  """The null command too. What is not so gets a score that would win."""
  allowed = limits.feasible_set(WORKSPACE)

  def score(weights, command):
    turn = commands.yaw_change(command)
    motion = jnp.concatenate([command[:, :2], turn[:, None]], axis=-1)
    down = jnp.abs(command[:, 2] - (TABLE - POSE[2])) < 1e-6
    good = down & limits.is_feasible(motion, POSE, allowed)
    return jnp.where(good, _near(weights, command) / 1e3, 50.0)

  wide = servo.ServoConfig(initial_std=(0.2, 0.2, 2.0), num_redraws=2)
  made = _policy(_towards([1.0, 1.0]), score, config=wide)(Observation(), _key())
  assert made.evidence["p_best"] < 0.9 and made.evidence["p_null"] < 0.9
  assert made.evidence["candidates"].shape == (3 * 64, 5)
  assert np.max(made.evidence["probabilities"]) == np.float32(made.evidence["p_best"])
  # The optimum is outside: the best candidate is near the corner next to it.
  assert np.all(made.evidence["best"][:2] > [0.1, 0.1])


def _picture(where, camera):
  """What a scripted camera sees of points [2], metres: a soft spot each, uint8[S, S].

  Args:
    camera: (turn, zoom, shift [2]): how far it was moved from where it was thought.
  """
  turn, zoom, shift = camera
  rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  middle = (WORKSPACE.low[:2] + WORKSPACE.high[:2]) / 2
  column, row = rotation @ (where - middle) * zoom * 60 + 32 + np.asarray(shift)
  grid = np.arange(64)
  spot = np.exp(
    -(np.square(grid[None, :] - column) + np.square(grid[:, None] - row)) / 8
  )
  return (255 * spot).astype(np.uint8)


def _scripted_to_see():
  """A predictor that finds gripper and target in the image, and believes that its
  camera was never moved: it must servo, it cannot aim."""

  def encode(params, batch_stats, images):
    spots = images[0, :, :, 3:5].astype(jnp.float32)
    weight = jnp.maximum(spots.sum(axis=(0, 1)), 1e-6)
    grid = jnp.arange(64.0)
    column = jnp.einsum("rcs,c->s", spots, grid) / weight
    row = jnp.einsum("rcs,r->s", spots, grid) / weight
    return jnp.stack([column, row])[None, None]

  def score(params, batch_stats, features, command):
    gripper, target = features[0, 0, :, 0], features[0, 0, :, 1]
    miss = command[:, :2] - (target - gripper) / 60
    return 2 - jnp.sum(jnp.square(miss / 0.03), axis=-1)

  config = network.preset("small", frame_size=64, crop_size=64)
  return _predictor(None)._replace(config=config, encode=encode, score=score)


def test_servoing_reaches_a_target_within_five_steps_with_the_camera_moved():
  """From any start, to any target, with an error of actuation as well."""
  policy = servo.ServoPolicy(_scripted_to_see(), {}, {})
  rng = np.random.default_rng(0)
  inner = WORKSPACE.high[:2] - WORKSPACE.low[:2]
  aimed = []
  for attempt in range(20):
    target = WORKSPACE.low[:2] + inner * rng.uniform(0.15, 0.85, 2)
    pose = rng.uniform(WORKSPACE.low, WORKSPACE.high).astype(np.float32)
    camera = (rng.uniform(-0.4, 0.4), rng.uniform(0.8, 1.2), rng.uniform(-4, 4, 2))
    for step in range(1, 7):
      image = np.zeros((64, 64, 3), np.uint8)
      image[..., 0] = _picture(pose[:2], camera)
      image[..., 1] = _picture(target, camera)
      seen = Observation(
        pregrasp_image=np.zeros_like(image),
        image=image,
        pose=pose,
        step=step,
        num_steps=9,
      )
      made = policy(seen, _key(10 * attempt + step))
      if made.close:
        break
      command = made.command.copy()
      command[:2] *= rng.uniform(0.9, 1.0)
      pose = np.asarray(commands.apply(pose, command))
      if step == 1:
        aimed.append(np.linalg.norm(pose[:2] - target))
    assert made.close, f"not closed after {step} steps, {target} {pose} {camera}"
    np.testing.assert_allclose(pose[:2], target, atol=0.03)
  assert np.median(aimed) > 0.03  # who only aims, misses


@pytest.mark.parametrize("batched", [False, True])
def test_a_process_that_guards_transfers_still_gets_decisions(batched):
  policy = _policy(_towards([0.05, 0.05]), batched=batched)
  with jax.transfer_guard("disallow"):
    made = policy(Observation(), _key())
    together = policy.decide_batch([Observation()] * 2, [_key()] * 2)
  for one in together:
    np.testing.assert_allclose(one.command, made.command, atol=1e-5)


def test_same_key_same_decision():
  policy = _policy(_towards([0.05, 0.05]))
  one, same, other = (policy(Observation(), _key(seed)) for seed in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, one.evidence, same.evidence)
  np.testing.assert_array_equal(one.command, same.command)
  assert np.any(one.command != other.command)


def test_nonsense_is_held():
  made = _policy(_towards([0, 0], width=math.nan))(Observation(), _key())
  assert made.action == Action.HOLD and "not finite" in made.reason
  np.testing.assert_array_equal(made.command, commands.NULL_COMMAND)
  lost = Observation(pose=np.array([0.5, np.nan, 0.1, 0.0], np.float32))
  assert "pose" in _policy(_towards([0, 0]))(lost, _key()).reason


def test_a_workspace_in_millimetres_is_held():
  box = np.float32([400, -200, 20, -3]), np.float32([700, 200, 300, 3])
  seen = Observation(workspace=box, pose=np.float32([550, 0, 120, 0]), table_height=20)
  made = _policy(_towards([0, 0]))(seen, _key())
  assert made.cause == Cause.BAD_INPUT and "beyond 10 m" in made.reason


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
    ({"max_step": 0.0}, "max_step is 0.0, expected a finite number > 0"),
    ({"max_step": math.inf}, "max_step is inf"),
    ({"max_turn": math.nan}, "max_turn is nan"),
    ({"max_turn": 4.0}, "max_turn is 4.0, .* at most pi"),
  ],
)
def test_wrong_configurations_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    servo.ServoConfig(**fields)


def test_network_decides_like_its_parts():
  """The real network: candidates' probabilities are those of `Predictor.apply`."""
  config = network.preset("small", channels=4, image_convs=1, command_convs=1)
  predictor = network.build(config)
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


def test_several_observations_decided_together_are_those_alone():
  """Three of them, which fill no batch, and one that holds."""
  weights = _towards([0.06, -0.04])
  observations = [
    Observation(),
    Observation(table_height=-1.0),  # outside the workspace
    Observation(pose=POSE + np.array([0.05, 0.0, 0.0, 0.0], np.float32)),
    Observation(step=4),
  ]
  keys = [np.array([0, i], np.uint32) for i in range(4)]
  together = _policy(weights, batched=True).decide_batch(observations, keys)
  single = _policy(weights).decide_batch(observations, keys)  # on a CPU, one by one
  for a, b in zip(together, single, strict=True):
    assert (a.action, a.cause) == (b.action, b.cause)
    np.testing.assert_allclose(a.command, b.command, atol=1e-5)
    assert a.confidence == pytest.approx(b.confidence, abs=1e-5)
  actions = [made.action for made in together]
  assert actions[1] == Action.HOLD and actions[3] == Action.CLOSE
  assert actions[0] not in (Action.HOLD, Action.CLOSE)
