"""Ranges of command length, for which predictions are evaluated separately.

A near command descends 4 to 10 cm onto a place next to the gripper. The image at
closing has the null command.
"""

from typing import NamedTuple


class Range(NamedTuple):
  """Commands of low <= |p_T - p_t| < high, metres, translation only."""

  suffix: str  # of the names of figures in metrics.jsonl, such as auc_near
  label: str
  low: float
  high: float


NEAR, FAR = 0.01, 0.13

RANGES = (
  Range("", "all commands", 0.0, float("inf")),
  Range("_zero", f"close here (< {100 * NEAR:.0f} cm)", 0.0, NEAR),
  Range("_near", f"near ({100 * NEAR:.0f} to {100 * FAR:.0f} cm)", NEAR, FAR),
  Range("_far", f"far (> {100 * FAR:.0f} cm)", FAR, float("inf")),
)
