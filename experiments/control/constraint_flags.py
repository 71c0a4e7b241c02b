"""Your own limits as flags: where to grasp, where not, which yaws."""

import math

from absl import flags

from experiments import cli
from hand_eye.constraints import Constraints


def define_flags() -> None:
  flags.DEFINE_string(
    "grasp_in", "", "Region to grasp in: 'x_low,y_low,x_high,y_high', m, base frame."
  )
  flags.DEFINE_multi_string(
    "keep_out", [], "Region to keep out of, as --grasp_in; may be repeated."
  )
  flags.DEFINE_string(
    "yaw_range", "", "Yaws of the gripper: 'from,to', degrees, counter-clockwise."
  )


def from_flags() -> Constraints:
  """The constraints that were given. Raises UserError naming the flag."""
  args = flags.FLAGS
  return parse(args.grasp_in, args.keep_out, args.yaw_range)


def parse(grasp_in: str, keep_out: list[str], yaw_range: str) -> Constraints:
  """The constraints of three flags; '' and [] are none."""
  try:
    degrees = _numbers(yaw_range)
    return Constraints(
      grasp_in=_numbers(grasp_in),  # type: ignore[arg-type]  # it counts them
      keep_out=tuple(_numbers(text) for text in keep_out),  # type: ignore[misc]
      yaw_range=degrees and tuple(map(math.radians, degrees)),  # type: ignore[arg-type]
    )
  except ValueError as error:
    raise cli.UserError(f"--{error}") from error


def _numbers(text: str) -> tuple[float, ...] | None:
  if not text:
    return None
  try:
    return tuple(float(part) for part in text.split(","))
  except ValueError:
    return (math.nan,)  # which `Constraints` refuses by the name of its field
