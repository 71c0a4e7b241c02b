"""Reads the records of shards: in any order, one after the other, or to check them."""

import collections
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from data_pipeline import files, records
from data_pipeline import plan as plan_lib

# Records read at once while scanning: enough to hide the calls, small in memory.
_SCAN_BLOCK = 64

# Without read-ahead, as attempts are read in random order.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"

# Shards open at once. Each takes a file descriptor, of which a process commonly has
# 1,024; opening one again takes 40 microseconds.
_MOST_OPEN = 256


class Records:
  """The serialized attempts of any shards, in any order.

  Safe to use from several threads, and picklable for worker processes.
  """

  def __init__(self, paths: Sequence[Path], rows: np.ndarray):
    """Opens nothing yet.

    Args:
      paths: the shards.
      rows: int64[A, 2], the shard (an index into paths) and the record within it of
        each attempt.
    """
    self.paths = tuple(paths)
    self.rows = rows
    self._readers: collections.OrderedDict[int, ArrayRecordReader]
    self._readers = collections.OrderedDict()
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> bytes:
    """Returns the serialized attempt 0 <= index < len.

    Raises:
      IndexError: there is no such attempt.
      DatasetError: its record is broken; names it.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"attempt {index} of {len(self)}")
    shard, row = (int(i) for i in self.rows[index])
    try:
      return self._reader(shard).read([row])[0]
    except Exception as error:
      raise self.broken(index, error) from error

  def broken(self, index: int, reason: Exception | str) -> plan_lib.DatasetError:
    """Returns the error that names file and record of an attempt, and what to do."""
    shard, row = self.rows[index]
    path = self.paths[shard]
    return plan_lib.DatasetError(
      f"record {row} of {path} is broken: {reason}; find all that is broken with "
      f"python -m experiments.check_data --data={path.parent}, or go on without it: "
      "--on_bad_record=skip"
    )

  def _reader(self, shard: int) -> ArrayRecordReader:
    with self._lock:
      if shard not in self._readers:
        self._readers[shard] = open_shard(self.paths[shard])
        if len(self._readers) > _MOST_OPEN:
          # Closed when no other thread reads from it any more.
          self._readers.popitem(last=False)
      self._readers.move_to_end(shard)
      return self._readers[shard]

  def __getstate__(self) -> dict[str, Any]:
    # Open files and locks stay behind; the copy opens its own.
    return self.__dict__ | {"_readers": collections.OrderedDict(), "_lock": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._lock = threading.Lock()


def open_shard(path: Path) -> ArrayRecordReader:
  """Opens a shard. Raises an exception of ArrayRecord's if it cannot be read."""
  return ArrayRecordReader(
    str(path), options=_READER_OPTIONS, file_reader_buffer_size=32768
  )


def size_problem(path: Path, shard: plan_lib.Shard) -> str | None:
  """Says whether a shard is missing or of another size, without opening it."""
  if not path.exists():
    return f"shard {path} is missing"
  if (size := path.stat().st_size) != shard.num_bytes:
    return f"shard {path} has {size} bytes, expected {shard.num_bytes}"
  return None


def count_problem(path: Path, shard: plan_lib.Shard) -> str | None:
  """Says whether a shard cannot be opened, or has another number of records."""
  try:
    count = open_shard(path).num_records()
  except Exception as error:
    return f"shard {path} cannot be opened: {error}"
  if count != shard.num_attempts:
    return f"shard {path} has {count} records, expected {shard.num_attempts}"
  return None


def checksum_problem(path: Path, shard: plan_lib.Shard) -> str | None:
  """Says whether a byte of a shard is not as it was written."""
  if (checksum := files.sha256(path)) != shard.sha256:
    return f"shard {path} has the checksum {checksum}, expected {shard.sha256}"
  return None


def scan(
  path: Path,
  report: Callable[[int, str], None],
  parse: Callable[[bytes], dict[str, Any]],
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields number and content of each sound record of a shard, in order.

  Args:
    path: the shard.
    report: called with the number of each record that is not, and the reason.
    parse: makes the content; what it raises is the reason.
  """
  reader = open_shard(path)
  count = reader.num_records()
  for start in range(0, count, _SCAN_BLOCK):
    block = range(start, min(start + _SCAN_BLOCK, count))
    try:
      found = reader.read(block.start, block.stop)
    except Exception:
      found = [None] * len(block)  # At least one is broken: look one by one.
    for row, data in zip(block, found, strict=True):
      try:
        content = parse(data or reader.read([row])[0])
      except Exception as error:
        report(row, str(error))
      else:
        yield row, content


def without_images(data: bytes) -> dict[str, Any]:
  """Parses a record for the table of attempts."""
  return records.decode(data, images=False)
