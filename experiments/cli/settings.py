"""Configuration files, and library dataclasses made of their sections."""

import difflib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, FieldReference, config_flags

from experiments.cli import overrides
from experiments.cli.errors import UserError, stop

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DEFAULT_CONFIG = CONFIGS / "demo.py"

T = TypeVar("T")


def define_config(default: str | Path = DEFAULT_CONFIG) -> None:
  """Defines --config=FILE and --config.section.field=VALUE."""
  check_overrides(sys.argv, default)
  overrides.register()
  config_flags.DEFINE_config_file(
    "config", str(default), "Experiment, a file of experiments/configs."
  )


def config_arguments() -> list[str]:
  """The flags that gave the program its configuration: the file, and overrides."""
  flag = flags.FLAGS["config"]
  overrides = config_flags.get_override_values(flag)
  return [
    f"--config={config_flags.get_config_filename(flag)}",
    *(f"--config.{name}={value}" for name, value in overrides.items()),
  ]


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


def check_overrides(argv: Sequence[str], default: str | Path = DEFAULT_CONFIG) -> None:
  # config_flags answers an unknown field with a traceback, before any program runs.
  path = str(default)
  given: list[tuple[str, str | None]] = []
  for position, argument in enumerate(argv[1:], start=1):
    if argument == "--":
      break
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("-"):
      continue
    following = argv[position + 1] if position + 1 < len(argv) else None
    if name == "config":
      path = value if equals else following or ""
    elif name.startswith("config."):
      given.append((name.removeprefix("config."), value if equals else following))
  if not given and path == str(default):
    return
  try:
    config = load_config(path)
    for name, text in given:
      check_override(config, name, text)
  except UserError as error:
    stop(str(error), 2)


def check_override(config: ConfigDict, name: str, text: str | None) -> None:
  """Checks --config.NAME=TEXT; None if nothing follows the name.

  Raises:
    UserError: there is no such field, or it cannot have this value.
  """
  node, walked = config, "config"
  for part in name.split("."):
    known = sorted(node.keys()) if isinstance(node, ConfigDict) else []
    if part not in known:
      raise UserError(_unknown(f"--config.{name}", part, walked, known))
    kind, optional = node.get_type(part), _is_optional(node, part)
    node, walked = node[part], f"{walked}.{part}"
  if kind is not bool and text is not None:  # --config.section.flag has no value
    overrides.read(name, text, kind, node, optional=optional)


def _is_optional(section: ConfigDict, name: str) -> bool:
  """Whether a field may be None: it is a placeholder."""
  return isinstance(
    dict(section.iteritems(preserve_field_references=True))[name], FieldReference
  )


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
