"""The pixels of samples: decoded when they are asked for, or once into memory."""

import threading
from typing import Any, Protocol

import numpy as np
from absl import logging

from data_pipeline import plan as plan_lib
from data_pipeline import records, source


class Frames(Protocol):
  """Where the loader gets images from.

  Attributes:
    fingerprint: of the dataset whose images these are.
  """

  fingerprint: str

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pregrasp image and the image of step 1..T, uint8[H, W, 3] each.

    The arrays belong to the frames, must not be written to, and are valid until the
    same thread asks again.

    Raises:
      DatasetError: the record or an image in it is broken; names file and record.
    """
    ...


class DecodedFrames:
  """Reads and decodes the two images of each sample. Memory stays flat."""

  def __init__(self, dataset: source.Dataset):
    self.fingerprint = dataset.fingerprint
    self._records = dataset.records
    self._shape = (2, dataset.frame_size, dataset.frame_size, 3)
    # Decoding into memory that was used before is faster than into new memory.
    self._kept = threading.local()

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """See Frames."""
    data = self._records[attempt]
    if not hasattr(self._kept, "images"):
      self._kept.images = np.empty(self._shape, np.uint8)
    pregrasp, image = self._kept.images
    try:
      jpegs = records.jpeg_pair(data, step)
      records.from_jpeg(jpegs[0], out=pregrasp)
      records.from_jpeg(jpegs[1], out=image)
    except records.RecordError as error:
      raise self._records.broken(attempt, error) from error
    return pregrasp, image

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_kept": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._kept = threading.local()


class CachedFrames:
  """Decodes every image once, when made, and keeps all of them in memory."""

  def __init__(self, dataset: source.Dataset):
    """Reads the whole dataset.

    Args:
      dataset: takes `frames_size(dataset)` bytes of memory.

    Raises:
      DatasetError: a record is broken and `dataset.on_bad_record` is 'fail'.
    """
    self.fingerprint = dataset.fingerprint
    num_steps = dataset.attempts.num_steps
    size = dataset.frame_size
    # An attempt's pregrasp image is followed by those of its steps 1..T.
    self._first = np.cumsum(num_steps + 1) - (num_steps + 1)
    self._images = np.empty((int((num_steps + 1).sum()), size, size, 3), np.uint8)
    # Texts, not exceptions: one that is raised again and again grows a traceback.
    self._broken: dict[int, str] = {}
    for attempt in range(len(dataset)):
      try:
        self._decode(dataset, attempt, int(num_steps[attempt]) + 1)
      except plan_lib.DatasetError as error:
        if dataset.on_bad_record == "fail":
          raise
        self._broken[attempt] = str(error)

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """See Frames."""
    if self._broken and attempt in self._broken:
      raise plan_lib.DatasetError(self._broken[attempt])
    first = self._first[attempt]
    return self._images[first], self._images[first + step]

  def _decode(self, dataset: source.Dataset, attempt: int, count: int) -> None:
    first = self._first[attempt]
    data = dataset[attempt]
    try:
      jpegs = records.jpegs(data)
      if len(jpegs) != count:
        raise records.RecordError(f"it has {len(jpegs)} images, expected {count}")
      for offset, jpeg in enumerate(jpegs):
        records.from_jpeg(jpeg, out=self._images[first + offset])
    except records.RecordError as error:
      raise dataset.records.broken(attempt, error) from error


def frames_size(dataset: source.Dataset) -> int:
  """Returns how many bytes all decoded images of a dataset take."""
  count = int((dataset.attempts.num_steps + 1).sum())
  return count * dataset.frame_size**2 * 3


def load_frames(dataset: source.Dataset, cache_bytes: int) -> Frames:
  """Keeps the images of a dataset in memory if they fit, else decodes them each time.

  Args:
    dataset: where the images are.
    cache_bytes: memory that decoded images may take; 0 for none.

  Returns:
    Frames, to be shared by all loaders of the dataset in this process.
  """
  if frames_size(dataset) <= cache_bytes:
    return CachedFrames(dataset)
  logging.info(
    "images are decoded for each sample: they need more than %d bytes", cache_bytes
  )
  return DecodedFrames(dataset)
