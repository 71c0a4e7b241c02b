"""Values of --config.section.field=VALUE, as users type them.

`read` converts a text to the type of a field, or refuses it with an example. `register`
makes `ml_collections` use it, whose own parsers take `random,servo` for one name and
know no None.
"""

import ast
import re
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags import tuple_parser

from experiments.cli.errors import UserError

_TRUE, _FALSE = ("true", "t", "yes", "on", "1"), ("false", "f", "no", "off", "0")
_NONE = ("none", "null")
# A comma that is in no brackets and no quotes follows, or the end.
_PART = re.compile(r"""((?:[^,()\[\]'"]|\([^()]*\)|\[[^\[\]]*\]|'[^']*'|"[^"]*")+)""")


def read(name: str, text: str, kind: type, default: Any, *, optional: bool) -> Any:
  """What a text means.

  Args:
    name: of the field, for the message.
    kind: type of the field.
    default: its value; what elements of a tuple have to be like.
    optional: whether it may be None.

  Raises:
    UserError: it means nothing, or something of another kind.
  """
  parser = _PARSERS.get(kind)
  value: Any = _UNREADABLE
  try:
    if parser is None:  # a section
      value = dict(ast.literal_eval(text))
    else:
      value = parser.parse(text)
  except (ValueError, TypeError, SyntaxError):
    pass
  if value is None and optional or value is not None and _is_like(value, default, kind):
    return value
  words = "or None, " if optional else ""
  raise UserError(
    f"--config.{name}={text}: expected {_KINDS.get(kind, 'a section')}, {words}such as"
    f" --config.{name}{example(default, kind)}"
  )


def example(default: Any, kind: type) -> str:
  """A value as it is typed behind a field's name, with its = sign."""
  if default is None:
    default = {int: 8, float: 0.5, str: "name", bool: True}.get(kind, ())
  if isinstance(default, ConfigDict):
    name = next(iter(default))
    return f".{name}{example(default[name], default.get_type(name))}"
  if not isinstance(default, tuple):
    return f"={str(default).lower() if isinstance(default, bool) else default}"
  if not default:
    return "=1,2"
  if any(isinstance(one, tuple) for one in default):
    return f'="{default}"'
  return "=" + ",".join(map(str, default))


def register() -> None:
  """Has the flags of `ml_collections` read values as `read` does."""
  for kind, parser in _PARSERS.items():
    config_flags.register_flag_parser_for_type(kind, parser)


class _OrNone(flags.ArgumentParser):
  """A parser that also knows None."""

  def __init__(self, parser: flags.ArgumentParser):
    self._parser = parser
    self.syntactic_help = parser.syntactic_help

  def parse(self, argument: Any) -> Any:
    if isinstance(argument, str) and argument.strip().lower() in _NONE:
      return None
    return argument if argument is None else self._parser.parse(argument)

  def flag_type(self) -> str:
    return self._parser.flag_type()


class _Bool(flags.BooleanParser):
  def parse(self, argument: Any) -> Any:
    if isinstance(argument, str) and argument.lower() in (*_TRUE, *_FALSE):
      return argument.lower() in _TRUE
    return super().parse(argument)


class _Int(flags.IntegerParser):
  def parse(self, argument: Any) -> Any:
    try:
      return super().parse(argument)
    except ValueError:
      if (value := float(argument)).is_integer():  # 1e5
        return int(value)
      raise


class _Tuple(tuple_parser.TupleParser):
  """`a,b`, `(a, b)` and `["a", "b"]` are the same; so are `2` and `(2,)`."""

  def parse(self, argument: Any) -> Any:
    return _tuple(argument) if isinstance(argument, str) else super().parse(argument)


def _tuple(text: str) -> tuple[Any, ...]:
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    inner = text.strip()
    if inner[:1] + inner[-1:] in ("()", "[]"):
      inner = inner[1:-1]
    return tuple(map(_element, _PART.findall(inner)))
  if isinstance(value, str):
    return tuple(part.strip() for part in value.split(","))
  return _frozen(value) if isinstance(value, list | tuple) else (value,)


def _element(text: str) -> Any:
  try:
    return _frozen(ast.literal_eval(text.strip()))
  except (ValueError, SyntaxError):
    return text.strip()


def _frozen(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(map(_frozen, value))
  return value


def _is_like(value: Any, default: Any, kind: type) -> bool:
  """Whether a value has the kind of the default, and its elements theirs."""
  if value is _UNREADABLE:
    return False
  if kind is tuple:
    return isinstance(value, tuple) and all(
      not default or any(_is_like(one, like, type(like)) for like in default)
      for one in value
    )
  if kind in (int, float):
    allowed = (int, float) if kind is float else (int,)
    return isinstance(value, allowed) and not isinstance(value, bool)
  return kind not in _PARSERS or isinstance(value, kind)


_UNREADABLE = object()
_PARSERS: dict[type, flags.ArgumentParser] = {
  int: _OrNone(_Int()),
  float: _OrNone(flags.FloatParser()),
  bool: _OrNone(_Bool()),
  str: _OrNone(flags.ArgumentParser()),
  tuple: _Tuple(),
}
_KINDS = {
  int: "a whole number",
  float: "a number",
  bool: "true or false",
  str: "a text",
  tuple: "a list",
}
