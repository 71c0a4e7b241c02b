"""Robots that differ more than any of the fleet: the knobs of robustness sweeps.

A perturbation changes one unit after it was trained or calibrated: somebody ran into
the camera, the fingers wore on, a joint drifted. Objects that are pushed during an
attempt are not the unit's: see `GraspEnv.push_objects`.
"""

import dataclasses

import numpy as np

from envs.units import FAMILIES, Camera, Finger, Light, Unit

NEW_FRICTION = 1.2  # of a pad without wear
_LEAST_FRICTION = 0.1
MOST_WEAR = 4.0  # beyond this, nothing would be left of a pad


@dataclasses.dataclass(frozen=True)
class Perturbation:
  """How far a unit is from itself; the default changes nothing.

  Raises:
    ValueError: a negative amount, or more wear than a pad has.
  """

  # The camera is moved across its line of sight, and again points at what it pointed
  # at: turned in place by these angles it would see no bin.
  camera_shift: float = 0.0  # m
  # It is carried around that point and sees the bin from another side.
  camera_turn: float = 0.0  # rad
  camera_roll: float = 0.0  # rad, about the optical axis
  # It points past the bin; the image moves. Beyond half its field of view, the middle
  # of the bin is out of sight.
  camera_aim: float = 0.0  # rad
  actuation_bias: float = 0.0  # m, sideways, on top of the unit's own
  actuation_noise: float = 1.0  # times the unit's own
  wear: float = 1.0  # times the unit's own; 0 is a new gripper
  light: float = 1.0  # times the brightness of all lamps

  def __post_init__(self) -> None:
    for name, value in dataclasses.asdict(self).items():
      if not value >= 0.0:
        raise ValueError(f"{name} is {value}, expected 0 or more")
    if self.wear > MOST_WEAR:
      raise ValueError(f"wear is {self.wear}, expected at most {MOST_WEAR}")

  def changes(self) -> dict[str, float]:
    """The fields that differ from the default, by name."""
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }


def perturb(unit: Unit, perturbation: Perturbation, seed: int = 0) -> Unit:
  """The unit after the perturbation; the unit itself if that changes nothing.

  Directions depend on the unit and the seed, not on the amount: a sweep over amounts
  goes one way.

  Args:
    seed: of the directions.

  Returns:
    A unit whose name says how it was changed: 'held_out-03~camera_shift=0.10', with
    '#2' behind it for seed 2.
  """
  changes = perturbation.changes()
  if not changes:
    return unit
  text = ",".join(f"{name}={_short(value)}" for name, value in changes.items())
  rng = np.random.default_rng([FAMILIES[unit.family], unit.seed, seed, 0xD15])
  angles = rng.uniform(-np.pi, np.pi, size=4)
  side = rng.choice([-1.0, 1.0])
  bias = perturbation.actuation_bias * np.array([np.cos(angles[3]), np.sin(angles[3])])
  x, y, z, yaw = unit.actuation.bias
  return dataclasses.replace(
    unit,
    name=f"{unit.name}~{text}{f'#{seed}' if seed else ''}",
    camera=_moved(unit.camera, perturbation, angles, side),
    calibration=unit.known_camera,
    lights=tuple(_brighter(light, perturbation.light) for light in unit.lights),
    fingers=(
      _worn(unit.fingers[0], perturbation.wear),
      _worn(unit.fingers[1], perturbation.wear),
    ),
    actuation=dataclasses.replace(
      unit.actuation,
      bias=(float(x + bias[0]), float(y + bias[1]), z, yaw),
      noise=_times(perturbation.actuation_noise, unit.actuation.noise),
    ),
  )


def _moved(
  camera: Camera, perturbation: Perturbation, angles: np.ndarray, side: float
) -> Camera:
  position, target = np.asarray(camera.position), np.asarray(camera.target)
  if perturbation.camera_shift:
    position = position + perturbation.camera_shift * _across(
      target - position, angles[0]
    )
  if perturbation.camera_turn:
    sight = position - target
    far = np.linalg.norm(sight)
    turn, way = perturbation.camera_turn, _across(sight, angles[1])
    position = target + np.cos(turn) * sight + np.sin(turn) * far * way
  if perturbation.camera_aim:
    sight = target - position
    far = np.linalg.norm(sight)
    aim, way = perturbation.camera_aim, _across(sight, angles[2])
    target = position + np.cos(aim) * sight + np.sin(aim) * far * way
  return dataclasses.replace(
    camera,
    position=_triple(position),
    target=_triple(target),
    roll=camera.roll + side * perturbation.camera_roll,
  )


def _across(sight: np.ndarray, angle: float) -> np.ndarray:
  """[3]: a direction of length 1 at right angles to a line of sight [3]."""
  level = np.cross([0.0, 0.0, 1.0], sight)
  level = level / np.linalg.norm(level)
  rising = np.cross(sight / np.linalg.norm(sight), level)
  return np.cos(angle) * level + np.sin(angle) * rising


def _worn(finger: Finger, wear: float) -> Finger:
  friction = NEW_FRICTION - wear * (NEW_FRICTION - finger.friction)
  return dataclasses.replace(
    finger,
    pad_loss=wear * finger.pad_loss,
    tip_loss=wear * finger.tip_loss,
    bend=wear * finger.bend,
    friction=finger.friction if wear == 1.0 else max(_LEAST_FRICTION, friction),
  )


def _brighter(light: Light, factor: float) -> Light:
  red, green, blue = light.diffuse
  return dataclasses.replace(
    light,
    diffuse=(factor * red, factor * green, factor * blue),
    ambient=factor * light.ambient,
  )


def _times(
  factor: float, values: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
  x, y, z, yaw = values
  return factor * x, factor * y, factor * z, factor * yaw


def _short(value: float) -> str:
  """At least two decimals: 0.10, but 0.125."""
  text = f"{value:.4f}".rstrip("0")
  whole, _, decimals = text.partition(".")
  return f"{whole}.{decimals:0<2}"


def _triple(values: np.ndarray) -> tuple[float, float, float]:
  x, y, z = values
  return float(x), float(y), float(z)
