"""The hand-designed baseline: a calibrated depth camera and geometry (Appendix B).

Point cloud, voxel map, graph-based segmentation, top-to-bottom split into graspable
objects, a grasp aligned with the longer edges of each one's bounding box; the best of
them is reached by the controller that all policies use. It looks once before each
attempt. As in the paper, it knows the camera's calibration, the table's height and the
bin's geometry.
"""

import dataclasses

import numpy as np

from envs import calibration, depth
from envs.attempt import Decision, Observation
from envs.baselines import box_grasps, boxes, segmentation, voxels
from envs.baselines.reach import Reach
from envs.grasp_env import GraspEnv
from envs.units import BIN_CENTRE, WORKSPACE_HALF, Camera

# The sensor's own resolution, of which the bin fills so many pixels: `depth.FOCAL`.
IMAGE_SIZE = 180
FRAMES = 5  # of a noisy sensor that are accumulated in one look
MARGIN = 0.006  # above floor and walls, m
_NOISE = 1016  # keeps the seeds of depth images apart from others


@dataclasses.dataclass(frozen=True)
class View:
  """What was made of one look; base frame, m."""

  grasps: tuple[box_grasps.BoxGrasp, ...]  # the best one first; bin's frame
  corners: np.ndarray  # float64[N, 4, 3] of each object's box, at its top


class HandDesignedPolicy:
  """Looks, takes the best grasp of its boxes, goes over it, goes down, closes.

  Attributes:
    largest_image: of the depth images that it asks the cell for, pixels.
  """

  largest_image = IMAGE_SIZE

  def __init__(
    self,
    noisy: bool = False,
    frames: int = FRAMES,
    error: calibration.CalibrationError = calibration.EXACT,
  ):
    """Makes the policy.

    Args:
      noisy: whether the depth camera has a structured-light sensor's noise.
      frames: depth images that a look accumulates, if it is noisy.
      error: of its camera's calibration.
    """
    self._noisy, self._frames, self._error = noisy, frames, error
    self._env: GraspEnv | None = None
    self._reach = Reach()
    self._looks = 0
    self._view: View | None = None
    self._target: np.ndarray | None = None

  def begin(self, env: GraspEnv) -> None:
    """Looks at the bin."""
    if env is not self._env:
      self._env, self._reach, self._looks = env, Reach(), 0
    self._reach.begin()
    images = self._depth_images(env)
    self._looks += 1
    camera = calibration.believed_camera(env.unit, self._error)
    self._view = interpret(images, camera, env.unit.table_height)
    self._target = None

  def _depth_images(self, env: GraspEnv) -> np.ndarray:
    """float32[F, H, W], m; the noise follows from the unit and the number of looks."""
    if not self._noisy:
      return env.depth(IMAGE_SIZE)[None]
    rng = np.random.default_rng([_NOISE, env.unit.seed, self._looks])
    return np.stack([env.depth(IMAGE_SIZE, rng) for _ in range(self._frames)])

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    """Decides; `key` chooses a place if nothing was seen.

    Raises:
      RuntimeError: `begin` was not called.
    """
    if self._view is None:
      raise RuntimeError(
        "the hand-designed policy has not looked: call begin(env) before an attempt"
      )
    grasps = self._view.grasps
    if self._target is None:
      self._target = _in_base(grasps[0].pose) if grasps else _somewhere(key)
    decision = self._reach(self._target, observation)
    evidence = {
      "pose": self._target,
      "score": -grasps[0].cost if grasps else -np.inf,
      "num_objects": len(grasps),
      "corners": self._view.corners,
    }
    return decision._replace(evidence={**decision.evidence, **evidence})


def interpret(images: np.ndarray, camera: Camera, table_height: float) -> View:
  """Depth images [F, H, W] of one look, as objects and their grasps."""
  points = depth.point_cloud(merge(images), camera)
  seen = voxels.build(voxels.to_bin(points, table_height), MARGIN)
  eye = voxels.to_bin(np.asarray(camera.position), table_height)
  grasps = sorted(
    (box_grasps.best(seen, members) for members in find_objects(seen, eye)),
    key=lambda grasp: grasp.cost,
  )
  corners = np.zeros((len(grasps), 4, 3))
  for corner, grasp in zip(corners, grasps, strict=True):
    corner[:, :2], corner[:, 2] = grasp.box.corners(), grasp.height
  return View(tuple(grasps), corners + (*BIN_CENTRE, table_height))


def find_objects(seen: voxels.VoxelMap, eye: np.ndarray) -> list[np.ndarray]:
  """The voxels int[K] of each graspable object."""
  if len(seen.points) < boxes.SMALLEST:
    return []
  graph = segmentation.build_graph(seen.points, eye)
  labels = segmentation.segment(len(seen.points), graph)
  inner = labels[graph.edges[:, 0]] == labels[graph.edges[:, 1]]
  return boxes.graspable(seen.points, graph.edges[inner], box_grasps.WIDEST)


def merge(images: np.ndarray) -> np.ndarray:
  """float32[H, W]: the median of each pixel's measurements [F, H, W]; 0 if none."""
  if len(images) == 1:
    return images[0]
  measured = np.sort(np.where(images > 0, images, np.inf), axis=0)
  count = np.sum(images > 0, axis=0)
  middle = np.maximum(0, (count - 1) // 2)
  found = np.take_along_axis(measured, middle[None], axis=0)[0]
  return np.where(count > 0, found, 0).astype(np.float32)


def _in_base(pose: np.ndarray) -> np.ndarray:
  return pose + (*BIN_CENTRE, 0.0)


def _somewhere(key: np.ndarray) -> np.ndarray:
  """A place [3] anywhere in the workspace."""
  half = np.array([*WORKSPACE_HALF, np.pi / 2])
  return _in_base(np.random.default_rng(key).uniform(-half, half))
