"""Goes over a pose, straight down, closes: the motions of policies that chose a grasp.

They are steered by measured poses alone; what the cameras see meanwhile is not used.
"""

import numpy as np

from envs.attempt import AT_TABLE, Decision, Observation

HOVER = 0.11  # of the fingertips above the floor: over most of what lies there, m
CLOSE_ENOUGH = np.array([0.003, 0.003, np.deg2rad(3.0)])  # x, y, yaw
# Share of a measured miss that is this unit's bias, after one motion: its variance
# beside that of the noise that changes from motion to motion.
BIAS_TO_NOISE = 1.3


class Reach:
  """Brings one robot's gripper to poses on the table and closes there.

  It has no calibration of the arm: it learns from its motions how far the arm misses,
  and remembers that from attempt to attempt. Call `begin` before each.
  """

  def __init__(self) -> None:
    self._misses: list[np.ndarray] = []  # float64[3] each
    self.begin()

  def begin(self) -> None:
    """An attempt begins: the arm stands where others have brought it."""
    self._sent: np.ndarray | None = None  # float64[4]
    self._allowed = np.zeros(3)  # for the bias, in the last motion

  def blocked(self, observation: Observation) -> bool:
    """Whether the last motion should have ended on the table and did not."""
    floor = observation.table_height
    sent = self._sent
    return sent is not None and sent[2] - floor < AT_TABLE and is_raised(observation)

  def __call__(self, target: np.ndarray, observation: Observation) -> Decision:
    """The next motion towards a grasp.

    Args:
      target: [3] x, y, yaw, base frame; half a turn makes no difference to a grasp.
        It may change from decision to decision.

    Returns:
      A decision with the evidence {"action": "above", "down" or "close"}. With a
      single motion left it is "down", from wherever the gripper is.
    """
    self._learn(observation)
    pose = np.asarray(observation.pose, np.float64)
    raised = is_raised(observation)
    error = _wrap(nearest_turn(target, observation) - pose[[0, 1, 3]])
    aligned = bool(np.all(np.abs(error) < CLOSE_ENOUGH))
    if not raised and np.all(np.abs(error) < 3 * CLOSE_ENOUGH):
      self._sent = None
      return Decision(_command(np.zeros(4)), close=True, evidence={"action": "close"})
    last = observation.step == observation.num_steps - 1
    down = last or (raised and aligned)
    height = observation.table_height + (0.0 if down else HOVER)
    goal = np.array([*(pose[:2] + error[:2]), height, pose[3] + error[2]])
    self._sent, self._allowed = goal, self._bias()
    motion = goal - pose
    motion[[0, 1, 3]] -= self._allowed
    action = "down" if down else "above"
    return Decision(_command(motion), close=False, evidence={"action": action})

  def _learn(self, observation: Observation) -> None:
    if self._sent is not None and not self.blocked(observation):
      pose = np.asarray(observation.pose, np.float64)
      self._misses.append(_wrap((pose - self._sent)[[0, 1, 3]]) + self._allowed)

  def _bias(self) -> np.ndarray:
    count = len(self._misses)
    weight = count * BIAS_TO_NOISE / (count * BIAS_TO_NOISE + 1)
    return weight * np.mean(self._misses, axis=0) if count else np.zeros(3)


def is_raised(observation: Observation) -> bool:
  """Whether the gripper is above where it may close."""
  return bool(np.float64(observation.pose[2]) - observation.table_height > AT_TABLE)


def nearest_turn(target: np.ndarray, observation: Observation) -> np.ndarray:
  """A grasp [3] (x, y, yaw) with that of its equal yaws that is least far to turn.

  Yaws half a turn apart are equal: the fingers change places. One of a half turn's
  range always lies within the workspace.
  """
  low, high = (float(bound[3]) for bound in observation.workspace)
  yaws = target[2] + np.pi * np.arange(-1, 2)
  yaws = yaws[(yaws >= low) & (yaws <= high)]
  nearest = yaws[np.argmin(np.abs(yaws - observation.pose[3]))]
  return np.array([target[0], target[1], nearest])


def _wrap(error: np.ndarray) -> np.ndarray:
  """[3] x, y, yaw with the yaw in [-180, 180) degrees."""
  return np.array([*error[:2], (error[2] + np.pi) % (2 * np.pi) - np.pi])


def _command(motion: np.ndarray) -> np.ndarray:
  x, y, z, yaw = motion
  return np.array([x, y, z, np.sin(yaw), np.cos(yaw)], np.float32)
