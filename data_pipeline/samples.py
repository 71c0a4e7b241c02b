"""Samples of attempts: what the network learns from, without the pixels.

An attempt of T steps gives T samples (Section 4.1): the pregrasp image and the image
of step t, the command p_T - p_t that leads from there to where the gripper closed,
and the label of the attempt. The sample of step T has the null command.
"""

import dataclasses

import numpy as np

from data_pipeline import source


@dataclasses.dataclass(frozen=True)
class Samples:
  """N samples, in the order of attempts and steps unless filtered.

  Attributes:
    attempt: int64[N], index into the dataset.
    step: int32[N], t = 1..T.
    num_steps: int32[N], T of the attempt.
    command: float32[N, 5], p_T - p_t as (dx, dy, dz, sin dyaw, cos dyaw), robot base
      frame, metres.
    pose: float32[N, 4], measured pose at the step, robot base frame, m and rad.
    distance: float32[N], |(dx, dy, dz)|, metres.
    success: float32[N], label of the attempt, 0 or 1.
  """

  attempt: np.ndarray
  step: np.ndarray
  num_steps: np.ndarray
  command: np.ndarray
  pose: np.ndarray
  distance: np.ndarray
  success: np.ndarray

  def __len__(self) -> int:
    return len(self.attempt)

  def within(self, low: float, high: float) -> "Samples":
    """Returns the samples with low <= distance < high, metres."""
    keep = (self.distance >= low) & (self.distance < high)
    names = [field.name for field in dataclasses.fields(self)]
    return Samples(**{name: getattr(self, name)[keep] for name in names})


def samples_of(attempts: source.Attempts) -> Samples:
  """Makes the samples of all steps of all attempts."""
  num_steps = attempts.num_steps
  attempt = np.repeat(np.arange(len(attempts)), num_steps)
  end = np.cumsum(num_steps)
  step = np.arange(len(attempt)) - (end - num_steps)[attempt] + 1
  delta = attempts.poses[end - 1][attempt] - attempts.poses
  command = np.concatenate(
    [delta[:, :3], np.sin(delta[:, 3:]), np.cos(delta[:, 3:])], axis=1
  )
  return Samples(
    attempt=attempt,
    step=step.astype(np.int32),
    num_steps=num_steps[attempt].astype(np.int32),
    command=command.astype(np.float32),
    pose=attempts.poses.astype(np.float32),
    distance=np.linalg.norm(delta[:, :3], axis=1).astype(np.float32),
    success=attempts.success[attempt].astype(np.float32),
  )
