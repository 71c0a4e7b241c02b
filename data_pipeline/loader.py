"""Batches of samples: shuffled, augmented, sharded over hosts, resumable.

Grain makes every batch a pure function of the dataset, the configuration and the
number of the batch. So the state of an iterator is that number, a resumed run sees
the very same batches with any number of workers, and augmentation is included.

A curriculum is one loader for each phase, all on the same frames:

    frames = load_frames(dataset, cache_bytes=2**30)
    config = LoaderConfig(batch_size=64, crop_size=64, max_distance=0.01)
    zero = make_loader(dataset, config, frames)
    near = make_loader(dataset, dataclasses.replace(config, max_distance=0.07), frames)
"""

import dataclasses
import functools
import json
import math
import weakref
from collections.abc import Iterator
from typing import TypedDict

import grain
import numpy as np

from data_pipeline import frames as frames_lib
from data_pipeline import samples as samples_lib
from data_pipeline import source, transforms


class LoaderError(ValueError):
  """A loader cannot be made, or cannot go on, with what it was given."""


class Batch(TypedDict):
  """B samples, each crop S pixels wide and high."""

  pregrasp_image: np.ndarray  # uint8[B, S, S, 3] RGB.
  image: np.ndarray  # uint8[B, S, S, 3] RGB, cropped and coloured as its pregrasp.
  command: np.ndarray  # float32[B, 5]: p_T - p_t, robot base frame, metres.
  success: np.ndarray  # float32[B]: the label, 0 or 1.
  step: np.ndarray  # int32[B]: t = 1..T.
  num_steps: np.ndarray  # int32[B]: T.
  distance: np.ndarray  # float32[B]: |(dx, dy, dz)| of the command, metres.
  attempt: np.ndarray  # int64[B]: index into the dataset.


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
  """Which samples, in what order, and how they are changed.

  Attributes:
    batch_size: samples of a batch, on this host.
    crop_size: height and width of the crops, pixels.
    seed: decides order and augmentation.
    shuffle: whether to draw a new order of all samples for each epoch.
    random_crop: whether a sample's crop lies anywhere in its frames; else in the
      middle. Both images of a sample share it.
    mirror_probability: how often left and right are exchanged, dy and dyaw with them.
    jitter: how far the colours of a sample are changed.
    num_epochs: passes over the samples; None for endlessly many.
    drop_remainder: whether the last batch is left out where it is not full. Without
      it every sample comes exactly `num_epochs` times.
    min_distance: samples with |p_T - p_t| below are left out, metres.
    max_distance: samples with |p_T - p_t| of this or above are left out, metres.
    host_index: this host, 0 <= host_index < host_count. Hosts have disjoint samples
      in every epoch.
    host_count: how many hosts there are.
    num_workers: processes that make batches; 0 makes them in this one. Grain's
      workers need parsed flags, as in a program started by `absl.app.run`.
    num_threads: threads of each process that make batches.
    prefetch: batches kept ready.
  """

  batch_size: int
  crop_size: int
  seed: int = 0
  shuffle: bool = True
  random_crop: bool = True
  mirror_probability: float = 0.0
  jitter: transforms.ColourJitter = transforms.ColourJitter()
  num_epochs: int | None = None
  drop_remainder: bool = True
  min_distance: float = 0.0
  max_distance: float = math.inf
  host_index: int = 0
  host_count: int = 1
  num_workers: int = 0
  num_threads: int = 1
  prefetch: int = 4

  def __post_init__(self) -> None:
    for name in ("batch_size", "crop_size", "host_count", "num_threads", "prefetch"):
      if getattr(self, name) < 1:
        raise LoaderError(f"{name} is {getattr(self, name)}, expected at least 1")
    if self.num_epochs is not None and self.num_epochs < 1:
      raise LoaderError(f"num_epochs is {self.num_epochs}, expected 1 or more, or None")
    if not 0 <= self.host_index < self.host_count:
      raise LoaderError(
        f"host_index is {self.host_index}, expected 0 to {self.host_count - 1} as "
        f"host_count is {self.host_count}"
      )
    if not 0 <= self.mirror_probability <= 1:
      raise LoaderError(
        f"mirror_probability is {self.mirror_probability}, expected 0 to 1"
      )

  def identity(self) -> dict[str, object]:
    """Returns what decides the batches; workers and threads do not."""
    fields = dataclasses.asdict(self)
    for name in ("num_workers", "num_threads", "prefetch"):
      del fields[name]
    return fields


def evaluation_config(batch_size: int, crop_size: int) -> LoaderConfig:
  """Every sample once, in order, in its centre crop; the last batch may be short."""
  return LoaderConfig(
    batch_size=batch_size,
    crop_size=crop_size,
    shuffle=False,
    random_crop=False,
    num_epochs=1,
    drop_remainder=False,
  )


class Loader(Iterator[Batch]):
  """An iterator over batches whose place can be saved and restored.

  Attributes:
    num_samples: samples of an epoch on this host, after the filter.
    num_batches: batches in all, None for endlessly many.
  """

  def __init__(
    self,
    batches: grain.MapDataset,
    config: LoaderConfig,
    *,
    num_samples: int,
    identity: str,
  ):
    """Starts at the first batch; `make_loader` is the way to call it."""
    self._batches = batches
    self._config = config
    self._identity = identity
    self._position = 0
    self._iterator: Iterator[Batch] | None = None
    self._close = weakref.finalize(self, lambda: None)
    self.num_batches = None if config.num_epochs is None else len(batches)
    self.num_samples = num_samples

  def __next__(self) -> Batch:
    if self._iterator is None:
      self._iterator = self._start()
    batch = next(self._iterator)
    self._position += 1
    return batch

  def get_state(self) -> bytes:
    """Returns the place of the iterator as JSON, to be stored with a checkpoint."""
    state = {"next_batch": self._position, "identity": self._identity}
    return json.dumps(state, sort_keys=True).encode()

  def set_state(self, state: bytes) -> None:
    """Goes to the place that `get_state` returned, in this process or another.

    Raises:
      LoaderError: the state is of another dataset or another configuration, with
        which the batches would be others.
    """
    try:
      content = json.loads(state)
      position, identity = int(content["next_batch"]), content["identity"]
    except (ValueError, KeyError, TypeError) as error:
      raise LoaderError(
        f"the state is {state[:80]!r}, expected what get_state returned"
      ) from error
    if identity != self._identity:
      raise LoaderError(
        "the state is of another dataset or loader configuration; found "
        f"{identity}, expected {self._identity}; resume with those of the run, or "
        "start a new one"
      )
    self.close()
    self._position = position

  def close(self) -> None:
    """Stops threads and workers; asked for a batch again, the loader goes on."""
    self._close()
    self._iterator = None

  def _start(self) -> Iterator[Batch]:
    config = self._config
    rest = self._batches[self._position :].to_iter_dataset(
      grain.ReadOptions(
        num_threads=config.num_threads, prefetch_buffer_size=config.prefetch
      )
    )
    if config.num_workers:
      rest = rest.mp_prefetch(
        grain.MultiprocessingOptions(
          num_workers=config.num_workers, per_worker_buffer_size=config.prefetch
        )
      )
    iterator = iter(rest)
    # Also when the program ends: workers left to the interpreter's last moments
    # leak their shared memory.
    self._close = weakref.finalize(self, iterator.close)
    return iterator


def make_loader(
  dataset: source.Dataset,
  config: LoaderConfig,
  frames: frames_lib.Frames | None = None,
) -> Loader:
  """Makes an iterator over batches of a dataset's samples.

  Args:
    dataset: the attempts.
    config: which samples, in what order, and how they are changed.
    frames: images of the same dataset, of `frames.load_frames`; None decodes the
      images of each sample anew.

  Returns:
    The iterator, before its first batch.

  Raises:
    LoaderError: crops are larger than frames, no sample or no full batch is left,
      or the frames are not those of the dataset.
  """
  frames = frames or frames_lib.DecodedFrames(dataset)
  _check(dataset, config, frames)
  samples = samples_lib.samples_of(dataset.attempts).within(
    config.min_distance, config.max_distance
  )
  if len(samples) < config.host_count:
    raise LoaderError(
      f"{len(samples)} samples of {len(dataset)} attempts are at a distance of "
      f"{config.min_distance} to {config.max_distance} m, expected at least one for "
      f"each of {config.host_count} hosts; widen the range or collect more attempts"
    )
  # Numbers of samples go through Grain, whole batches through NumPy: Grain's cost
  # for each element would be felt with small images.
  numbers = grain.MapDataset.range(len(samples)).seed(config.seed)
  if config.shuffle:
    numbers = numbers.shuffle()
  numbers = numbers[config.host_index :: config.host_count]
  assemble = functools.partial(
    _assemble,
    samples=samples,
    frames=frames,
    config=config,
    frame_size=dataset.frame_size,
  )
  batches = (
    numbers.repeat(config.num_epochs)
    .batch(config.batch_size, drop_remainder=config.drop_remainder)
    .random_map(assemble)
  )
  if len(batches) == 0:
    raise LoaderError(
      f"{len(numbers)} samples do not fill a batch of {config.batch_size}; make "
      "batches smaller, or keep the remainder with drop_remainder=False"
    )
  identity = f"dataset {dataset.fingerprint}, {json.dumps(config.identity())}"
  return Loader(batches, config, num_samples=len(numbers), identity=identity)


def _check(
  dataset: source.Dataset, config: LoaderConfig, frames: frames_lib.Frames
) -> None:
  if config.crop_size > dataset.frame_size:
    raise LoaderError(
      f"crop_size is {config.crop_size}, expected at most {dataset.frame_size}, the "
      "size of the dataset's frames; use the preset that the data was collected for"
    )
  if frames.fingerprint != dataset.fingerprint:
    raise LoaderError(
      f"the frames are of dataset {frames.fingerprint}, expected "
      f"{dataset.fingerprint}; load the frames of this dataset"
    )
  if config.num_workers and isinstance(frames, frames_lib.CachedFrames):
    raise LoaderError(
      f"num_workers is {config.num_workers}, expected 0 with cached frames: each "
      "worker would hold a copy of them"
    )


def _assemble(
  numbers: np.ndarray,
  rng: np.random.Generator,
  *,
  samples: samples_lib.Samples,
  frames: frames_lib.Frames,
  config: LoaderConfig,
  frame_size: int,
) -> Batch:
  """Makes a batch of the samples with the given numbers; `rng` is of this batch."""
  count, size = len(numbers), config.crop_size
  if config.random_crop:
    offsets = transforms.random_offsets(rng, count, frame_size, size)
  else:
    offsets = transforms.centre_offsets(count, frame_size, size)
  is_mirrored = rng.random(count) < config.mirror_probability
  colours = None if config.jitter.is_off else config.jitter.draw(rng, count)

  images = np.empty((2, count, size, size, 3), np.uint8)
  for i, number in enumerate(numbers):
    pair = frames.pair(samples.attempt[number], samples.step[number])
    for out, image in zip(images[:, i], pair, strict=True):
      image = transforms.crop(image, offsets[i], size)
      if is_mirrored[i]:
        image = transforms.mirror_image(image)
      out[:] = (
        image if colours is None else transforms.jitter_colours(image, colours[i])
      )

  command = samples.command[numbers]
  command[is_mirrored] = transforms.mirror_command(command[is_mirrored])
  return Batch(
    pregrasp_image=images[0],
    image=images[1],
    command=command,
    success=samples.success[numbers],
    step=samples.step[numbers],
    num_steps=samples.num_steps[numbers],
    distance=samples.distance[numbers],
    attempt=samples.attempt[numbers],
  )
