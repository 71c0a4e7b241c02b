"""The grasping dataset that the paper's authors published, attempt by attempt.

One `tf.train.Example` an attempt, in files `grasping_dataset_NNN.tfrecord-*-of-*`.
What of it is read (i counts the steps from 0, <pose> is
`transforms/base_T_endeffector/vec_quat_7` = x, y, z, qx, qy, qz, qw):

| key                                | becomes                                         |
|------------------------------------|-------------------------------------------------|
| grasp/image/encoded                | pregrasp image; also named pregrasp/image/...   |
| grasp/{i}/image/encoded            | image of step i + 1                             |
| approach/<pose>                    | pose at image 0                                 |
| grasp/{i-1}/reached_pose/<pose>    | pose at image i: it was reached at the END of   |
|                                    | step i - 1                                      |
| num_grasp_steps                    | T, as text; without it the images are counted   |
| gripper/status                     | gripper reading, see `Conventions`              |
| grasp_success                      | the authors' own label, kept beside ours        |
| robot/name                         | unit                                            |

Everything else is ignored: camera matrices, depth, torques, and the telemetry
`*_sequence/...`, whose length varies. The list of keys beside the records
(`features_NNN.csv`, `features_NNN_b.csv`) is not relied upon, as it lacks some of them.

What is assumed, since no record says it:

- The gripper pinches vertically (Section 4), so that a pose is x, y, z and the yaw of
  the end effector's x axis about the base's z axis. z is that of the end effector's
  frame, not of the fingertips: the two differ by a constant of the robot, which
  p_T - p_t does not see.
- An attempt of T steps has T images and closes at the last. What the arm moves in
  that last step is no command of its own; the paper's arm goes straight down there
  (Appendix A). How far it moves sideways is kept as `last_motion`, as the label of an
  attempt that closed elsewhere than its last image shows would be misleading.
- If the file claims a success although the fingers closed fully, the drop test, the
  paper's other detector, found it; its images are not compared again.

What the data does not know is filled with neutral values, and the fields are listed
under "unknown" in the JSON of the record's `software`.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg

from data_pipeline import records
from data_pipeline.importers.example import Example, LayoutError

FRAME_SIZE = 512  # pixels: the paper's.
RECORDED_SHAPE = (512, 640, 3)
READING_THRESHOLD = 0.010  # m, Section 5.2: fingers further apart hold something.
POLICY = "levine2016"

# Fields of a record that the published data say nothing about.
UNKNOWN = (
  "simulator_truth",
  "scene_seed",
  "objects",
  "grasped",
  "policy_version",
  "round",
)

_POSE = "transforms/base_T_endeffector/vec_quat_7"
_PREGRASP = ("grasp/image/encoded", "pregrasp/image/encoded")
_MOST_STEPS = 100
# The end effector's x axis is level when the gripper points down. Seen from above it
# must be long enough to have a direction.
_LEAST_LEVEL = 0.5
_UNIT_NORM_TOLERANCE = 0.01


GRIPPER_STATUS = ("metres", "opening", "closing")


@dataclasses.dataclass(frozen=True)
class Conventions:
  """What the published records leave open.

  The paper's rule speaks of centimetres between the fingers. `gripper/status` is not
  documented with the records; those who read them report a number from 0 to 1. So
  nothing is assumed: the agreement of label and `grasp_success`, which an import
  prints, tells which it is.

  Attributes:
    gripper_status: `metres` between the fingers; or `opening`, 0 closed to 1 open;
      or `closing`, 0 open to 1 closed.
    stroke: metres between the fingers when open; for `opening` and `closing`.
    table_height: z of the end effector's frame when the fingertips touch the table,
      metres, base frame. None: unknown, stored as 0. Nothing that is learned depends
      on it; a policy gets the height of its own table.
    max_last_motion: metres. An attempt whose last step moved further than this
      sideways is refused. None: none is.
  """

  gripper_status: Literal["metres", "opening", "closing"]
  stroke: float = 0.1
  table_height: float | None = None
  max_last_motion: float | None = None

  def __post_init__(self) -> None:
    if self.gripper_status not in GRIPPER_STATUS:
      raise LayoutError(
        f"gripper_status is {self.gripper_status!r}, expected one of {GRIPPER_STATUS}"
      )
    if not self.stroke > 0:
      raise LayoutError(f"stroke is {self.stroke}, expected metres above 0")

  def reading(self, status: float) -> float:
    """Metres between the fingers, of a value of `gripper/status`."""
    if self.gripper_status == "metres":
      return status
    return self.stroke * (status if self.gripper_status == "opening" else 1 - status)


def to_record(
  data: bytes, *, file: str, number: int, attempt_seed: int, conventions: Conventions
) -> records.AttemptRecord:
  """Reads one published attempt.

  Args:
    data: a serialized tf.train.Example.
    file: name of the file it comes from; with `number` it makes the attempt_id.
    number: of the record in the file.
    attempt_seed: unique in the import; the data have no scenes to count in.
    conventions: what the record leaves open.

  Returns:
    An attempt with frames of 512 x 512 pixels.

  Raises:
    LayoutError: a step, an image or a pose is missing, an image has another size, or
      nothing tells whether the attempt succeeded.
  """
  example = Example(data)
  num_steps = _num_steps(example)
  images = [_image(example, (f"grasp/{i}/image/encoded",)) for i in range(num_steps)]
  pregrasp = _image(example, _PREGRASP)
  names = [f"approach/{_POSE}"]
  names += [f"grasp/{i}/reached_pose/{_POSE}" for i in range(num_steps - 1)]
  poses = np.array([_pose(example, name) for name in names])
  last_motion = _last_motion(example, poses[-1], num_steps, conventions)
  status = example.number("gripper/status")
  recorded = example.number("grasp_success")
  reading = 0.0 if status is None else conventions.reading(status)
  open_fingers = status is not None and reading > READING_THRESHOLD
  if status is None and recorded is None:
    raise LayoutError(
      "neither gripper/status nor grasp_success is there: nothing tells whether the "
      "attempt succeeded"
    )
  drop_test = recorded is not None and recorded > 0.5 and not open_fingers
  unknown = list(UNKNOWN)
  unknown += ["gripper_reading"] if status is None else []
  unknown += ["drop_test"] if recorded is None or open_fingers else []
  unknown += ["table_height"] if conventions.table_height is None else []
  robot = example.text("robot/name")
  unknown += [] if robot else ["unit"]
  return records.AttemptRecord(
    pregrasp_image=pregrasp,
    images=np.stack(images),
    poses=poses.astype(np.float32),
    commands=_commands(poses),
    success=open_fingers or drop_test,
    gripper_reading=reading,
    drop_test=drop_test,
    simulator_truth=False,
    table_height=conventions.table_height or 0.0,
    # Without names, robots of one file count as one, those of other files as others.
    unit=robot or f"unnamed:{Path(file).name.partition('.')[0]}",
    scene_seed=-1,
    attempt_seed=attempt_seed,
    attempt_id=f"{file}:{number:06d}",
    objects=[],
    grasped="",
    policy=POLICY,
    policy_version="",
    round=0,
    software=json.dumps(
      {
        "importer": POLICY,
        "file": file,
        "record": number,
        "recorded_success": recorded,
        "gripper_status": status,
        "last_motion": last_motion,
        "unknown": sorted(unknown),
      },
      sort_keys=True,
    ),
  )


def read_feature_list(path: str | Path) -> tuple[int, list[str]]:
  """Reads `features_NNN.csv`: how many attempts there are, and the names of keys.

  The first two entries are the numbers of keys and attempts. The names are of use to
  a reader only: the list lacks some of the keys that are in the records.

  Raises:
    LayoutError: the file does not begin with two numbers.
  """
  words = Path(path).read_text(encoding="utf-8").replace(",", " ").split()
  if len(words) < 2 or not all(word.isdigit() for word in words[:2]):
    raise LayoutError(
      f"{path} begins with {words[:2]}, expected the numbers of keys and attempts"
    )
  return int(words[1]), words[2:]


def _num_steps(example: Example) -> int:
  """T: what the record says, held against the images that are there."""
  present = [
    i for i in range(_MOST_STEPS) if example.first_bytes(f"grasp/{i}/image/encoded")
  ]
  if not present:
    raise LayoutError("no step has an image: grasp/0/image/encoded is missing")
  count = present[-1] + 1
  missing = sorted(set(range(count)) - set(present))
  said = example.count("num_grasp_steps")
  if said is not None:
    missing += range(count, min(said, _MOST_STEPS))
  if missing:
    raise LayoutError(
      f"steps {missing} have no image, expected those of all {said or count} steps"
    )
  if said is not None and said != count:
    raise LayoutError(f"num_grasp_steps is {said}, but {count} steps have images")
  return count


def _image(example: Example, names: Sequence[str]) -> np.ndarray:
  """Decodes the first of some images that is there; cuts its middle square out."""
  jpegs = [jpeg for name in names if (jpeg := example.first_bytes(name))]
  if not jpegs:
    raise LayoutError(f"the image {names[0]} is missing")
  try:
    image = simplejpeg.decode_jpeg(jpegs[0], "RGB")
  except ValueError as error:
    raise LayoutError(f"{names[0]} is not a readable JPEG: {error}") from error
  if image.shape != RECORDED_SHAPE:
    raise LayoutError(
      f"{names[0]} has {image.shape[0]} x {image.shape[1]} pixels, expected "
      f"{RECORDED_SHAPE[0]} x {RECORDED_SHAPE[1]}"
    )
  left = (RECORDED_SHAPE[1] - FRAME_SIZE) // 2
  return image[:, left : left + FRAME_SIZE]


def _pose(example: Example, name: str) -> np.ndarray:
  """Reads a pose: [4] (x, y, z, yaw), robot base frame, metres and radians."""
  value = example.floats(name)
  if len(value) != 7:
    raise LayoutError(f"the pose {name} has {len(value)} numbers, expected 7")
  if not np.isfinite(value).all():
    raise LayoutError(f"the pose {name} is {value.tolist()}, expected finite numbers")
  norm = float(np.linalg.norm(value[3:]))
  if abs(norm - 1) > _UNIT_NORM_TOLERANCE:
    raise LayoutError(f"the quaternion of {name} has length {norm:.3f}, expected 1")
  x, y, z, w = value[3:] / norm
  # The first column of the rotation matrix: the end effector's x axis.
  along_x, along_y = 1 - 2 * (y * y + z * z), 2 * (x * y + z * w)
  level = math.hypot(along_x, along_y)
  if level < _LEAST_LEVEL:
    raise LayoutError(
      f"the end effector's x axis at {name} is {math.degrees(math.acos(level)):.0f} "
      "degrees from level, expected a gripper that points down"
    )
  return np.array([*value[:3], math.atan2(along_y, along_x)])


def _last_motion(
  example: Example, last: np.ndarray, num_steps: int, conventions: Conventions
) -> float | None:
  """How far the last step moved sideways before the fingers closed, metres."""
  name = f"grasp/{num_steps - 1}/reached_pose/{_POSE}"
  if not len(example.floats(name)):
    return None
  moved = float(np.linalg.norm((_pose(example, name) - last)[:2]))
  limit = conventions.max_last_motion
  if limit is not None and moved > limit:
    raise LayoutError(
      f"the last step moved {100 * moved:.1f} cm sideways before the fingers closed, "
      f"expected at most {100 * limit:.1f} cm: no image shows where it closed"
    )
  return moved


def _commands(poses: np.ndarray) -> np.ndarray:
  """The motions from pose to pose, [T, 5] float32; the last is the null command."""
  motions = np.diff(poses, axis=0)
  commands = np.concatenate(
    [motions[:, :3], np.sin(motions[:, 3:]), np.cos(motions[:, 3:])], axis=1
  )
  return np.concatenate([commands.astype(np.float32), records.NULL_COMMAND[None]])
