"""Limits: nothing that is not feasible is scored, and nothing unsafe is sent."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand_eye import cem, commands, limits
from hand_eye.constraints import Constraints, from_json

# Compiled once, not operation by operation.
feasible_set = jax.jit(limits.feasible_set)
bounded = jax.jit(limits.bounded)
is_feasible = jax.jit(limits.is_feasible)
is_safe = jax.jit(limits.is_safe)
may_close = jax.jit(limits.may_close)
project = jax.jit(limits.project)

N, WIDE = 8, jnp.array([0.4, 0.4, 3.0])
BOX = commands.Workspace(
  low=np.array([0.3, -0.3, 0.0, -math.pi], np.float32),
  high=np.array([0.7, 0.3, 0.3, math.pi], np.float32),
)
POSE = np.array([0.5, 0.0, 0.1, 0.0], np.float32)


def _feasible(**fields):
  return feasible_set(BOX, Constraints(**fields).arrays())


def _ends_well(motion, pose, feasible, regions, slack, clearance):
  """In NumPy and from the definition, not the code: do motions end where they may?

  [..., M] bool for motions [..., M, 3], poses [..., 4], feasible sets [...] without
  their regions, and those as the user gave them, [..., K, 4].
  """
  x, y = (pose[..., i, None] + motion[..., i] for i in (0, 1))
  yaw = pose[..., 3, None] + motion[..., 2]
  good = np.abs(motion[..., 2]) <= math.pi + slack
  for i, at in enumerate((x, y)):
    low, high = feasible.low[..., i, None], feasible.high[..., i, None]
    good &= (at >= low - slack) & (at <= high + slack)
  for k in range(regions.shape[-2]):
    x_low, y_low, x_high, y_high = np.moveaxis(regions[..., k, :, None], -2, 0)
    inside = (x >= x_low - clearance) & (x <= x_high + clearance)
    good &= ~(inside & (y >= y_low - clearance) & (y <= y_high + clearance))
  own = np.stack([feasible.low[..., 3], feasible.high[..., 3]], axis=-1)
  ranges = np.concatenate([own[..., None, :], feasible.yaw_ranges], axis=-2)
  for a in range(ranges.shape[-2]):
    first, last = (ranges[..., a, end, None] for end in (0, 1))
    off = np.abs(np.angle(np.exp(1j * (yaw - (first + last) / 2))))
    good &= off <= (last - first) / 2 + slack
  return good


@jax.jit
@jax.vmap
def _search(key, pose, low, high, arrays):
  """All that searches score, [B] of them, and the feasible sets."""
  feasible = limits.feasible_set(commands.Workspace(low=low, high=high), arrays)
  method = cem.CrossEntropyMethod(
    initial_std=WIDE,
    is_feasible=lambda motions: limits.is_feasible(motions, pose, feasible),
    project=lambda motions: limits.project(motions, pose, feasible),
    num_samples=N,
    num_elites=4,
    num_redraws=2,
  )
  found = method.maximize(
    lambda motions: jnp.sin(40 * motions.sum(-1)), key, jnp.zeros(3)
  )
  return found.candidates, feasible


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


def _something_is_feasible(feasible, regions):
  """Whether a fine grid of ends finds a place that is clearly feasible."""
  low, high = feasible.low, feasible.high
  if np.any(low >= high):
    return False
  x, y, yaw = (
    np.linspace(low[i], high[i], count) for i, count in ((0, 21), (1, 21), (3, 41))
  )
  grid = np.stack(np.meshgrid(x, y, yaw, indexing="ij"), -1).reshape(-1, 3)
  return bool(np.any(_ends_well(grid, np.zeros(4), feasible, regions, -1e-4, 1e-3)))


def _check(cases, seed):
  """Searches in each case; the number in which all candidates were feasible.

  In the others nothing was feasible at all, or it fails.
  """
  poses, lows, highs, constraints = (
    [case[i] for case in cases] for i in range(len(cases[0]))
  )
  arrays = jax.tree.map(
    lambda *each: np.stack(each), *[c.arrays() for c in constraints]
  )
  keys = jax.random.split(jax.random.key(seed), len(cases))
  found = _search(keys, np.stack(poses), np.stack(lows), np.stack(highs), arrays)
  samples, feasible = jax.tree.map(np.asarray, found)
  samples = samples.reshape(len(cases), -1, 3)
  regions = arrays["keep_out"]
  good = _ends_well(samples, np.stack(poses), feasible, regions, 1e-4, 3e-4)
  bad = np.flatnonzero(~np.all(good, axis=-1))
  for i in bad:
    here = jax.tree.map(lambda x, i=i: x[i], feasible)
    seen = (cases[i], samples[i][~good[i]])
    assert not _something_is_feasible(here, regions[i]), seen
  return len(cases) - len(bad)


def test_nothing_infeasible_is_scored_in_ten_thousand_random_workspaces_and_poses():
  rng = np.random.default_rng(0)
  good = [_check([_random_case(rng) for _ in range(2000)], seed=i) for i in range(5)]
  assert 8000 < sum(good) < 10_000  # hard enough that some of them leave nothing


@st.composite
def _hypothetical_case(draw):
  """As `_random_case`, from hypothesis."""
  x, y = draw(st.floats(0.2, 0.6)), draw(st.floats(-0.4, 0.2))
  yaw = draw(st.floats(-3.125, 1))
  low = np.array([x, y, 0.0, yaw], np.float32)
  sizes = [draw(st.floats(0.03125, 0.5)) for _ in range(2)]
  turn = draw(st.floats(0.125, 2.125))
  high = (low + np.array([*sizes, 0.4, turn])).astype(np.float32)
  pose = [draw(st.floats(-0.75, 1.25)) for _ in range(2)]
  pose = np.array([*pose, draw(st.floats(0, 0.5)), draw(st.floats(-3.125, 3.125))])
  regions = st.tuples(
    st.floats(0, 1),
    st.floats(-0.5, 0.5),
    st.floats(0.03125, 0.25),
    st.floats(0.03125, 0.25),
  )
  keep_out = draw(st.lists(regions, max_size=4))
  first, width = draw(st.floats(-3, 3)), draw(st.floats(0.0625, 6))
  yaw_range = (first, first + width) if draw(st.booleans()) else None
  constraints = Constraints(
    keep_out=tuple((x, y, x + w, y + h) for x, y, w, h in keep_out),
    yaw_range=yaw_range,
  )
  return pose.astype(np.float32), low, high, constraints


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hypothesis_finds_no_infeasible_candidate(count):
  @settings(max_examples=count, deadline=None, database=None)
  @given(case=_hypothetical_case(), seed=st.integers(0, 2**31 - 1))
  def check(case, seed):
    _check([case], seed)

  check()


def test_projected_motions_are_the_nearest_feasible_ones():
  """Against a fine grid, in a workspace with two regions that overlap."""
  feasible = _feasible(keep_out=((0.4, -0.1, 0.55, 0.1), (0.5, 0.0, 0.6, 0.2)))
  rng = np.random.default_rng(0)
  motions = rng.uniform([-0.3, -0.4, -1], [0.3, 0.4, 1], (200, 3)).astype(np.float32)
  projected = np.asarray(project(motions, POSE, feasible))
  assert np.all(is_feasible(projected, POSE, feasible))
  steps = np.linspace(-0.2, 0.2, 81), np.linspace(-0.3, 0.3, 121)
  grid = np.stack(np.meshgrid(*steps, [0.0], indexing="ij"), -1).reshape(-1, 3)
  grid = grid[np.asarray(is_feasible(grid.astype(np.float32), POSE, feasible))]
  gaps = np.linalg.norm(motions[:, None, :2] - grid[None, :, :2], axis=-1).min(1)
  moved = np.linalg.norm(projected[:, :2] - motions[:, :2], axis=-1)
  assert np.all(moved <= gaps + 1e-5) and np.all(gaps <= moved + 0.008)
  was = np.asarray(is_feasible(motions, POSE, feasible))
  assert 20 < was.sum() < 180
  np.testing.assert_allclose(projected[was], motions[was], atol=1e-5)


def test_projected_yaws_are_the_nearest_in_a_range_across_pi():
  feasible = _feasible(yaw_range=(3.0, 3.6))  # to 2.683 below zero, across pi
  turns = np.array([[0, 0, 3.1], [0, 0, -3.1], [0, 0, 2.0], [0, 0, -2.0]], np.float32)
  projected = project(turns, POSE, feasible)
  np.testing.assert_allclose(
    projected[:, 2], [3.1, -3.1, 3.0, 3.6 - 2 * math.pi], atol=1e-5
  )


def test_nothing_left_is_seen():
  feasible = _feasible(keep_out=((0.2, -0.4, 0.8, 0.4),))
  projected = project(jnp.zeros((1, 3)), POSE, feasible)
  assert not is_feasible(projected, POSE, feasible)[0]


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
  feasible = _feasible(keep_out=((0.4, 0.1, 0.5, 0.2),), yaw_range=(-1.0, 1.0))
  assert may_close(np.array(pose, np.float32), feasible) == expected


def test_a_long_motion_is_cut_short_in_its_direction():
  command = commands.from_search(jnp.array([0.3, -0.4, 1.0]), 0.0)
  short = bounded(command, 0.25, math.pi)
  np.testing.assert_allclose(short[:3], [0.15, -0.2, 0.0], atol=1e-6)
  np.testing.assert_allclose(commands.yaw_change(short), 0.5, atol=1e-6)
  turned = bounded(command, 9.0, 0.1)
  np.testing.assert_allclose(turned[:3], command[:3] / 10, atol=1e-6)
  np.testing.assert_array_equal(bounded(command, 0.5, 1.0), command)


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
  feasible = _feasible(keep_out=((0.55, 0.1, 0.65, 0.2),))
  command = np.array(command, np.float32)
  assert is_safe(command, POSE, feasible, 0.25, 1.0) == expected


def test_from_outside_only_the_way_back_is_safe():
  outside = np.array([0.8, 0.0, 0.1, 0.0], np.float32)
  back = np.array([-0.05, 0.0, 0.0, 0.0, 1.0], np.float32)
  feasible = _feasible()
  assert is_safe(back, outside, feasible, 0.25, 1.0)
  assert not is_safe(-back * [1, 1, 1, -1, -1], outside, feasible, 0.25, 1.0)


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
    ({"keep_out": 5}, "keep_out is 5, expected a list of regions"),
    ({"keep_out": "0,0,1,1"}, "keep_out is '0,0,1,1', expected a list of regions"),
    ({"keep_out": (0, 0, 1, 1)}, "keep_out is 0, expected 4 finite numbers"),
    ({"grasp_in": 5}, "grasp_in is 5, expected 4 finite numbers"),
    ({"grasp_in": "0123"}, "grasp_in is '0123', expected 4 finite numbers"),
    ({"grasp_in": ("0", "0", "1", "1")}, "expected 4 finite numbers"),
    ({"yaw_range": (False, True)}, "expected 2 finite numbers"),
    ([0, 0, 1, 1], "constraints are .* expected an object with grasp_in"),
    ("grasp_in", "constraints are 'grasp_in', expected an object"),
  ],
)
def test_constraints_that_make_no_sense_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    from_json(fields)


def test_regions_may_come_as_arrays():
  made = Constraints(keep_out=np.array([[0.1, 0.1, 0.2, 0.2]], np.float32))
  np.testing.assert_allclose(made.arrays()["keep_out"][0], [0.1, 0.1, 0.2, 0.2])


def test_a_region_at_the_edge_leaves_no_strip_behind_it():
  """Motions that are projected out of it go to its inner side, not to the outer one."""
  space = commands.Workspace(
    low=np.array([0.4, -0.1, 0.0, -3.0], np.float32),
    high=np.array([0.6, 0.1, 0.3, 3.0], np.float32),
  )
  constraints = Constraints(keep_out=((0.4, -0.1, 0.45, 0.1),))
  feasible = limits.feasible_set(space, limits.fixed(constraints))
  pose = np.array([0.5, 0.0, 0.1, 0.0], np.float32)
  wanted = np.array(
    [[-0.1, 0.02, 0.0], [-0.2, 0.0, 0.0], [-0.06, 0.0, 0.0]], np.float32
  )
  assert not np.any(limits.is_feasible(wanted, pose, feasible))
  projected = limits.project(wanted, pose, feasible)
  assert np.all(limits.is_feasible(projected, pose, feasible))
  np.testing.assert_allclose(
    pose[0] + projected[:, 0], 0.45 + limits.CLEARANCE, atol=1e-6
  )


# A board of cells, so that random regions touch, nest and reach the edges exactly.
CELL, CELLS = 0.05, 6
BOARD = commands.Workspace(
  low=np.array([0.4, -0.15, 0.0, -math.pi], np.float32),
  high=np.array([0.4 + CELL * CELLS, -0.15 + CELL * CELLS, 0.3, math.pi], np.float32),
)


def _corner(x, y):
  """Metres of a corner of the board's cells."""
  return 0.4 + CELL * x, -0.15 + CELL * y


@st.composite
def _regions_of_cells(draw):
  """(x low, y low, x high, y high) in cells, whose corners may lie off the board."""
  corners = [st.integers(-1, CELLS - 1), st.integers(-1, CELLS - 1)]
  x, y = (draw(corner) for corner in corners)
  return x, y, draw(st.integers(x + 1, CELLS + 1)), draw(st.integers(y + 1, CELLS + 1))


def _free_cells(regions):
  """[F, 2] cells of the board that no region covers."""
  free = np.ones((CELLS, CELLS), bool)
  for x_low, y_low, x_high, y_high in regions:
    free[max(x_low, 0) : x_high, max(y_low, 0) : y_high] = False
  return np.argwhere(free)


def _gap_to(points, cells):
  """[N] metres from points [N, 2] to the nearest of cells [F, 2], infinite if none."""
  if not len(cells):
    return np.full(len(points), np.inf)
  low = np.stack(_corner(*cells.T), axis=-1)
  nearest = np.clip(points[:, None], low, low + CELL)
  return np.linalg.norm(points[:, None] - nearest, axis=-1).min(axis=1)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_regions_that_touch_overlap_or_nest_leave_no_seam(count):
  """From inside and outside; what is feasible is known by counting cells."""
  point = st.tuples(st.floats(-1, CELLS + 1), st.floats(-1, CELLS + 1))

  @settings(max_examples=count, deadline=None, database=None)
  @given(
    regions=st.lists(_regions_of_cells(), max_size=4),
    # Corners that were meant to be one may differ in their last digits.
    blur=st.sampled_from([0.0, 1e-7, 1e-5]),
    where=point,
    seed=st.integers(0, 2**31 - 1),
  )
  def check(regions, blur, where, seed):
    rng = np.random.default_rng(seed)
    keep_out = tuple(
      tuple(np.array([*_corner(*r[:2]), *_corner(*r[2:])]) + blur * rng.normal(size=4))
      for r in regions
    )
    feasible = feasible_set(BOARD, Constraints(keep_out=keep_out).arrays())
    pose = np.array([*_corner(*where), 0.1, 0.0], np.float32)
    motions = rng.uniform(-0.4, 0.4, (32, 3)).astype(np.float32)
    free = _free_cells(regions)
    projected = np.asarray(project(motions, pose, feasible))
    good = np.asarray(is_feasible(np.concatenate([projected, motions]), pose, feasible))
    if not len(free):
      assert not np.any(good)
      assert not may_close(pose, feasible)
      return
    assert np.all(good[:32])
    ends = pose[:2] + projected[:, :2]
    assert np.all(ends >= BOARD.low[:2] - 1e-6) and np.all(
      ends <= BOARD.high[:2] + 1e-6
    )
    for x_low, y_low, x_high, y_high in keep_out:
      x, y = ends.T
      assert not np.any((x >= x_low) & (x <= x_high) & (y >= y_low) & (y <= y_high))
    # The nearest feasible one, and a motion that was feasible stays as it was.
    moved = np.linalg.norm(projected[:, :2] - motions[:, :2], axis=-1)
    np.testing.assert_allclose(
      moved, _gap_to(pose[:2] + motions[:, :2], free), atol=2 * limits.CLEARANCE
    )
    assert np.all(moved[good[32:]] <= 1e-6)
    out = _gap_to(pose[None, :2], free)[0]
    if abs(out - limits.CLOSE_SLACK[0]) > 2 * limits.CLEARANCE:
      assert may_close(pose, feasible) == (out < limits.CLOSE_SLACK[0])

  check()


def test_two_regions_that_touch_forbid_all_that_they_cover():
  """Both together are the whole workspace; their common edge is no way out."""
  space = commands.Workspace(
    low=np.array([0.4, -0.2, 0.0, -3.0], np.float32),
    high=np.array([0.7, 0.2, 0.3, 3.0], np.float32),
  )
  keep_out = ((0.40, -0.2, 0.56, 0.2), (0.56, -0.2, 0.70, 0.2))
  feasible = feasible_set(space, Constraints(keep_out=keep_out).arrays())
  pose = np.array([0.56, 0.0, 0.1, 0.0], np.float32)
  to_seam = np.array([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]], np.float32)
  assert not np.any(is_feasible(to_seam, pose, feasible))
  assert not may_close(pose, feasible)
  along = np.array([0.0, 0.05, 0.0, 0.0, 1.0], np.float32)
  assert not is_safe(along, pose, feasible, 0.25, 1.0)


def test_regions_around_the_gripper_are_left_by_the_shortest_way():
  """An L of two regions: what is safe leads out of both, not to where they meet."""
  keep_out = ((0.4, -0.2, 0.5, 0.2), (0.5, 0.1, 0.7, 0.2))
  feasible = _feasible(keep_out=keep_out)
  pose = np.array([0.44, 0.15, 0.1, 0.0], np.float32)
  inward = np.array([0.06, 0.0, 0.0, 0.0, 1.0], np.float32)  # onto their common edge
  out = np.array([-0.05, 0.0, 0.0, 0.0, 1.0], np.float32)
  assert not is_safe(inward, pose, feasible, 0.25, 1.0)
  assert is_safe(out, pose, feasible, 0.25, 1.0)
