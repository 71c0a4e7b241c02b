"""Files that are either complete or absent, even after a power failure."""

import contextlib
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = ".tmp-"

# What flock says where it does not get a lock, or where there are none: network and
# user-space file systems differ in how they say so.
_NO_LOCK = (
  *(errno.EWOULDBLOCK, errno.ENOLCK, errno.ENOSYS),
  *(errno.ENOTSUP, errno.EOPNOTSUPP),
)


def temporary_path(path: Path) -> Path:
  """Returns a fresh name beside `path` that no reader takes for a finished file.

  Two writers never share it, so that a process left over from a killed run cannot
  write into the file of the run that took its place.
  """
  return path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex}")


def hold_temporary(path: Path) -> tuple[Path, int]:
  """Makes a temporary file for `path` that says, while held, that a writer lives.

  Returns:
    The file, and a descriptor to close when it was published or given up; the end of
    the process closes it, too.

  Raises:
    OSError: the folder cannot be written.
  """
  temporary = temporary_path(path)
  descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
  _try_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  return temporary, descriptor


def remove_temporaries(folder: Path, name: str = "*") -> None:
  """Removes what dead writers have left in a folder, and nothing of living ones.

  On a file system without locks this is not known, and everything stays.

  Args:
    folder: where to look; files that are written without being held must not be
      under way in it.
    name: of the files that were to be written.
  """
  for leftover in folder.glob(f"{_TEMPORARY}{name}-*"):
    with contextlib.suppress(FileNotFoundError, IsADirectoryError):
      descriptor = os.open(leftover, os.O_RDWR)
      try:
        if _try_lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
          leftover.unlink()
      finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
  """Keeps other processes, of other machines too, out of the same block.

  The end of a process frees it. A file system without locks lets everybody in: there
  two writers of one shard are kept apart by nothing but their different names.

  Args:
    path: an existing file, which is not changed.
  """
  descriptor = os.open(path, os.O_RDWR)
  try:
    _try_lock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _try_lock(descriptor: int, operation: int) -> bool:
  try:
    fcntl.flock(descriptor, operation)
  except OSError as error:
    if error.errno not in _NO_LOCK:
      raise
    return False
  return True


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


def write_first(path: Path, data: bytes) -> bool:
  """Writes a file unless there is one, also if others try at the same moment.

  Returns:
    Whether this call wrote it.

  Raises:
    OSError: the folder is missing or cannot be written, or the disk is full.
  """
  temporary = temporary_path(path)
  try:
    temporary.write_bytes(data)
    _sync(temporary)
    try:
      os.link(temporary, path)
      _sync(path.parent)
    except FileExistsError:
      return False
    except OSError:  # A file system without links: the last one wins.
      publish(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  return True


def sha256(path: Path) -> str:
  """Returns the checksum of a file, hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
