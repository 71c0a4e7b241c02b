"""One batch from the numbers of its samples: pixels decoded, cropped and changed."""

import dataclasses
import functools
from typing import TypedDict

import numpy as np
from absl import logging

from data_pipeline import frames as frames_lib
from data_pipeline import plan as plan_lib
from data_pipeline import samples as samples_lib
from data_pipeline import transforms

# A broken sample is replaced by the one this share of all samples further on: in all
# but small sets of another attempt, and for many broken ones not always the same.
_STRIDE = 0.618

# So many broken ones after each other are no accident.
_MOST_TRIES = 20


class Batch(TypedDict):
  """B samples, each crop S pixels wide and high."""

  pregrasp_image: np.ndarray  # uint8[B, S, S, 3] RGB.
  image: np.ndarray  # uint8[B, S, S, 3] RGB, cropped and coloured as its pregrasp.
  command: np.ndarray  # float32[B, 5]: p_T - p_t, robot base frame, metres.
  success: np.ndarray  # float32[B]: the label, 0 or 1.
  pose: np.ndarray  # float32[B, 4]: measured at the step, robot base frame.
  crop_offset: np.ndarray  # float32[B, 2]: (row, column) from the middle crop, pixels.
  step: np.ndarray  # int32[B]: t = 1..T.
  num_steps: np.ndarray  # int32[B]: T.
  distance: np.ndarray  # float32[B]: |(dx, dy, dz)| of the command, metres.
  attempt: np.ndarray  # int64[B]: index into the dataset.
  replaced: np.ndarray  # bool[B]: stands in for a sample whose record is broken.


@dataclasses.dataclass(frozen=True)
class Assembler:
  """Makes batches; picklable, and safe to call from several threads.

  Attributes:
    samples: all samples that there are.
    frames: their pixels.
    frame_size: height and width of the frames, pixels.
    crop_size: height and width of the crops, pixels.
    random_crop: whether crops lie anywhere, else in the middle.
    mirror_probability: share of the samples that is mirrored.
    jitter: how far colours are changed.
    skip_broken: whether a sample whose record is broken is replaced by another one,
      else it is an error.
    host_index: which rows of the batch of all hosts these are.
    host_count: of hosts.
  """

  samples: samples_lib.Samples
  frames: frames_lib.Frames
  frame_size: int
  crop_size: int
  random_crop: bool
  mirror_probability: float
  jitter: transforms.ColourJitter
  skip_broken: bool
  host_index: int = 0
  host_count: int = 1

  def __call__(self, numbers: np.ndarray, rng: np.random.Generator) -> Batch:
    """Makes the batch of the samples with the given numbers.

    Args:
      numbers: int[B].
      rng: of this batch alone, in the same state on all hosts.

    Raises:
      DatasetError: a record is broken and broken ones are not replaced.
    """
    count, size = len(numbers), self.crop_size
    # Every host draws for all of them and takes its rows: a sample is changed in the
    # same way on whatever host it is, and no two alike.
    total = count * self.host_count
    rows = slice(count * self.host_index, count * (self.host_index + 1))
    if self.random_crop:
      offsets = transforms.random_offsets(rng, total, self.frame_size, size)[rows]
    else:
      offsets = transforms.centre_offsets(count, self.frame_size, size)
    is_mirrored = rng.random(total)[rows] < self.mirror_probability
    colours = None if self.jitter.is_off else self.jitter.draw(rng, total)[rows]

    used = np.array(numbers)
    images = np.empty((2, count, size, size, 3), np.uint8)
    for i in range(count):
      used[i], pair = self._pixels(int(numbers[i]))
      for out, image in zip(images[:, i], pair, strict=True):
        image = transforms.crop(image, offsets[i], size)
        if is_mirrored[i]:
          transforms.mirror_image(image, out=out)
        else:
          out[:] = image
        if colours is not None:
          transforms.jitter_colours(out, colours[i], out=out)

    samples = self.samples
    command = samples.command[used]
    command[is_mirrored] = transforms.mirror_command(command[is_mirrored])
    pose = samples.pose[used]
    pose[is_mirrored] *= np.array([1, -1, 1, -1], np.float32)
    middle = transforms.centre_offsets(count, self.frame_size, size)
    crop_offset = (offsets - middle).astype(np.float32)
    crop_offset[is_mirrored, 1] *= -1
    return Batch(
      pregrasp_image=images[0],
      image=images[1],
      command=command,
      success=samples.success[used],
      pose=pose,
      crop_offset=crop_offset,
      step=samples.step[used],
      num_steps=samples.num_steps[used],
      distance=samples.distance[used],
      attempt=samples.attempt[used],
      replaced=used != numbers,
    )

  def _pixels(self, number: int) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """Returns the images of a sample, or of what replaces it, and whose they are."""
    samples = self.samples
    stride = int(_STRIDE * len(samples)) or 1
    reason = ""
    for retry in range(_MOST_TRIES):
      used = (number + retry * stride) % len(samples)
      try:
        return used, self.frames.pair(samples.attempt[used], samples.step[used])
      except plan_lib.DatasetError as error:
        if not self.skip_broken:
          raise
        reason = str(error)
        _warn_once(reason)
    raise plan_lib.DatasetError(
      f"{_MOST_TRIES} samples after each other are broken, the last one because "
      f"{reason}"
    )


@functools.lru_cache(maxsize=10_000)
def _warn_once(problem: str) -> None:
  logging.warning("not trained on, another sample takes its place: %s", problem)
