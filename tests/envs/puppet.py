"""A robot without hardware, for tests of what drives robots."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Puppet:
  """A robot that does everything at once; some things can be made to fail."""

  name: str = "puppet"
  table_height: float = 0.0
  workspace: Any = ((0.3, -0.2, 0.0, -1.5), (0.7, 0.2, 0.2, 1.5))
  frozen: bool = False
  stuck: bool = False
  jumps: bool = False
  opening: float = 0.03
  reads: float = 0.0
  count: int = 0
  at: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(4))

  def reset(self) -> None:
    pass

  def image(self) -> np.ndarray:
    self.count += not self.frozen
    return np.full((48, 48, 3), self.count % 2, np.uint8)

  def pose(self) -> np.ndarray:
    return self.at + (5.0 if self.jumps else 0.0)

  def approach(self, pose: np.ndarray) -> None:
    self.at = np.array(pose)

  def move(self, pose: np.ndarray) -> None:
    self.at = self.at if self.stuck else np.array(pose)

  def close(self) -> None:
    self.reads = self.opening

  def lift(self) -> None:
    pass

  def reading(self) -> float:
    return self.reads

  def open(self, over: np.ndarray) -> None:
    pass
