"""The monocular camera over the robot's shoulder, and how its images are made.

MuJoCo reads MUJOCO_GL when it is imported; `envs.rendering` sets it first.
"""

import mujoco
import numpy as np

from envs.units import Camera, Light

OVER_SHOULDER = "over_shoulder"


def add_camera(spec: mujoco.MjSpec, camera: Camera, name: str = OVER_SHOULDER) -> None:
  """Adds a fixed camera."""
  rotation = camera_rotation(camera)
  quat = np.zeros(4)
  mujoco.mju_mat2Quat(quat, rotation.ravel())
  spec.worldbody.add_camera(
    name=name,
    pos=camera.position,
    quat=quat,
    fovy=float(np.rad2deg(camera.fovy)),
  )


def add_lights(spec: mujoco.MjSpec, lights: tuple[Light, ...]) -> None:
  """Adds the lamps, all pointing at the bin."""
  for i, light in enumerate(lights):
    position = np.asarray(light.position)
    direction = np.array([0.56, 0.0, 0.0]) - position
    spec.worldbody.add_light(
      name=f"lamp{i}",
      pos=position,
      dir=direction / np.linalg.norm(direction),
      diffuse=light.diffuse,
      ambient=(light.ambient,) * 3,
      specular=(0.1, 0.1, 0.1),
      type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
      castshadow=i == 0,
    )


def camera_rotation(camera: Camera) -> np.ndarray:
  """[3, 3] rotation to the base frame; columns are the image's right, up, back."""
  back = np.asarray(camera.position) - np.asarray(camera.target)
  back = back / np.linalg.norm(back)
  right = np.cross([0.0, 0.0, 1.0], back)
  right = right / np.linalg.norm(right)
  up = np.cross(back, right)
  cos, sin = np.cos(camera.roll), np.sin(camera.roll)
  return np.stack([cos * right + sin * up, cos * up - sin * right, back], axis=1)


def focal_length(camera: Camera, size: int) -> float:
  """Pixels, in a square image of `size` pixels."""
  return size / (2 * np.tan(camera.fovy / 2))


def project(camera: Camera, points: np.ndarray, size: int) -> np.ndarray:
  """Pixels [..., 2] (column, row) of points [..., 3] in a square image.

  For pictures and for the baselines that are given a calibration; the learned
  policy has none. A pixel's middle is half a pixel from its number.
  """
  local = (np.asarray(points) - np.asarray(camera.position)) @ camera_rotation(camera)
  focal = focal_length(camera, size)
  column = size / 2 + focal * local[..., 0] / -local[..., 2]
  row = size / 2 - focal * local[..., 1] / -local[..., 2]
  return np.stack([column, row], axis=-1)
