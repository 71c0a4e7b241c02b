"""Depth images: exact ones, points from them, and the sensor's noise."""

import dataclasses

import mujoco
import numpy as np
import pytest

from envs import cameras, depth, objects, units
from envs.grasp_env import GraspEnv

SIZE = 96
GLASS = objects.ObjectSpec(
  "glass-0", "glass", (objects.Part("box", (0.03, 0.03, 0.03)),), 400.0, 0.8,
  (0.3, 0.5, 0.9), opacity=0.4,
)  # fmt: skip
STEEL = dataclasses.replace(GLASS, name="steel-0", opacity=1.0, shine=0.9)
WOOD = dataclasses.replace(GLASS, name="wood-0", opacity=1.0)
FOAM = objects.ObjectSpec(
  "foam-0", "foam", (), 120.0, 0.8, (0.9, 0.4, 0.1),
  soft=objects.SoftBody("box", (0.03, 0.03, 0.03), 4e4),
)  # fmt: skip
PLACES = ((0.50, -0.07), (0.50, 0.07), (0.62, -0.07), (0.62, 0.07))


@pytest.fixture(scope="module")
def cell():
  """A bin with one thing of each sort, each 6 cm high, standing apart."""
  env = GraspEnv(units.sample_unit(1), [GLASS, STEEL, WOOD, FOAM], SIZE)
  env.begin(np.random.default_rng(0))
  for body, (x, y) in zip(env.scene.bodies, PLACES, strict=True):
    where = np.array([x, y, env.unit.table_height + 0.03])
    body.place(env.data, where, np.array([1.0, 0.0, 0.0, 0.0]))
  mujoco.mj_forward(env.scene.model, env.data)
  yield env
  env.close()


@pytest.fixture(scope="module")
def truth(cell):
  return cell.depth()


@pytest.fixture(scope="module")
def measured(cell):
  return cell.depth(noise_rng=np.random.default_rng(3))


def test_the_floors_points_lie_on_the_floor(cell, truth):
  heights = depth.deproject(truth, cell.unit.camera)[..., 2] - cell.unit.table_height
  on_floor = pixels_of(cell, mujoco.mjtObj.mjOBJ_GEOM, "bin_floor")
  assert on_floor.sum() > 2_000
  assert np.abs(heights[on_floor]).max() < 1e-3


def test_points_project_back_to_their_pixels(cell, truth):
  points = depth.deproject(truth, cell.unit.camera)
  pixels = cameras.project(cell.unit.camera, points, SIZE)
  columns, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
  np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-3)


@pytest.mark.parametrize("index", range(4))
def test_everything_has_depth_translucent_and_soft_things_too(cell, truth, index):
  points = depth.deproject(truth, cell.unit.camera)
  x, y = PLACES[index]
  above = points[points[..., 2] > cell.unit.table_height + 0.055]
  near = above[np.hypot(above[:, 0] - x, above[:, 1] - y) < 0.05]
  assert len(near) > 100
  # A box of 6 cm: its top, nothing higher, and about as wide as it is.
  assert near[:, 2].max() == pytest.approx(cell.unit.table_height + 0.06, abs=2e-3)
  assert np.ptp(near[:, 0]) == pytest.approx(0.06, abs=0.012)


def test_only_glass_and_steel_are_unreliable(cell):
  found = depth.unreliable_pixels(cell.scene, segmentation(cell))
  assert found.any()
  expected = np.zeros_like(found)
  for index in (0, 1):
    (geom,) = cell.scene.bodies[index].geoms
    expected |= segmentation(cell)[..., 1] == geom
  expected &= segmentation(cell)[..., 0] == int(mujoco.mjtObj.mjOBJ_GEOM)
  np.testing.assert_array_equal(found, expected)


def test_holes_open_where_the_sensor_is_blind(cell, measured):
  blind = depth.unreliable_pixels(cell.scene, segmentation(cell))
  foam = pixels_of(cell, mujoco.mjtObj.mjOBJ_FLEX, "object3")
  assert np.mean(measured[blind] == 0) > 0.5
  assert np.mean(measured[foam] == 0) < 0.35
  # All is lost nowhere: pieces of the glass are seen.
  assert (measured[blind] > 0).any()


def test_measurements_come_in_steps_of_disparity(measured):
  assert measured.dtype == np.float32
  assert np.isfinite(measured).all()
  seen = measured[measured > 0].astype(np.float64)
  steps = depth.FOCAL * depth.BASELINE / seen / depth.DISPARITY_STEP
  np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
  at_a_metre = depth.FOCAL * depth.BASELINE
  step = 1.0 - at_a_metre / (at_a_metre + depth.DISPARITY_STEP)
  assert step == pytest.approx(2.8e-3, abs=1e-4)


@pytest.mark.parametrize("size", [72, 400])
def test_a_flat_wall_is_measured_as_well_as_a_sensor_can(size):
  # At any size of the image, for the noise is the sensor's.
  wall = np.full((size, size), 1.1)
  camera = units.sample_unit(0).camera
  seen = depth.with_noise(
    wall,
    np.zeros_like(wall, bool),
    np.random.default_rng(1),
    cameras.focal_length(camera, size),
  )
  assert (seen > 0).all()
  expected = float(depth.axial_noise(1.1))
  assert seen.std() == pytest.approx(expected, rel=0.25)
  assert seen.mean() == pytest.approx(1.1, abs=1e-3)


def test_noise_is_the_generators(cell, measured):
  again = cell.depth(noise_rng=np.random.default_rng(3))
  np.testing.assert_array_equal(measured, again)
  other = cell.depth(noise_rng=np.random.default_rng(4))
  assert (measured != other).any()


def test_a_near_thing_hides_the_pattern_from_what_is_left_of_it():
  scene = np.full((40, 40), 1.2)
  scene[10:30, 20:30] = 1.0
  hidden = depth._shadow(scene, focal=depth.FOCAL)
  width = depth.FOCAL * depth.BASELINE * (1 / 1.0 - 1 / 1.2)
  rows, columns = np.nonzero(hidden)
  assert set(rows) == set(range(10, 30))
  assert columns.max() == 19
  assert len(set(columns)) == pytest.approx(width, abs=1)


def test_edges_are_found_on_both_sides_and_not_at_the_border():
  scene = np.full((20, 20), 1.2)
  scene[:, 10:] = 1.1
  found = depth._edges(scene, 1)
  np.testing.assert_array_equal(np.nonzero(found.any(axis=0))[0], [9, 10])


def test_points_of_lost_pixels_are_left_out(cell, measured):
  points = depth.point_cloud(measured, cell.unit.camera)
  assert points.shape == ((measured > 0).sum(), 3)
  assert np.isfinite(points).all()
  assert np.isnan(depth.deproject(measured, cell.unit.camera)).any()


def test_colours_are_the_same_after_a_depth_image(cell):
  before = cell.image()
  cell.depth(noise_rng=np.random.default_rng(0))
  np.testing.assert_array_equal(before, cell.image())


def test_pushed_objects_slide_rigid_and_soft_alike():
  env = GraspEnv(units.sample_unit(1), [WOOD, FOAM], 64)
  rng = np.random.default_rng(0)
  env.fill(rng)
  env.controller.wait(0.5)
  before = env.object_positions()
  env.push_objects(rng, 0.6)
  env.controller.wait(0.02)
  speed = np.linalg.norm(env.object_positions() - before, axis=1) / 0.02
  env.controller.wait(0.5)
  moved = np.linalg.norm(env.object_positions() - before, axis=1)
  env.close()
  # Friction has taken a little already.
  np.testing.assert_allclose(speed, 0.5, atol=0.12)
  assert (moved > 0.005).all()
  assert (moved < 0.2).all()


def segmentation(cell):
  return cell._renderer.render_segmentation(cell.data, cameras.OVER_SHOULDER, SIZE)


def pixels_of(cell, kind, name):
  number = mujoco.mj_name2id(cell.scene.model, kind, name)
  return (segmentation(cell) == (int(kind), number)).all(axis=-1)
