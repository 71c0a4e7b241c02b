"""The pixels of samples: decoded when they are asked for, or once into memory."""

from typing import Protocol

import numpy as np

from data_pipeline import records, source


class Frames(Protocol):
  """Where the loader gets images from.

  Attributes:
    fingerprint: of the dataset whose images these are.
  """

  fingerprint: str

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pregrasp image and the image of step 1..T, uint8[H, W, 3] each.

    The arrays belong to the frames and must not be written to.
    """
    ...


class DecodedFrames:
  """Reads and decodes the two images of each sample anew. Memory stays flat."""

  def __init__(self, dataset: source.Dataset):
    self.fingerprint = dataset.fingerprint
    self._dataset = dataset

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """See Frames.

    Raises:
      DatasetError: the record cannot be read any more.
      RecordError: an image is broken; names the attempt.
    """
    jpegs = records.jpegs(self._dataset[attempt])
    try:
      return records.from_jpeg(jpegs[0]), records.from_jpeg(jpegs[step])
    except records.RecordError as error:
      raise records.RecordError(f"attempt {attempt}, step {step}: {error}") from error


class CachedFrames:
  """Decodes every image once, when made, and keeps all of them in memory."""

  def __init__(self, dataset: source.Dataset):
    """Reads the whole dataset.

    Args:
      dataset: takes `frames_size(dataset)` bytes of memory.

    Raises:
      RecordError: an image is broken; names the attempt.
    """
    self.fingerprint = dataset.fingerprint
    num_steps = dataset.attempts.num_steps
    size = dataset.frame_size
    # An attempt's pregrasp image is followed by those of its steps 1..T.
    self._first = np.cumsum(num_steps + 1) - (num_steps + 1)
    self._images = np.empty((int((num_steps + 1).sum()), size, size, 3), np.uint8)
    for attempt, first in enumerate(self._first):
      for offset, jpeg in enumerate(records.jpegs(dataset[attempt])):
        try:
          records.from_jpeg(jpeg, out=self._images[first + offset])
        except records.RecordError as error:
          raise records.RecordError(
            f"attempt {attempt}, step {offset}: {error}"
          ) from error

  def pair(self, attempt: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """See Frames."""
    first = self._first[attempt]
    return self._images[first], self._images[first + step]


def frames_size(dataset: source.Dataset) -> int:
  """Returns how many bytes all decoded images of a dataset take."""
  count = int((dataset.attempts.num_steps + 1).sum())
  return count * dataset.frame_size**2 * 3


def load_frames(dataset: source.Dataset, cache_bytes: int) -> Frames:
  """Keeps the images of a dataset in memory where they fit, else decodes them anew.

  Args:
    dataset: where the images are.
    cache_bytes: memory that decoded images may take; 0 for none.

  Returns:
    Frames, to be shared by all loaders of the dataset in this process.
  """
  if frames_size(dataset) <= cache_bytes:
    return CachedFrames(dataset)
  return DecodedFrames(dataset)
