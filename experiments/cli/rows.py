"""Files that are complete or absent, JSON, and rows of JSONL."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from experiments.cli.errors import UserError


def write_atomically(path: str | Path, content: str | bytes) -> None:
  """Writes a file that appears under its name only when it is whole."""
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = content.encode() if isinstance(content, str) else content
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as stream:
      stream.write(data)
      stream.flush()
      os.fsync(stream.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def to_json(value: Any, indent: int | None = None) -> str:
  """JSON that every reader accepts: NumPy scalars as numbers, NaN and inf as null."""

  def plain(item: Any) -> Any:
    if isinstance(item, Mapping):
      return {str(key): plain(entry) for key, entry in item.items()}
    if isinstance(item, list | tuple):
      return [plain(entry) for entry in item]
    if hasattr(item, "tolist"):
      return plain(item.tolist())
    if isinstance(item, float) and not math.isfinite(item):
      return None
    return item

  return json.dumps(plain(value), indent=indent)


def write_json(path: str | Path, value: Any) -> None:
  """Writes a value as an indented JSON file."""
  write_atomically(path, to_json(value, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
  """The object in a JSON file, {} if there is none. Raises UserError if broken."""
  path = Path(path)
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"{path}: no JSON ({error}); delete it") from error
  if not isinstance(content, dict):
    found = type(content).__name__
    raise UserError(f"{path}: expected a JSON object, found a {found}; delete it")
  return content


def tally(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """{count, sha256} of rows, by which a reader knows that none was lost or doubled."""
  lines = [to_json(row) for row in rows]
  digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
  return {"count": len(lines), "sha256": digest}


def check_tally(
  rows: Iterable[Mapping[str, Any]],
  expected: Mapping[str, Any] | None,
  what: str,
  advice: str,
) -> None:
  """Raises UserError unless rows have the `tally` that was written down for them.

  Args:
    expected: None if none was: files of earlier versions.
    what: names the rows and their file.
    advice: how to repair them.
  """
  if expected is None or (found := tally(rows)) == expected:
    return
  count, wanted = found["count"], expected["count"]
  said = f"{count} rows, expected {wanted}" if count != wanted else "other rows"
  raise UserError(f"{what} has {said}: lines were lost, doubled or changed; {advice}")


class JsonLines:
  """Appends rows to a JSONL file; each row is whole on disk when `write` returns.

  Several processes may append to one file. A row that was cut off by a kill or a full
  disk stays a line of its own, which `read_jsonl` skips.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path)
    self.path.parent.mkdir(parents=True, exist_ok=True)

  def write(self, row: Mapping[str, Any]) -> None:
    self.write_all([row])

  def write_all(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows that belong together."""
    text = "".join(f"{to_json(row)}\n" for row in rows)
    with open(self.path, "ab+") as stream:
      end = stream.seek(0, os.SEEK_END)
      stream.seek(max(0, end - 1))
      is_torn = stream.read(1) not in (b"", b"\n")
      stream.write((b"\n" if is_torn else b"") + text.encode())
      stream.flush()
      os.fsync(stream.fileno())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
  """Rows of a JSONL file; [] if there is none. Skips torn lines with a warning."""
  path = Path(path)
  if not path.exists():
    return []
  rows = []
  for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if isinstance(row, dict):
      rows.append(row)
    else:
      logging.warning("%s: line %d is torn and was left out", path, number)
  return rows


def rewrite_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Replaces a JSONL file as a whole."""
  write_atomically(path, "".join(to_json(row) + "\n" for row in rows))
