"""Names of policies, as in flags and rows; parsed here and nowhere else.

random                  a kind, see KINDS
servo:no_raise          a kind in another form, see VARIANTS
servo@1000              the servo with the network of that label
package.module:factory  a policy of your own, see `policies`
"""

import dataclasses
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from envs import calibration
from experiments import cli

SERVO = "servo"
OURS = (SERVO, "exported")  # whichever was run

# In the order of tables, each with the label that reports give it.
KINDS = {
  "random": "random",
  "hand_designed": "hand-designed, ideal depth",
  "hand_designed_noisy": "hand-designed, noisy depth",
  "open_loop": "open loop",
  SERVO: "servo (ours)",
  "exported": "exported servo (ours)",
  "oracle": "oracle (knows the scene)",
}


class Variant(NamedTuple):
  """A kind of policy in another form."""

  label: str
  fields: dict[str, Any]  # of ServoConfig, or arguments of the baseline


# The servo without one of its parts, to see what the part is worth.
_ABLATIONS = {
  "best_of_64": Variant("the best of 64 samples, no CEM", {"num_iterations": 1}),
  "best_of_192": Variant(
    "the best of 192 samples, no CEM", {"num_iterations": 1, "num_samples": 192}
  ),
  "no_raise": Variant("never raising", {"raise_ratio": 0.0}),
  "no_early_close": Variant("closing at step T only", {"close_ratio": float("inf")}),
}
# Calibrated baselines with the error that a careful calibration leaves.
_CALIBRATIONS = {
  "calibration_error": Variant("realistic calibration", {"error": calibration.CAREFUL})
}
VARIANTS: dict[str, dict[str, Variant]] = {
  SERVO: _ABLATIONS,
  "hand_designed": _CALIBRATIONS,
  "hand_designed_noisy": _CALIBRATIONS,
  "open_loop": _CALIBRATIONS,
}


@dataclasses.dataclass(frozen=True)
class PolicyName:
  """A parsed name.

  Attributes:
    kind: of KINDS, or 'module:factory'.
    variant: of those that VARIANTS has for the kind, '' for none.
    network: label of the servo's network, '' for the one of --checkpoint.
  """

  kind: str
  variant: str = ""
  network: str = ""

  @property
  def is_own(self) -> bool:
    """Whether it names a factory outside this project's table."""
    return self.kind not in KINDS

  @property
  def is_servo(self) -> bool:
    return self.kind in OURS

  @property
  def fields(self) -> dict[str, Any]:
    """Of its variant; {} for none."""
    return dict(VARIANTS[self.kind][self.variant].fields) if self.variant else {}

  @property
  def label(self) -> str:
    """What reports call it: 'servo, never raising'."""
    if not self.variant and not self.network:
      return KINDS.get(self.kind, self.kind)
    words = ["servo" if self.is_servo else KINDS.get(self.kind, self.kind)]
    if self.variant:
      words.append(VARIANTS[self.kind][self.variant].label)
    if self.network:
      words.append(f"network {self.network}")
    return ", ".join(words)


def parse(name: str) -> PolicyName:
  """Parses a name.

  Raises:
    UserError: it names no kind, no variant, and no factory.
  """
  start, at, network = name.partition("@")
  kind, colon, variant = start.partition(":")
  if kind not in KINDS and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", start):
    kind, colon, variant = start, "", ""
  elif kind not in KINDS:
    raise cli.UserError(
      f"policy {name!r} is not known; expected one of {', '.join(KINDS)}, or"
      " module:factory for your own"
    )
  if colon and variant not in VARIANTS.get(kind, {}):
    known = (f"{kind}:{one}" for kind, ones in VARIANTS.items() for one in ones)
    raise cli.UserError(
      f"policy {name!r} is not known; variants are {', '.join(known)}"
    )
  if at and (kind != SERVO or not network):
    raise cli.UserError(f"policy {name!r}: only the servo takes a label (servo@LABEL)")
  return PolicyName(kind, variant, network)


def read(name: str) -> PolicyName:
  """Parses a name of a file's row; one that is not known is a kind of its own."""
  try:
    return parse(name)
  except cli.UserError:
    return PolicyName(name)


def label(name: str) -> str:
  """What reports call a policy; a name that is not known stays."""
  return read(name).label


def slug(name: str) -> str:
  """A policy's name as part of a file's: 'servo-no_raise'."""
  return re.sub(r"[:@]", "-", name)


def of_table(names: Collection[str]) -> list[str]:
  """Those that Table 1 compares, in its order: no ablations and no other networks."""
  forms = [
    name
    for kind in KINDS
    for name in (kind, *(f"{kind}:{one}" for one in VARIANTS.get(kind, {})))
    if not (kind == SERVO and name != SERVO)
  ]
  return [name for name in forms if name in names]


def ours(names: Collection[str]) -> str:
  """The servo among the policies, else the exported one, else ''."""
  return next((name for name in OURS if name in names), "")
