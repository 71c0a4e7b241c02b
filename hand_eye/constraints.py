"""Limits that a user adds to the workspace: where to grasp, where not, which yaw.

Plain numbers, for files and command lines; `limits` enforces them inside the compiled
decision. They say where a motion may end and where the gripper may close, not where it
passes on the way: give regions the margin that the gripper needs, and leave the way to
the robot's own safety limits.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

MOST_KEEP_OUT = 4  # regions of one `Constraints`: shapes are static
_FAR = 1e3  # m: beyond every robot, yet finite
INPUTS = ("grasp_in", "keep_out", "yaw_range")  # names of `arrays`, in this order

Region = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Constraints:
  """The user's own limits; the default adds none.

  Attributes:
    grasp_in: (x low, y low, x high, y high) of the region to grasp in, robot base
      frame, metres; None is the whole workspace.
    keep_out: up to four regions of that form to keep out of, their edges included. They
      may touch and overlap. Motions end `limits.CLEARANCE` outside them.
    yaw_range: (from, to), radians, counter-clockwise; (3.0, 3.4) goes across pi. None
      is every yaw that the workspace has.

  Raises:
    ValueError: for what is not finite or has no extent, naming the field.
  """

  grasp_in: Region | None = None
  keep_out: tuple[Region, ...] = ()
  yaw_range: tuple[float, float] | None = None

  def __post_init__(self) -> None:
    if not _is_list(self.keep_out):
      raise ValueError(
        f"keep_out is {self.keep_out!r}, expected a list of regions (x low, y low,"
        " x high, y high)."
      )
    keep_out = tuple(_region("keep_out", region) for region in self.keep_out)
    object.__setattr__(self, "keep_out", keep_out)
    if len(keep_out) > MOST_KEEP_OUT:
      raise ValueError(
        f"keep_out has {len(keep_out)} regions, expected at most {MOST_KEEP_OUT}: join"
        " regions that touch."
      )
    if self.grasp_in is not None:
      object.__setattr__(self, "grasp_in", _region("grasp_in", self.grasp_in))
    if self.yaw_range is not None:
      ends = _numbers("yaw_range", self.yaw_range, 2)
      if not 0 < ends[1] - ends[0] <= 2 * math.pi + 1e-6 or abs(ends[0]) > 7:
        raise ValueError(
          f"yaw_range is {ends}, expected (from, to) in radians, from < to <= from +"
          " 2 pi, within -2 pi to 4 pi."
        )
      object.__setattr__(self, "yaw_range", ends)

  def arrays(self) -> dict[str, np.ndarray]:
    """float32 by name: grasp_in [4], keep_out [MOST_KEEP_OUT, 4], yaw_range [2]."""
    # A region whose low ends are above its high ones contains nothing.
    nothing = (_FAR, _FAR, -_FAR, -_FAR)
    free = (nothing,) * (MOST_KEEP_OUT - len(self.keep_out))
    return {
      "grasp_in": np.array(self.grasp_in or (-_FAR, -_FAR, _FAR, _FAR), np.float32),
      "keep_out": np.array([*self.keep_out, *free], np.float32),
      "yaw_range": np.array(self.yaw_range or (-math.pi, math.pi), np.float32),
    }


def from_json(fields: Mapping[str, Any] | None) -> Constraints:
  """Reads what `dataclasses.asdict` made, perhaps by way of JSON.

  Raises:
    ValueError: for unknown fields, and as `Constraints`.
  """
  if not isinstance(fields or {}, Mapping):
    raise ValueError(
      f"constraints are {fields!r}, expected an object with {', '.join(INPUTS)}."
    )
  fields = dict(fields or {})
  known = [field.name for field in dataclasses.fields(Constraints)]
  unknown = sorted(set(fields) - set(known))
  if unknown:
    raise ValueError(
      f"unknown constraint {', '.join(unknown)}, known: {', '.join(known)}."
    )
  return Constraints(**fields)


def ensure(constraints: Constraints | None) -> Constraints:
  """Returns the constraints, or the default for None.

  Raises:
    ValueError: they are something else; before a robot moves by them, not after.
  """
  if constraints is None:
    return Constraints()
  if not isinstance(constraints, Constraints):
    raise ValueError(
      f"constraints is {type(constraints).__name__} {constraints!r}, expected"
      " hand_eye.constraints.Constraints(grasp_in=..., keep_out=..., yaw_range=...)."
    )
  return constraints


def _region(name: str, value: Iterable[float]) -> Region:
  x_low, y_low, x_high, y_high = _numbers(name, value, 4)
  if not (x_low < x_high and y_low < y_high):
    raise ValueError(
      f"{name} is {(x_low, y_low, x_high, y_high)}, expected (x low, y low, x high,"
      " y high) with each low below its high, in metres."
    )
  return x_low, y_low, x_high, y_high


def _numbers(name: str, value: Iterable[float], count: int) -> tuple[float, ...]:
  found = list(value) if _is_list(value) else []
  if len(found) != count or not all(
    isinstance(number, numbers.Real)
    and not isinstance(number, bool)
    and abs(number) < _FAR
    for number in found
  ):
    raise ValueError(
      f"{name} is {value!r}, expected {count} finite numbers below {_FAR:g}."
    )
  return tuple(float(number) for number in found)


def _is_list(value: Any) -> bool:
  """Whether it holds several values; a string, a mapping and a set do not count."""
  return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
