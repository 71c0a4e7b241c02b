"""What a careful calibration leaves: small, a unit's own, none where it is exact."""

import dataclasses

import numpy as np

from envs import calibration, perturbations, units

FLEET = units.fleet_units(200, "held_out")


def _sight(camera: units.Camera) -> np.ndarray:
  sight = np.subtract(camera.target, camera.position)
  return sight / np.linalg.norm(sight)


def test_an_exact_calibration_is_the_camera_itself():
  assert calibration.believed_camera(FLEET[0]) == FLEET[0].camera


def test_the_error_is_as_large_as_it_says_and_stays():
  careful = calibration.CAREFUL
  believed = [calibration.believed_camera(unit, careful) for unit in FLEET]
  assert believed == [calibration.believed_camera(unit, careful) for unit in FLEET]
  shifts = [
    np.linalg.norm(np.subtract(found.position, unit.camera.position))
    for found, unit in zip(believed, FLEET, strict=True)
  ]
  assert abs(np.sqrt(np.mean(np.square(shifts))) / careful.metres - 1) < 0.1
  turns = [
    np.arccos(min(1.0, _sight(found) @ _sight(unit.camera)))
    for found, unit in zip(believed, FLEET, strict=True)
  ]
  # Two of the three axes move the line of sight.
  assert abs(np.sqrt(1.5 * np.mean(np.square(turns))) / careful.radians - 1) < 0.1
  rolls = [
    found.roll - unit.camera.roll for found, unit in zip(believed, FLEET, strict=True)
  ]
  assert abs(np.sqrt(3 * np.mean(np.square(rolls))) / careful.radians - 1) < 0.2


def test_a_moved_camera_is_believed_where_it_was_calibrated():
  change = perturbations.Perturbation(camera_shift=0.1)
  moved = perturbations.perturb(FLEET[0], change)
  for error in (calibration.EXACT, calibration.CAREFUL):
    assert calibration.believed_camera(moved, error) == calibration.believed_camera(
      FLEET[0], error
    )
  assert dataclasses.replace(moved, calibration=None).known_camera == moved.camera
