"""Policies, conditions and properties: what the report calls and how it draws them."""

import math
from collections.abc import Collection, Iterable
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


OURS = ("servo", "exported")  # whichever was run
RANDOM = "random"

# The policies of Table 1, and the oracle, in the order of tables.
POLICIES = {
  "random": "random",
  "hand_designed": "hand-designed, ideal depth",
  "hand_designed_noisy": "hand-designed, noisy depth",
  "open_loop": "open loop",
  "servo": "servo (ours)",
  "exported": "exported servo (ours)",
  "oracle": "oracle (knows the scene)",
}
_VARIANTS = {
  "best_of_64": "the best of 64 samples, no CEM",
  "best_of_192": "the best of 192 samples, no CEM",
  "no_raise": "never raising",
  "no_early_close": "closing at step T only",
}
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


def ours(policies: Collection[str]) -> str:
  """The servo among the policies, else the exported one, else ''."""
  return next((name for name in OURS if name in policies), "")


def policy(name: str) -> str:
  """'servo:no_raise' -> 'servo, never raising'; a name that nobody knows stays."""
  start, at, network = name.partition("@")
  kind, _, variant = start.partition(":")
  if kind not in POLICIES:
    return name
  if not variant and not at:
    return POLICIES[kind]
  words = [kind.replace("_", " ")]
  if variant:
    words.append(_VARIANTS.get(variant, variant))
  if at:
    words.append(f"network {network}")
  return ", ".join(words)


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
