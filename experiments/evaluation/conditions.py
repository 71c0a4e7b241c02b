"""Conditions of an evaluation: one change from the training setup.

A condition is written NAME=AMOUNT: a field of `envs.perturbations.Perturbation` (a
moved camera, a worn gripper, ...), `push`, the speed in m/s with which the objects are
knocked about during the second motion, or `num_steps`, T.
"""

import dataclasses
import math
from collections.abc import Sequence

from envs import perturbations, units
from envs.rollout import NO_PUSHING, Pushing
from experiments import cli

PUSH_STEP = 2
_PERTURBATIONS = tuple(
  field.name for field in dataclasses.fields(perturbations.Perturbation)
)
NAMES = (*_PERTURBATIONS, "push", "num_steps")


@dataclasses.dataclass(frozen=True)
class Condition:
  """One change; the default changes nothing.

  Attributes:
    name: of NAMES, or ''.
    amount: in the unit of what is changed: m, rad, m/s, or a factor.
  """

  name: str = ""
  amount: float = 0.0

  def __post_init__(self) -> None:
    if self.name and self.name not in NAMES:
      raise ValueError(
        f"condition {self.name!r} is not known; expected one of {', '.join(NAMES)}"
      )
    if not math.isfinite(self.amount):
      raise ValueError(f"{self.name}={self.amount}: expected a finite number")
    whole = self.name == "num_steps"
    if whole and (self.amount < 1 or self.amount != int(self.amount)):
      raise ValueError(f"num_steps={self.amount:g}: expected a whole number from 1")
    if self.name == "push" and not self.amount >= 0:
      raise ValueError(f"push={self.amount:g}: expected 0 or more, m/s")
    self._perturbation()

  def __str__(self) -> str:
    # Enough digits to tell any two amounts apart that someone types.
    return f"{self.name}={self.amount:.12g}" if self.name else ""

  def robots(self, robots: Sequence[units.Unit]) -> list[units.Unit]:
    """The robots under this condition."""
    change = self._perturbation()
    return [perturbations.perturb(robot, change) for robot in robots]

  def num_steps(self, usual: int) -> int:
    return int(self.amount) if self.name == "num_steps" else usual

  @property
  def pushing(self) -> Pushing:
    return Pushing(PUSH_STEP, self.amount) if self.name == "push" else NO_PUSHING

  def _perturbation(self) -> perturbations.Perturbation:
    known = self.name in _PERTURBATIONS
    fields = {self.name: self.amount} if known else {}
    return perturbations.Perturbation(**fields)


NOTHING = Condition()


def parse(text: str, flag: str = "conditions") -> Condition:
  """The condition that a text names; '' is none.

  Raises:
    UserError: it is not NAME=AMOUNT, or out of range.
  """
  if not text:
    return NOTHING
  name, equals, amount = text.partition("=")
  try:
    if not equals:
      raise ValueError(f"{text!r}: expected NAME=AMOUNT, as in camera_shift=0.05")
    return Condition(name.strip(), float(amount))
  except ValueError as error:
    raise cli.UserError(f"{flag}: {error}") from error
