"""Records what every decision of one attempt is based on.

`attempt_page` shows it; `watch --explain` is the program.
"""

import dataclasses
from typing import Any

import numpy as np

from envs import cameras
from envs.attempt import Attempt, Observation, Recorder
from envs.grasp_env import GraspEnv
from experiments.evaluation import replay, trials


@dataclasses.dataclass(frozen=True)
class Seen:
  """One decision, with what the policy saw and chose from.

  Attributes:
    image: uint8[S, S, 3], now; the camera's view, larger than the policy sees it.
    start: float64[2], pixel (column, row) of the fingertips.
    chosen: float64[2], of the place on the table under where they go, or close.
    pixels: float64[N, 2], of the places that were judged; N may be 0.
    probabilities: float[N], of success at those.
    pose: float32[4], measured.
    command: float32[5], as it was decided.
    close: whether the gripper is to be closed.
    reason: the policy's own words, '' if it gives none.
    evidence: of the decision.
  """

  image: np.ndarray
  start: np.ndarray
  chosen: np.ndarray
  pixels: np.ndarray
  probabilities: np.ndarray
  pose: np.ndarray
  command: np.ndarray
  close: bool
  reason: str
  evidence: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Explained:
  """An attempt with all of its decisions.

  Attributes:
    pregrasp_image: uint8[S, S, 3], as large as those of the decisions.
    decisions: one a step; the last step may close without one.
    afterwards: uint8[S, S, 3], when the attempt had its label.
    attempt: itself.
  """

  pregrasp_image: np.ndarray
  decisions: tuple[Seen, ...]
  afterwards: np.ndarray
  attempt: Attempt


@dataclasses.dataclass(frozen=True)
class Wanted:
  """Which attempt to explain; travels to a worker.

  Attributes:
    trial, repetition, number: of the attempt.
    size: S, of pictures, pixels.
    to_the_end: see `replay.replay`.
  """

  trial: trials.Trial
  repetition: int
  number: int
  size: int
  to_the_end: bool = False


def make_again(wanted: Wanted) -> Explained | None:
  """Repeats the attempt in a worker process; None if the bin was empty before."""
  ((_, explained),) = replay.in_workers(_explained, [wanted])
  return explained


def _explained(wanted: Wanted) -> Explained | None:
  recorder = _DecisionRecorder(wanted.size)
  which = (wanted.repetition, wanted.number)
  found = replay.replay(wanted.trial, {which: recorder}, to_the_end=wanted.to_the_end)
  return recorder.explained if which in found else None


class _DecisionRecorder(Recorder):
  """Keeps an attempt."""

  def __init__(self, size: int):
    self.largest_image = size
    self.explained: Explained | None = None
    self._pregrasp = np.zeros(0)
    self._decisions: list[Seen] = []

  def begin(self, env: GraspEnv) -> None:
    self._pregrasp = env.image(self.largest_image)
    self._decisions = []

  def decided(self, env: GraspEnv, observation: Observation, decision: Any) -> None:
    pose, command = observation.pose, np.asarray(decision.command, np.float32)
    points, probabilities = judged(decision.evidence, pose, observation.table_height)
    goal = np.array(pose[:3] if decision.close else pose[:3] + command[:3])
    goal[2] = observation.table_height

    def pixels(places: np.ndarray) -> np.ndarray:
      return cameras.project(env.unit.camera, places, self.largest_image)

    self._decisions.append(
      Seen(
        image=env.image(self.largest_image),
        start=pixels(pose[:3]),
        chosen=pixels(goal),
        pixels=pixels(points),
        probabilities=probabilities,
        pose=pose,
        command=command,
        close=bool(decision.close),
        reason=getattr(decision, "reason", ""),
        evidence=decision.evidence,
      )
    )

  def end(self, env: GraspEnv, attempt: Attempt) -> None:
    self.explained = Explained(
      pregrasp_image=self._pregrasp,
      decisions=tuple(self._decisions),
      afterwards=env.image(self.largest_image),
      attempt=attempt,
    )


def judged(
  evidence: dict[str, Any], pose: np.ndarray, table_height: float
) -> tuple[np.ndarray, np.ndarray]:
  """Places [N, 3] in the base frame that a policy judged, and probabilities [N].

  The servo judges commands from its pose [4], the open-loop baseline poses.
  """
  if "candidates" in evidence:
    return pose[:3] + evidence["candidates"][:, :3], evidence["probabilities"]
  if "candidate_poses" in evidence:
    places = np.array(evidence["candidate_poses"], np.float64)
    places[:, 2] = table_height  # (x, y, yaw) before
    return places, np.asarray(evidence["candidate_probabilities"])
  return np.zeros((0, 3)), np.zeros(0)
