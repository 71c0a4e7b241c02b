"""Attempts as the open-loop network sees them: a patch of each pregrasp image.

An attempt gives one sample: its label, and a patch of the pregrasp image around the
place where the gripper later closed, found by the unit's calibrated camera. The network
sees the patch as both images and the null command: how good is it to close in the
middle of this?
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipeline import records, source
from envs import units
from envs.baselines.patches import Square, cut_patches
from experiments import cli
from experiments.fitting import input_spec
from hand_eye import checkpoint


@dataclasses.dataclass(frozen=True)
class PatchConfig:
  """How patches are cut, and which of their symmetries are learned from.

  Attributes:
    preset: of the network; '' for that of config.network. An architecture that looks
      for the gripper has nothing to find in a patch.
    side, height: see `envs.baselines.patches.Square`, m.
    half_turn: whether each attempt counts again turned by half a turn, which changes
      places of the fingers and nothing else.
    mirror_probability: share of samples whose left and right are exchanged: the same
      grasp, but for light and the side from which the camera looks.
  """

  preset: str = ""
  side: float = 0.16
  height: float = 0.02
  half_turn: bool = True
  mirror_probability: float = 0.0

  def __post_init__(self) -> None:
    self.square  # noqa: B018, checks

  @property
  def square(self) -> Square:
    return Square(self.side, self.height)


def input_spec_of(settings: PatchConfig, patch_size: int) -> input_spec.InputSpec:
  """The inputs of the open-loop network: patches of `patch_size` pixels."""
  return input_spec.InputSpec(
    purpose=checkpoint.OPEN_LOOP,
    details=dataclasses.asdict(settings),
    samples=functools.partial(
      grasps, patch_size=patch_size, half_turn=settings.half_turn
    ),
    load_frames=functools.partial(PatchFrames, square=settings.square),
  )


def settings_of(experiment: Mapping[str, Any]) -> PatchConfig:
  """The patches of a network, from what its checkpoint says of its run."""
  return PatchConfig(
    **{name: value for name, value in experiment["inputs"].items() if name != "purpose"}
  )


def grasps(
  dataset: source.Dataset, *, patch_size: int, half_turn: bool, is_training: bool
) -> source.Dataset:
  """A dataset of one step an attempt, the one that closed; see `PatchFrames`.

  Args:
    dataset: attempts of the cell's own units.
    patch_size: of its images, pixels.
    half_turn: whether attempts to train on come again, turned, after all others.
    is_training: whether these are.

  Raises:
    UserError: an attempt is of a unit whose calibration is not known.
  """
  for name in np.unique(np.asarray(dataset.attempts.unit)):
    _unit(str(name))
  count = len(dataset)
  twice = half_turn and is_training
  chosen = dataset.select(np.tile(np.arange(count), 2)) if twice else dataset
  table = chosen.attempts
  poses = table.poses[np.cumsum(table.num_steps) - 1].copy()
  poses[count:, 3] += np.pi
  return chosen.with_table(
    dataclasses.replace(table, poses=poses, num_steps=np.ones_like(table.num_steps)),
    patch_size,
  )


class PatchFrames:
  """Patches around the grasps of a dataset of `grasps`; see data_pipeline.frames.

  Each is cut when it is asked for first, and kept if all of them fit into memory.
  """

  def __init__(self, dataset: source.Dataset, cache_bytes: int, *, square: Square):
    self.fingerprint = dataset.fingerprint
    self._records, self._square = dataset.records, square
    self._poses = dataset.attempts.poses[:, [0, 1, 3]]
    self._unit_names = dataset.attempts.unit
    self._size = dataset.frame_size
    shape = (len(dataset), self._size, self._size, 3)
    fits = int(np.prod(shape, dtype=np.int64)) <= cache_bytes
    self._kept = np.empty(shape, np.uint8) if fits else None
    self._is_kept = np.zeros(len(dataset), bool)

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The patch, uint8[S, S, 3], twice. See Frames."""
    del step
    if self._kept is None:
      patch = self._cut(attempt)
    else:
      if not self._is_kept[attempt]:
        self._kept[attempt] = self._cut(attempt)
        self._is_kept[attempt] = True
      patch = self._kept[attempt]
    return patch, patch

  def _cut(self, attempt: int) -> np.ndarray:
    try:
      pregrasp = records.from_jpeg(records.jpegs(self._records[attempt])[0])
    except records.RecordError as error:
      raise self._records.broken(attempt, error) from error
    code = self._unit_names.codes[attempt]
    unit = _unit(self._unit_names.names[code])
    return cut_patches(
      pregrasp,
      unit.camera,
      unit.table_height,
      self._poses[attempt : attempt + 1],
      self._size,
      self._square,
    )[0]


@functools.lru_cache(maxsize=4096)
def _unit(name: str) -> units.Unit:
  try:
    return units.named_unit(name)
  except ValueError as error:
    raise cli.UserError(
      f"no calibration is known for attempts of unit {name!r}, and patches need one;"
      " learn open loop from attempts of the cell's own units only, as"
      " --only=unit=training-00,... chooses them"
    ) from error
