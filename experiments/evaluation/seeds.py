"""Seeds of scenes: one range per purpose, so that no scene serves two.

A network may recognise a scene, so it must not be measured on training scenes.
"""

import enum

from experiments import cli

_LIMIT = 10_000  # of experiment seeds and of rounds
_SCENES = 10**9  # of one collection or evaluation


class Purpose(enum.IntEnum):
  """What a scene is for."""

  TRAIN = 1
  HELD_OUT = 2
  EVALUATE = 3
  CHECK = 4  # of the cell


def scene_seed(purpose: Purpose, seed: int, round_number: int, index: int) -> int:
  """The seed of a scene; different for different arguments, and below 2**63.

  Args:
    purpose: what the scene is for.
    seed: of the experiment, below 10,000.
    round_number: of the collection, below 10,000; 0 in an evaluation, the
      number of the stream in a check.
    index: of the scene, below 10**9.

  Raises:
    UserError: a number outside its range.
  """
  for name, value, limit in (
    ("seed", seed, _LIMIT),
    ("round", round_number, _LIMIT),
    ("number of scenes", index, _SCENES),
  ):
    if not 0 <= value < limit:
      raise cli.UserError(f"{name} is {value}, expected 0 to {limit - 1}")
  return ((purpose * _LIMIT + seed) * _LIMIT + round_number) * _SCENES + index
