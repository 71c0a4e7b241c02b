"""Robots of the fleet: what never changes about them, textures, perturbations."""

import dataclasses
import hashlib
import json

import mujoco
import numpy as np
import pytest

from envs import cameras, scene, textures, units
from envs.grasp_env import GraspEnv
from envs.perturbations import Perturbation, perturb

# What a unit had before it had textures; datasets name units by seed alone.
FIRST_FIELDS = (
  "name", "family", "seed", "camera", "lights", "fingers", "actuation", "table_height",
  "bin_colour", "table_colour",
)  # fmt: skip
DIGESTS = {
  "training": "eb028f7b9ade6b76051db3fa84c1534dfd0f6f886792456845aef8811aa74a42",
  "held_out": "4194fb55e6f45a7a2d499a846cc5ce69622206e86c43e6624215f79affae3d6f",
}
EVERYBODY = [*units.fleet_units(14), *units.fleet_units(14, "held_out")]
PATTERNS = units.TEXTURE_KINDS[1:]


@pytest.mark.parametrize("family", units.FAMILIES)
def test_units_are_what_they_were_before_they_had_textures(family):
  assert digest(units.fleet_units(14, family)) == DIGESTS[family]


def test_a_third_of_the_bins_are_plain_and_every_pattern_occurs():
  many = [u for family in units.FAMILIES for u in units.fleet_units(150, family)]
  plain = np.mean([u.bin_texture.kind == "plain" for u in many])
  assert 0.25 < plain < 0.45
  assert {u.bin_texture.kind for u in many} == set(units.TEXTURE_KINDS)
  assert {u.table_texture.kind for u in many} == set(units.TEXTURE_KINDS)


def test_the_families_share_no_pattern():
  seeds = [
    {u.table_texture.seed for u in units.fleet_units(100, family)} - {0}
    for family in units.FAMILIES
  ]
  assert not seeds[0] & seeds[1]


@pytest.mark.parametrize("kind", PATTERNS)
def test_a_pattern_has_its_contrast_and_no_seam(kind):
  pattern = textures.tinted(units.Texture(kind, 0.05, seed=3)).mean(axis=-1)
  assert pattern.mean() == pytest.approx(0.0, abs=1e-9)
  assert pattern.std() == pytest.approx(1.0)
  # From the last row to the first the step is no larger than it is elsewhere.
  for axis in (0, 1):
    steps = np.abs(np.diff(pattern, axis=axis))
    seam = np.abs(np.take(pattern, 0, axis) - np.take(pattern, -1, axis))
    assert seam.max() <= 1.5 * steps.max()


def test_a_seed_is_a_pattern():
  first, again, other = (
    textures.tinted(units.Texture("wood", 0.05, seed=seed)) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 0.5


def test_an_unknown_texture_is_named():
  with pytest.raises(ValueError, match="'velvet'.*speckle"):
    textures.add_material(mujoco.MjSpec(), "bin", units.Texture("velvet", 0.1))


def test_a_pattern_is_seen_and_keeps_the_brightness():
  unit = units.sample_unit(0)
  plain, grained = (
    floor_pixels(dataclasses.replace(unit, bin_texture=texture))
    for texture in (units.Texture(), units.Texture("grain", 0.06, scale=0.15, seed=1))
  )
  assert plain.std() < 1.0
  assert 2.0 < grained.std() < 20.0
  assert grained.mean() == pytest.approx(plain.mean(), rel=0.03)


def test_fingers_are_darker_than_every_bin():
  for unit in EVERYBODY:
    darkest = np.array(unit.bin_colour) * (1 - 2.5 * 1.3 * unit.bin_texture.contrast)
    for finger in unit.fingers:
      assert max(finger.colour) < 0.5 * darkest.min(), unit.name


def test_a_perturbation_of_nothing_is_the_unit_itself():
  unit = units.sample_unit(3, "held_out")
  assert perturb(unit, Perturbation(), seed=5) == unit


def test_the_name_says_what_was_changed():
  unit = units.sample_unit(3, "held_out")
  assert perturb(unit, Perturbation(camera_shift=0.1)).name == (
    "held_out-03~camera_shift=0.10"
  )
  both = Perturbation(camera_shift=0.125, wear=2.0)
  assert (
    perturb(unit, both, seed=2).name == "held_out-03~camera_shift=0.125,wear=2.00#2"
  )


@pytest.mark.parametrize("seed", range(3))
def test_a_moved_camera_is_as_far_away_as_it_says(seed):
  camera = units.sample_unit(1).camera
  shifted = perturb(units.sample_unit(1), Perturbation(camera_shift=0.15), seed).camera
  assert distance(camera.position, shifted.position) == pytest.approx(0.15)
  assert shifted.target == camera.target
  turned = perturb(units.sample_unit(1), Perturbation(camera_turn=0.2), seed).camera
  assert angle(sight(camera), sight(turned)) == pytest.approx(0.2)
  assert distance(turned.position, turned.target) == pytest.approx(
    distance(camera.position, camera.target)
  )
  aimed = perturb(units.sample_unit(1), Perturbation(camera_aim=0.1), seed).camera
  assert aimed.position == camera.position
  assert angle(sight(camera), sight(aimed)) == pytest.approx(0.1)
  rolled = perturb(units.sample_unit(1), Perturbation(camera_roll=0.3), seed).camera
  assert abs(rolled.roll - camera.roll) == pytest.approx(0.3)


def test_a_sweep_goes_one_way():
  unit = units.sample_unit(2)
  near, far = (
    np.subtract(
      perturb(unit, Perturbation(camera_shift=amount, wear=wear)).camera.position,
      unit.camera.position,
    )
    for amount, wear in ((0.05, 1.0), (0.15, 2.0))
  )
  np.testing.assert_allclose(3 * near, far, atol=1e-9)
  other = perturb(unit, Perturbation(camera_shift=0.05), seed=1).camera.position
  assert distance(other, np.add(unit.camera.position, near)) > 0.005


@pytest.mark.parametrize(
  "change",
  [
    Perturbation(camera_shift=0.15),
    Perturbation(camera_turn=np.deg2rad(15)),
    Perturbation(camera_roll=np.deg2rad(15)),
  ],
)
def test_the_bin_stays_in_the_view_of_a_moved_camera(change):
  for unit in EVERYBODY:
    low, high = unit.workspace()
    corners = [
      (x, y, unit.table_height) for x in (low[0], high[0]) for y in (low[1], high[1])
    ]
    pixels = cameras.project(perturb(unit, change).camera, np.array(corners), 1)
    assert ((pixels > 0) & (pixels < 1)).all(), unit.name


def test_bias_noise_wear_and_light_change_by_what_is_said():
  unit = units.sample_unit(4)
  change = Perturbation(actuation_bias=0.02, actuation_noise=3.0, wear=2.0, light=0.5)
  changed = perturb(unit, change)
  assert distance(changed.actuation.bias[:2], unit.actuation.bias[:2]) == (
    pytest.approx(0.02)
  )
  assert changed.actuation.bias[2:] == unit.actuation.bias[2:]
  assert changed.actuation.noise == tuple(3.0 * n for n in unit.actuation.noise)
  for before, after in zip(unit.fingers, changed.fingers, strict=True):
    assert after.pad_loss == 2.0 * before.pad_loss
    assert after.tip_loss == 2.0 * before.tip_loss
    assert after.bend == 2.0 * before.bend
    assert after.friction < before.friction
  assert changed.lights[0].diffuse == tuple(0.5 * c for c in unit.lights[0].diffuse)
  assert changed.camera == unit.camera


def test_the_most_worn_gripper_can_be_built():
  for unit in EVERYBODY:
    scene.build_scene(perturb(unit, Perturbation(wear=4.0)), [], 64)


@pytest.mark.parametrize(
  "field, value", [("camera_shift", -0.1), ("wear", 5.0), ("light", float("nan"))]
)
def test_impossible_perturbations_are_refused(field, value):
  with pytest.raises(ValueError, match=f"{field} is {value}"):
    Perturbation(**{field: value})


def digest(fleet):
  rows = [[dataclasses.asdict(u)[name] for name in FIRST_FIELDS] for u in fleet]
  return hashlib.sha256(json.dumps(rows, default=float).encode()).hexdigest()


def floor_pixels(unit):
  """Grey levels of the middle of an empty bin, away from the arm's shadow."""
  env = GraspEnv(unit, [], 96)
  image = env.begin(np.random.default_rng(0))
  env.close()
  return image[50:70, 50:70].astype(float).mean(axis=-1)


def sight(camera):
  return np.subtract(camera.target, camera.position)


def angle(first, second):
  cos = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
  return float(np.arccos(cos))


def distance(first, second):
  return float(np.linalg.norm(np.subtract(first, second)))
