"""Crash-safe shards of attempts, and the files that make them a TFDS dataset.

    directory = plan.begin(root, Plan("train", num_shards=12, frame_size=72))
    for shard in writer.pending_shards(directory):     # on any number of processes
      with writer.ShardWriter(directory, shard) as shard_writer:
        shard_writer.write(attempt)
    writer.finalize(directory)

A shard has its final name only once it is whole. Killed at any moment, the same
lines go on with the shards that are missing.
"""

import hashlib
import tempfile
from pathlib import Path
from types import TracebackType

import tensorflow_datasets as tfds
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from data_pipeline import files, records
from data_pipeline import plan as plan_lib

# One record a chunk, so that a sample costs one record and a flipped byte loses one.
# JPEG does not compress further, but the rest of a record does.
_WRITER_OPTIONS = "group_size:1"


class ShardWriter:
  """Writes one shard; a context manager.

  The shard appears under its final name when the block ends without an exception;
  otherwise nothing remains of it. One process writes a shard at a time; different
  shards need no word between their writers.

  Equal attempts in equal order give equal files, byte for byte.
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
    self._temporary = files.temporary_path(self._path)
    files.remove_temporaries(self._path)
    try:
      self._writer = ArrayRecordWriter(str(self._temporary), _WRITER_OPTIONS)
    except Exception as error:
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
      self._temporary.unlink(missing_ok=True)

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
      shard = plan_lib.Shard(
        file=self._path.name,
        num_attempts=self._count(),
        num_bytes=self._temporary.stat().st_size,
        sha256=sha256(self._temporary),
      )
      files.publish(self._temporary, self._path)
      # Last: until this entry is there, the shard counts as missing.
      plan_lib.write_shard(self._directory, self._shard, shard)
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
      f"cannot write shard {self._path}: {reason}; free some space or mend the "
      "folder, then run the collection again: finished shards are kept"
    )


def pending_shards(directory: str | Path) -> list[int]:
  """Returns the shards that are not finished yet, in order.

  Raises:
    DatasetError: no dataset was begun in the folder.
  """
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)

  def is_finished(shard: int) -> bool:
    entry = plan_lib.read_shard(directory, shard)
    path = directory / plan.shard_file(shard)
    # The size tells a file that was cut or replaced since, at no cost.
    return (
      entry is not None and path.exists() and path.stat().st_size == entry.num_bytes
    )

  return [shard for shard in range(plan.num_shards) if not is_finished(shard)]


def finalize(directory: str | Path) -> plan_lib.Manifest:
  """Turns finished shards into a finished dataset that TFDS reads.

  Writes features.json and dataset_info.json, then manifest.json. Calling it again
  changes nothing.

  Args:
    directory: the folder that `plan.begin` returned.

  Returns:
    What the dataset consists of.

  Raises:
    DatasetError: shards are missing, or the folder cannot be written.
  """
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)
  if pending := pending_shards(directory):
    raise plan_lib.DatasetError(
      f"{len(pending)} of {plan.num_shards} shards of {directory} are missing: "
      f"{pending[:10]}{' ...' if len(pending) > 10 else ''}; run the collection again "
      "to make them"
    )
  shards = []
  for shard in range(plan.num_shards):
    files.remove_temporaries(directory / plan.shard_file(shard))
    entry = plan_lib.read_shard(directory, shard)
    assert entry is not None  # Not pending.
    shards.append(entry)
  manifest = plan_lib.Manifest(plan, tuple(shards))
  try:
    _write_tfds_files(directory, manifest)
    plan_lib.write_manifest(directory, manifest)
  except OSError as error:
    raise plan_lib.DatasetError(
      f"cannot finish the dataset in {directory}: {error}; mend the folder and run "
      "the collection again: finished shards are kept"
    ) from error
  return manifest


def sha256(path: Path) -> str:
  """Returns the checksum of a file, hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _write_tfds_files(directory: Path, manifest: plan_lib.Manifest) -> None:
  plan = manifest.plan
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=plan.name,
      version=tfds.core.Version(plan.version),
      data_dir=str(directory),
      module_name="",
    ),
    features=records.features(plan.frame_size),
    description="Grasp attempts of simulated robots, one RLDS episode an attempt.",
  )
  info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
  split = tfds.core.SplitInfo(
    name=plan_lib.SPLIT,
    shard_lengths=[shard.num_attempts for shard in manifest.shards],
    num_bytes=sum(shard.num_bytes for shard in manifest.shards),
    filename_template=tfds.core.ShardedFileTemplate(
      data_dir=directory,
      dataset_name=plan.name,
      split=plan_lib.SPLIT,
      filetype_suffix="array_record",
    ),
  )
  info.set_splits(tfds.core.splits.SplitDict([split]))
  # TFDS writes in place; each file is moved only when it is whole.
  with tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as staging:
    info.write_to_directory(staging)
    for path in sorted(Path(staging).iterdir()):
      files.write_whole(directory / path.name, path.read_bytes())
