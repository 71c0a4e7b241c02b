"""Open loop: looks once, chooses the best patch and rotation, goes there (Section 6).

This is the paper's baseline after Pinto and Gupta (2015). Its scores come from the same
network as the servo's, trained on patches of the same attempts; they are passed in as a
function. Unlike the servo, it knows the camera's calibration and does not see the
effect of its motions.
"""

import dataclasses
from typing import Protocol

import numpy as np

from envs import calibration
from envs.attempt import Decision, NeedsEnv, Observation
from envs.baselines.patches import SQUARE, Square, cut_patches
from envs.baselines.reach import Reach
from envs.grasp_env import GraspEnv
from envs.units import Unit

_HALF_TURN = np.pi  # closing is the same after one: candidates lie within one


class Score(Protocol):
  """Judges grasps: the network, or an oracle in its place.

  One that must look at the cell before each attempt has `begin(env)`, too.
  """

  def __call__(self, patches: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """float[N]: how probable success is.

    Args:
      patches: uint8[N, S, S, 3], see `patches.cut_patches`.
      poses: float64[N, 3] (x, y, yaw) where the gripper would close, base frame.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Search:
  """How candidates are drawn: everywhere first, then around the best.

  Attributes:
    num_candidates: in the workspace and half a turn.
    num_refined: in each round of refinement.
    num_elites: that a round is drawn around, each alike.
    spreads: of each round: standard deviation in x and in y, m, and in yaw, rad.
    batch_size: patches that are scored together; a multiple of it is drawn in a round.
  """

  num_candidates: int = 512
  num_refined: int = 128
  num_elites: int = 16
  spreads: tuple[tuple[float, float], ...] = ((0.010, 0.25), (0.005, 0.12))
  batch_size: int = 128

  def __post_init__(self) -> None:
    for name in ("num_candidates", "num_refined"):
      count = getattr(self, name)
      if count < 1 or count % self.batch_size:
        raise ValueError(
          f"{name} is {count}, expected a multiple of batch_size, {self.batch_size}"
        )
    if not 1 <= self.num_elites <= self.num_candidates:
      raise ValueError(
        f"num_elites is {self.num_elites}, expected 1 to {self.num_candidates}"
      )


SEARCH = Search()


class OpenLoopPolicy:
  """Chooses a grasp from the pregrasp image alone, goes over it, down, and closes."""

  def __init__(
    self,
    score: Score,
    patch_size: int,
    *,
    square: Square = SQUARE,
    search: Search = SEARCH,
    error: calibration.CalibrationError = calibration.EXACT,
  ):
    """Makes the policy.

    Args:
      score: what judges patches.
      patch_size: S, pixels, that it wants them to have.
      square: which square of the table a patch is.
      search: how candidates are drawn.
      error: of its camera's calibration.
    """
    self._error = error
    self._score, self._patch_size = score, patch_size
    self._square, self._search = square, search
    self._env: GraspEnv | None = None
    self._reach = Reach()
    self._chosen: _Chosen | None = None

  def begin(self, env: GraspEnv) -> None:
    """An attempt begins: keeps the calibration, forgets what was chosen before."""
    if env is not self._env:
      self._reach = Reach()  # another robot, or who knows which
    self._env = env
    self._chosen = None
    self._reach.begin()
    if isinstance(self._score, NeedsEnv):
      self._score.begin(env)

  def __call__(self, observation: Observation, key: np.ndarray) -> Decision:
    """Decides; candidates of the first decision are drawn from `key`.

    Returns:
      A decision with the evidence {"action", "pose" [3] of the grasp chosen, "p_best",
      "num_candidates"}; the first one has "candidate_poses" [N, 3] and
      "candidate_probabilities" [N], too.

    Raises:
      RuntimeError: `begin` was not called.
    """
    if self._env is None:
      raise RuntimeError(
        "the open-loop policy has no calibration: call begin(env) before an attempt"
      )
    is_first = self._chosen is None
    if self._chosen is None:
      self._chosen = self._choose(self._env.unit, observation, key)
    chosen = self._chosen
    decision = self._reach(chosen.best, observation)
    evidence = {
      **decision.evidence,
      "pose": chosen.best,
      "p_best": float(chosen.probabilities.max()),
      "num_candidates": len(chosen.poses),
    }
    if is_first:
      evidence |= {
        "candidate_poses": chosen.poses,
        "candidate_probabilities": chosen.probabilities,
      }
    return decision._replace(evidence=evidence)

  def _choose(self, unit: Unit, observation: Observation, key: np.ndarray) -> "_Chosen":
    search, rng = self._search, np.random.default_rng(key)
    low, high = (np.asarray(w, np.float64)[[0, 1, 3]] for w in observation.workspace)
    low[2], high[2] = -_HALF_TURN / 2, _HALF_TURN / 2
    camera = calibration.believed_camera(unit, self._error)

    def scored(poses: np.ndarray) -> np.ndarray:
      batches = []
      for begin in range(0, len(poses), search.batch_size):
        batch = poses[begin : begin + search.batch_size]
        patches = cut_patches(
          observation.pregrasp_image,
          camera,
          observation.table_height,
          batch,
          self._patch_size,
          self._square,
        )
        batches.append(np.asarray(self._score(patches, batch), np.float64))
      return np.concatenate(batches)

    poses = rng.uniform(low, high, (search.num_candidates, 3))
    probabilities = scored(poses)
    for place, turn in search.spreads:
      elites = poses[np.argsort(-probabilities, kind="stable")[: search.num_elites]]
      around = elites[np.arange(search.num_refined) % len(elites)]
      moved = around + rng.normal(size=around.shape) * (place, place, turn)
      moved[:, :2] = np.clip(moved[:, :2], low[:2], high[:2])
      moved[:, 2] = low[2] + np.mod(moved[:, 2] - low[2], _HALF_TURN)
      poses = np.concatenate([poses, moved])
      probabilities = np.concatenate([probabilities, scored(moved)])
    return _Chosen(poses, probabilities)


@dataclasses.dataclass(frozen=True)
class _Chosen:
  """Candidates of an attempt."""

  poses: np.ndarray  # float64[N, 3] x, y, yaw
  probabilities: np.ndarray  # float64[N]

  @property
  def best(self) -> np.ndarray:
    """float64[3]: the grasp."""
    return self.poses[np.argmax(self.probabilities)]
