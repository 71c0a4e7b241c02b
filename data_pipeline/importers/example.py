"""Values of a serialized tf.train.Example by their keys, without TensorFlow."""

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2


class LayoutError(ValueError):
  """A record is not in the layout that is being read; says what was found."""


class Example:
  """The features of one record; a key that is missing has no values."""

  def __init__(self, data: bytes):
    """Parses a record.

    Raises:
      LayoutError: the bytes are no tf.train.Example.
    """
    try:
      self._features = tf_example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
      raise LayoutError(f"the record is no tf.train.Example ({error})") from error

  def floats(self, key: str) -> np.ndarray:
    """Returns float64[N]."""
    # Reading a missing key of the map would silently insert an empty feature.
    values = self._features[key].float_list.value if key in self._features else []
    return np.array(values, np.float64)

  def number(self, key: str) -> float | None:
    """Returns a single number, None if the key is missing.

    Raises:
      LayoutError: there are several, or it is not finite.
    """
    values = self.floats(key)
    if not len(values):
      return None
    if len(values) > 1 or not np.isfinite(values).all():
      raise LayoutError(f"{key} is {values.tolist()}, expected one finite number")
    return float(values[0])

  def count(self, key: str) -> int | None:
    """Returns a whole number from 1 that is stored as text or as an integer.

    Raises:
      LayoutError: it is neither.
    """
    if key not in self._features:
      return None
    integers = self._features[key].int64_list.value
    text = str(integers[0]).encode() if integers else self.first_bytes(key).strip()
    if not text.isdigit() or int(text) < 1:
      raise LayoutError(f"{key} is {text!r}, expected a whole number from 1")
    return int(text)

  def first_bytes(self, key: str) -> bytes:
    """Returns the first value, empty if there is none."""
    values = self._features[key].bytes_list.value if key in self._features else []
    return values[0] if values else b""

  def text(self, key: str) -> str:
    """Returns the first value as text, empty if there is none."""
    return self.first_bytes(key).decode(errors="replace").strip()
