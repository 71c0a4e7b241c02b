"""Crash-safe shards of attempts, written by any number of processes and machines.

    directory = plan.begin(root, Plan("train", num_shards=12, frame_size=72))
    for shard in writer.pending_shards(directory):     # or a part of them
      with writer.ShardWriter(directory, shard) as shard_writer:
        shard_writer.write(attempt)
    finish.finalize(directory)                         # whoever sees none pending

A shard has its final name only once it is whole. Killed at any moment, the same
lines go on with the shards that are missing. Writers need no word between them: two
that make the same shard do so under different names, and the first one counts.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

from absl import logging
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from data_pipeline import attempts as attempts_lib
from data_pipeline import files, records, schema
from data_pipeline import index as index_lib
from data_pipeline import plan as plan_lib

# One record a chunk, so that a sample costs one record and a flipped byte loses one.
# JPEG does not compress further, but the rest of a record does.
_WRITER_OPTIONS = "group_size:1"


class ShardWriter:
  """Writes one shard; a context manager.

  The shard appears under its final name when the block ends without an exception;
  otherwise nothing remains of it. Where another writer has finished the same shard
  meanwhile, that one is kept and this one is dropped.

  Equal attempts in equal order give equal files, byte for byte.

  Attributes:
    is_published: after the block, whether the shard is this writer's.
  """

  def __init__(self, directory: str | Path, shard: int):
    """Opens the shard.

    Args:
      directory: the folder that `plan.begin` returned.
      shard: 0 <= shard < num_shards of the plan.

    Raises:
      DatasetError: no dataset was begun there, it has no such shard, or the folder
        cannot be written.
    """
    self._directory = Path(directory)
    self._plan = plan_lib.read_plan(self._directory)
    if not 0 <= shard < self._plan.num_shards:
      raise plan_lib.DatasetError(
        f"dataset {self._directory} has no shard {shard}, expected 0 to "
        f"{self._plan.num_shards - 1}"
      )
    self._shard = shard
    self._path = self._directory / self._plan.shard_file(shard)
    self._ids: set[str] = set()
    self._rows: list[dict[str, Any]] = []
    self.is_published = False
    try:
      with files.locked(self._directory / plan_lib.PLAN_FILE):
        files.remove_temporaries(self._directory, self._path.name)
        self._temporary, self._hold = files.hold_temporary(self._path)
    except Exception as error:
      raise self._cannot_write(error) from error
    try:
      self._writer = ArrayRecordWriter(str(self._temporary), _WRITER_OPTIONS)
    except BaseException as error:
      self._let_go()
      if not isinstance(error, Exception):
        raise
      raise self._cannot_write(error) from error

  @property
  def num_attempts(self) -> int:
    """How many attempts were written so far."""
    return len(self._ids)

  def write(self, attempt: records.AttemptRecord) -> None:
    """Validates, encodes and appends an attempt.

    Raises:
      RecordError: the attempt breaks the schema, has images of another size than
        the plan says, or an attempt_id that the shard has already.
      DatasetError: the disk is full or gone.
    """
    data = records.encode(attempt)
    size, attempt_id = attempt["pregrasp_image"].shape[0], attempt["attempt_id"]
    if size != self._plan.frame_size:
      raise records.RecordError(
        f"attempt {attempt_id!r} has images of {size} pixels, expected "
        f"{self._plan.frame_size} as in the plan of {self._directory}"
      )
    if attempt_id in self._ids:
      raise records.RecordError(
        f"attempt_id {attempt_id!r} is in shard {self._shard} already, expected each "
        "attempt once"
      )
    try:
      self._writer.write(data)
    except Exception as error:
      raise self._cannot_write(error) from error
    self._ids.add(attempt_id)
    fields = schema.complete(attempt)
    self._rows.append({name: fields[name] for name in attempts_lib.FIELDS})

  def __enter__(self) -> "ShardWriter":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    try:
      self._close(keep=kind is None)
    finally:
      self._let_go()

  def _let_go(self) -> None:
    self._temporary.unlink(missing_ok=True)
    os.close(self._hold)

  def _close(self, *, keep: bool) -> None:
    try:
      self._writer.close()
    except Exception as error:
      if keep:
        raise self._cannot_write(error) from error
    if not keep:
      return
    if not self._ids:
      raise plan_lib.DatasetError(
        f"shard {self._shard} of {self._directory} got no attempt, expected at least "
        "one; plan fewer shards"
      )
    try:
      count, checksum = self._count(), files.sha256(self._temporary)
      num_bytes = self._temporary.stat().st_size
      with files.locked(self._directory / plan_lib.PLAN_FILE):
        if is_finished(self._directory, self._plan, self._shard):
          logging.info("%s was made by another writer meanwhile", self._path)
          return
        files.publish(self._temporary, self._path)
        index = index_lib.write(
          plan_lib.shard_index(self._directory, self._shard),
          attempts_lib.tabulate(self._rows),
        )
        shard = plan_lib.Shard(self._path.name, count, num_bytes, checksum, index)
        # Last: until this entry is there, the shard counts as missing.
        plan_lib.write_shard(self._directory, self._shard, shard)
      self.is_published = True
    except OSError as error:
      raise self._cannot_write(error) from error

  def _count(self) -> int:
    """Counts the records that reached the file, by reading it."""
    try:
      reader = ArrayRecordReader(str(self._temporary))
      count = reader.num_records()
      reader.close()
    except Exception as error:
      raise self._cannot_write(error) from error
    if count != self.num_attempts:
      raise self._cannot_write(
        f"{count} attempts reached the file, expected {self.num_attempts}"
      )
    return count

  def _cannot_write(self, reason: Exception | str) -> plan_lib.DatasetError:
    return plan_lib.DatasetError(
      f"cannot write shard {self._path}: {reason}; free some space or repair the "
      "folder, then run the collection again: finished shards are kept"
    )


def pending_shards(
  directory: str | Path, *, worker_index: int = 0, worker_count: int = 1
) -> list[int]:
  """Returns the shards that are not finished yet, in order.

  Args:
    directory: the folder that `plan.begin` returned.
    worker_index: whose share of them, 0 <= worker_index < worker_count. The shares
      are disjoint and together all.
    worker_count: how many writers fill the dataset.

  Raises:
    DatasetError: no dataset was begun in the folder, or there is no such worker.
  """
  if not 0 <= worker_index < worker_count:
    raise plan_lib.DatasetError(
      f"worker_index is {worker_index}, expected 0 to {worker_count - 1} as "
      f"worker_count is {worker_count}"
    )
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)
  mine = range(worker_index, plan.num_shards, worker_count)
  return [shard for shard in mine if not is_finished(directory, plan, shard)]


def is_finished(directory: Path, plan: plan_lib.Plan, shard: int) -> bool:
  """Returns whether a shard is there, and as long as its entry says."""
  entry = plan_lib.read_shard(directory, shard)
  path = directory / plan.shard_file(shard)
  # The size tells a file that was cut or replaced since, at no cost.
  return entry is not None and path.exists() and path.stat().st_size == entry.num_bytes
