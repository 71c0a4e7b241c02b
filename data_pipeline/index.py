"""The index: the table of attempts as a file, so that opening reads no record.

One lies beside each finished shard, made of what went into it, and one holds the
whole dataset. Nothing in them is new: a missing or damaged index costs the time to
read the records again, and no attempt.
"""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import attempts as attempts_lib
from data_pipeline import files
from data_pipeline import plan as plan_lib

# Raised when columns change; an index of another format is not used.
_FORMAT = 1


def write(path: Path, table: attempts_lib.Attempts) -> plan_lib.Index:
  """Writes a table; equal tables give equal files.

  Raises:
    OSError: the folder cannot be written, or the disk is full.
  """
  buffer = io.BytesIO()
  # Not compressed, so that it is read as fast as the disk gives it.
  np.savez(buffer, **_to_arrays(table))
  data = buffer.getvalue()
  files.write_whole(path, data)
  return plan_lib.Index(len(data), hashlib.sha256(data).hexdigest())


def read(path: Path, expected: plan_lib.Index) -> attempts_lib.Attempts:
  """Reads a table back.

  Args:
    path: where `write` put it.
    expected: what `write` returned.

  Raises:
    DatasetError: the file is missing, damaged, or of another format.
  """
  try:
    data = path.read_bytes()
  except OSError as error:
    raise plan_lib.DatasetError(f"index {path}: {error.strerror}") from error
  if len(data) != expected.num_bytes:
    raise plan_lib.DatasetError(
      f"index {path} has {len(data)} bytes, expected {expected.num_bytes}"
    )
  if (checksum := hashlib.sha256(data).hexdigest()) != expected.sha256:
    raise plan_lib.DatasetError(
      f"index {path} has the checksum {checksum}, expected {expected.sha256}"
    )
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
      return _from_arrays(dict(arrays))
  except (ValueError, KeyError, zipfile.BadZipFile) as error:
    raise plan_lib.DatasetError(
      f"index {path} is of another format ({error}), expected format {_FORMAT}"
    ) from error


def _to_arrays(table: attempts_lib.Attempts) -> dict[str, Any]:
  arrays: dict[str, Any] = {"format": np.array(_FORMAT), "poses": table.poses}
  arrays |= {name: getattr(table, name) for name in attempts_lib.NUMBERS}
  for name in (*attempts_lib.TEXTS, *attempts_lib.TEXT_LISTS):
    column = getattr(table, name)
    arrays[f"{name}.codes"] = column.codes
    arrays[f"{name}.names"] = np.array(column.names, np.str_)
    if name in attempts_lib.TEXT_LISTS:
      arrays[f"{name}.counts"] = column.counts
  return arrays


def _from_arrays(arrays: dict[str, np.ndarray]) -> attempts_lib.Attempts:
  if int(arrays["format"]) != _FORMAT:
    raise ValueError(f"format {arrays['format']}")
  columns: dict[str, Any] = {
    name: arrays[name] for name in ("poses", *attempts_lib.NUMBERS)
  }
  for name in attempts_lib.TEXTS:
    columns[name] = attempts_lib.Texts(
      arrays[f"{name}.codes"], arrays[f"{name}.names"].tolist()
    )
  for name in attempts_lib.TEXT_LISTS:
    columns[name] = attempts_lib.TextLists(
      arrays[f"{name}.codes"],
      arrays[f"{name}.counts"],
      arrays[f"{name}.names"].tolist(),
    )
  return attempts_lib.Attempts(**columns)
