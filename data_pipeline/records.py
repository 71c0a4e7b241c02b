"""The one schema of a grasp attempt: an RLDS episode in a tf.train.Example.

An attempt of T steps is stored as one record. The observation of step t (image and
pose) is seen before its action; the last step holds the image and pose at closing,
and its action is the null command. The reward is the success label, on the last
step. Images are JPEG, encoded once, here. Equal attempts give equal bytes.

`features` describes the same record to TFDS, so that any RLDS tool reads it.
TensorFlow is not needed: the protocol buffers are those that TFDS brings along.
"""

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

# Raised whenever a record of before could be misread; written into every dataset.
SCHEMA_VERSION = 1

JPEG_QUALITY = 95
NULL_COMMAND = np.array([0, 0, 0, 0, 1], np.float32)

# |(sin, cos)| of a command may differ from 1 by float32 rounding, not by more.
_UNIT_NORM_TOLERANCE = 1e-3

# Fields of AttemptRecord that lie in the Example under their own name.
_BOOLS = ("success", "drop_test", "simulator_truth")
_FLOATS = ("gripper_reading", "table_height")
_INTS = ("scene_seed", "attempt_seed", "round")
_TEXTS = (
  "unit",
  "attempt_id",
  "grasped",
  "policy",
  "policy_version",
  "software",
)

# Keys of the Example that RLDS names for us.
_PREGRASP = "pregrasp_image"
_OBJECTS = "objects"
_IMAGE = "steps/observation/image"
_POSE = "steps/observation/pose"
_ACTION = "steps/action"
_REWARD = "steps/reward"
_DISCOUNT = "steps/discount"
_IS_FIRST = "steps/is_first"
_IS_LAST = "steps/is_last"
_IS_TERMINAL = "steps/is_terminal"


class RecordError(ValueError):
  """A record breaks the schema; the message names field, found and expected."""


class AttemptRecord(TypedDict):
  """One grasp attempt of T >= 1 steps, as plain NumPy.

  Poses are (x, y, z, yaw) of the gripper in the robot base frame, metres and
  radians, z at the fingertips. Commands are (dx, dy, dz, sin dyaw, cos dyaw).
  """

  pregrasp_image: np.ndarray  # uint8[H, W, 3] RGB: before the gripper is in view.
  images: np.ndarray  # uint8[T, H, W, 3] RGB: before each step's command.
  poses: np.ndarray  # float32[T, 4]: measured, before each step's command.
  commands: np.ndarray  # float32[T, 5]: executed; the last is the null command.
  success: bool  # The label, from gripper reading and drop test.
  gripper_reading: float  # Finger opening after lifting, metres.
  drop_test: bool  # Whether the images before and after dropping differ.
  simulator_truth: bool  # What the simulator knows; never trained on.
  table_height: float  # Metres, robot base frame.
  unit: str  # The simulated robot, by name.
  scene_seed: int  # int64: gives objects and their arrangement.
  attempt_seed: int  # int64: number of the attempt in its scene; with it, its draws.
  attempt_id: str  # Unique within a dataset.
  objects: list[str]  # Names of the object instances in the bin.
  grasped: str  # Name of the object instance held at the end; '' if none.
  policy: str
  policy_version: str
  round: int  # int64: one collection with one version of the network.
  software: str  # JSON of the versions of the software that made the attempt.


def features(frame_size: int) -> tfds.features.FeaturesDict:
  """Describes a record to TFDS.

  Args:
    frame_size: height and width H = W of every image, pixels.

  Returns:
    The features of an RLDS episode whose `steps` are a nested dataset.
  """
  image = tfds.features.Image(shape=(frame_size, frame_size, 3), encoding_format="jpeg")
  scalar, text = tfds.features.Scalar, tfds.features.Text
  step = {
    "observation": {
      "image": image,
      "pose": tfds.features.Tensor(
        shape=(4,),
        dtype=np.float32,
        doc="(x, y, z, yaw) of the gripper, robot base frame, m and rad",
      ),
    },
    "action": tfds.features.Tensor(
      shape=(5,),
      dtype=np.float32,
      doc="(dx, dy, dz, sin dyaw, cos dyaw), robot base frame, m; null at the end",
    ),
    "reward": scalar(np.float32, doc="success, on the last step"),
    "discount": scalar(np.float32),
    "is_first": scalar(np.bool_),
    "is_last": scalar(np.bool_),
    "is_terminal": scalar(np.bool_),
  }
  return tfds.features.FeaturesDict(
    {
      _PREGRASP: image,
      "steps": tfds.features.Dataset(step),
      _OBJECTS: tfds.features.Sequence(text()),
      **{name: scalar(np.bool_) for name in _BOOLS},
      **{name: scalar(np.float32) for name in _FLOATS},
      **{name: scalar(np.int64) for name in _INTS},
      **{name: text() for name in _TEXTS},
    }
  )


def encode(record: AttemptRecord) -> bytes:
  """Validates an attempt and serializes it, byte for byte the same each time.

  Args:
    record: the attempt; every field of AttemptRecord is required.

  Returns:
    The serialized tf.train.Example that `features(H)` describes.

  Raises:
    RecordError: a field is missing, unknown, of a wrong shape or dtype, not
      finite, or not a command.
  """
  validate(record)
  num_steps = len(record["images"])
  last = np.arange(num_steps) == num_steps - 1
  fields: dict[str, tf_feature_pb2.Feature] = {
    _PREGRASP: _bytes([_to_jpeg(record["pregrasp_image"])]),
    _IMAGE: _bytes([_to_jpeg(image) for image in record["images"]]),
    _POSE: _floats(record["poses"]),
    _ACTION: _floats(record["commands"]),
    _REWARD: _floats(last * float(record["success"])),
    _DISCOUNT: _floats(~last),
    _IS_FIRST: _ints(np.arange(num_steps) == 0),
    _IS_LAST: _ints(last),
    _IS_TERMINAL: _ints(last),
    _OBJECTS: _bytes([name.encode() for name in record["objects"]]),
  }
  values: dict[str, Any] = dict(record)
  fields.update({name: _ints(values[name]) for name in _BOOLS + _INTS})
  fields.update({name: _floats(values[name]) for name in _FLOATS})
  fields.update({name: _bytes([values[name].encode()]) for name in _TEXTS})
  example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
  # A protocol buffer's map has no order of its own: without the flag two equal
  # attempts could differ in their bytes.
  return example.SerializeToString(deterministic=True)


def decode(data: bytes, *, images: bool) -> dict[str, Any]:
  """Reads a serialized attempt back.

  Args:
    data: what `encode` returned.
    images: whether to decode the images. Without them `pregrasp_image` and
      `images` are left out, which is ten times faster at 72 pixels and more above.

  Returns:
    The fields of AttemptRecord. Texts, numbers and arrays are as they were
    written; images differ by JPEG's loss.

  Raises:
    RecordError: the bytes are not an attempt of this schema.
  """
  fields = _parse(data)
  try:
    pose = np.array(fields[_POSE].float_list.value, np.float32)
    action = np.array(fields[_ACTION].float_list.value, np.float32)
    record: dict[str, Any] = {
      "poses": pose.reshape(-1, 4),
      "commands": action.reshape(-1, 5),
      "objects": [name.decode() for name in fields[_OBJECTS].bytes_list.value],
    }
    for name in _BOOLS:
      record[name] = bool(fields[name].int64_list.value[0])
    for name in _FLOATS:
      record[name] = float(fields[name].float_list.value[0])
    for name in _INTS:
      record[name] = int(fields[name].int64_list.value[0])
    for name in _TEXTS:
      record[name] = fields[name].bytes_list.value[0].decode()
    if images:
      jpegs = fields[_IMAGE].bytes_list.value
      record["images"] = np.stack([from_jpeg(jpeg) for jpeg in jpegs])
      record["pregrasp_image"] = from_jpeg(fields[_PREGRASP].bytes_list.value[0])
  except (IndexError, ValueError) as error:
    raise RecordError(_not_an_attempt(str(error))) from error
  return record


def jpegs(data: bytes) -> list[bytes]:
  """Returns the encoded images of a serialized attempt, without decoding them.

  Args:
    data: what `encode` returned.

  Returns:
    T + 1 JPEG images: the pregrasp image, then that of each step t = 1..T at
    position t.

  Raises:
    RecordError: the bytes are not an attempt of this schema.
  """
  fields = _parse(data)
  return [*fields[_PREGRASP].bytes_list.value, *fields[_IMAGE].bytes_list.value]


def from_jpeg(jpeg: bytes, out: np.ndarray | None = None) -> np.ndarray:
  """Decodes one image to uint8[H, W, 3] RGB, into `out` where that is given.

  Raises:
    RecordError: the bytes are not a whole JPEG image, or not of the shape of
      `out`.
  """
  try:
    image = simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out)
  except ValueError as error:
    raise RecordError(f"an image is not a readable JPEG: {error}") from error
  if out is not None and image.shape != out.shape:
    raise RecordError(
      f"an image has shape {image.shape}, expected {out.shape} as in the rest of "
      "the dataset"
    )
  return image


def validate(record: AttemptRecord) -> None:
  """Checks an attempt against the schema.

  Raises:
    RecordError: naming the first field that is wrong, what was found and what
      was expected.
  """
  for problem in _problems(dict(record)):
    name = record.get("attempt_id", "without attempt_id")
    raise RecordError(f"attempt {name!r} breaks the schema: {problem}")


def _problems(record: dict[str, Any]) -> Iterator[str]:
  """Yields what is wrong with a record; later checks rely on earlier ones."""
  expected = AttemptRecord.__required_keys__
  if missing := sorted(expected - record.keys()):
    yield f"fields missing: {missing}"
  if unknown := sorted(record.keys() - expected):
    yield f"unknown fields {unknown}, known are {sorted(expected)}"

  pregrasp, images = record["pregrasp_image"], record["images"]
  yield from _array_problems("pregrasp_image", pregrasp, np.uint8, (None, None, 3))
  if pregrasp.shape[0] != pregrasp.shape[1]:
    yield f"pregrasp_image has shape {pregrasp.shape}, expected a square image"
  yield from _array_problems("images", images, np.uint8, (None, *pregrasp.shape))
  num_steps = len(images)
  if num_steps == 0:
    yield "images has no step, expected at least 1"
  yield from _array_problems("poses", record["poses"], np.float32, (num_steps, 4))
  commands = record["commands"]
  yield from _array_problems("commands", commands, np.float32, (num_steps, 5))
  norms = np.linalg.norm(commands[:, 3:], axis=1)
  wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT_NORM_TOLERANCE)
  if wrong.size:
    yield (
      f"the command of step {wrong[0] + 1} has |(sin, cos)| = {norms[wrong[0]]:.4f}, "
      "expected 1"
    )
  if not np.array_equal(commands[-1], NULL_COMMAND):
    yield (
      f"the last command is {commands[-1].tolist()}, expected the null command "
      f"{NULL_COMMAND.tolist()}"
    )

  for name in _BOOLS:
    if not isinstance(record[name], bool | np.bool_):
      yield f"{name} is {record[name]!r}, expected a bool"
  for name in _FLOATS:
    value = record[name]
    if not isinstance(value, float | int | np.floating) or not np.isfinite(value):
      yield f"{name} is {value!r}, expected a finite number in metres"
  for name in _INTS:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
      yield f"{name} is {value!r}, expected an integer"
    if not -(2**63) <= value < 2**63:
      yield f"{name} is {value}, expected an integer that fits into int64"
  for name in _TEXTS:
    if not isinstance(record[name], str):
      yield f"{name} is {record[name]!r}, expected a str"
  objects = record["objects"]
  if not isinstance(objects, list | tuple) or not all(
    isinstance(name, str) for name in objects
  ):
    yield f"objects is {objects!r}, expected a list of str"


def _array_problems(
  name: str, value: Any, dtype: Any, shape: tuple[int | None, ...]
) -> Iterator[str]:
  if not isinstance(value, np.ndarray):
    yield f"{name} is a {type(value).__name__}, expected a NumPy array"
  if value.dtype != dtype:
    yield f"{name} has dtype {value.dtype}, expected {np.dtype(dtype)}"
  fits = len(value.shape) == len(shape) and all(
    want in (None, got) for got, want in zip(value.shape, shape, strict=True)
  )
  if not fits:
    expected = str(shape).replace("None", "any")
    yield f"{name} has shape {value.shape}, expected {expected}"
  if value.dtype == np.float32 and not np.isfinite(value).all():
    row = int(np.argwhere(~np.isfinite(value))[0][0])
    yield f"{name} of step {row + 1} is {value[row].tolist()}, expected finite numbers"


def _parse(data: bytes) -> Any:
  """Returns the feature map of a serialized attempt, all its keys present."""
  try:
    fields = tf_example_pb2.Example.FromString(data).features.feature
  except DecodeError as error:
    raise RecordError(_not_an_attempt(str(error))) from error
  # Reading a missing key of the map would silently insert an empty feature.
  if missing := [key for key in _ALL_KEYS if key not in fields]:
    raise RecordError(_not_an_attempt(f"keys missing: {missing}"))
  return fields


_ALL_KEYS = (
  *(_PREGRASP, _OBJECTS, _IMAGE, _POSE, _ACTION),
  *(*_BOOLS, *_FLOATS, *_INTS, *_TEXTS),
)


def _not_an_attempt(reason: str) -> str:
  return (
    f"the bytes are not an attempt of schema version {SCHEMA_VERSION} ({reason}); "
    "was the dataset written by another program, or by another version of this one?"
  )


def _to_jpeg(image: np.ndarray) -> bytes:
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(image), JPEG_QUALITY, "RGB", "444", fastdct=False
  )


def _bytes(values: list[bytes]) -> tf_feature_pb2.Feature:
  return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))


def _floats(values: Any) -> tf_feature_pb2.Feature:
  flat = np.asarray(values, np.float32).ravel().tolist()
  return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=flat))


def _ints(values: Any) -> tf_feature_pb2.Feature:
  flat = np.asarray(values, np.int64).ravel().tolist()
  return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=flat))
