"""From points to objects: voxel map, graph, segments, the split from top to bottom."""

import numpy as np
import pytest

from envs.baselines import boxes, pinch, segmentation, voxels
from envs.bin import FLOOR_HALF, WALL_HEIGHT, WALL_RUN

EYE = np.array([-0.3, 0.45, 1.1])
WIDEST = 0.075


def block(centre, size, yaw: float = 0.0, spacing: float = 0.002) -> np.ndarray:
  """Points [N, 3] on top and sides of a box that stands on the floor; size its edges.

  Centre and edges in m, and what the eye cannot see is left out.
  """
  x, y, z = (np.arange(spacing / 2, edge, spacing) for edge in size)
  x, y = x - size[0] / 2, y - size[1] / 2
  faces = [np.array(np.meshgrid(x, y, [size[2]])).reshape(3, -1)]
  turn = pinch.axes(yaw)[::-1].T  # its columns: where x and y of the box point
  for axis in (0, 1):
    for sign in (-1.0, 1.0):
      normal = turn[:, axis] * sign
      if normal @ (EYE[:2] - centre) > 0:
        lines = [x, y, z]
        lines[axis] = np.array([sign * size[axis] / 2])
        faces.append(np.array(np.meshgrid(*lines)).reshape(3, -1))
  points = np.concatenate(faces, axis=1).T
  points[:, :2] = points[:, :2] @ turn.T + centre
  return points


def segments_of(*clouds: np.ndarray) -> tuple[voxels.VoxelMap, np.ndarray]:
  seen = voxels.build(np.concatenate(clouds), margin=0.003)
  graph = segmentation.build_graph(seen.points, EYE)
  return seen, segmentation.segment(len(seen.points), graph)


def chains(*lengths: int, between: float) -> segmentation.Graph:
  """Chains of vertices with edges of 0.1, one after the other."""
  total = sum(lengths)
  edges = np.stack([np.arange(total - 1), np.arange(1, total)], axis=1)
  weights = np.full(total - 1, 0.1)
  weights[np.cumsum(lengths)[:-1] - 1] = between
  return segmentation.Graph(edges, weights)


def test_segments_part_at_an_edge_heavier_than_what_is_within():
  # Within 0.1, and 1 / 50: heavier than 0.12 parts chains of 50, 0.11 does not.
  parted = segmentation.segment(100, chains(50, 50, between=0.13), 1.0, 1)
  np.testing.assert_array_equal(parted, np.repeat([0, 1], 50))
  joined = segmentation.segment(100, chains(50, 50, between=0.11), 1.0, 1)
  np.testing.assert_array_equal(joined, np.zeros(100))


def test_a_larger_scale_makes_larger_segments():
  graph = chains(50, 50, between=0.13)
  assert segmentation.segment(100, graph, 2.0, 1).max() == 0


def test_small_segments_join_a_neighbour():
  graph = chains(50, 5, 50, between=2.0)
  np.testing.assert_array_equal(
    segmentation.segment(105, graph, 1.0, 1), np.repeat([0, 1, 2], [50, 5, 50])
  )
  labels = segmentation.segment(105, graph, 1.0, 10)
  assert labels.max() == 1
  assert labels[0] != labels[-1]


def test_vertices_without_edges_stay_alone():
  graph = segmentation.Graph(np.empty((0, 2), int), np.empty(0))
  np.testing.assert_array_equal(segmentation.segment(3, graph), [0, 1, 2])


def test_floor_and_walls_are_no_voxels_but_are_seen():
  spots = (
    np.array(np.meshgrid(np.arange(-0.1949, 0.195, 0.002), [0.0])).reshape(2, -1).T
  )
  empty = np.column_stack([spots, voxels.ground(spots)])
  seen = voxels.build(empty, margin=0.003)
  assert len(seen.points) == 0
  assert seen.seen.any(axis=1).all()
  assert seen.tops.max() <= WALL_HEIGHT
  np.testing.assert_array_equal(
    voxels.ground(np.array([[0.0, 0.0], [FLOOR_HALF[0] + WALL_RUN, 0.0]])),
    [0.0, WALL_HEIGHT],
  )


def test_a_voxel_is_where_its_points_are():
  cloud = block((0.02, 0.03), (0.05, 0.04, 0.03))
  seen = voxels.build(cloud, margin=0.003)
  # Mostly four points share a voxel.
  assert len(seen.points) < len(cloud) / 2
  assert seen.points[:, 2].max() == pytest.approx(0.03)
  column = voxels.column_of(np.array([0.02, 0.03]))
  assert seen.tops[tuple(column)] == pytest.approx(0.03)
  assert not seen.seen[tuple(voxels.column_of(np.array([-0.1, 0.0])))]


@pytest.mark.parametrize("yaw", [0.0, 0.5, 1.2])
def test_things_that_stand_apart_share_no_segment(yaw):
  centres = np.array([(0.06, 0.05), (-0.05, 0.0), (0.05, -0.09)])
  sizes = ((0.06, 0.04, 0.03), (0.05, 0.05, 0.06), (0.08, 0.03, 0.02))
  clouds = [block(c, s, yaw) for c, s in zip(centres, sizes, strict=True)]
  seen, labels = segments_of(*clouds)
  owner = np.argmin(np.linalg.norm(seen.points[:, None, :2] - centres, axis=2), axis=1)
  for label in range(labels.max() + 1):
    assert len(np.unique(owner[labels == label])) == 1
  for one, size in enumerate(sizes):
    # A side may be a segment of its own, a top is never split.
    top = (owner == one) & (seen.points[:, 2] > size[2] - 1e-3)
    assert np.bincount(labels[top]).max() > 0.9 * np.sum(top)


def test_what_touches_is_parted_where_heights_differ():
  low = block((0.0, 0.02), (0.08, 0.04, 0.02))
  high = block((0.0, -0.02), (0.05, 0.04, 0.06))
  covered = (high[:, 1] > -1e-6) & (high[:, 2] < 0.02)
  seen, labels = segments_of(low, high[~covered])
  # The crease itself may belong to either.
  on_low, on_high = seen.points[:, 1] > 0.007, seen.points[:, 1] < -0.007
  assert not set(labels[on_low]) & set(labels[on_high])
  assert len(set(labels[on_low & (seen.points[:, 2] > 0.018)])) == 1


def test_a_ball_is_one_segment():
  rng = np.random.default_rng(0)
  normal = rng.normal(size=(6000, 3))
  normal /= np.linalg.norm(normal, axis=1, keepdims=True)
  ball = normal * 0.03 + (0.0, 0.0, 0.03)
  _, labels = segments_of(ball[np.sum(normal * (EYE - ball), axis=1) > 0])
  assert labels.max() == 0


@pytest.mark.parametrize("degrees", [-80, -45, -10, 0, 10, 33, 89])
def test_the_box_around_a_block_is_the_block(degrees):
  yaw = np.deg2rad(degrees)
  box = boxes.smallest_box(block((0.02, -0.03), (0.09, 0.04, 0.03), yaw, 0.001))
  np.testing.assert_allclose(box.centre, (0.02, -0.03), atol=1e-3)
  assert box.length == pytest.approx(0.09, abs=2.5e-3)
  assert box.width == pytest.approx(0.04, abs=2.5e-3)
  assert abs(np.sin(box.yaw - yaw)) < np.sin(np.deg2rad(1.1))
  corners = box.corners() - box.centre
  assert np.ptp(np.linalg.norm(corners, axis=1)) < 1e-9
  edges = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
  np.testing.assert_allclose(np.sort(edges), np.repeat([box.width, box.length], 2))


def split(*clouds: np.ndarray) -> tuple[voxels.VoxelMap, list[np.ndarray]]:
  """All of the map as one cluster, split from top to bottom."""
  seen = voxels.build(np.concatenate(clouds), margin=0.003)
  edges = segmentation.build_graph(seen.points, EYE).edges
  return seen, boxes.graspable(seen.points, edges, WIDEST)


def test_a_tall_thing_is_taken_off_a_wide_one():
  wide = block((0.0, 0.0), (0.12, 0.1, 0.02))
  tall = block((0.0, 0.0), (0.05, 0.04, 0.06))
  hidden = np.all(np.abs(wide[:, :2]) < (0.025, 0.02), axis=1)
  seen, found = split(wide[~hidden], tall)
  tops = [seen.points[members, 2].max() for members in found]
  (top,) = (m for m, height in zip(found, tops, strict=True) if height > 0.055)
  box = boxes.smallest_box(seen.points[top])
  assert (box.length, box.width) == pytest.approx((0.05, 0.04), abs=0.004)
  assert seen.points[top, 2].min() < 0.035
  assert len(found) == 2


def test_two_that_lie_against_each_other_are_parted_below_a_bridge():
  # Towers on one slab: above it two pieces, each narrow enough.
  slab = block((0.0, 0.0), (0.14, 0.08, 0.01))
  towers = [block((x, 0.0), (0.04, 0.05, 0.05)) for x in (-0.045, 0.045)]
  seen, found = split(slab, *towers)
  centres = [
    boxes.smallest_box(seen.points[m]).centre[0]
    for m in found
    if seen.points[m, 2].max() > 0.04
  ]
  np.testing.assert_allclose(sorted(centres), [-0.045, 0.045], atol=0.004)


def test_what_is_narrow_stays_whole_and_what_is_wide_at_its_top_too():
  _, found = split(block((0.0, 0.0), (0.12, 0.06, 0.05)))
  assert len(found) == 1
  _, found = split(block((0.0, 0.0), (0.12, 0.1, 0.05)))
  assert len(found) == 1


def test_crumbs_are_no_objects():
  seen, found = split(block((0.0, 0.0), (0.009, 0.009, 0.008)))
  assert 0 < len(seen.points) < boxes.SMALLEST
  assert found == []
