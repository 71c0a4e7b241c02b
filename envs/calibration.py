"""The error that a careful hand-eye calibration leaves, drawn for each unit.

A simulator hands calibrated baselines the exact pose of the camera. A real one is
measured, with a board that the arm carries around: what is left after care is a few
millimetres and about half a degree. The maintainer of easy_handeye expects 'a few
millimeters (less than 5)' of that kind of camera (IFL-CAMP/easy_handeye, issue 130);
users report 1.1 mm and 0.66 degrees with a commercial tool (librealsense, issue 11736);
Zivid's documentation expects millimetres and less than a degree of large robots. From
a metre away, half a degree moves a point in the bin by up to a centimetre.
"""

import dataclasses

import numpy as np

from envs.units import FAMILIES, Camera, Unit

_SEED = 0xCA11B  # keeps these draws apart from others of a unit


@dataclasses.dataclass(frozen=True)
class CalibrationError:
  """Root mean square error of the camera's believed pose.

  metres: of its position, over all three axes together.
  radians: of its orientation, over all three axes together.
  """

  metres: float = 0.0
  radians: float = 0.0


EXACT = CalibrationError()
CAREFUL = CalibrationError(metres=0.003, radians=float(np.deg2rad(0.5)))


def believed_camera(unit: Unit, error: CalibrationError = EXACT) -> Camera:
  """What a calibrated baseline believes of a unit's camera.

  The error is the unit's own: the same in every attempt, and in proportion for other
  amounts. A camera that was moved since is believed to be where it was calibrated.
  """
  camera = unit.known_camera
  if error == EXACT:
    return camera
  rng = np.random.default_rng([_SEED, FAMILIES[unit.family], unit.seed])
  shift = error.metres / np.sqrt(3) * rng.normal(size=3)
  turn = error.radians / np.sqrt(3) * rng.normal(size=3)
  position, target = np.asarray(camera.position), np.asarray(camera.target)
  sight = target - position
  along = sight / np.linalg.norm(sight)
  position = position + shift
  # For half a degree, a rotation is its first order to within a ten thousandth.
  target = position + sight + np.cross(turn, sight)
  return dataclasses.replace(
    camera,
    position=_triple(position),
    target=_triple(target),
    roll=camera.roll + float(turn @ along),
  )


def _triple(values: np.ndarray) -> tuple[float, float, float]:
  x, y, z = values
  return float(x), float(y), float(z)
