"""Records of TFRecord files, without TensorFlow.

A file is a row of records, each a length, its checksum, the data, its checksum:

  uint64 length | uint32 masked crc32c(length) | length bytes | uint32 masked crc32c

all little-endian, the whole perhaps compressed with gzip. One record at a time is
in memory.
"""

import contextlib
import dataclasses
import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from data_pipeline.importers.crc32c import masked_crc32c

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_GZIP = b"\x1f\x8b"
# No attempt comes near it; a length beyond is not worth an attempt to allocate it.
_LONGEST = 1 << 31


@dataclasses.dataclass(frozen=True)
class Raw:
  """One record as it lies in its file.

  Attributes:
    number: position in the file, from 0.
    data: the bytes; empty where the record is broken.
    problem: what is wrong with it; empty where nothing is.
    position: bytes of the file, as it lies on disk, that were read so far.
    unread: bytes after the record, uncompressed as far as they can be, in which
      nothing says where a record begins. The file ends here then.
  """

  number: int
  data: bytes
  problem: str
  position: int
  unread: int = 0


def read(path: str | Path) -> Iterator[Raw]:
  """Yields the records of a file in order, broken ones as such.

  A record whose data does not fit its checksum is reported, and the next one read.
  Where a length is broken or the file ends within a record, nothing says where the
  next one begins: that is reported once, with the number of bytes that are lost, and
  the file ends there.

  Raises:
    OSError: the file cannot be opened or read.
  """
  with Path(path).open("rb") as file:
    stream = cast(BinaryIO, gzip.open(file)) if _is_gzip(file) else file
    number, goes_on = 0, True
    size, begin = os.fstat(file.fileno()).st_size, 0
    while goes_on:
      unread = 0
      try:
        data, problem, goes_on = _next(stream)
        if not goes_on:
          unread = _rest(stream)
      except EOFError as error:
        data, problem, goes_on = b"", f"the compressed file is broken: {error}", False
      except (zlib.error, gzip.BadGzipFile) as error:
        data, problem, goes_on = b"", f"the compressed file is broken: {error}", False
        # What the decompressor holds of it is lost as well: counted as it lies there.
        unread = size - begin
      if data is None:
        return
      if unread:
        problem += f"; nothing after it can be read ({unread:,} bytes)"
      begin = file.tell()
      yield Raw(number, data, problem, begin, unread)
      number += 1


def _next(stream: BinaryIO) -> tuple[bytes | None, str, bool]:
  """Reads one record: data (None at the end), what is wrong, whether to go on."""
  header = stream.read(_HEADER.size)
  if not header:
    return None, "", False
  if len(header) < _HEADER.size:
    return b"", f"the file ends after {len(header)} bytes of a record's header", False
  length, checksum = _HEADER.unpack(header)
  if masked_crc32c(header[:8]) != checksum or length > _LONGEST:
    return b"", "the record's length does not fit its checksum", False
  data, footer = stream.read(length), stream.read(_FOOTER.size)
  if len(data) + len(footer) < length + _FOOTER.size:
    found = len(data) + len(footer)
    return (
      b"",
      f"the file ends within the record: {found} bytes are there, expected "
      f"{length + _FOOTER.size}",
      False,
    )
  if masked_crc32c(data) != _FOOTER.unpack(footer)[0]:
    return b"", "the record's data does not fit its checksum", True
  return data, "", True


def _rest(stream: BinaryIO) -> int:
  """Counts the bytes up to the end, or as far as they can be decompressed."""
  count = 0
  with contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
    while block := stream.read(1 << 14):
      count += len(block)
  return count


def _is_gzip(file: BinaryIO) -> bool:
  """Whether a file is compressed; two bytes alone could also begin a length."""
  header = file.read(_HEADER.size)
  file.seek(0)
  if not header.startswith(_GZIP):
    return False
  return len(header) < _HEADER.size or (
    masked_crc32c(header[:8]) != _HEADER.unpack(header)[1]
  )
