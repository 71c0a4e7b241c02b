"""Converts camera frames and gripper poses from a robot's messages for a policy.

NumPy alone: `ros2_node` and other carriers of messages share it.
"""

import math

import numpy as np

# Bytes of one pixel, and where red, green and blue are among them.
ENCODINGS = {
  "rgb8": (3, (0, 1, 2)),
  "bgr8": (3, (2, 1, 0)),
  "rgba8": (4, (0, 1, 2)),
  "bgra8": (4, (2, 1, 0)),
}


def frame_of(
  data: bytes | np.ndarray, height: int, width: int, row_bytes: int, encoding: str
) -> np.ndarray:
  """Returns uint8 [height, width, 3] RGB from the bytes of a ROS image message.

  Args:
    data: rows, one after the other.
    height, width: pixels.
    row_bytes: of one row, padding included; `step` in sensor_msgs/Image.
    encoding: one of ENCODINGS.

  Raises:
    ValueError: for another encoding, or a size that does not fit.
  """
  if encoding not in ENCODINGS:
    raise ValueError(
      f"the encoding is {encoding!r}, expected one of {', '.join(ENCODINGS)}."
    )
  count, order = ENCODINGS[encoding]
  values = np.frombuffer(data, np.uint8)
  if row_bytes < width * count or values.size != height * row_bytes:
    raise ValueError(
      f"{values.size} bytes in rows of {row_bytes}, expected {height} rows of at least"
      f" {width * count}."
    )
  rows = values.reshape(height, row_bytes)[:, : width * count]
  return rows.reshape(height, width, count)[..., list(order)]


def square_frame(frame: np.ndarray, size: int) -> np.ndarray:
  """Returns the central square of uint8 [H, W, 3], averaged to uint8 [size, size, 3].

  Raises:
    ValueError: the frame is of another form, or smaller than `size`.
  """
  if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
    raise ValueError(
      f"the frame is {frame.dtype}{list(frame.shape)}, expected uint8[H, W, 3]."
    )
  side = min(frame.shape[:2])
  if side < size:
    raise ValueError(f"the frame has {side} pixels a side, expected at least {size}.")
  top, left = ((length - side) // 2 for length in frame.shape[:2])
  square = frame[top : top + side, left : left + side]
  if side == size:
    return square.copy()
  # Each new pixel is the mean of those that it covers, in part at its edges.
  edges = np.arange(size + 1) * (side / size)
  pixels = np.arange(side)
  covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(
    edges[:-1, None], pixels
  )
  weights = (np.maximum(covered, 0) * (size / side)).astype(np.float32)
  mean = np.einsum(
    "ij,jkc,lk->ilc", weights, square.astype(np.float32), weights, optimize=True
  )
  return np.clip(np.rint(mean), 0, 255).astype(np.uint8)


def yaw_of(x: float, y: float, z: float, w: float) -> float:
  """Returns the yaw of a gripper that points down, from its unit quaternion.

  The gripper's z axis points out of its fingers, its x axis is where yaw is measured.

  Raises:
    ValueError: it is no unit quaternion, or the gripper is tilted by over 15 degrees.
  """
  if not abs(math.sqrt(x * x + y * y + z * z + w * w) - 1) <= 1e-2:
    raise ValueError(f"({x}, {y}, {z}, {w}) is no unit quaternion.")
  down = 2 * (x * x + y * y) - 1  # of its z axis, along minus z of the base
  if down < math.cos(math.radians(15)):
    tilt = math.degrees(math.acos(max(-1.0, min(1.0, down))))
    raise ValueError(f"the gripper is {tilt:.0f} degrees from pointing down.")
  return math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def quaternion_of(yaw: float) -> tuple[float, float, float, float]:
  """Returns (x, y, z, w) of a gripper that points down with a yaw."""
  return math.cos(yaw / 2), math.sin(yaw / 2), 0.0, 0.0
