"""What differs between robots (Section 5.1, Figures 6 and 7), sampled from a seed.

A unit is one simulated robot. Everything that made the paper's robots alike but
not identical is a field here: camera pose, lights, colours and textures, uneven
finger wear, friction, actuation. Units of the held-out family are drawn from other
seeds than the training family's, so that no robot is ever in both.

Frames: robot base, x forward over the bin, y left, z up; metres and radians.
"""

import dataclasses

import numpy as np

# Where the gripper may be commanded: the bin's floor less half an open gripper.
BIN_CENTRE = (0.56, 0.0)
WORKSPACE_HALF = (0.10, 0.12)
MAX_HEIGHT = 0.20
TABLE_HEIGHTS = (-0.01, 0.01)  # of the bin's floor, over all units
MAX_YAW = np.deg2rad(120.0)

# Patterns of a surface, see `envs.textures`; the first has none.
TEXTURE_KINDS = ("plain", "grain", "speckle", "brushed", "stripes", "wood")

# Seeds of a family are spawned from these, so that families are disjoint.
FAMILIES = {"training": 1001, "held_out": 2002}
NUM_TRAINING_UNITS = 14


@dataclasses.dataclass(frozen=True)
class Finger:
  """Wear and tear of one finger (Figure 7)."""

  pad_loss: float  # thickness worn off the pad, m
  tip_loss: float  # length missing at the tip, m
  bend: float  # tip bent outwards, rad
  friction: float  # sliding friction coefficient of the pad
  colour: tuple[float, float, float]  # RGB in [0, 1]


@dataclasses.dataclass(frozen=True)
class Camera:
  """Pose of the over-the-shoulder camera; the learned policy does not know it."""

  position: tuple[float, float, float]  # m, base frame
  target: tuple[float, float, float]  # the point looked at, m, base frame
  roll: float  # about the optical axis, rad
  fovy: float  # vertical field of view, rad


@dataclasses.dataclass(frozen=True)
class Light:
  """One lamp above the bin."""

  position: tuple[float, float, float]  # m, base frame
  diffuse: tuple[float, float, float]  # RGB in [0, 1]
  ambient: float


@dataclasses.dataclass(frozen=True)
class Texture:
  """Pattern on a surface of one colour; the default has none."""

  kind: str = "plain"  # of TEXTURE_KINDS
  contrast: float = 0.0  # standard deviation of brightness, share of its mean
  scale: float = 0.25  # m, after which the pattern repeats
  seed: int = 0  # of the pattern


@dataclasses.dataclass(frozen=True)
class Actuation:
  """How far the arm ends from where it was sent."""

  bias: tuple[float, float, float, float]  # x, y, z (m), yaw (rad); constant
  noise: tuple[float, float, float, float]  # standard deviation a motion


@dataclasses.dataclass(frozen=True)
class Unit:
  """One robot of the fleet."""

  name: str
  family: str
  seed: int
  camera: Camera
  lights: tuple[Light, ...]
  fingers: tuple[Finger, Finger]  # left, right
  actuation: Actuation
  table_height: float  # of the bin's floor, m; known to the servo
  bin_colour: tuple[float, float, float]
  table_colour: tuple[float, float, float]
  bin_texture: Texture = Texture()
  table_texture: Texture = Texture()
  arm: str = "built_in"  # or one that `envs.menagerie` knows
  # Where the camera was when it was calibrated, if it has been moved since.
  calibration: Camera | None = None

  @property
  def known_camera(self) -> Camera:
    """What a calibrated baseline believes; the learned policy knows no camera."""
    return self.calibration or self.camera

  def workspace(self) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest pose (x, y, z, yaw), float32[4] each, that may be sent."""
    return _workspace(self.table_height, self.table_height)


def fleet_workspace() -> tuple[np.ndarray, np.ndarray]:
  """The box around the workspaces of all units of all families, as `Unit.workspace`."""
  return _workspace(*TABLE_HEIGHTS)


def _workspace(lowest: float, highest: float) -> tuple[np.ndarray, np.ndarray]:
  (cx, cy), (hx, hy) = BIN_CENTRE, WORKSPACE_HALF
  low = (cx - hx, cy - hy, lowest, -MAX_YAW)
  high = (cx + hx, cy + hy, highest + MAX_HEIGHT, MAX_YAW)
  return np.asarray(low, np.float32), np.asarray(high, np.float32)


def sample_unit(seed: int, family: str = "training") -> Unit:
  """Draws a robot.

  Args:
    seed: which robot of the family; the same seed is the same robot forever.
    family: `training` or `held_out`.

  Raises:
    ValueError: an unknown family or a negative seed.
  """
  if family not in FAMILIES:
    raise ValueError(f"unit family {family!r}: expected one of {sorted(FAMILIES)}")
  if seed < 0:
    raise ValueError(f"unit seed {seed}: expected a number from 0")
  rng = np.random.default_rng([FAMILIES[family], seed])
  return Unit(
    name=f"{family}-{seed:02d}",
    family=family,
    seed=seed,
    camera=_sample_camera(rng),
    lights=_sample_lights(rng),
    fingers=(_sample_finger(rng), _sample_finger(rng)),
    actuation=_sample_actuation(rng),
    table_height=float(rng.uniform(*TABLE_HEIGHTS)),
    bin_colour=_greyish(rng, 0.65, 0.85, tint=0.05),
    table_colour=_greyish(rng, 0.15, 0.5, tint=0.12),
    # Drawn last: what came before is what it was without them. Subtle, because the
    # dark fingers must stand out against the bin.
    bin_texture=_sample_texture(rng, plain=0.35, contrast=(0.02, 0.06)),
    table_texture=_sample_texture(rng, plain=0.2, contrast=(0.05, 0.15)),
  )


def named_unit(name: str) -> Unit:
  """The unit of that name, 'training-03', with the built-in arm.

  Raises:
    ValueError: there is none.
  """
  family, _, number = name.rpartition("-")
  if family in FAMILIES and number.isdecimal():
    unit = sample_unit(int(number), family)
    if unit.name == name:
      return unit
  raise ValueError(
    f"unit {name!r}: expected a family of {sorted(FAMILIES)} and a number, as in"
    " 'training-03'"
  )


def fleet_units(
  count: int, family: str = "training", first: int = 0, arm: str = "built_in"
) -> list[Unit]:
  """`count` units of a family, from seed `first` on, with the arm of that name."""
  return [
    dataclasses.replace(sample_unit(seed, family), arm=arm)
    for seed in range(first, first + count)
  ]


def _sample_camera(rng: np.random.Generator) -> Camera:
  # Steep enough that the palm does not hide the fingertips, beside the elbow,
  # and close enough that the bin fills the frame: what learns fastest.
  jitter = rng.uniform(-1.0, 1.0, size=6)
  return Camera(
    position=(
      0.26 + 0.04 * jitter[0],
      0.46 + 0.04 * jitter[1],
      1.08 + 0.04 * jitter[2],
    ),
    target=(
      BIN_CENTRE[0] + 0.015 * jitter[3],
      BIN_CENTRE[1] + 0.015 * jitter[4],
      0.0,
    ),
    roll=float(np.deg2rad(4.0) * jitter[5]),
    fovy=float(np.deg2rad(rng.uniform(17.0, 18.0))),
  )


def _sample_lights(rng: np.random.Generator) -> tuple[Light, ...]:
  lights = []
  for side in (-1.0, 1.0):
    # The one that casts shadows is the weaker: the arm's shadow darkens, not hides.
    brightness = rng.uniform(0.15, 0.3) if side < 0 else rng.uniform(0.25, 0.45)
    tint = rng.uniform(0.9, 1.0, size=3)
    lights.append(
      Light(
        position=(
          float(rng.uniform(0.2, 0.9)),
          float(side * rng.uniform(0.2, 0.9)),
          float(rng.uniform(1.5, 2.2)),
        ),
        diffuse=_rgb(brightness * tint),
        ambient=float(rng.uniform(0.2, 0.3)),
      )
    )
  return tuple(lights)


def _sample_finger(rng: np.random.Generator) -> Finger:
  return Finger(
    pad_loss=float(rng.uniform(0.0, 0.002)),
    tip_loss=float(rng.uniform(0.0, 0.005)),
    bend=float(np.deg2rad(rng.uniform(-1.0, 5.0))),
    friction=float(rng.uniform(0.7, 1.2)),
    colour=_greyish(rng, 0.02, 0.16, tint=0.04),
  )


def _sample_actuation(rng: np.random.Generator) -> Actuation:
  x, y, yaw = rng.uniform(-1.0, 1.0, size=3) * (0.004, 0.004, np.deg2rad(2.0))
  return Actuation(
    bias=(float(x), float(y), 0.0, float(yaw)),
    noise=(0.002, 0.002, 0.001, float(np.deg2rad(1.0))),
  )


def _sample_texture(
  rng: np.random.Generator, plain: float, contrast: tuple[float, float]
) -> Texture:
  has_none = rng.uniform() < plain
  texture = Texture(
    kind=TEXTURE_KINDS[rng.integers(1, len(TEXTURE_KINDS))],
    contrast=float(rng.uniform(*contrast)),
    scale=float(rng.uniform(0.15, 0.35)),
    seed=int(rng.integers(2**31)),
  )
  return Texture() if has_none else texture


def _greyish(rng, low: float, high: float, tint: float) -> tuple[float, float, float]:
  grey = rng.uniform(low, high)
  return _rgb(np.clip(grey + rng.uniform(-tint, tint, size=3), 0.0, 1.0))


def _rgb(colour: np.ndarray) -> tuple[float, float, float]:
  red, green, blue = colour
  return float(red), float(green), float(blue)
