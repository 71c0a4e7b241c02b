"""Each promise of a loaded policy, broken on purpose, and what then happens."""

import functools
import math

import jax
import numpy as np
import pytest
from jax import export as jax_export

from hand_eye import commands, decision, inference
from hand_eye.constraints import Constraints
from hand_eye.decision import Action, Cause
from hand_eye.deploy import policy_file, program, runtime, watchdog
from tests.hand_eye.deploy.tiny import WORKSPACE, observation

pytestmark = pytest.mark.usefixtures("compiled_once")

KEY = np.array([0, 1], np.uint32)


class Clock:
  """Moves when told to, and by `tick` whenever it is read."""

  def __init__(self, tick=0.0):
    self.now, self.tick = 0.0, tick

  def __call__(self):
    self.now += self.tick
    return self.now


@pytest.fixture(scope="module")
def path(exported):
  return exported


@pytest.fixture(scope="module")
def loaded(path):
  return runtime.load_policy(path, clock=Clock())


class StandIn:
  """An engine: JAX, called from the host, 10 ms a call of a clock that says so."""

  def __init__(self, clock, weights, config, counts):
    self.clock, self.weights, self.counts = clock, weights, counts
    self.distort = lambda logits: logits
    self._encode = jax.jit(functools.partial(inference.encode, config=config))
    self._score = jax.jit(functools.partial(inference.score, config=config))

  def encode(self, images):
    self.clock.now += 0.010
    return np.asarray(self._encode(self.weights, images))

  def score(self, features, candidates):
    self.clock.now += 0.010
    assert len(candidates) in self.counts
    return self.distort(np.asarray(self._score(self.weights, features, candidates)))


@pytest.fixture(scope="module")
def loaded_with_engine(path):
  clock, made = Clock(), []

  def stand_in(weights, config, counts):
    made.append(StandIn(clock, weights, config, counts))
    return made[0]

  return runtime.load_policy(path, engine=stand_in, clock=clock), made[0]


@pytest.fixture
def policy(loaded):
  return loaded.for_robot()


@pytest.fixture
def with_engine(loaded_with_engine):
  return loaded_with_engine[0].for_robot()


@pytest.fixture
def distort(loaded_with_engine):
  """`distort(function)`: what the engine's logits go through from now on."""
  engine = loaded_with_engine[1]
  yield functools.partial(setattr, engine, "distort")
  engine.distort = lambda logits: logits


@pytest.fixture(params=["policy", "with_engine"])
def either(request):
  return request.getfixturevalue(request.param)


class FromFile:
  """A program: the decision function of a file with weights of one's own."""

  needs = 0.0

  def __init__(self, path):
    _, members = policy_file.read(path)
    function = jax_export.deserialize(bytearray(members["whole.bin"])).call
    self._function, self.clock = jax.jit(function), Clock()
    self.good = policy_file.unflatten(policy_file.read_arrays(members["weights.npz"]))
    self.weights = self.good

  def whole(self, inputs):
    return self._function(self.weights, *inputs)


@pytest.fixture(scope="module")
def from_file(path):
  return FromFile(path)


def _around(program, path):
  """A policy around any program."""
  manifest = runtime.read_manifest(path)
  return runtime.LoadedPolicy(manifest, program, watchdog.FrameChecks, Constraints())


def _held(made, cause, words):
  assert made.action == Action.HOLD and made.cause == cause
  assert words in made.reason, made.reason
  np.testing.assert_array_equal(made.command, commands.NULL_COMMAND)
  assert made.confidence == 0 and not made.close


def test_an_answer_says_what_why_and_with_what_confidence(policy):
  made = policy(observation(), KEY)
  assert made.action == Action.MOVE and made.cause == Cause.NONE
  assert made.confidence == made.evidence["p_best"] > 0
  assert f"of {made.confidence:.2f}" in made.reason
  assert made.iterations == 3 and made.complete
  assert made.evidence["means"].shape == (3, 3)
  assert made.evidence["covariances"].shape == (3, 3, 3)
  last = policy(observation(1, step=4), KEY)
  assert last.close and last.confidence == last.evidence["p_null"]
  assert policy.tally.counts() == {"decisions": 2}


def test_the_parts_decide_like_the_whole(policy):
  one = policy(observation(), KEY)
  same = policy(observation(1), KEY, 1.0)
  other = policy(observation(), KEY, 1.0)
  assert np.any(one.command != same.command)
  np.testing.assert_allclose(one.command, other.command, atol=1e-6)
  for name in ("candidates", "probabilities", "means", "covariances"):
    np.testing.assert_allclose(one.evidence[name], other.evidence[name], atol=1e-5)
  assert other.iterations == 3 and other.complete and other.on_time


def test_with_an_engine_the_file_decides_the_same(policy, with_engine):
  assert with_engine.engine == "stand_in" and policy.engine is None
  for seed in range(4):
    one = policy(observation(seed), KEY)
    other = with_engine(observation(seed), KEY, 1.0 if seed % 2 else None)
    assert one.action == other.action and one.reason == other.reason
    np.testing.assert_allclose(one.command, other.command, atol=1e-5)
    for name in ("candidates", "probabilities", "means", "covariances"):
      np.testing.assert_allclose(one.evidence[name], other.evidence[name], atol=1e-5)
    assert other.iterations == 3 and other.complete and other.on_time


@pytest.mark.parametrize("fits", [0, 1, 2, 3])
def test_a_deadline_gives_the_best_of_the_iterations_that_fit(with_engine, fits):
  """To begin takes 20 ms, an iteration 10."""
  made = with_engine(observation(), KEY, 0.0205 + 0.010 * fits)
  assert made.on_time
  if not fits:
    _held(made, Cause.NO_TIME, "20.5 ms are left, and one iteration needs 30.0 ms")
    return
  assert made.iterations == fits and made.complete == (fits == 3)
  assert made.evidence["candidates"].shape == (64 * fits, 5)
  assert ("the deadline came" in made.reason) == (fits < 3)
  best = np.argmax(made.evidence["probabilities"])
  np.testing.assert_array_equal(
    made.evidence["best"], made.evidence["candidates"][best]
  )


@pytest.fixture(scope="module")
def ticking(path):
  """Its clock says that everything takes 10 ms, and so does what is between."""
  return runtime.load_policy(path, clock=Clock(tick=0.010))


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_without_an_engine_deadlines_are_the_same(ticking, fits):
  made = ticking.for_robot()(observation(), KEY, 0.035 + 0.030 * fits)
  assert made.iterations == fits and made.complete == (fits == 3)


def test_a_deadline_of_a_millisecond_is_answered_at_once(ticking):
  """Nothing is begun that cannot end, however often it is tried."""
  policy = ticking.for_robot()
  for seed in range(50):
    made = policy(observation(seed), KEY, 0.001)
    _held(made, Cause.NO_TIME, "one iteration needs 30.0 ms")
  assert policy.tally.counts()["no_time"] == 50
  assert policy.needs == pytest.approx(0.030)


@pytest.mark.parametrize("deadline", [math.nan, -1.0, -math.inf])
def test_a_deadline_that_is_none_holds(either, deadline):
  made = either(observation(), KEY, deadline)
  _held(made, Cause.NO_TIME, "one iteration needs")
  assert not made.on_time


def test_one_slow_moment_is_forgotten():
  """Also when nothing runs any more, for lack of time; the fastest run is the floor."""
  pace = program.Pace()
  for seconds in (0.010, 0.500):
    pace.add("begin", seconds)
  assert pace.expected("begin") == 0.500
  for _ in range(100):
    pace.forget()
  assert pace.expected("begin") == 0.010


def test_predictions_follow_a_slower_run_at_once_and_a_faster_one_slowly():
  pace = program.Pace()
  assert pace.expected("iterate") == math.inf
  pace.add("iterate", 0.010)
  pace.add("iterate", 0.0)
  assert 0.005 < pace.expected("iterate") < 0.010
  pace.add("iterate", 0.020)
  pace.add("finish", 0.001)
  assert pace.expected("iterate", "finish") == pytest.approx(0.021)


def test_late_answers_say_so(ticking):
  policy = ticking.for_robot()
  made = policy(observation(), KEY, 0.065)
  assert made.seconds > 0.065 and not made.on_time and "ms late" in made.reason
  assert policy.tally.counts()["late"] == 1


def test_nothing_is_compiled_after_loading(either):
  compiled = []

  def listen(event, *_, **__):
    if "compile" in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  for seed in range(3):
    either(observation(seed, step=seed + 2), KEY)
    either(observation(seed + 10), KEY, 9.0)
  assert not compiled
  jax.jit(lambda x: x * 3.25 + 1)(np.zeros(17))
  assert compiled  # the listener hears


@pytest.mark.parametrize("guard", ["disallow", "disallow_explicit"])
def test_a_process_that_guards_transfers_still_gets_decisions(either, guard):
  expected = either(observation(), KEY)
  for deadline in (None, 1e3):
    with jax.transfer_guard(guard):
      made = either.for_robot()(observation(), KEY, deadline)
    assert made.action == Action.MOVE, made.reason
    np.testing.assert_allclose(made.command, expected.command, atol=1e-5)


def test_a_process_that_guards_transfers_can_load_a_policy(path):
  with jax.transfer_guard("disallow"):
    policy = runtime.load_policy(path, deadlines=False)
    assert policy(observation(), KEY).action == Action.MOVE


def test_other_shapes_are_an_error_and_not_a_compilation():
  """Observations are checked before, so this is the function itself."""
  example = decision.Inputs(*[np.zeros(3, np.float32)] * len(decision.Inputs._fields))
  functions = {"whole": lambda weights, *inputs: {"command": sum(inputs)}}
  made = program.Program(functions, {}, example, 3, Clock())
  assert np.asarray(made.whole(example)["command"]).shape == (3,)
  with pytest.raises(runtime.RecompilationError, match="shapes and types .* static"):
    made.whole(example._replace(pose=np.zeros(4, np.float32)))


def test_without_deadlines_a_deadline_is_an_error_and_not_a_compilation(path):
  without = runtime.load_policy(path, deadlines=False)
  assert without(observation(), KEY).action == Action.MOVE
  with pytest.raises(runtime.RecompilationError, match="deadlines=True"):
    without(observation(1), KEY, 1.0)


@pytest.mark.parametrize(
  ("broken", "message"),
  [
    ({"image": np.full((72, 72, 3), np.nan)}, r"image is float64\[72, 72, 3\]"),
    ({"image": np.zeros((72, 72), np.uint8)}, r"image is uint8\[72, 72\]"),
    ({"pregrasp_image": np.zeros((64, 64, 3), np.uint8)}, "pregrasp_image is uint8"),
    ({"pose": np.zeros(4, int)}, "pose is int"),
    ({"pose": None}, "pose is NoneType None, expected float32"),
    ({"pose": [0.5, 0.0, 0.1, [0.2]]}, r"pose is list \[0.5, 0.0, 0.1, \[0.2"),
    ({"pose": "home"}, "pose is str 'home'"),
    ({"image": None}, r"image is NoneType None, expected uint8\[72, 72, 3\]"),
    ({"table_height": None}, "table_height is NoneType None, expected one number"),
    ({"table_height": "low"}, "table_height is str 'low', expected one number"),
    ({"table_height": np.zeros(1, np.float32)}, r"table_height is float32\[1\]"),
    ({"step": 1.0}, "step is float 1.0, expected an integer >= 1"),
    ({"step": "first"}, "step is str 'first', expected an integer"),
    ({"step": 0}, "step is 0, expected an integer >= 1"),
    ({"step": True}, "step is bool True"),
    ({"num_steps": None}, "num_steps is NoneType None, expected an integer"),
    ({"workspace": 5}, "workspace is int 5, expected .low, high."),
    ({"workspace": (np.zeros(4), np.ones(3))}, "workspace is tuple .* expected .low"),
    ({"workspace": ("a", "b")}, "workspace is tuple"),
    ({"age": "new"}, "age is str 'new', expected one number .s, or None."),
  ],
)
def test_fields_of_another_form_are_mistakes_of_the_program(policy, broken, message):
  with pytest.raises(decision.ObservationError, match=message):
    policy(observation(**broken), KEY)


def test_a_field_that_is_missing_is_named(policy):
  class Blind:
    pregrasp_image = observation().pregrasp_image

  with pytest.raises(decision.ObservationError, match="image is missing in Blind"):
    policy(Blind(), KEY)


@pytest.mark.parametrize(
  "key",
  [
    jax.random.key(0),
    None,
    7,
    np.zeros(2),
    np.zeros(4, np.uint32),
    [0, -1],
    [0, 2**32],
    "ab",
  ],
)
def test_keys_of_another_form_are_mistakes_of_the_program(policy, key):
  with pytest.raises(
    decision.ObservationError, match=r"key is .* expected uint32\[2\]"
  ):
    policy(observation(), key)


def test_whole_numbers_and_arrays_without_axes_are_numbers(policy):
  seen = observation(table_height=0, step=np.int64(1), num_steps=np.array(4))
  made = policy(seen, [0, 1])
  again = policy.for_robot()(observation(table_height=0.0), KEY)
  np.testing.assert_array_equal(made.command, again.command)


BLACK = np.zeros((72, 72, 3), np.uint8)


@pytest.mark.parametrize(
  ("broken", "cause", "words"),
  [
    ({"image": BLACK}, Cause.BLACK_FRAME, "the image shows nothing"),
    ({"pregrasp_image": BLACK + 200}, Cause.BLACK_FRAME, "pregrasp_image shows noth"),
    ({"age": 0.7}, Cause.OLD_FRAME, "700 ms old, expected 0 to 500"),
    ({"age": -0.1}, Cause.OLD_FRAME, "-100 ms old"),
    ({"age": math.nan}, Cause.OLD_FRAME, "nan ms old"),
    ({"pose": np.full(4, np.nan, np.float32)}, Cause.BAD_INPUT, "pose is not finite"),
    ({"table_height": math.inf}, Cause.BAD_INPUT, "table height is not finite"),
    ({"table_height": 0.5}, Cause.BAD_INPUT, "table height is outside"),
    (
      {"workspace": (np.zeros(4), np.zeros(4))},
      Cause.BAD_INPUT,
      "the workspace is empty",
    ),
    (
      {"workspace": (np.full(4, np.nan), np.ones(4))},
      Cause.BAD_INPUT,
      "workspace is not finite",
    ),
    # Finite as a float64 alone.
    ({"pose": np.array([0.5, 1e39, 0.1, 0.0])}, Cause.BAD_INPUT, "pose is not finite"),
    ({"table_height": 1e39}, Cause.BAD_INPUT, "table height is not finite"),
    # What no robot measures: far away, in millimetres, in degrees.
    ({"pose": np.float32([0.5, 0, 5, 0])}, Cause.BAD_INPUT, "measured z is 5 m"),
    ({"pose": np.float32([0.5, 0, -5, 0])}, Cause.BAD_INPUT, "measured z is -5 m"),
    ({"pose": np.float32([500, 0, 100, 0])}, Cause.BAD_INPUT, "measured x is 500 m"),
    ({"pose": np.float32([0.5, -1, 0.1, 0])}, Cause.BAD_INPUT, "measured y is -1 m"),
    ({"pose": np.float32([0.5, 0, 0.1, 90])}, Cause.BAD_INPUT, "yaw is 90 rad"),
    ({"pose": np.float32([0.5, 0, 0.1, -6.5])}, Cause.BAD_INPUT, "yaw is -6.5 rad"),
    ({"pose": np.float32([0.5, 0, -0.2, 0])}, Cause.BAD_INPUT, "z is -0.2 m"),
  ],
)
def test_inputs_that_cannot_be_used_hold(policy, broken, cause, words):
  _held(policy(observation(**broken), KEY), cause, words)
  assert policy.tally.counts()[cause.name.lower()] == 1


def test_a_camera_that_froze_is_found(policy):
  first = observation()
  assert policy(first, KEY).action == Action.MOVE
  moved = first._replace(pose=first.pose + np.float32([0.02, 0, 0, 0]))
  _held(policy(moved, KEY), Cause.FROZEN_FRAME, "the gripper moved 20 mm")
  fresh = observation(1)
  assert policy(fresh, KEY).action == Action.MOVE
  assert policy.for_robot()(moved, KEY).action == Action.MOVE  # another robot's camera
  same = first._replace(image=first.pregrasp_image)
  _held(policy(same, KEY), Cause.FROZEN_FRAME, "is the pregrasp image")


def test_scores_that_are_not_finite_never_leave(from_file, path):
  for value in (np.nan, np.inf):
    from_file.weights = jax.tree.map(lambda x, v=value: x * 0 + v, from_file.good)
    made = _around(from_file, path)(observation(), KEY)
    _held(made, Cause.NOT_FINITE, "a score of the network is not finite")
    assert made.evidence == {"action": "hold"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_of_an_engine_that_are_not_finite_never_leave(
  with_engine, distort, value
):
  for broken in (slice(None), slice(2, 3), slice(0, 1)):  # all, one, closing here too

    def spoil(logits, broken=broken):
      logits = logits.copy()
      logits[broken] = value
      return logits

    distort(spoil)
    for deadline in (None, 9.0):
      made = with_engine.for_robot()(observation(), KEY, deadline)
      _held(made, Cause.NOT_FINITE, "a score of the network is not finite")


def test_an_engine_that_fails_holds(with_engine, distort):
  def broken(logits):
    raise RuntimeError("Exception from src/inference: no memory")

  distort(broken)
  _held(with_engine(observation(), KEY), Cause.FAILED, "no memory")
  assert with_engine.tally.counts()["failed"] == 1


def test_an_engine_that_computes_something_else_is_refused(path):
  def wrong(*given):
    made = StandIn(Clock(), *given)
    made.distort = lambda logits: logits + 0.05
    return made

  with pytest.raises(runtime.PolicyFileError, match="self-test: .* at most 0.005"):
    runtime.load_policy(path, engine=wrong)


def test_a_command_that_is_not_finite_never_leaves(from_file, path):
  """Even if the compiled function gave one."""

  class Broken(FromFile):
    def whole(self, inputs):
      return {**super().whole(inputs), "command": np.full(5, np.nan, np.float32)}

  made = _around(Broken(path), path)(observation(), KEY)
  _held(made, Cause.NOT_FINITE, "not finite")


def test_a_device_that_fails_holds(path):
  class Failing:
    clock = Clock()

    def whole(self, inputs):
      raise jax.errors.JaxRuntimeError("INTERNAL: out of memory")

  made = _around(Failing(), path)(observation(), KEY)
  _held(made, Cause.FAILED, "out of memory")


def test_commands_are_bounded_inside_the_file(from_file):
  """Whatever the weights are, and whatever workspace the observation brings.

  By the function itself, as the host's checks would hide what it gave.
  """
  rng, actions = np.random.default_rng(0), set()
  for seed in range(60):
    scale = rng.choice([0.1, 1.0, 30.0])
    from_file.weights = jax.tree.map(
      lambda x, s=scale: x + s * rng.normal(size=x.shape).astype(np.float32),
      from_file.good,
    )
    pose = rng.uniform(WORKSPACE.low + [0.05, 0, 0, 0], WORKSPACE.high)
    seen = observation(seed, pose=pose.astype(np.float32))
    inputs = decision.Inputs(
      pregrasp_image=seen.pregrasp_image,
      image=seen.image,
      pose=seen.pose,
      table_height=np.float32(0.01),
      low=np.full(4, -9, np.float32),
      high=np.full(4, 9, np.float32),
      is_last=np.asarray(False),
      key=np.array([0, seed], np.uint32),
      **Constraints().arrays(),
    )
    made = from_file.whole(inputs)
    command = np.asarray(made["command"])
    actions.add(int(made["action"]))
    assert np.linalg.norm(command[:3]) <= 0.05 + 1e-4
    assert abs(commands.yaw_change(command)) <= 0.3 + 1e-4
    end = np.asarray(commands.apply(seen.pose, command))
    assert np.all(end[:3] >= np.minimum(WORKSPACE.low, seen.pose)[:3] - 1e-4)
    assert np.all(end[:3] <= np.maximum(WORKSPACE.high, seen.pose)[:3] + 1e-4)
    assert end[0] >= 0.45 - 1e-4  # the region to keep out of that is in the file
  assert {Action.MOVE, Action.CLOSE} <= actions


def test_commands_are_bounded_whatever_an_engine_says(with_engine, distort):
  rng = np.random.default_rng(0)
  distort(lambda logits: rng.normal(scale=30, size=logits.shape).astype(np.float32))
  actions = set()
  for seed in range(60):
    pose = rng.uniform(WORKSPACE.low + [0.05, 0, 0, 0], WORKSPACE.high)
    seen = observation(seed, pose=pose.astype(np.float32))
    made = with_engine.for_robot()(seen, np.array([0, seed], np.uint32))
    actions.add(made.action)
    assert np.linalg.norm(made.command[:3]) <= 0.05 + 1e-4
    assert abs(commands.yaw_change(made.command)) <= 0.3 + 1e-4
    ends = np.asarray(commands.apply(seen.pose, made.evidence["candidates"]))
    assert np.all(ends[:, 0] >= 0.45 - 1e-4) and np.all(ends[:, 0] <= 0.6 + 1e-4)
    assert np.all(np.abs(ends[:, 1]) <= 0.1 + 1e-4)
  assert len(actions) > 1


def test_constraints_given_at_loading_hold(path):
  given = Constraints(
    grasp_in=(0.45, 0.0, 0.6, 0.1),
    keep_out=((0.5, 0.0, 0.55, 0.05),),
    yaw_range=(-0.2, 0.6),
  )
  policy = runtime.load_policy(path, constraints=given, deadlines=False)
  made = policy(observation(), KEY)
  ends = np.asarray(commands.apply(observation().pose, made.evidence["candidates"]))
  assert np.all(ends[:, 0] >= 0.45 - 1e-5) and np.all(ends[:, 1] >= -1e-5)
  x, y = ends[:, 0], ends[:, 1]
  # Its lower edge is an edge of the region to grasp in, too, and no strip to grasp in.
  inside = (x >= 0.5) & (x <= 0.55) & (y >= -1e-5) & (y <= 0.05)
  assert not np.any(inside)
  assert np.all(ends[:, 3] >= -0.2 - 1e-4) and np.all(ends[:, 3] <= 0.6 + 1e-4)
  # The gripper hangs over the region: at the last step it may not close there.
  over = observation(1, step=4, pose=np.array([0.525, 0.025, 0.1, 0.2], np.float32))
  _held(policy(over, KEY), Cause.MAY_NOT_CLOSE, "where the gripper may not")


def test_constraints_of_another_type_fail_when_loaded(path):
  for wrong in ({"keep_out": ()}, (0.4, 0.0, 0.6, 0.1), "grasp_in"):
    with pytest.raises(ValueError, match="constraints is .* expected hand_eye"):
      runtime.load_policy(path, constraints=wrong)


def test_constraints_that_leave_nothing_hold(path):
  nowhere = Constraints(keep_out=((0.3, -0.2, 0.7, 0.2),))
  policy = runtime.load_policy(path, constraints=nowhere, deadlines=False)
  _held(policy(observation(), KEY), Cause.NOTHING_ALLOWED, "leave no motion")
