"""Poses and commands: what leads where."""

import math

import numpy as np
import pytest

from hand_eye import commands


def _poses(count=200, seed=0):
  rng = np.random.default_rng(seed)
  low, high = [-1, -1, 0, -math.pi], [1, 1, 0.3, math.pi]
  return rng.uniform(low, high, (count, 4)).astype(np.float32)


def _assert_same_pose(one, other, atol=1e-5):
  np.testing.assert_allclose(one[..., :3], other[..., :3], atol=atol)
  turn = commands.wrap_angle(one[..., 3] - other[..., 3])
  np.testing.assert_allclose(turn, 0.0, atol=atol)


def test_a_motion_leads_where_it_says():
  start, motions = _poses(seed=1), _poses(seed=2)
  command = commands.from_search(motions[:, [0, 1, 3]], motions[:, 2])
  assert command.shape == (200, 5) and command.dtype == np.float32
  np.testing.assert_allclose(np.hypot(command[:, 3], command[:, 4]), 1, atol=1e-6)
  _assert_same_pose(commands.apply(start, command), start + motions)


def test_null_command_leads_nowhere():
  poses = _poses()
  _assert_same_pose(commands.apply(poses, commands.NULL_COMMAND), poses)
  with pytest.raises(ValueError, match="read-only"):
    commands.NULL_COMMAND[0] = 1.0


@pytest.mark.parametrize(
  ("angle", "wrapped"),
  [(0.0, 0.0), (math.pi, math.pi), (-math.pi, math.pi), (3 * math.pi, math.pi)]
  + [(4.0, 4.0 - 2 * math.pi), (-4.0, 2 * math.pi - 4.0), (20.0, 20 - 6 * math.pi)],
)
def test_angles_wrap_into_half_open_circle(angle, wrapped):
  np.testing.assert_allclose(commands.wrap_angle(np.float32(angle)), wrapped, atol=2e-6)


def test_yaw_turns_through_the_wrap():
  pose = np.array([0, 0, 0, 3.0], np.float32)
  command = commands.from_search(np.array([0, 0, 0.5], np.float32), 0.0)
  np.testing.assert_allclose(
    commands.apply(pose, command)[3], 3.5 - 2 * math.pi, atol=1e-6
  )


def test_projection_ends_at_the_table_and_changes_nothing_else():
  start, motions = _poses(seed=1), _poses(seed=2)
  command = np.asarray(commands.from_search(motions[:, [0, 1, 3]], motions[:, 2]))
  projected = np.asarray(commands.project_to_table(command, start, 0.05))
  np.testing.assert_allclose(commands.apply(start, projected)[:, 2], 0.05, atol=1e-6)
  np.testing.assert_array_equal(
    np.delete(projected, 2, axis=1), np.delete(command, 2, axis=1)
  )


def test_workspace_contains_its_boundary_only_to_there():
  low = np.array([0.0, 0.0, 0.0, -1.0], np.float32)
  space = commands.Workspace(low=low, high=low + 1)
  inside = space.contains(np.stack([low, low + 1, low - 0.01, low + [0, 0, 0, 1.01]]))
  np.testing.assert_array_equal(inside, [True, True, False, False])
