"""Labels and colours of policies, conditions and properties in the report."""

import math
from collections.abc import Iterable
from typing import NamedTuple


class Look(NamedTuple):
  """A line's colour (of the page's variables) and dash (solid, dashed or dotted)."""

  colour: str
  dash: str


class Knob(NamedTuple):
  """A condition: its amount times `scale` is in `unit`; `nothing` changes nothing."""

  label: str
  unit: str
  scale: float
  nothing: float


RANDOM = "random"

_LOOKS = {
  "random": Look("soft", "dotted"),
  "hand_designed": Look("c", "solid"),
  "hand_designed_noisy": Look("c", "dashed"),
  "open_loop": Look("b", "solid"),
  "servo": Look("a", "solid"),
  "exported": Look("a", "dashed"),
  "oracle": Look("d", "dashed"),
}
_OTHER_LOOKS = (
  Look("d", "solid"), Look("ink", "dashed"), Look("ink", "dotted"), Look("d", "dotted"),
)  # fmt: skip

_DEGREES = math.degrees(1.0)
CONDITIONS = {
  "camera_shift": Knob("camera moved", "cm", 100.0, 0.0),
  "camera_turn": Knob("camera carried round the bin", "degrees", _DEGREES, 0.0),
  "camera_roll": Knob("camera rolled", "degrees", _DEGREES, 0.0),
  "camera_aim": Knob("camera aimed past the bin", "degrees", _DEGREES, 0.0),
  "actuation_bias": Knob("motions biased", "mm", 1000.0, 0.0),
  "actuation_noise": Knob("noise of motions", "times the unit's own", 1.0, 1.0),
  "wear": Knob("finger wear", "times the unit's own", 1.0, 1.0),
  "light": Knob("brightness of the lamps", "times the unit's own", 1.0, 1.0),
  "push": Knob("objects pushed during the attempt", "m/s", 1.0, 0.0),
  "num_steps": Knob("steps of an attempt, T", "", 1.0, math.nan),
}

# Those that Section 6 names of its test objects, between the two kinds and the rest.
PROPERTIES = (
  "rigid", "soft", "heavy", "light", "flat", "large", "small", "translucent", "long",
  "composed",
)  # fmt: skip


def looks(names: Iterable[str]) -> dict[str, Look]:
  """Each policy's line; those of Table 1 look the same in all figures."""
  others = iter(_OTHER_LOOKS * 8)
  return {name: _LOOKS.get(name) or next(others) for name in names}


def condition(name: str) -> Knob:
  return CONDITIONS.get(name, Knob(name.replace("_", " "), "", 1.0, 0.0))


def amount(name: str, value: float) -> str:
  """('camera_shift', 0.05) -> '5 cm'."""
  knob = condition(name)
  return f"{round(value * knob.scale, 1):g} {knob.unit}".strip()
