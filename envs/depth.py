"""Depth images: points from them, and what a structured-light sensor would measure.

For the hand-designed baseline and for pictures; the learned policy sees RGB only.
Depth is z-depth, metres along the camera's optical axis; 0 is 'no measurement'.

The noise model is that of the first Kinect, the usual structured-light sensor about a
metre from a bin, described by
 - Khoshelham and Elberink, Accuracy and Resolution of Kinect Depth Data, Sensors
   12(2), 2012: focal length, baseline, disparity in steps of 1/8 pixel;
 - Nguyen, Izadi and Lovell, Modeling Kinect Sensor Noise, 3DIMPVT 2012: axial and
   lateral noise;
 - Mallick, Das and Majumdar, Characterizations of Noise in Kinect Depth Images, IEEE
   Sensors Journal 14(6), 2014: what is lost at edges, in the projector's shadow, and on
   shiny or transparent things. How much is lost there is our own choice.

The sensor stands where the camera does and has its own, wider view: its pixels are
FOCAL to the radian, however finely the image was drawn.
"""

import mujoco
import numpy as np
import numpy.typing as npt

from envs.cameras import camera_rotation, focal_length
from envs.scene import Scene
from envs.units import Camera

FOCAL = 585.0  # of the sensor, its pixels
BASELINE = 0.075  # m, from camera to projector, along the image's rows
DISPARITY_STEP = 1 / 8  # its pixels: 2.8 mm of depth at one metre
LATERAL_NOISE = 0.8  # its pixels, standard deviation
EDGE_JUMP = 0.01  # m between neighbours: an edge
EDGE_LOST = 0.5  # share of the pixels beside an edge without a measurement
HOLES_LOST = 0.7  # share of a shiny or translucent thing without a measurement
HOLE_SIZE = 4  # its pixels: holes come as patches
SHINY = 0.7  # specular reflection from which on a surface blinds the sensor: metal


def axial_noise(depth: npt.ArrayLike) -> np.ndarray:
  """Standard deviation of measured depth, m, by depth in m (Nguyen et al.)."""
  return 0.0012 + 0.0019 * (np.asarray(depth) - 0.4) ** 2


def with_noise(
  depth: np.ndarray, unreliable: np.ndarray, rng: np.random.Generator, focal: float
) -> np.ndarray:
  """What the sensor would measure.

  Args:
    depth: [H, W] the truth, m, everywhere above 0.
    unreliable: bool[H, W], where shiny or translucent things are.
    rng: of this one image.
    focal: of the image, pixels.

  Returns:
    float32[H, W], m, 0 where nothing was measured; elsewhere FOCAL * BASELINE over a
    multiple of DISPARITY_STEP.
  """
  depth = np.asarray(depth, np.float64)
  # Image pixels to a pixel of the sensor; a coarser image has its own pixels only.
  pixel = max(1.0, focal / FOCAL)
  shift = rng.normal(size=(2, *depth.shape)) * LATERAL_NOISE * focal / FOCAL
  axial, edges, holes = (
    rng.normal(size=depth.shape),
    *rng.uniform(size=(2, *depth.shape)),
  )
  measured = _shifted(depth, np.stack([_blocks(s, pixel) for s in shift]))
  measured = measured + axial_noise(measured) * _blocks(axial, pixel)
  disparity = FOCAL * BASELINE / measured
  disparity = DISPARITY_STEP * np.maximum(1.0, np.round(disparity / DISPARITY_STEP))
  lost = _edges(depth, round(pixel)) & (_blocks(edges, pixel) < EDGE_LOST)
  lost |= unreliable & (_blocks(holes, HOLE_SIZE * pixel) < HOLES_LOST)
  lost |= _shadow(depth, focal)
  return np.where(lost, 0.0, FOCAL * BASELINE / disparity).astype(np.float32)


def unreliable_pixels(scene: Scene, segmentation: np.ndarray) -> np.ndarray:
  """bool[H, W]: where shiny or translucent objects are.

  Args:
    segmentation: int[H, W, 2] as from `Renderer.render_segmentation`.
  """
  geoms = [
    body.geoms
    for thing, body in zip(scene.objects, scene.bodies, strict=True)
    if thing.opacity < 1.0 or thing.shine >= SHINY
  ]
  flexes = np.nonzero(scene.model.flex_rgba[:, 3] < 1.0)[0]
  kind, index = segmentation[..., 0], segmentation[..., 1]
  is_geom = kind == int(mujoco.mjtObj.mjOBJ_GEOM)
  is_flex = kind == int(mujoco.mjtObj.mjOBJ_FLEX)
  rigid = np.concatenate(geoms) if geoms else np.empty(0, np.int64)
  return (is_geom & np.isin(index, rigid)) | (is_flex & np.isin(index, flexes))


def deproject(depth: np.ndarray, camera: Camera) -> np.ndarray:
  """float64[S, S, 3]: the point behind every pixel, base frame, m; NaN for depth 0.

  The inverse of `cameras.project` at the pixels' middles.
  """
  size = depth.shape[0]
  z = np.where(depth > 0, depth, np.nan).astype(np.float64)
  middle = (np.arange(size) + 0.5 - size / 2) / focal_length(camera, size)
  local = np.stack([middle * z, -middle[:, None] * z, -z], axis=-1)
  return local @ camera_rotation(camera).T + np.asarray(camera.position)


def point_cloud(depth: np.ndarray, camera: Camera) -> np.ndarray:
  """float64[N, 3]: the points of all pixels with a depth, row by row, base frame, m."""
  return deproject(depth, camera)[depth > 0]


def _blocks(noise: np.ndarray, pixel: float) -> np.ndarray:
  """The noise [H, W], equal over squares of so many pixels."""
  rows, columns = ((np.arange(n) / pixel).astype(int) for n in noise.shape)
  return noise[rows[:, None], columns]


def _shifted(depth: np.ndarray, shift: np.ndarray) -> np.ndarray:
  """[H, W]: each pixel has the depth of another one, `shift` [2, H, W] away."""
  places = np.indices(depth.shape) + np.round(shift).astype(int)
  last = np.array(depth.shape)[:, None, None] - 1
  row, column = np.clip(places, 0, last)
  return depth[row, column]


def _edges(depth: np.ndarray, reach: int) -> np.ndarray:
  """bool[H, W]: a pixel `reach` away in its row or column is nearer or farther."""
  found = np.zeros(depth.shape, bool)
  for axis in (0, 1):
    ahead = np.roll(depth, -reach, axis)
    jump = np.abs(ahead - depth) > EDGE_JUMP
    # What was rolled in from the other side is no neighbour.
    jump[(slice(None),) * axis + (slice(-reach, None),)] = False
    found |= jump | np.roll(jump, reach, axis)
  return found


def _shadow(depth: np.ndarray, focal: float) -> np.ndarray:
  """bool[H, W]: seen by the camera, but not by the projector to its right."""
  column = np.arange(depth.shape[1]) - focal * BASELINE / depth  # the projector's
  nearer = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
  hidden = np.zeros(depth.shape, bool)
  hidden[:, :-1] = nearer[:, 1:] < column[:, :-1]
  return hidden
