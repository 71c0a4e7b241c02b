"""A decision from ONNX files in NumPy alone: a reference for other languages.

  policy = OnnxPolicy("policy_onnx")
  action, command, evidence = policy(pregrasp_image, image, pose, table_height,
                                     is_last=False, rng=np.random.default_rng())

The search and Algorithm 1 step by step, as `cem` and `algorithm1` have them; the limits
are in `numpy_limits`. Random numbers are NumPy's, so a decision differs from that of a
policy file by chance alone. The other checks of a loaded policy (frames, implausible
poses, deadlines) are not here. See docs/onnx.md.
"""

import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hand_eye.deploy import numpy_limits
from hand_eye.deploy.numpy_limits import Feasible
from hand_eye.deploy.onnx_session import OnnxError, session

HOLD, MOVE, RAISE, CLOSE = "hold", "move", "raise", "close"


class OnnxPolicy:
  """Decides for one robot, by the files that `onnx_policy.write` wrote.

  Raises:
    OnnxError: a file is missing or damaged, or onnxruntime is not installed.
  """

  def __init__(self, folder: str | pathlib.Path):
    folder = pathlib.Path(folder)
    try:
      self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
      files = {name: (folder / name).read_bytes() for name in self.manifest["sha256"]}
    except (OSError, ValueError, KeyError) as error:
      raise OnnxError(f"{folder} holds no whole policy: {error}") from error
    for name, data in files.items():
      if hashlib.sha256(data).hexdigest() != self.manifest["sha256"][name]:
        raise OnnxError(f"{folder / name} is damaged. Export it again.")
    self._encode = session(files["encode.onnx"])
    self._score = session(files["score.onnx"])
    self.feasible = numpy_limits.feasible_set(self.manifest)

  def __call__(
    self,
    pregrasp_image: np.ndarray,
    image: np.ndarray,
    pose: np.ndarray,
    table_height: float,
    *,
    is_last: bool,
    rng: np.random.Generator,
  ) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Returns the action, its command [5], and what it rests on.

    Args:
      pregrasp_image, image: uint8 [F, F, 3] camera frames.
      pose: [4] measured (x, y, z, yaw), metres and radians, robot base frame.
      table_height: z of fingertips that touch the table.
      is_last: whether this step closes, t = T.
      rng: of the candidates.
    """
    servo, pose = self.manifest["servo"], np.asarray(pose, float)
    down = table_height - pose[2]  # all candidates end at the table
    crop_size = self.manifest["network"]["crop_size"]
    features = self._encode({"images": crop(pregrasp_image, image, crop_size)})

    def probabilities(motions: np.ndarray) -> np.ndarray:
      commands = commands_of(motions, down).astype(np.float32)
      logits = self._score({**features, "commands": commands})["logits"]
      return 1 / (1 + np.exp(-logits.astype(float)))

    p_null = probabilities(np.zeros((1, 3)))[0]
    best, p_best = search(probabilities, pose, self.feasible, servo, rng)
    action = algorithm1(p_null, p_best, is_last, servo)
    closes = numpy_limits.may_close(pose, self.feasible, self.manifest["close_slack"])
    if action == CLOSE and not closes and not is_last:
      action = MOVE  # to where it may close
    if action == RAISE:
      height = table_height + rng.uniform(servo["raise_low"], servo["raise_high"])
      down = min(height, self.feasible.high[2]) - pose[2]
    command = bounded(commands_of(best, down), servo)
    allowed = numpy_limits.is_feasible(best[None], pose, self.feasible)[0] and (
      closes if action == CLOSE else numpy_limits.is_safe(command, pose, self.feasible)
    )
    if not allowed:
      action = HOLD
    if action in (HOLD, CLOSE):
      command = commands_of(np.zeros(3), 0.0)
    return action, command, {"p_null": p_null, "p_best": p_best, "best": best}


def search(
  probabilities: Callable[[np.ndarray], np.ndarray],
  pose: np.ndarray,
  feasible: Feasible,
  servo: Mapping[str, Any],
  rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
  """The cross-entropy method over (dx, dy, dyaw): the best [3] and its probability."""
  mean, covariance = np.zeros(3), np.diag(np.square(servo["initial_std"]))
  best, p_best = mean, -np.inf
  for _ in range(servo["num_iterations"]):
    motions = rng.multivariate_normal(mean, covariance, servo["num_samples"])
    for _ in range(servo["num_redraws"]):
      keep = numpy_limits.is_feasible(motions, pose, feasible)[:, None]
      again = rng.multivariate_normal(mean, covariance, servo["num_samples"])
      motions = np.where(keep, motions, again)
    keep = numpy_limits.is_feasible(motions, pose, feasible)[:, None]
    motions = np.where(keep, motions, numpy_limits.project(motions, pose, feasible))
    found = probabilities(motions)
    order = np.argsort(-found)  # NaN comes last
    if found[order[0]] > p_best:
      best, p_best = motions[order[0]], float(found[order[0]])
    elites = motions[order[: servo["num_elites"]]]
    mean = elites.mean(axis=0)
    covariance = np.cov(elites.T) + np.diag(np.square(servo["min_std"]))
  return best, p_best if np.all(np.isfinite(found)) else np.nan


def algorithm1(
  p_null: float, p_best: float, is_last: bool, servo: Mapping[str, Any]
) -> str:
  """Lines 4 to 10 of Algorithm 1, and the close that ends every attempt."""
  if not (np.isfinite(p_null) and np.isfinite(p_best)):
    return HOLD
  if is_last or p_null >= servo["close_ratio"] * p_best:
    return CLOSE
  return RAISE if p_null <= servo["raise_ratio"] * p_best else MOVE


def bounded(command: np.ndarray, servo: Mapping[str, Any]) -> np.ndarray:
  """The command [5], cut short to the longest step and turn, in its direction."""
  turn = np.arctan2(command[3], command[4])
  length = np.linalg.norm(command[:3])
  share = min(
    servo["max_step"] / max(length, servo["max_step"]),
    servo["max_turn"] / max(abs(turn), servo["max_turn"]),
  )
  return np.append(share * command[:3], [np.sin(share * turn), np.cos(share * turn)])


def commands_of(motions: np.ndarray, down: float) -> np.ndarray:
  """Commands [..., 5] of motions (dx, dy, dyaw) [..., 3] and a change of height."""
  dx, dy, turn = np.moveaxis(np.asarray(motions, float), -1, 0)
  return np.stack([dx, dy, np.full_like(dx, down), np.sin(turn), np.cos(turn)], -1)


def crop(pregrasp_image: np.ndarray, image: np.ndarray, size: int) -> np.ndarray:
  """uint8 [1, size, size, 6]: the centres of both frames, channel after channel."""
  pair = np.concatenate([pregrasp_image, image], axis=-1)
  top, left = ((length - size) // 2 for length in pair.shape[:2])
  return np.ascontiguousarray(pair[None, top : top + size, left : left + size])
