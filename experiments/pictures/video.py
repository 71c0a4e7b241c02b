"""Pictures of attempts: videos, the units' cameras, and Figure 2's overlay."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from envs import arm, cameras, grasp_env, gripper, objects, units
from envs.attempt import Attempt, Observation, Recorder
from experiments import cli
from experiments.pictures import sheets

FRAMES_PER_SECOND = 25
_FRAME_EVERY = 2  # control periods of 20 ms
_HOLD_FRAMES = 12  # of a picture that should be read: a decision, an outcome
_CAPTION = 22  # pixels
# Of robots' portraits: both fingers side by side as the camera sees them.
_POSE = np.array([*units.BIN_CENTRE, 0.10, -0.95])


class VideoRecorder:
  """Records attempts as an H.264 video, with the candidates of every decision.

  A Recorder and a context manager. Candidates are dots where they would take
  the gripper, coloured by predicted success from red (the least of this decision) to
  green (the best). The camera's calibration is used for the drawing only.
  """

  def __init__(
    self, path: Path, size: int, *, made_before: int = 0, pushed_at: int = 0
  ):
    """Opens the file.

    Args:
      path: of the .mp4.
      size: of a frame without its caption, pixels, even.
      made_before: attempts in this bin that are not recorded, for the captions.
      pushed_at: step at which objects are pushed, likewise; 0: never.
    """
    self.largest_image = size
    self._pushed_at = pushed_at
    self._temporary = path.with_name(f".{path.name}.tmp")
    self._path = path
    self._container = av.open(str(self._temporary), "w", format="mp4")
    self._stream = self._container.add_stream("libx264", rate=FRAMES_PER_SECOND)
    self._stream.width, self._stream.height = size, size + _CAPTION
    self._stream.pix_fmt = "yuv420p"
    self._stream.options = {"crf": "26", "preset": "veryfast"}
    self._active = False
    self._periods = 0
    self._caption = ""
    self._attempts = made_before

  def begin(self, env: grasp_env.GraspEnv) -> None:
    self._active = True
    self._attempts += 1
    self._caption = f"attempt {self._attempts}: the scene before"
    self._write(env.image(self.largest_image), _HOLD_FRAMES)
    self._caption = f"attempt {self._attempts}: first pose, at random"

  def decided(
    self, env: grasp_env.GraspEnv, observation: Observation, decision: Any
  ) -> None:
    evidence = decision.evidence
    step = f"attempt {self._attempts}, step {observation.step}/{observation.num_steps}"
    pushed = "; pushed" if observation.step == self._pushed_at else ""
    if "candidates" not in evidence:
      self._caption = f"{step}: {evidence.get('action', 'random motion')}{pushed}"
      return
    self._caption = (
      f"{step}: {evidence['action']}, best {evidence['p_best']:.2f},"
      f" here {evidence['p_null']:.2f}{pushed}"
    )
    pixels = candidate_pixels(
      env.unit, observation.pose, evidence["candidates"], self.largest_image
    )
    image = env.image(self.largest_image)
    self._write(draw_candidates(image, pixels, evidence["probabilities"]), _HOLD_FRAMES)

  def frame(self, env: grasp_env.GraspEnv) -> None:
    if not self._active:
      return
    self._periods += 1
    if self._periods % _FRAME_EVERY == 0:
      self._write(env.image(self.largest_image))

  def end(self, env: grasp_env.GraspEnv, attempt: Attempt) -> None:
    outcome = (
      f"success: {attempt.grasped or 'something'}" if attempt.success else "failure"
    )
    self._caption = f"attempt {self._attempts}: {outcome}"
    self._write(env.image(self.largest_image), 2 * _HOLD_FRAMES)
    self._active = False

  def __enter__(self) -> "VideoRecorder":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    """Finishes the file; it has its name only now, and nothing remains of a failure."""
    if kind is None:
      for packet in self._stream.encode():
        self._container.mux(packet)
    self._container.close()
    if kind is None:
      self._temporary.replace(self._path)
    else:
      self._temporary.unlink(missing_ok=True)

  def _write(self, image: np.ndarray, count: int = 1) -> None:
    size = self.largest_image
    canvas = Image.new("RGB", (size, size + _CAPTION), (24, 24, 28))
    canvas.paste(Image.fromarray(image), (0, 0))
    ImageDraw.Draw(canvas).text((6, size + 5), self._caption, fill=(235, 235, 235))
    frame = av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")
    for _ in range(count):
      frame.pts = None
      for packet in self._stream.encode(frame):
        self._container.mux(packet)


def candidate_pixels(
  unit: units.Unit, pose: np.ndarray, candidates: np.ndarray, size: int
) -> np.ndarray:
  """[N, 2] (column, row) of where candidate commands [N, 5] take the gripper."""
  return cameras.project(unit.camera, pose[:3] + candidates[:, :3], size)


def draw_candidates(
  image: np.ndarray, pixels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
  """The image [H, W, 3] with a dot a candidate, likely ones last and green."""
  canvas = Image.fromarray(image)
  draw = ImageDraw.Draw(canvas)
  radius = max(2, image.shape[0] // 110)
  low, high = float(np.min(probabilities)), float(np.max(probabilities))
  for i in np.argsort(probabilities):
    share = (float(probabilities[i]) - low) / max(high - low, 1e-6)
    column, row = pixels[i]
    draw.ellipse(
      (column - radius, row - radius, column + radius, row + radius),
      fill=(int(255 * (1 - share)), int(220 * share), 40),
    )
  return np.asarray(canvas)


def unit_tile(
  unit: units.Unit, selection: str, num_objects: int, size: int
) -> sheets.Tile:
  """What a robot's camera sees, the arm's joints as everybody's (Figure 6).

  Args:
    selection: of objects, see `envs.objects.choose`; `num_objects` lie in the bin.
    size: of the image, pixels.
  """
  rng = np.random.default_rng([unit.seed, 6])
  things = objects.sample_objects(rng, num_objects, selection)
  env = grasp_env.GraspEnv(unit, things, size)
  try:
    env.fill(rng)
    env.begin(rng)
    env.controller.teleport(arm.inverse_kinematics(_POSE, gripper.TOOL_LENGTH))
    image = env.image()
  finally:
    env.close()
  surfaces = f"bin {unit.bin_texture.kind}, table {unit.table_texture.kind}"
  return sheets.Tile(image, (unit.name, surfaces))


class OverlayRecorder(Recorder):
  """Keeps one decision's image pair and candidates, as in Figure 2.

  A Recorder that keeps the decision whose candidates differ most, and a context
  manager that writes it, if there was one, as an .npz.
  """

  def __init__(self, path: Path, size: int):
    """Args: path, of the .npz; size, of the images, pixels."""
    self.largest_image = size
    self._path = path
    self.overlay: dict[str, np.ndarray] = {}
    self._spread = 0.0
    self._pregrasp: np.ndarray | None = None

  def begin(self, env: grasp_env.GraspEnv) -> None:
    self._pregrasp = env.image(self.largest_image)

  def decided(
    self, env: grasp_env.GraspEnv, observation: Observation, decision: Any
  ) -> None:
    evidence = decision.evidence
    if "probabilities" not in evidence or self._pregrasp is None:
      return
    spread = float(np.ptp(evidence["probabilities"]))
    if spread <= self._spread:
      return
    self._spread = spread
    size = self.largest_image
    self.overlay = {
      "pregrasp_image": self._pregrasp,
      "image": env.image(size),
      "start": cameras.project(env.unit.camera, observation.pose[:3], size),
      "chosen": candidate_pixels(
        env.unit, observation.pose, evidence["best"][None], size
      )[0],
      "pixels": candidate_pixels(
        env.unit, observation.pose, evidence["candidates"], size
      ),
      "probabilities": np.asarray(evidence["probabilities"]),
    }

  def __enter__(self) -> "OverlayRecorder":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    if kind is None and self.overlay:
      buffer = io.BytesIO()
      np.savez_compressed(buffer, allow_pickle=False, **self.overlay)
      cli.write_atomically(self._path, buffer.getvalue())
