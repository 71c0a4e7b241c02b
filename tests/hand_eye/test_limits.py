"""Limits: nothing that is not allowed is scored, and nothing unsafe is sent."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hand_eye import cem, commands, limits
from hand_eye.constraints import Constraints, from_json

N, WIDE = 16, jnp.array([0.4, 0.4, 3.0])
BOX = commands.Workspace(
  low=np.array([0.3, -0.3, 0.0, -math.pi], np.float32),
  high=np.array([0.7, 0.3, 0.3, math.pi], np.float32),
)
POSE = np.array([0.5, 0.0, 0.1, 0.0], np.float32)


def _allowed(**fields):
  return limits.allow(BOX, Constraints(**fields).arrays())


def _ends_allowed(motion, pose, allowed, slack):
  """In NumPy and from the definition, not the code: do motions end where they may?"""
  end = pose[:2] + motion[..., :2]
  yaw = pose[3] + motion[..., 2]
  good = np.all(
    (end >= allowed.low[:2] - slack) & (end <= allowed.high[:2] + slack), -1
  )
  good &= np.abs(motion[..., 2]) <= math.pi + slack
  for x_low, y_low, x_high, y_high in allowed.keep_out:
    inside = (end[..., 0] > x_low + slack) & (end[..., 0] < x_high - slack)
    good &= ~(inside & (end[..., 1] > y_low + slack) & (end[..., 1] < y_high - slack))
  ranges = [(allowed.low[3], allowed.high[3]), *allowed.yaw_ranges]
  for first, last in ranges:
    middle, half = (first + last) / 2, (last - first) / 2
    off = np.abs(np.angle(np.exp(1j * (yaw - middle))))
    good &= off <= half + slack
  return good


@jax.jit
def _search(key, pose, low, high, arrays):
  """All that one search scores, and whether there was anything to find."""
  allowed = limits.allow(commands.Workspace(low=low, high=high), arrays)
  found = cem.maximize(
    lambda motions: jnp.sin(40 * motions.sum(-1)),
    key,
    jnp.zeros(3),
    initial_std=WIDE,
    is_feasible=lambda motions: limits.is_feasible(motions, pose, allowed),
    pull=lambda motions: limits.pull(motions, pose, allowed),
    num_samples=N,
    num_elites=4,
    num_redraws=2,
  )
  return found.samples, allowed


def _random_case(rng):
  """A workspace, a pose that may lie outside it, and constraints."""
  low = rng.uniform([0.2, -0.4, 0.0, -math.pi], [0.6, 0.2, 0.05, 1.0])
  high = low + rng.uniform([0.02, 0.02, 0.05, 0.1], [0.5, 0.5, 0.4, 6.0])
  high[3] = min(high[3], math.pi)
  pose = rng.uniform(low - 0.2, high + 0.2)
  pose[3] = rng.uniform(-math.pi, math.pi)

  def region(smallest, largest):
    corner = rng.uniform(low[:2] - 0.1, high[:2])
    return (*corner, *(corner + rng.uniform(smallest, largest, 2)))

  first = rng.uniform(-math.pi, math.pi)
  constraints = Constraints(
    grasp_in=region(0.1, 0.5) if rng.random() < 0.5 else None,
    keep_out=tuple(region(0.02, 0.2) for _ in range(rng.integers(0, 5))),
    yaw_range=(first, first + rng.uniform(0.2, 6.0)) if rng.random() < 0.5 else None,
  )
  return (
    pose.astype(np.float32),
    low.astype(np.float32),
    high.astype(np.float32),
    constraints,
  )


def _something_is_allowed(low, high, constraints):
  """Whether a fine grid of ends finds a place that is clearly allowed."""
  allowed = limits.allow(commands.Workspace(low=low, high=high), constraints.arrays())
  if np.any(np.asarray(allowed.low) >= np.asarray(allowed.high)):
    return False
  x, y = (np.linspace(allowed.low[i], allowed.high[i], 21) for i in (0, 1))
  yaw = np.linspace(low[3], high[3], 41)
  grid = np.stack(np.meshgrid(x, y, yaw, indexing="ij"), -1).reshape(-1, 3)
  grid[:, 2] = np.angle(np.exp(1j * grid[:, 2]))
  origin = np.zeros(4)
  return bool(np.any(_ends_allowed(grid, origin, _as_numpy(allowed), -1e-4)))


def _as_numpy(allowed):
  return jax.tree.map(np.asarray, allowed)


def _check_cases(rng, count):
  checked = pulled_far = 0
  for _ in range(count):
    pose, low, high, constraints = _random_case(rng)
    if not _something_is_allowed(low, high, constraints):
      continue
    key = jax.random.key(int(rng.integers(2**31)))
    samples, allowed = _search(key, pose, low, high, constraints.arrays())
    good = _ends_allowed(np.asarray(samples), pose, _as_numpy(allowed), 1e-4)
    assert np.all(good), (pose, low, high, constraints, samples[~good])
    checked += 1
    pulled_far += len(constraints.keep_out) > 1
  return checked, pulled_far


def test_nothing_infeasible_is_ever_scored():
  checked, with_regions = _check_cases(np.random.default_rng(0), 150)
  assert checked > 75 and with_regions > 30


@pytest.mark.slow  # the same, often
def test_nothing_infeasible_is_ever_scored_in_ten_thousand_cases():
  checked, _ = _check_cases(np.random.default_rng(1), 15_000)
  assert checked > 10_000


_metres = st.floats(-0.5, 0.5, width=32)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
  pose=st.tuples(_metres, _metres, st.floats(0, 0.4), st.floats(-3.14, 3.14)),
  corner=st.tuples(_metres, _metres),
  size=st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)),
  first=st.floats(-3.1, 3.1),
  width=st.floats(0.05, 6.2),
  seed=st.integers(0, 2**31 - 1),
)
def test_hypothesis_finds_no_infeasible_candidate(
  pose, corner, size, first, width, seed
):
  """A region to keep out of over the middle of a workspace that is always larger."""
  low = np.array([-0.6, -0.6, 0.0, -math.pi], np.float32)
  high = np.array([0.6, 0.6, 0.4, math.pi], np.float32)
  constraints = Constraints(
    keep_out=((*corner, corner[0] + size[0], corner[1] + size[1]),),
    yaw_range=(first, first + width),
  )
  pose = np.array(pose, np.float32)
  samples, allowed = _search(
    jax.random.key(seed), pose, low, high, constraints.arrays()
  )
  good = _ends_allowed(np.asarray(samples), pose, _as_numpy(allowed), 1e-4)
  assert np.all(good)


def test_pulled_motions_are_the_nearest_feasible_ones():
  """Against a fine grid, in a workspace with two regions that overlap."""
  allowed = _allowed(keep_out=((0.4, -0.1, 0.55, 0.1), (0.5, 0.0, 0.6, 0.2)))
  rng = np.random.default_rng(0)
  motions = rng.uniform([-0.3, -0.4, -1], [0.3, 0.4, 1], (200, 3)).astype(np.float32)
  pulled = np.asarray(limits.pull(motions, POSE, allowed))
  assert np.all(limits.is_feasible(pulled, POSE, allowed))
  steps = np.linspace(-0.2, 0.2, 81), np.linspace(-0.3, 0.3, 121)
  grid = np.stack(np.meshgrid(*steps, [0.0], indexing="ij"), -1).reshape(-1, 3)
  grid = grid[np.asarray(limits.is_feasible(grid.astype(np.float32), POSE, allowed))]
  gaps = np.linalg.norm(motions[:, None, :2] - grid[None, :, :2], axis=-1).min(1)
  moved = np.linalg.norm(pulled[:, :2] - motions[:, :2], axis=-1)
  assert np.all(moved <= gaps + 1e-5) and np.all(gaps <= moved + 0.008)
  was = np.asarray(limits.is_feasible(motions, POSE, allowed))
  assert 20 < was.sum() < 180
  np.testing.assert_allclose(pulled[was], motions[was], atol=1e-5)


def test_pulled_yaws_are_the_nearest_in_a_range_across_pi():
  allowed = _allowed(yaw_range=(3.0, 3.6))  # to 2.683 below zero, across pi
  turns = np.array([[0, 0, 3.1], [0, 0, -3.1], [0, 0, 2.0], [0, 0, -2.0]], np.float32)
  pulled = limits.pull(turns, POSE, allowed)
  np.testing.assert_allclose(
    pulled[:, 2], [3.1, -3.1, 3.0, 3.6 - 2 * math.pi], atol=1e-5
  )


def test_nothing_left_is_seen():
  allowed = _allowed(keep_out=((0.2, -0.4, 0.8, 0.4),))
  pulled = limits.pull(jnp.zeros((1, 3)), POSE, allowed)
  assert not limits.is_feasible(pulled, POSE, allowed)[0]


@pytest.mark.parametrize(
  ("pose", "expected"),
  [
    ((0.5, 0.0, 0.1, 0.0), True),
    ((0.702, 0.0, 0.1, 0.0), True),  # the slack of an arm's error
    ((0.71, 0.0, 0.1, 0.0), False),  # outside the workspace
    ((0.45, 0.15, 0.1, 0.0), False),  # in the middle of the region
    ((0.452, 0.103, 0.1, 0.0), True),  # at its edge
    ((0.5, 0.0, 0.1, 1.04), True),
    ((0.5, 0.0, 0.1, 1.2), False),  # turned too far
    ((0.5, 0.0, 0.9, 0.0), True),  # it goes down before it closes
  ],
)
def test_where_the_gripper_may_close(pose, expected):
  allowed = _allowed(keep_out=((0.4, 0.1, 0.5, 0.2),), yaw_range=(-1.0, 1.0))
  assert limits.may_close(np.array(pose, np.float32), allowed) == expected


def test_a_long_motion_is_cut_short_in_its_direction():
  command = commands.from_search(jnp.array([0.3, -0.4, 1.0]), 0.0)
  short = limits.bounded(command, 0.25, math.pi)
  np.testing.assert_allclose(short[:3], [0.15, -0.2, 0.0], atol=1e-6)
  np.testing.assert_allclose(commands.yaw_change(short), 0.5, atol=1e-6)
  turned = limits.bounded(command, 9.0, 0.1)
  np.testing.assert_allclose(turned[:3], command[:3] / 10, atol=1e-6)
  np.testing.assert_array_equal(limits.bounded(command, 0.5, 1.0), command)


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    ((0.1, 0.0, -0.1, 0.0, 1.0), True),
    ((0.3, 0.0, -0.1, 0.0, 1.0), False),  # beyond the workspace
    ((0.0, 0.0, 0.3, 0.0, 1.0), False),  # too high
    ((0.0, 0.0, -0.2, 0.0, 1.0), False),  # into the table
    ((0.1, 0.15, -0.1, 0.0, 1.0), False),  # into the region
    ((0.0, -0.28, 0.1, 0.0, 1.0), False),  # a longer step than allowed
    ((0.1, 0.0, 0.0, 1.0, 0.0), False),  # a larger turn than allowed
    ((0.1, 0.0, 0.0, 0.5, 0.5), False),  # no direction
    ((math.nan, 0.0, 0.0, 0.0, 1.0), False),
    ((0.0, 0.0, math.inf, 0.0, 1.0), False),
    ((0.0, 0.0, 0.0, math.nan, 1.0), False),
  ],
)
def test_what_is_safe_to_send(command, expected):
  allowed = _allowed(keep_out=((0.55, 0.1, 0.65, 0.2),))
  command = np.array(command, np.float32)
  assert limits.is_safe(command, POSE, allowed, 0.25, 1.0) == expected


def test_from_outside_only_the_way_back_is_safe():
  outside = np.array([0.8, 0.0, 0.1, 0.0], np.float32)
  back = np.array([-0.05, 0.0, 0.0, 0.0, 1.0], np.float32)
  allowed = _allowed()
  assert limits.is_safe(back, outside, allowed, 0.25, 1.0)
  assert not limits.is_safe(-back * [1, 1, 1, -1, -1], outside, allowed, 0.25, 1.0)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"grasp_in": (0, 0, 0, 1)}, "grasp_in is .* each low below its high"),
    ({"grasp_in": (0, 0, math.nan, 1)}, "grasp_in is .* 4 finite numbers"),
    ({"keep_out": ((0, 0, 1),)}, "keep_out is .* 4 finite numbers"),
    ({"keep_out": ((0, 0, 1, 1),) * 5}, "keep_out has 5 regions"),
    ({"yaw_range": (1.0, 1.0)}, "yaw_range"),
    ({"yaw_range": (0.0, 7.0)}, "yaw_range"),
    ({"yaw_range": "ab"}, "yaw_range"),
    ({"keepout": ()}, "unknown constraint keepout, known: grasp_in"),
  ],
)
def test_constraints_that_make_no_sense_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    from_json(fields)
