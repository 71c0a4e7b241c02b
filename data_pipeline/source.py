"""Opens finished datasets: checks them, reads any attempt, merges and splits.

Opening reads every record once, without decoding images, so that a broken one is
named at the start and not in the middle of a training run.
"""

import dataclasses
import functools
import hashlib
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordReader

from data_pipeline import plan as plan_lib
from data_pipeline import records, writer

# Records read at once while scanning: enough to hide the calls, small in memory.
_SCAN_BLOCK = 64

# Without read-ahead, as attempts are read in random order afterwards.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


@dataclasses.dataclass(frozen=True)
class Attempts:
  """What is known of A attempts with S steps in all, without their images.

  Attributes:
    poses: float32[S, 4], (x, y, z, yaw) of every step, attempt after attempt, robot
      base frame, metres and radians.
    num_steps: int64[A], T of each attempt.
    success: bool[A], the labels.
    unit: str[A], the robots' names.
    scene_seed: int64[A].
  """

  poses: np.ndarray
  num_steps: np.ndarray
  success: np.ndarray
  unit: np.ndarray
  scene_seed: np.ndarray

  def __len__(self) -> int:
    return len(self.num_steps)

  def take(self, indices: np.ndarray) -> "Attempts":
    """Returns the attempts of the given indices, in that order."""
    steps = np.split(self.poses, np.cumsum(self.num_steps)[:-1])
    poses = [steps[i] for i in indices] or [self.poses[:0]]
    return Attempts(
      poses=np.concatenate(poses),
      **{name: getattr(self, name)[indices] for name in _PER_ATTEMPT},
    )


_PER_ATTEMPT = ("num_steps", "success", "unit", "scene_seed")
_KEPT = ("poses", "success", "unit", "scene_seed")


class Dataset:
  """Attempts of one or more datasets, read in any order.

  Safe to use from several threads, and picklable for worker processes.

  Attributes:
    attempts: what is known of the attempts without their images.
    frame_size: height and width of the images, pixels.
    broken: a line for each record that was skipped when opening.
  """

  def __init__(
    self,
    paths: Sequence[Path],
    rows: np.ndarray,
    attempts: Attempts,
    *,
    frame_size: int,
    checksums: Sequence[str],
    broken: Sequence[str] = (),
  ):
    """Joins shards; `open_dataset` is the way to call it.

    Args:
      paths: the shards.
      rows: int64[A, 2], the shard (an index into paths) and the record within it of
        each attempt.
      attempts: what is known of these attempts.
      frame_size: pixels.
      checksums: of the shards.
      broken: what was skipped.
    """
    self._paths = tuple(paths)
    self._rows = rows
    self._checksums = tuple(checksums)
    self._readers: dict[int, ArrayRecordReader] = {}
    self._lock = threading.Lock()
    self.attempts = attempts
    self.frame_size = frame_size
    self.broken = tuple(broken)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> bytes:
    """Returns the serialized attempt 0 <= index < len, see records.decode.

    Raises:
      IndexError: there is no such attempt.
      DatasetError: it cannot be read any more.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"attempt {index} of {len(self)}")
    shard, row = (int(i) for i in self._rows[index])
    try:
      return self._reader(shard).read([row])[0]
    except Exception as error:
      raise plan_lib.DatasetError(
        f"cannot read record {row} of {self._paths[shard]}: {error}; the file changed "
        "since the dataset was opened"
      ) from error

  def __iter__(self) -> Iterator[bytes]:
    return (self[index] for index in range(len(self)))

  @functools.cached_property
  def fingerprint(self) -> str:
    """What the attempts and their order are, as a checksum of 16 digits."""
    digest = hashlib.sha256(" ".join(self._checksums).encode())
    digest.update(np.ascontiguousarray(self._rows).tobytes())
    return digest.hexdigest()[:16]

  def select(self, indices: np.ndarray) -> "Dataset":
    """Returns the dataset of the attempts with the given indices, in that order."""
    indices = np.asarray(indices, np.int64)
    return Dataset(
      self._paths,
      self._rows[indices],
      self.attempts.take(indices),
      frame_size=self.frame_size,
      checksums=self._checksums,
      broken=self.broken,
    )

  def _reader(self, shard: int) -> ArrayRecordReader:
    with self._lock:
      if shard not in self._readers:
        self._readers[shard] = _open_shard(self._paths[shard])
      return self._readers[shard]

  def __getstate__(self) -> dict[str, Any]:
    # Open files and locks stay behind; the copy opens its own.
    return self.__dict__ | {"_readers": {}, "_lock": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._lock = threading.Lock()


def open_dataset(
  directory: str | Path,
  *,
  on_bad_record: Literal["fail", "skip"] = "fail",
  verify: bool = False,
) -> Dataset:
  """Opens a finished dataset and checks it.

  Args:
    directory: `<root>/<name>/<version>`.
    on_bad_record: whether a broken shard or record is an error, or is left out,
      logged and listed in `Dataset.broken`.
    verify: whether to compare the checksum of every shard as well. A flipped byte
      in a record is found without it, as records carry checksums of their own.

  Returns:
    The dataset.

  Raises:
    DatasetError: the dataset is missing, unfinished, broken or empty; names file
      and record.
  """
  if on_bad_record not in ("fail", "skip"):
    raise ValueError(f"on_bad_record is {on_bad_record!r}, expected 'fail' or 'skip'")
  directory = Path(directory)
  manifest = plan_lib.read_manifest(directory)
  broken: list[str] = []

  def report(problem: str) -> None:
    if on_bad_record == "fail":
      raise plan_lib.DatasetError(
        f"{problem}; collect that shard again (remove it and run the collection)"
      )
    logging.warning("left out: %s", problem)
    broken.append(problem)

  rows: list[tuple[int, int]] = []
  decoded: list[dict[str, Any]] = []
  for number, shard in enumerate(manifest.shards):
    path = directory / shard.file
    if problem := _shard_problem(path, shard, verify):
      report(problem)
      continue
    for row, record in _scan(path, report):
      rows.append((number, row))
      decoded.append({name: record[name] for name in _KEPT})
  if not rows:
    raise plan_lib.DatasetError(
      f"the dataset in {directory} has no readable attempt; collect it again"
    )
  return Dataset(
    [directory / shard.file for shard in manifest.shards],
    np.array(rows, np.int64),
    _tabulate(decoded),
    frame_size=manifest.plan.frame_size,
    checksums=[shard.sha256 for shard in manifest.shards],
    broken=broken,
  )


def merge(datasets: Sequence[Dataset]) -> Dataset:
  """Joins datasets, one after the other.

  Raises:
    DatasetError: there is none, or their frames differ in size.
  """
  if not datasets:
    raise plan_lib.DatasetError("no dataset to merge, expected at least one")
  sizes = sorted({dataset.frame_size for dataset in datasets})
  if len(sizes) > 1:
    raise plan_lib.DatasetError(
      f"the datasets have frames of {sizes} pixels, expected one size; merge datasets "
      "of one preset"
    )
  shards_before = np.cumsum([0] + [len(dataset._paths) for dataset in datasets])
  rows = [
    dataset._rows + [before, 0]
    for dataset, before in zip(datasets, shards_before, strict=False)
  ]

  def joined(name: str) -> np.ndarray:
    return np.concatenate([getattr(dataset.attempts, name) for dataset in datasets])

  names = [field.name for field in dataclasses.fields(Attempts)]
  return Dataset(
    functools.reduce(operator.add, [dataset._paths for dataset in datasets]),
    np.concatenate(rows),
    Attempts(**{name: joined(name) for name in names}),
    frame_size=sizes[0],
    checksums=functools.reduce(operator.add, [d._checksums for d in datasets]),
    broken=functools.reduce(operator.add, [d.broken for d in datasets]),
  )


def split_by_unit(
  dataset: Dataset, held_out: float, seed: int
) -> tuple[Dataset, Dataset]:
  """Splits a dataset so that no robot is in both parts.

  A network can learn to recognise a robot, or a bin, and its rate of success: what
  it knows of grasping shows on units that it never saw.

  Args:
    dataset: attempts of at least two units.
    held_out: share of the units that go into the second part, between 0 and 1; at
      least one unit goes into each part.
    seed: decides which.

  Returns:
    The rest, and the held-out part.

  Raises:
    DatasetError: there is only one unit, or the share is not between 0 and 1.
  """
  units = np.unique(dataset.attempts.unit)
  if len(units) < 2 or not 0 < held_out < 1:
    raise plan_lib.DatasetError(
      f"cannot hold out a share of {held_out} of {len(units)} units, expected a share "
      "between 0 and 1 of at least 2 units; collect from more units"
    )
  count = min(max(round(held_out * len(units)), 1), len(units) - 1)
  chosen = np.random.default_rng(seed).permutation(units)[:count]
  is_held_out = np.isin(dataset.attempts.unit, chosen)
  return (
    dataset.select(np.flatnonzero(~is_held_out)),
    dataset.select(np.flatnonzero(is_held_out)),
  )


def _shard_problem(path: Path, shard: plan_lib.Shard, verify: bool) -> str | None:
  """Says what is wrong with a shard as a whole, None if nothing is."""
  if not path.exists():
    return f"shard {path} is missing"
  if (size := path.stat().st_size) != shard.num_bytes:
    return f"shard {path} has {size} bytes, expected {shard.num_bytes}"
  if verify and (checksum := writer.sha256(path)) != shard.sha256:
    return f"shard {path} has the checksum {checksum}, expected {shard.sha256}"
  try:
    count = _open_shard(path).num_records()
  except Exception as error:
    return f"shard {path} cannot be opened: {error}"
  if count != shard.num_attempts:
    return f"shard {path} has {count} records, expected {shard.num_attempts}"
  return None


def _scan(
  path: Path, report: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields position and fields, without images, of each sound record of a shard."""
  reader = _open_shard(path)
  count = reader.num_records()
  for start in range(0, count, _SCAN_BLOCK):
    block = range(start, min(start + _SCAN_BLOCK, count))
    try:
      found = reader.read(block.start, block.stop)
    except Exception:
      found = [None] * len(block)  # At least one is broken: look one by one.
    for row, data in zip(block, found, strict=True):
      try:
        yield row, records.decode(data or reader.read([row])[0], images=False)
      except Exception as error:
        report(f"record {row} of {path} is broken: {error}")


def _tabulate(decoded: Sequence[dict[str, Any]]) -> Attempts:
  def column(name: str, dtype: Any) -> np.ndarray:
    return np.array([record[name] for record in decoded], dtype)

  return Attempts(
    poses=np.concatenate([record["poses"] for record in decoded]),
    num_steps=np.array([len(record["poses"]) for record in decoded], np.int64),
    success=column("success", np.bool_),
    unit=column("unit", np.str_),
    scene_seed=column("scene_seed", np.int64),
  )


def _open_shard(path: Path) -> ArrayRecordReader:
  return ArrayRecordReader(
    str(path), options=_READER_OPTIONS, file_reader_buffer_size=32768
  )
