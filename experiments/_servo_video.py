"""A video of continuous servoing: what the camera sees, what was thought, how fast."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from envs import grasp_env
from envs.attempt import Observation
from experiments import _media
from hand_eye.decision import Decision

_LONGEST_LOOK = 1.0  # s that candidates are shown
_FRAME_EVERY = 2  # control periods: 25 frames a second


class ServoVideo(_media.VideoRecorder):
  """A video in the cell's own time.

  Candidates stay until the next decision, but no longer than it takes to see them.
  """

  def __init__(self, path: Path, size: int):
    super().__init__(path, size)
    self._decided: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    self._decided_at = 0.0

  def begin(self, env: grasp_env.GraspEnv) -> None:
    self._decided = None
    super().begin(env)

  def decided(
    self, env: grasp_env.GraspEnv, observation: Observation, decision: Decision
  ) -> None:
    told = (
      f"{observation.step}/{observation.num_steps} {decision.action.name}"
      f" {decision.confidence:.2f}"
    )
    self._decided, self._decided_at = None, env.data.time
    if "candidates" in decision.evidence:
      evidence, pose = decision.evidence, observation.pose
      ends = [evidence["candidates"], decision.command[None]]
      pixels = [
        _media.candidate_pixels(env.unit, pose, e, self.largest_image) for e in ends
      ]
      self._decided = pixels[0], evidence["probabilities"], pixels[1][0]
      told += f", here {evidence['p_null']:.2f}"
    else:
      told += f" {decision.reason}"
    late = "" if decision.on_time else " LATE"
    took = f"{1e3 * decision.seconds:.0f} ms{late}, {decision.iterations} iterations"
    self._caption = f"{told} | {took}"

  def frame(self, env: grasp_env.GraspEnv) -> None:
    if not self._active:
      return
    self._periods += 1
    if env.data.time - self._decided_at > _LONGEST_LOOK:
      self._decided = None
    if self._periods % _FRAME_EVERY == 0:
      image = env.image(self.largest_image)
      self._write(image if self._decided is None else _overlaid(image, *self._decided))

  def end(self, env: grasp_env.GraspEnv, attempt: Any) -> None:
    self._decided = None
    super().end(env, attempt)


def _overlaid(
  image: np.ndarray, pixels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
  """Candidates by score, and a ring where the command leads."""
  canvas = Image.fromarray(_media.draw_candidates(image, pixels, probabilities))
  column, row = chosen
  radius = max(5, image.shape[0] // 40)
  ImageDraw.Draw(canvas).ellipse(
    (column - radius, row - radius, column + radius, row + radius),
    outline=(255, 255, 255),
    width=2,
  )
  return np.asarray(canvas)
