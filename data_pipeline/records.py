"""A grasp attempt as bytes: an RLDS episode in a tf.train.Example.

An attempt of T steps is stored as one record. The observation of step t (image and
pose) is seen before its action; the last step holds the image and pose at closing,
and its action is the null command. The reward is the success label, on the last
step. Images are JPEG, encoded once, here. Equal attempts give equal bytes.

`features` describes the same record to TFDS, so that any RLDS tool reads it.
TensorFlow is not needed: the protocol buffers are those that TFDS brings along.
"""

from typing import Any

import numpy as np
import simplejpeg
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline import schema
from data_pipeline.schema import (
  NULL_COMMAND,
  SCHEMA_VERSION,
  AttemptRecord,
  RecordError,
  validate,
)

__all__ = [
  "NULL_COMMAND", "SCHEMA_VERSION", "AttemptRecord", "RecordError", "check", "decode",
  "encode", "features", "from_jpeg", "jpeg_pair", "jpegs", "validate",
]  # fmt: skip

JPEG_QUALITY = 95

# Keys of the Example that RLDS names for us.
_PREGRASP = "pregrasp_image"
_OBJECTS = "objects"
_UNKNOWN = "unknown"  # since version 2
_IMAGE = "steps/observation/image"
_POSE = "steps/observation/pose"
_ACTION = "steps/action"
_REWARD = "steps/reward"
_DISCOUNT = "steps/discount"
_IS_FIRST = "steps/is_first"
_IS_LAST = "steps/is_last"
_IS_TERMINAL = "steps/is_terminal"


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
      _UNKNOWN: tfds.features.Sequence(text()),
      **{name: scalar(np.bool_) for name in schema.BOOLS},
      **{name: scalar(np.float32) for name in schema.FLOATS},
      **{name: scalar(np.int64) for name in schema.INTS},
      **{name: text() for name in schema.TEXTS},
    }
  )


def encode(record: AttemptRecord) -> bytes:
  """Validates an attempt and serializes it, byte for byte the same each time.

  Args:
    record: the attempt; what only a simulator knows may be missing.

  Returns:
    The serialized tf.train.Example that `features(H)` describes.

  Raises:
    RecordError: a field is missing, unknown, of a wrong shape or dtype, not
      finite, or not a command.
  """
  validate(record)
  values = schema.complete(record)
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
    _OBJECTS: _bytes([name.encode() for name in values["objects"]]),
    _UNKNOWN: _bytes([name.encode() for name in values["unknown"]]),
  }
  fields.update({name: _ints(values[name]) for name in schema.BOOLS + schema.INTS})
  fields.update({name: _floats(values[name]) for name in schema.FLOATS})
  fields.update({name: _bytes([values[name].encode()]) for name in schema.TEXTS})
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
    written; images differ by JPEG's loss. Fields that were not known hold what
    `schema.complete` put there and are named in `unknown`, which is left out where all
    were known.

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
    if _UNKNOWN in fields and fields[_UNKNOWN].bytes_list.value:
      record["unknown"] = [n.decode() for n in fields[_UNKNOWN].bytes_list.value]
    for name in schema.BOOLS:
      record[name] = bool(fields[name].int64_list.value[0])
    for name in schema.FLOATS:
      record[name] = float(fields[name].float_list.value[0])
    for name in schema.INTS:
      record[name] = int(fields[name].int64_list.value[0])
    for name in schema.TEXTS:
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


def jpeg_pair(data: bytes, step: int) -> tuple[bytes, bytes]:
  """Returns the encoded pregrasp image and that of step t = 1..T.

  Raises:
    RecordError: the bytes are not an attempt of this schema, or it has no such step.
  """
  fields = _parse(data)
  images = fields[_IMAGE].bytes_list.value
  try:
    return fields[_PREGRASP].bytes_list.value[0], images[step - 1]
  except IndexError as error:
    raise RecordError(
      f"the attempt has {len(images)} steps, expected at least {step}"
    ) from error


def check(data: bytes) -> dict[str, Any]:
  """Checks everything in a serialized attempt, every pixel included.

  Args:
    data: what `encode` returned.

  Returns:
    What `decode` returns.

  Raises:
    RecordError: naming the first thing that is wrong: an image that does not decode,
      a number that is not finite, a field of a wrong shape, or rewards and flags of
      the steps that are not those of the label.
  """
  record = decode(data, images=True)
  validate(record)  # type: ignore[arg-type]
  fields = _parse(data)
  num_steps = len(record["poses"])
  last = np.arange(num_steps) == num_steps - 1
  expected: dict[str, np.ndarray] = {
    _REWARD: last * np.float32(record["success"]),
    _DISCOUNT: (~last).astype(np.float32),
    _IS_FIRST: np.arange(num_steps) == 0,
    _IS_LAST: last,
    _IS_TERMINAL: last,
  }
  for key, values in expected.items():
    feature = fields[key]
    found = [*feature.float_list.value, *feature.int64_list.value]
    if found != values.tolist():
      raise RecordError(
        f"{key} is {found}, expected {values.tolist()} as success is "
        f"{record['success']} and the attempt has {num_steps} steps"
      )
  return record


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
  *(_PREGRASP, _OBJECTS, _IMAGE, _POSE, _ACTION, _REWARD, _DISCOUNT),
  *(_IS_FIRST, _IS_LAST, _IS_TERMINAL),
  *(*schema.BOOLS, *schema.FLOATS, *schema.INTS, *schema.TEXTS),
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
