"""Random motions: the first round of data collection, and the first baseline."""

import dataclasses

import numpy as np

from envs.attempt import START_HEIGHTS, Decision, Observation


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
  """Moves by random commands, at random heights, until the last step closes.

  The next to last motion goes down to the table, and is shorter than the others:
  attempts then hold near commands, from which the network learns first, beside far
  ones.

  Attributes:
    far: standard deviation of a motion in x and in y, m.
    near: the same for the last motion, m.
    turn: standard deviation of yaw, rad; half of it for the last motion.
  """

  far: float = 0.07
  near: float = 0.03
  turn: float = 1.2

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    rng = np.random.default_rng(key)
    low, high = observation.workspace
    pose = observation.pose
    last_motion = observation.step == observation.num_steps - 1
    spread = self.near if last_motion else self.far
    turn = self.turn / 2 if last_motion else self.turn
    scale = np.array([spread, spread, turn])
    target = pose[[0, 1, 3]] + rng.normal(size=3) * scale
    # Reflected, not clipped: clipping would pile attempts up at the boundary.
    target = _reflect(target, low[[0, 1, 3]], high[[0, 1, 3]])
    height = observation.table_height + rng.uniform(*START_HEIGHTS)
    dx, dy, dyaw = target - pose[[0, 1, 3]]
    command = np.array(
      [dx, dy, height - pose[2], np.sin(dyaw), np.cos(dyaw)], np.float32
    )
    return Decision(command, close=False)


def _reflect(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  span = high - low
  offset = np.mod(value - low, 2 * span)
  return low + np.minimum(offset, 2 * span - offset)
