"""Files that are either whole or absent, whatever moment the power fails."""

import contextlib
import os
import uuid
from pathlib import Path

_TEMPORARY = ".tmp-"


def temporary_path(path: Path) -> Path:
  """Returns a fresh name beside `path` that no reader takes for a finished file.

  Two writers never share it, so that a process left over from a killed run cannot
  write into the file of the run that took its place.
  """
  return path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")


def remove_temporaries(path: Path) -> None:
  """Removes what killed writers of `path` have left behind."""
  for leftover in path.parent.glob(f"{_TEMPORARY}{path.name}-*"):
    with contextlib.suppress(FileNotFoundError):
      leftover.unlink()


def publish(temporary: Path, path: Path) -> None:
  """Gives a complete temporary file its final name, durably.

  Raises:
    OSError: the disk is full, or the temporary file is gone.
  """
  _sync(temporary)
  os.replace(temporary, path)
  # The new name is an entry of the folder, which has to reach the disk as well.
  _sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
  """Writes a file so that a reader sees all of it or none.

  Raises:
    OSError: the folder is missing or cannot be written, or the disk is full.
  """
  temporary = temporary_path(path)
  try:
    temporary.write_bytes(data)
    publish(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def _sync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
