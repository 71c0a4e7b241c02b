"""What the report says of how the servo decides and grasps: predictions, Figure 9."""

from collections.abc import Mapping

import numpy as np

from experiments.evaluation import policy_names
from experiments.reporting import blocks
from experiments.reporting import breakdown as breakdown_lib
from experiments.reporting.evaluated import Evaluation

# m, between the pads of an open gripper, see `envs.gripper.opening`.
_HALF_OPENING = 0.045
_NEAR, _OFF = 0.01, 0.03  # m, that an object's middle is off the fingers'


def predictor(evaluation: Evaluation) -> blocks.Section | None:
  """What the network said during the evaluated attempts, and what came of it."""
  from experiments.pictures import plots
  from experiments.reporting import evaluation_figures

  rows, policy = evaluation.rows, policy_names.ours(evaluation.policies)
  if not any(row["policy"] == policy and row["p_best"] for row in rows):
    return None
  parts: list[blocks.Block] = []
  told = breakdown_lib.closings(rows, policy)
  count = len(told.label)
  if count:
    drawn = plots.calibration(
      told.label,
      told.probability,
      num_bins=max(1, min(10, count // 10)),
      name="calibration-closing",
    )
    words = (
      f"Of {told.attempts} attempts the servo ended {count} by deciding to close; it"
      f" predicted success in {100 * told.probability.mean():.0f} % of them on average,"
      f" and {int(told.label.sum())} succeeded, {100 * told.label.mean():.0f} %. Where"
      " it closes was chosen because the prediction is high there, so these predictions"
      " are expected to be a little too good."
    )
    caption = (
      "Reliability of the last prediction before the gripper closed. The dashed line is"
      " perfect calibration; bins of equally many attempts, 95 % intervals (Wilson)."
    )
    parts += [blocks.Text(words), blocks.Picture(drawn, caption, "small")]
  else:
    words = f"None of {told.attempts} attempts of the servo ended before step T."
    parts.append(blocks.Text(words))
  means = {
    (field, ended): breakdown_lib.along(rows, policy, field, ended)
    for field in ("p_best", "p_null")
    for ended in (True, False)
  }
  titles = {
    "p_best": "Predicted success of the best motion",
    "p_null": "Predicted success of closing here",
  }
  drawn_means = [
    blocks.Picture(
      evaluation_figures.along(field, title, means[field, True], means[field, False]),
      "",
    )
    for field, title in titles.items()
  ]
  caption = (
    "Means and 95 % bands. Later decisions are those of attempts still going on."
  )
  parts += [
    blocks.Heading("Along an attempt"),
    blocks.Columns(drawn_means),
    blocks.Text(caption, "soft"),
    blocks.Details("The figures of these curves", [_along_table(means)]),
  ]
  return blocks.Section("What the network predicts as it servoes", parts)


def _along_table(
  means: Mapping[tuple[str, bool], Mapping[int, breakdown_lib.Mean]],
) -> blocks.Table:
  def cell(mean: breakdown_lib.Mean | None) -> blocks.Cell:
    if mean is None:
      return ""
    return blocks.Stacked(
      f"{mean.value:.2f}", (f"± {mean.half:.2f}", f"N = {mean.number}")
    )

  columns = [
    (field, ended) for ended in (True, False) for field in ("p_best", "p_null")
  ]
  numbers = sorted({number for one in means.values() for number in one})
  rows = [
    [str(number), *(cell(means[column].get(number)) for column in columns)]
    for number in numbers
  ]
  return blocks.Table(
    ("decision", *("best motion", "closing here") * 2),
    rows,
    numbers=range(5),
    groups=(("", 1), ("attempts that succeeded", 2), ("that failed", 2)),
  )


# --- soft and hard ------------------------------------------------------------------


def soft_and_hard(evaluation: Evaluation) -> blocks.Section | None:
  """Where the fingers were on soft and on rigid objects, as in Figure 9."""
  from experiments.reporting import evaluation_figures

  heading = "Soft against hard grasps"
  ours = policy_names.ours(evaluation.policies)
  if not ours:
    return None
  found = breakdown_lib.grasps(evaluation.rows, ours)
  if not len(found.soft):
    words = (
      "Nothing can be said of the paper's Figure 9: the servo closed nearest to a soft"
      f" object in {found.soft_attempts} attempts and picked up none of them."
      if found.soft_attempts
      else "Nothing can be said of the paper's Figure 9: the servo never closed nearest"
      " to a soft object, which is so where the bins hold none."
    )
    return blocks.Section(heading, [blocks.Text(words)])
  said = [
    offset_words(name, values)
    for name, values in (("rigid", found.rigid), ("soft", found.soft))
    if len(values)
  ]
  words = (
    "In the paper's Figure 9 a sponge is grasped with a finger in its middle and hard"
    " objects with a finger on either side. A finger in the middle would show here as"
    f" distances near {100 * _HALF_OPENING:.1f} cm, half the opening of the gripper"
    f" (dashed). {' '.join(said)} These are counts of successes in this cell; no claim"
    " is made that the two kinds differ, nor that they do not."
  )
  caption = (
    "Distance from the middle of the object to the middle between the fingers as they"
    " closed, along the way they close; successes of the servo in which the nearest"
    " object is the one that hung in the gripper. The last bar holds all beyond."
  )
  drawn = evaluation_figures.offsets(found, _HALF_OPENING)
  return blocks.Section(
    heading, [blocks.Text(words), blocks.Picture(drawn, caption, "small")]
  )


def offset_words(name: str, values: np.ndarray) -> str:
  """How many of the successes on a kind of objects were in the middle, how many off."""
  near, off = int(np.sum(values <= _NEAR)), int(np.sum(values > _OFF))
  return (
    f"Of {len(values)} {name} objects {near} were within {100 * _NEAR:.0f} cm of the"
    f" fingers' middle and {off} more than {100 * _OFF:.0f} cm off; the median is"
    f" {100 * np.median(values):.1f} cm."
  )
