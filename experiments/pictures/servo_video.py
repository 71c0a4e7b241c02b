"""Continuous servoing, on video and live: images, decisions and latencies."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from envs import grasp_env
from envs.attempt import Observation
from experiments.pictures import video, window
from hand_eye.decision import Decision

_LONGEST_LOOK = 1.0  # s that candidates are shown
_FRAME_EVERY = 2  # control periods: 25 frames a second


class ServoVideo(video.VideoRecorder):
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
    self._decided, self._decided_at = None, env.data.time
    if "candidates" in decision.evidence:
      self._decided = _thought(env, observation, decision, self.largest_image)
    self._caption = in_a_line(observation, decision)

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


class ServoWindow(window.Window):
  """MuJoCo's viewer, and in its corner what the camera saw and what was decided."""

  largest_image = 320

  def decided(
    self, env: grasp_env.GraspEnv, observation: Observation, decision: Decision
  ) -> None:
    size = self.largest_image
    image = env.image(size)
    if "candidates" in decision.evidence:
      image = _overlaid(image, *_thought(env, observation, decision, size))
    self.show_beside(image, in_a_line(observation, decision))


def in_a_line(observation: Observation, decision: Decision) -> str:
  """What was decided, with what confidence, and how long it took."""
  told = (
    f"{observation.step}/{observation.num_steps} {decision.action.name}"
    f" {decision.confidence:.2f}"
  )
  if "candidates" in decision.evidence:
    told += f", here {decision.evidence['p_null']:.2f}"
  else:
    told += f" {decision.reason}"
  late = "" if decision.on_time else " LATE"
  took = f"{1e3 * decision.seconds:.0f} ms{late}, {decision.iterations} iterations"
  return f"{told} | {took}"


def _thought(
  env: grasp_env.GraspEnv,
  observation: Observation,
  decision: Decision,
  size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For `_overlaid`: pixels [N, 2], probabilities [N], the command's pixel [2]."""
  pixels, chosen = (
    video.candidate_pixels(env.unit, observation.pose, ends, size)
    for ends in (decision.evidence["candidates"], decision.command[None])
  )
  return pixels, decision.evidence["probabilities"], chosen[0]


def _overlaid(
  image: np.ndarray, pixels: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
  """Candidates by score, and a ring where the command leads."""
  canvas = Image.fromarray(video.draw_candidates(image, pixels, probabilities))
  column, row = chosen
  radius = max(5, image.shape[0] // 40)
  ImageDraw.Draw(canvas).ellipse(
    (column - radius, row - radius, column + radius, row + radius),
    outline=(255, 255, 255),
    width=2,
  )
  return np.asarray(canvas)
