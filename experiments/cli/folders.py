"""Checks of work folders: they exist, are writable, and hold one configuration."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.errors import UserError
from experiments.cli.rows import to_json, write_json


def require_folder(path: str | Path, flag: str, made_by: str) -> Path:
  """The folder behind a flag. Raises UserError that says which command makes it."""
  if not str(path):
    raise UserError(f"--{flag} is needed: the folder that {made_by} writes")
  path = Path(path)
  if not path.is_dir():
    found = "is a file" if path.exists() else "does not exist"
    raise UserError(
      f"--{flag}={path} {found}; expected the folder that {made_by} writes"
    )
  return path


def prepare_workdir(path: str | Path, flag: str = "workdir") -> Path:
  """Makes the folder and proves that it can be written to. Raises UserError if not."""
  if not str(path):
    raise UserError(f"--{flag} is needed: a folder for the results")
  path = Path(path)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise UserError(
      f"--{flag}={path} cannot be written to ({error.strerror});"
      " choose a folder that you may write to"
    ) from error
  return path


LOCK = ".lock"


@contextlib.contextmanager
def locked(workdir: str | Path) -> Iterator[None]:
  """Keeps other processes out of a work folder while this block runs.

  A process that is killed lets go of it, and what it left half written goes.

  Raises:
    UserError: another process is at work there.
  """
  workdir = Path(workdir)
  with open(workdir / LOCK, "a+", encoding="utf-8") as stream:
    try:
      fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      stream.seek(0)
      raise UserError(
        f"--workdir={workdir} is being written by another run"
        f" ({stream.read().strip() or 'unknown'}); wait for it to end, or choose"
        " another --workdir"
      ) from error
    except OSError:
      pass  # A file system without locks: others cannot be kept out.
    stream.truncate(0)
    stream.write(f"process {os.getpid()} on {os.uname().nodename}")
    stream.flush()
    for left_over in workdir.glob(".*.tmp"):
      left_over.unlink(missing_ok=True)
    yield


def check_same(
  path: str | Path,
  identity: Mapping[str, Any],
  what: str,
  *,
  growing: Sequence[str] = (),
) -> None:
  """Refuses to mix results of two configurations in one folder.

  Args:
    path: of the folder's config.json, written if nothing is refused.
    identity: what the results depend on: fields, and sections of fields.
    what: the folder holds: `an evaluation`.
    growing: sections that may gain fields, or leave out some that the folder has; what
      both know must agree, and the file keeps all.

  Raises:
    UserError: the file holds another identity; names the fields, or says that it is
      damaged.
  """
  path = Path(path)
  now = json.loads(to_json(identity))
  if path.is_file():
    try:
      recorded = json.loads(path.read_text(encoding="utf-8"))
      before = _by_field(recorded)
    except (ValueError, AttributeError) as error:
      raise UserError(
        f"{path} is damaged ({error}); choose another --workdir, or remove that folder"
      ) from error
    fields_now = _by_field(now)
    missing = object()
    different = [
      name
      for name in {**fields_now, **before}
      if before.get(name, missing) != fields_now.get(name, missing)
      and not (
        name.partition(".")[0] in growing
        and missing in (before.get(name, missing), fields_now.get(name, missing))
      )
    ]
    if different:
      raise UserError(
        f"{path.parent} holds {what} with another {', '.join(different)};"
        " choose another --workdir, or remove that folder"
      )
    for section in growing:
      now[section] = {**recorded.get(section, {}), **now[section]}
  write_json(path, now)


def _by_field(identity: Mapping[str, Any]) -> dict[str, Any]:
  """{'section.field' or 'field': value}."""
  found: dict[str, Any] = {}
  for name, value in identity.items():
    if isinstance(value, Mapping):
      found |= {f"{name}.{field}": entry for field, entry in value.items()}
    else:
      found[name] = value
  return found
