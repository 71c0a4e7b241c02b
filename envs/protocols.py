"""The two protocols of Section 6, and what their outcomes add up to.

With replacement, what was grasped goes back into the bin: a policy may pick up the easy
objects again and again. Without, it is taken away, and the bin becomes empty.
"""

import dataclasses
from collections.abc import Callable, Sequence

from envs.objects import MOST
from envs.rollout import NO_PUSHING, Pushing, SceneTask
from envs.units import Unit

NAMES = ("with_replacement", "without_replacement")
FIRST = (10, 20, 30)  # attempts of a repetition, over which Table 1 counts failures


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How often, and in which bins. The paper's: (1, 100) with and (4, 30) without.

  Attributes:
    repetitions: bins, each with its own objects; 0 leaves the protocol out.
    num_attempts: in each bin.
    num_objects: in each bin.
  """

  repetitions: int
  num_attempts: int
  num_objects: int

  def __post_init__(self) -> None:
    if self.repetitions < 0:
      raise ValueError(f"repetitions is {self.repetitions}, expected at least 0")
    if self.num_attempts < 1:
      raise ValueError(f"num_attempts is {self.num_attempts}, expected at least 1")
    if not 1 <= self.num_objects <= MOST:
      raise ValueError(
        f"num_objects is {self.num_objects}, but a bin holds 1 to {MOST}"
      )


def plan(
  name: str,
  protocol: Protocol,
  robots: Sequence[Unit],
  scene_seed: Callable[[int], int],
  *,
  num_steps: int,
  objects: str,
  frame_size: int,
  pushing: Pushing = NO_PUSHING,
) -> list[SceneTask]:
  """The bins of a protocol, one a repetition; robots take turns.

  Args:
    name: of NAMES.
    scene_seed: of a repetition.
    num_steps: T.
    objects: which ones, see `envs.objects.choose`.
    frame_size: of images, pixels.

  Raises:
    ValueError: there is no protocol of that name.
  """
  if name not in NAMES:
    raise ValueError(f"protocol {name!r}: expected one of {', '.join(NAMES)}")
  return [
    SceneTask(
      unit=robots[repetition % len(robots)],
      scene_seed=scene_seed(repetition),
      num_attempts=protocol.num_attempts,
      num_steps=(num_steps,),
      num_objects=protocol.num_objects,
      objects=objects,
      frame_size=frame_size,
      replacement=name == "with_replacement",
      pushing=pushing,
    )
    for repetition in range(protocol.repetitions)
  ]


def cleared_at(remaining: Sequence[int]) -> int | None:
  """The attempt, from 1, after which nothing was left in the bin; None if never.

  Args:
    remaining: objects in the bin after each attempt.
  """
  for number, count in enumerate(remaining, start=1):
    if not count:
      return number
  return None
