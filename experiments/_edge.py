"""What every program here shares: flags, clear endings, progress, work folders, files.

A program is `main(_)` and `define_flags()`, started by `run(main, define_flags)`.
Importing a program defines no flag, so that programs can call each other's functions.
"""

import difflib
import errno
import importlib.metadata
import importlib.util
import json
import logging as standard_logging
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

import tqdm
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

PACKAGES = ("hand_eye", "envs", "data_pipeline", "experiments")
CONFIGS = Path(__file__).parent / "configs"
DEFAULT_CONFIG = CONFIGS / "demo.py"

T = TypeVar("T")


class UserError(Exception):
  """Something the person who started the program can mend; shown as one line."""


# --- start and end of a program -----------------------------------------------------


def run(
  main: Callable[[Sequence[str]], Any],
  define_flags: Callable[[], None] | None = None,
) -> NoReturn:
  """Runs an absl program. What a person can mend ends in one line and status 1.

  Status 2 means that the command line itself was wrong, 130 that Ctrl-C came.
  """
  if define_flags is not None:
    define_flags()
  flags.DEFINE_bool("traceback", False, "Show the whole traceback of an error.")
  quieten_libraries()
  _show_in_help()

  def guarded(argv: Sequence[str]) -> Any:
    try:
      if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options begin with --")
      return main(argv)
    except KeyboardInterrupt:
      stop("interrupted; the same command continues where it was", 130)
    except Exception as error:
      line = message_for_user(error)
      if line is None or flags.FLAGS.traceback:
        raise
      stop(line)

  app.run(guarded, flags_parser=_parse_flags)
  sys.exit(0)  # app.run has ended the process already; this tells the type checker


def _show_in_help() -> None:
  """Has --help show the flags that modules define which the program only calls."""
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    for flag in defined:
      if module.startswith("experiments.") or flag.name == "config":
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def quieten_libraries() -> None:
  """Hides what Orbax says of healthy runs; worker processes call it for themselves."""
  # Of the logger, not its handler: worker processes have another one.
  logging.get_absl_logger().addFilter(
    lambda record: (
      "orbax" not in record.pathname
      or record.levelno >= standard_logging.ERROR
      or logging.get_verbosity() >= logging.INFO
    )
  )


def _parse_flags(argv: Sequence[str]) -> Sequence[str]:
  _check_config_overrides(argv)
  try:
    remaining = flags.FLAGS(argv)
  except flags.Error as error:
    stop(f"{error}. Run with --help to see the flags.", 2)
  # Libraries report every file they touch; --verbosity=0 shows it.
  verbosity = flags.FLAGS["verbosity"]
  if verbosity.using_default_value:
    verbosity.value = logging.WARNING
    verbosity.using_default_value = False  # else absl raises it to INFO
  return remaining


def message_for_user(error: BaseException) -> str | None:
  """One line for errors that explain themselves, None for those that are bugs.

  Error classes of our own packages are written for the reader; so are the operating
  system's about files.
  """
  if type(error).__module__.split(".")[0] in PACKAGES:
    return " ".join(str(error).split())
  if isinstance(error, OSError) and error.errno is not None:
    where = f"{error.filename}: " if error.filename else ""
    advice = {
      errno.ENOSPC: "; free some space and run the same command again",
      errno.EACCES: "; choose a folder that you may write to",
      errno.EROFS: "; choose a folder that you may write to",
    }.get(error.errno, "")
    return f"{where}{error.strerror}{advice}"
  return None


def stop(message: str, status: int = 1) -> NoReturn:
  """Ends the program with one line on standard error."""
  print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
  sys.exit(status)


# --- configurations -----------------------------------------------------------------


def define_config(default: str | Path = DEFAULT_CONFIG) -> None:
  """Defines --config=FILE and --config.section.field=VALUE."""
  _check_config_overrides(sys.argv, default)
  config_flags.DEFINE_config_file(
    "config", str(default), "Experiment, a file of experiments/configs."
  )


def load_config(path: str | Path) -> ConfigDict:
  """The configuration that a file's get_config() returns.

  Raises UserError naming the file if there is none or it defines no get_config.
  """
  path = Path(path)
  if not path.is_file():
    known = ", ".join(
      sorted(p.stem for p in CONFIGS.glob("*.py") if not p.stem.startswith("_"))
    )
    raise UserError(f"--config={path}: no such file; experiments/configs/ has: {known}")
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    raise UserError(f"--config={path}: {type(error).__name__}: {error}") from error
  if not hasattr(module, "get_config"):
    raise UserError(f"--config={path}: the file defines no get_config()")
  config = module.get_config()
  config.lock()
  return config


def _check_config_overrides(
  argv: Sequence[str], default: str | Path = DEFAULT_CONFIG
) -> None:
  # config_flags answers an unknown field with a traceback, before any program runs.
  path = str(default)
  names = []
  for position, argument in enumerate(argv[1:], start=1):
    if argument == "--":
      break
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-"):
      continue
    if name == "config":
      path = value if equals else argv[position + 1] if position + 1 < len(argv) else ""
    elif name.startswith("config."):
      names.append(name.removeprefix("config."))
  if not names and path == str(default):
    return
  try:
    config = load_config(path)
    for name in names:
      _check_field(config, name)
  except UserError as error:
    stop(str(error), 2)


def _check_field(config: Any, name: str) -> None:
  node, walked = config, "config"
  for part in name.split("."):
    known = sorted(node.keys()) if isinstance(node, ConfigDict) else []
    if part not in known:
      raise UserError(_unknown(f"--config.{name}", part, walked, known))
    node, walked = node[part], f"{walked}.{part}"


def _unknown(what: str, name: str, where: str, known: Sequence[str]) -> str:
  close = difflib.get_close_matches(name, known, 1)
  hint = f"did you mean {close[0]!r}? " if close else ""
  return f"{what}: unknown field {name!r}; {hint}{where} has: {', '.join(known)}"


def build(cls: type[T], section: Mapping[str, Any], name: str, **extra: Any) -> T:
  """Makes a library dataclass from a section of the config.

  Fields that are None keep the dataclass's own default; lists become tuples. Raises
  UserError that names the section and an unknown, missing or invalid field.
  """
  assert is_dataclass(cls)
  known = sorted(field.name for field in fields(cls) if field.init)
  values = {**dict(section.items()), **extra}
  for field in values:
    if field not in known:
      raise UserError(_unknown(f"config.{name}", field, cls.__name__, known))
  given = {k: _frozen(v) for k, v in values.items() if v is not None}
  try:
    return cls(**given)
  except (TypeError, ValueError) as error:
    raise UserError(f"config.{name}: {error}") from error


def _frozen(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(_frozen(item) for item in value)
  return value


# --- progress -----------------------------------------------------------------------


class _Lines:
  """A stream on which each redraw of a progress bar becomes a line of its own."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def write(self, text: str) -> None:
    text = text.strip("\r\n")
    if text.strip():
      self._stream.write(text + "\n")

  def flush(self) -> None:
    self._stream.flush()


def progress(
  total: int, label: str, unit: str, *, initial: int = 0, stream: TextIO | None = None
) -> tqdm.tqdm:
  """A bar with rate and time left; in a log file, one line every ten seconds.

  `update(n)` moves it, `set_postfix_str(text)` adds figures. Use it in a `with`.
  """
  stream = stream or sys.stderr
  interactive = stream.isatty()
  return tqdm.tqdm(
    total=total,
    initial=initial,
    desc=label,
    unit=f" {unit}",
    file=stream if interactive else _Lines(stream),
    mininterval=0.5 if interactive else 10.0,
    maxinterval=10.0,
    dynamic_ncols=interactive,
    smoothing=0.1,
    ascii=None if interactive else " .:-=#",
    ncols=None if interactive else 100,
  )


# --- files --------------------------------------------------------------------------


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
    identity: what decides the results: fields, and sections of fields.
    what: the folder then holds, `an evaluation`.
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
  write_atomically(path, to_json(now, indent=2) + "\n")


def _by_field(identity: Mapping[str, Any]) -> dict[str, Any]:
  """{'section.field' or 'field': value}."""
  found: dict[str, Any] = {}
  for name, value in identity.items():
    if isinstance(value, Mapping):
      found |= {f"{name}.{field}": entry for field, entry in value.items()}
    else:
      found[name] = value
  return found


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


class JsonLines:
  """Appends rows to a JSONL file; each row is whole on disk when `write` returns.

  Several processes may append to one file. A row that a kill or a full disk tore stays
  a line of its own, which `read_jsonl` leaves out.
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
  """Rows of a JSONL file; [] if there is none. Torn lines are left out, and named."""
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


# --- facts about this run -----------------------------------------------------------


def versions() -> dict[str, str]:
  """What results depend on: Python, the machine and the libraries that matter."""
  found = {"python": platform.python_version(), "machine": platform.machine()}
  for name in (
    "hand_eye", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "mujoco",
    "numpy", "grain", "array_record", "tensorflow-datasets", "simplejpeg",
  ):  # fmt: skip
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "not installed"
  return found


class Stopwatch:
  """Seconds since it was made, and the share of them spent inside `with watch:`."""

  def __init__(self) -> None:
    self._begin = time.perf_counter()
    self._inside = 0.0
    self._entered = 0.0

  def __enter__(self) -> "Stopwatch":
    self._entered = time.perf_counter()
    return self

  def __exit__(self, *_: object) -> None:
    self._inside += time.perf_counter() - self._entered

  @property
  def seconds(self) -> float:
    return time.perf_counter() - self._begin

  @property
  def share(self) -> float:
    return self._inside / max(self.seconds, 1e-9)
