"""Records in the layout of the published grasping dataset, made up for tests."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipeline.importers.crc32c import masked_crc32c

_POSE = "transforms/base_T_endeffector/vec_quat_7"


def published_values(
  rng: np.random.Generator,
  num_steps: int = 3,
  *,
  success: bool = True,
  robot: str | None = "lbr4_12",
) -> dict[str, Any]:
  """Makes an attempt as the values of its keys: bytes, or lists of numbers.

  The gripper points down, its fingers open to 3 cm after a success. Every image has a
  shade of its own, and margins of another colour that the centre crop takes away.
  """
  poses = [
    pose(rng.uniform(-0.1, 0.1, 3) + (0.6, 0, 0.3), rng.uniform(-3, 3))
    for _ in range(num_steps)
  ]
  poses.append(poses[-1])  # The last step closes the gripper where it is.
  values: dict[str, Any] = {
    "grasp/image/encoded": picture(20),
    "approach/" + _POSE: poses[0],
    "num_grasp_steps": str(num_steps).encode(),
    "gripper/status": [0.03 if success else 0.001],
    "grasp_success": [float(success)],
    "camera/transforms/camera_T_base/matrix44": list(np.eye(4).ravel()),
    # Telemetry, of any length.
    "approach_sequence/joint/positions": list(rng.random(7 * int(rng.integers(9)))),
    f"grasp/0/reached_pose_sequence/{_POSE}": [1.0] * 21,
  }
  if robot is not None:
    values["robot/name"] = robot.encode()
  for i in range(num_steps):
    values[f"grasp/{i}/image/encoded"] = picture(40 + 15 * i)
    values[f"grasp/{i}/reached_pose/{_POSE}"] = poses[i + 1]
  return values


def pose(position: Iterable[float], yaw: float) -> list[float]:
  """x, y, z, qx, qy, qz, qw of a gripper that points down, turned by yaw."""
  # Half a turn about x, then yaw about z.
  return [*position, float(np.cos(yaw / 2)), float(np.sin(yaw / 2)), 0.0, 0.0]


def picture(shade: int, height: int = 512, width: int = 640) -> bytes:
  """A JPEG: grey, with red margins left and right of the middle 512 columns."""
  image = np.full((height, width, 3), shade, np.uint8)
  margin = max(0, (width - 512) // 2)
  image[:, :margin] = image[:, width - margin :] = (220, 0, 0)
  return simplejpeg.encode_jpeg(image, 95, "RGB", "444", fastdct=False)


def to_example(values: Mapping[str, Any]) -> bytes:
  """Serializes values as a tf.train.Example."""

  def feature(value: Any) -> tf_feature_pb2.Feature:
    if isinstance(value, bytes):
      return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
    return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=value))

  fields = {key: feature(value) for key, value in values.items()}
  example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
  return example.SerializeToString(deterministic=True)


def write_tfrecord(path: Path, examples: Iterable[bytes]) -> Path:
  """Writes a TFRecord file, and returns its path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b"".join(frame(example) for example in examples))
  return path


def frame(data: bytes) -> bytes:
  """Returns a record as it lies in a TFRecord file."""
  length = struct.pack("<Q", len(data))
  return (
    length
    + struct.pack("<I", masked_crc32c(length))
    + data
    + struct.pack("<I", masked_crc32c(data))
  )
