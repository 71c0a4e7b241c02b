"""The page on one attempt: what was seen, judged and done at each decision."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from envs.attempt import Attempt
from envs.success import READING_THRESHOLD
from experiments import cli
from experiments.evaluation import policy_names, trials
from experiments.explain import search_figures
from experiments.explain.evidence import Explained, Seen
from experiments.pictures import plots
from experiments.reporting import pages
from experiments.reporting.pages import Table
from hand_eye.servo import ServoConfig

# Of the evidence, what has a place of its own on the page, or is too much for it.
_SHOWN = frozenset(
  ("action", "candidates", "probabilities", "means", "covariances", "best", "p_best")
  + ("p_null", "ratio", "candidate_poses", "candidate_probabilities")
)


def page(
  explained: Explained, trial: trials.Trial, repetition: int, *, remark: str = ""
) -> str:
  """The HTML of an attempt.

  Args:
    trial, repetition: where it was made.
    remark: how it compares with the row that it was made from.
  """
  attempt, policy = explained.attempt, trial.policy
  scene = trial.scenes[repetition - trial.first]
  servo = dict(policy.servo)
  config = cli.build(ServoConfig, servo, "servo") if servo else None
  drawn = plots.pictures(
    (attempt.images[-1], explained.afterwards),
    ("closing, as the policy sees it", "the bin afterwards"),
    "outcome",
  )
  return pages.html(
    "attempt.md.j2",
    f"Attempt {attempt.attempt_seed} of {policy.name} in {attempt.unit}",
    f"{trial.protocol.replace('_', ' ')}, scene {attempt.scene_seed},"
    f" {trial.condition or 'no condition'}, {len(attempt.objects)} objects in the bin,"
    f" T = {scene.num_steps[0]}{', ' + policy.version if policy.version else ''}."
    " Attempts are numbered from 0, steps from 1.",
    {
      "attempt": attempt,
      "held": attempt.grasped
      or ("something" if attempt.simulator_truth else "nothing"),
      "least_reading": READING_THRESHOLD,
      "remark": remark,
      "num_steps": scene.num_steps[0],
      "pushing": scene.pushing,
      "decisions": [
        _decision(explained, number, config)
        for number in range(len(explained.decisions))
      ],
      "config": config,
      "rule": _rule(config) if config else "",
      "closed_by_policy": len(attempt.images) <= len(explained.decisions)
      or any(seen.close for seen in explained.decisions[-1:]),
      "outcome": drawn,
    },
  )


def name_of(trial: trials.Trial, attempt: Attempt) -> str:
  """Of the file: explain-<policy>-<unit>-scene-<seed>-attempt-<k>.html."""
  return (
    f"explain-{policy_names.slug(trial.policy.name)}-{attempt.unit}"
    f"-scene-{attempt.scene_seed}-attempt-{attempt.attempt_seed}.html"
  )


def _decision(
  explained: Explained, number: int, config: ServoConfig | None
) -> dict[str, Any]:
  """What the template shows of one decision."""
  seen, name = explained.decisions[number], f"step-{number + 1}"
  told = seen.evidence
  searched = "means" in told and len(told["means"]) > 0
  tables = [_motions(explained, number), _rest(told)]
  return {
    "seen": seen,
    "told": told,
    "action": "close" if seen.close else str(told.get("action", "a motion")),
    "candidates": _candidates(explained.pregrasp_image, seen, name),
    "ratio": search_figures.ratio(told["ratio"], config, f"{name}-ratio")
    if config and "ratio" in told
    else "",
    "search": search_figures.search(told, f"{name}-search") if searched else "",
    "tables": [*([_search(told)] if searched else []), *filter(None, tables)],
  }


def _candidates(pregrasp: np.ndarray, seen: Seen, name: str) -> str:
  if len(seen.pixels):
    return plots.candidates(
      pregrasp, seen.image, seen.pixels, seen.probabilities, start=seen.start,
      chosen=seen.chosen, name=name,
    )  # fmt: skip
  titles = ("pregrasp image", "image")
  return plots.pictures((pregrasp, seen.image), titles, name, seen.chosen)


def _rule(config: ServoConfig) -> str:
  """When the ratio closes, and when it raises."""
  close, up = config.close_ratio, config.raise_ratio
  closes = f"closes from {close:g}" if math.isfinite(close) else "closes at T only"
  return f"{closes}, {f'raises up to {up:g}' if up else 'never raises'}"


def _search(told: Mapping[str, Any]) -> Table:
  means, covariances = np.asarray(told["means"]), np.asarray(told["covariances"])
  stds = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
  scale = np.array([100.0, 100.0, np.rad2deg(1.0)])
  rows = [
    [str(i), *(f"{m:+.1f} ± {s:.1f}" for m, s in zip(mean, std, strict=True))]
    for i, (mean, std) in enumerate(
      zip(means * scale, stds * scale, strict=True), start=1
    )
  ]
  return Table(
    ("iteration", "dx, cm", "dy, cm", "turn, °"), rows, range(1, 4),
    "The search's Gaussians: mean and standard deviation.",
  )  # fmt: skip


def _motions(explained: Explained, number: int) -> Table:
  seen, attempt = explained.decisions[number], explained.attempt
  rows = [["pose", *_pose(seen.pose, attempt.table_height)]]
  if not seen.close:
    rows.append(["command", *_command(seen.command)])
  if number + 1 < len(attempt.poses):
    sent, after = attempt.commands[number], attempt.poses[number + 1]
    if seen.close or not np.array_equal(sent, seen.command):
      rows.append(["sent: down to the table", *_command(sent)])
    rows.append(["pose after it", *_pose(after, attempt.table_height)])
  return Table(
    ("", "x, cm", "y, cm", "height, cm", "yaw, °"), rows, range(1, 5),
    "Robot base frame, heights above the table; the arm misses a little.",
  )  # fmt: skip


def _pose(pose: np.ndarray, table_height: float) -> Sequence[str]:
  x, y, z, yaw = (float(value) for value in pose)
  lengths = (100 * x, 100 * y, 100 * (z - table_height))
  return [*(f"{v:.1f}" for v in lengths), f"{np.rad2deg(yaw):.0f}"]


def _command(command: np.ndarray) -> Sequence[str]:
  turn = np.rad2deg(np.arctan2(command[3], command[4]))
  return [*(f"{100 * float(v):+.1f}" for v in command[:3]), f"{turn:+.0f}"]


def _rest(told: Mapping[str, Any]) -> Table | None:
  """What else the policy tells, of a size that can be read."""
  rest = {name: value for name, value in told.items() if name not in _SHOWN}
  if "ratio" not in told and "p_best" in told:
    rest["p_best"] = told["p_best"]
  rows = []
  for name, value in rest.items():
    if np.size(value) <= 8:
      numbers = isinstance(value, float | np.ndarray)
      text = np.array2string(np.asarray(value), precision=3) if numbers else str(value)
      rows.append((name.replace("_", " "), text))
  return Table(("evidence", ""), rows) if rows else None
