"""Batches of samples: shuffled, augmented, sharded over hosts, resumable.

Grain makes every batch a pure function of the dataset, the configuration and the
number of the batch. So the state of an iterator is that number, a resumed run sees
the very same batches with any number of workers, and augmentation is included.

Several hosts make the rows of one and the same batch: order, crops, mirrors and colours
belong to the sample's row in the batch of all of them. Joined, their batches are what
one host makes alone, and a state of one is a state of all.

A curriculum is one loader for each phase, all on the same frames:

    frames = load_frames(dataset, cache_bytes=2**30)
    config = LoaderConfig(batch_size=64, crop_size=64, max_distance=0.01)
    zero = make_loader(dataset, config, frames)
    near = make_loader(dataset, dataclasses.replace(config, max_distance=0.07), frames)
"""

import json
import weakref
from collections.abc import Iterator

import grain
import numpy as np

from data_pipeline import batches as batches_lib
from data_pipeline import frames as frames_lib
from data_pipeline import order as order_lib
from data_pipeline import samples as samples_lib
from data_pipeline import source
from data_pipeline.loader_config import LoaderConfig, LoaderError, evaluation_config

__all__ = [
  "Batch", "Loader", "LoaderConfig", "LoaderError", "evaluation_config", "make_loader",
]  # fmt: skip

Batch = batches_lib.Batch


class Loader(Iterator[Batch]):
  """An iterator over batches whose place can be saved and restored.

  Attributes:
    num_samples: samples of an epoch on all hosts, after the filter.
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
      images of each sample.

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
  numbers = order_lib.share(
    _numbers(dataset, samples, config),
    batch_size=config.batch_size,
    host_index=config.host_index,
    host_count=config.host_count,
    drop_remainder=config.drop_remainder,
  )
  assemble = batches_lib.Assembler(
    samples=samples,
    frames=frames,
    frame_size=dataset.frame_size,
    crop_size=config.crop_size,
    random_crop=config.random_crop,
    mirror_probability=config.mirror_probability,
    jitter=config.jitter,
    skip_broken=dataset.on_bad_record == "skip",
    host_index=config.host_index,
    host_count=config.host_count,
  )
  # Numbers of samples go through Grain, whole batches through NumPy: Grain's cost
  # for each element would be felt with small images.
  batches = numbers.batch(
    config.batch_size, drop_remainder=config.drop_remainder
  ).random_map(assemble)
  if len(batches) == 0:
    raise LoaderError(
      f"{len(samples)} samples do not fill a batch of "
      f"{config.batch_size * config.host_count}; make batches smaller, or keep the "
      "remainder with drop_remainder=False"
    )
  identity = f"dataset {dataset.fingerprint}, {json.dumps(config.identity())}"
  return Loader(batches, config, num_samples=len(samples), identity=identity)


def _numbers(
  dataset: source.Dataset, samples: samples_lib.Samples, config: LoaderConfig
) -> grain.MapDataset:
  """Returns the numbers of samples in the order of the batches of all hosts."""

  def order(count: int) -> grain.MapDataset:
    return order_lib.numbers_of(count, seed=config.seed, shuffle=config.shuffle)

  if not config.mixture:
    return order(len(samples)).repeat(config.num_epochs)
  part = dataset.part[samples.attempt]
  members = [np.flatnonzero(part == i) for i in range(len(config.mixture))]
  if dataset.num_parts > len(config.mixture):
    raise LoaderError(
      f"mixture has {len(config.mixture)} weights, expected one for each of "
      f"{dataset.num_parts} datasets"
    )
  for i, member in enumerate(members):
    if not len(member):
      raise LoaderError(
        f"dataset {i} of the mixture has 0 samples at a distance of "
        f"{config.min_distance} to {config.max_distance} m, expected at least one; "
        "leave it out, or collect more attempts"
      )
  parts = [order(len(member)).repeat() for member in members]
  return order_lib.mix(parts, members, config.mixture, config.seed)


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
