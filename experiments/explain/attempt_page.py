"""The page on one attempt: what was seen, judged and done at each decision."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from envs.attempt import Attempt
from envs.success import READING_THRESHOLD
from experiments import cli
from experiments.evaluation import policy_names, trials
from experiments.explain import search_figures
from experiments.explain.evidence import Explained, Seen
from experiments.pictures import plots
from experiments.reporting import html
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
  title = f"Attempt {attempt.attempt_seed} of {policy.name} in {attempt.unit}"
  subtitle = (
    f"{trial.protocol.replace('_', ' ')}, scene {attempt.scene_seed},"
    f" {trial.condition or 'no condition'}, {len(attempt.objects)} objects in the bin,"
    f" T = {scene.num_steps[0]}{', ' + policy.version if policy.version else ''}."
    " Attempts are numbered from 0, steps from 1."
  )
  config = None
  if policy.servo:
    config = cli.build(ServoConfig, dict(policy.servo), "servo")
  sections = [
    _decision(explained, number, scene.num_steps[0], config, _push(scene, number))
    for number in range(len(explained.decisions))
  ]
  head = _outcome_facts(attempt) + html.paragraph(remark)
  return html.page(title, subtitle, [head, *sections, _outcome(explained)])


def name_of(trial: trials.Trial, attempt: Attempt) -> str:
  """Of the file: explain-<policy>-<unit>-scene-<seed>-attempt-<k>.html."""
  return (
    f"explain-{policy_names.slug(trial.policy.name)}-{attempt.unit}"
    f"-scene-{attempt.scene_seed}-attempt-{attempt.attempt_seed}.html"
  )


def _push(scene: Any, number: int) -> str:
  pushing = scene.pushing
  if not (pushing.speed and pushing.step == number + 1):
    return ""
  return (
    f"When this was decided, every object was pushed sideways at {pushing.speed:g} m/s:"
    " the policy sees at the next step where they lie now."
  )


def _decision(
  explained: Explained, number: int, num_steps: int, config: Any, push: str
) -> str:
  seen = explained.decisions[number]
  action = "close" if seen.close else str(seen.evidence.get("action", "a motion"))
  told = seen.evidence
  parts = [html.paragraph(_sentence(seen)), html.paragraph(push, "missing")]
  parts.append(_pictures(explained.pregrasp_image, seen, f"step-{number + 1}"))
  if "ratio" in told:
    parts.append(_verdict(told, config, f"step-{number + 1}"))
  if "means" in told and len(told["means"]):
    drawn = search_figures.search(told, f"step-{number + 1}-search")
    words = (
      "How the search narrowed. Left: the predicted success of every candidate, by"
      " iteration. Right: where the candidates lie, from the fingertips, with the"
      " Gaussians (two standard deviations) that they were drawn from."
    )
    parts.append(html.figure(drawn, words))
  tables = (_search_table(told), _motion_table(explained, number), _rest(told))
  parts.append(html.columns(*filter(None, tables)))
  return html.section(f"Step {number + 1} of {num_steps}: {action}", *parts)


def _sentence(seen: Seen) -> str:
  if seen.reason:
    return f"{seen.reason[0].upper()}{seen.reason[1:]}."
  what = "to close" if seen.close else "for this motion"
  return f"The policy gives no reason {what}."


def _pictures(pregrasp: np.ndarray, seen: Seen, name: str) -> str:
  if len(seen.pixels):
    drawn = plots.candidates(
      pregrasp, seen.image, seen.pixels, seen.probabilities, start=seen.start,
      chosen=seen.chosen, name=name,
    )  # fmt: skip
    words = (
      f"The {len(seen.pixels)} places on the table that were judged, coloured by"
      " predicted success; the lines begin at the fingertips."
    )
  else:
    drawn = _pair(
      (pregrasp, seen.image), ("pregrasp image", "image"), name, seen.chosen
    )
    words = "This policy judges no candidates."
  words += f" Ring: where the gripper {'closes' if seen.close else 'goes'}."
  return html.figure(drawn, words)


def _pair(
  images: Sequence[np.ndarray],
  titles: Sequence[str],
  name: str,
  ring: np.ndarray | None = None,
) -> str:
  with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(1, len(images), figsize=(8.4, 4.1))
    for one, picture, title in zip(axes, images, titles, strict=True):
      one.imshow(picture, interpolation="nearest")
      one.set_title(title)
      one.axis("off")
    if ring is not None:
      height, width = images[-1].shape[:2]
      axes[-1].plot(
        *ring, "o", markersize=11, markerfacecolor="none", markeredgecolor="white",
        markeredgewidth=2,
      )  # fmt: skip
      axes[-1].set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return plots.svg(figure, name, " and ".join(titles))


def _verdict(told: Mapping[str, Any], config: ServoConfig | None, name: str) -> str:
  """p of closing here, of the best, and their ratio against the thresholds."""
  rule = drawn = ""
  if config is not None:
    close, up = config.close_ratio, config.raise_ratio
    rule = f"closes from {close:g}" if math.isfinite(close) else "closes at T only"
    rule += f", raises up to {up:g}" if up else ", never raises"
    drawn = html.figure(
      search_figures.ratio(told["ratio"], config, f"{name}-ratio"), kind="small"
    )
  cards = [
    (f"{told['p_null']:.3f}", "closing here", "predicted success, once at the table"),
    (f"{told['p_best']:.3f}", "the best candidate", "predicted success"),
    (f"{told['ratio']:.2f}", "their ratio", rule),
  ]
  return html.facts(cards) + drawn


def _search_table(told: Mapping[str, Any]) -> str:
  if "means" not in told or not len(told["means"]):
    return ""
  means, covariances = np.asarray(told["means"]), np.asarray(told["covariances"])
  stds = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
  scale = np.array([100.0, 100.0, np.rad2deg(1.0)])
  rows = [
    [str(i), *(f"{m:+.1f} ± {s:.1f}" for m, s in zip(mean, std, strict=True))]
    for i, (mean, std) in enumerate(
      zip(means * scale, stds * scale, strict=True), start=1
    )
  ]
  header = ("iteration", "dx, cm", "dy, cm", "turn, °")
  caption = "The search's Gaussians: mean and standard deviation."
  return html.table(header, rows, numbers=range(1, 4), caption=caption)


def _motion_table(explained: Explained, number: int) -> str:
  seen, attempt = explained.decisions[number], explained.attempt
  rows = [["pose", *_pose(seen.pose, attempt.table_height)]]
  if not seen.close:
    rows.append(["command", *_command(seen.command)])
  if number + 1 < len(attempt.poses):
    sent, after = attempt.commands[number], attempt.poses[number + 1]
    if seen.close or not np.array_equal(sent, seen.command):
      rows.append(["sent: down to the table", *_command(sent)])
    rows.append(["pose after it", *_pose(after, attempt.table_height)])
  caption = "Robot base frame, heights above the table; the arm misses a little."
  header = ("", "x, cm", "y, cm", "height, cm", "yaw, °")
  return html.table(header, rows, numbers=range(1, 5), caption=caption)


def _pose(pose: np.ndarray, table_height: float) -> list[str]:
  x, y, z, yaw = (float(value) for value in pose)
  lengths = (100 * x, 100 * y, 100 * (z - table_height))
  return [*(f"{v:.1f}" for v in lengths), f"{np.rad2deg(yaw):.0f}"]


def _command(command: np.ndarray) -> list[str]:
  turn = np.rad2deg(np.arctan2(command[3], command[4]))
  return [*(f"{100 * float(v):+.1f}" for v in command[:3]), f"{turn:+.0f}"]


def _rest(told: Mapping[str, Any]) -> str:
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
  return html.table(("evidence", ""), rows) if rows else ""


def _outcome_facts(attempt: Attempt) -> str:
  reading, least = 100 * attempt.gripper_reading, 100 * READING_THRESHOLD
  held = attempt.grasped or ("something" if attempt.simulator_truth else "nothing")
  cards = [
    ("success" if attempt.success else "failure", "the label", "reading or drop test"),
    (f"{reading:.1f} cm", "gripper reading", f"success above {least:.1f} cm"),
    ("a change" if attempt.drop_test else "no change", "drop test", "of the bin"),
    (held, "hung in the gripper", "the simulator's truth; no policy is told"),
  ]
  return html.facts(cards)


def _outcome(explained: Explained) -> str:
  attempt, target = explained.attempt, explained.attempt.target
  closed = len(attempt.images)
  words = [f"The gripper closed at step {closed}."]
  if closed > len(explained.decisions) and not (
    explained.decisions and explained.decisions[-1].close
  ):
    words = [f"At step {closed}, the last, the gripper closes whatever a policy says."]
  if target.name:
    words.append(
      f"Nearest to the fingertips was {target.name}"
      f" ({', '.join(target.properties) or 'no special properties'}): its middle"
      f" {100 * abs(target.across):.1f} cm off across the fingers and"
      f" {100 * abs(target.along):.1f} cm along the pads. Between the first and the"
      f" last decision it had moved by {100 * target.moved:.1f} cm."
    )
  drawn = _pair(
    (attempt.images[-1], explained.afterwards),
    ("closing, as the policy sees it", "the bin afterwards"),
    "outcome",
  )
  return html.section("Closing", html.paragraph(" ".join(words)), html.figure(drawn))
