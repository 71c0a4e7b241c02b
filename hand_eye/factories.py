"""'module:factory': how a configuration names a function outside this project."""

import importlib
from collections.abc import Callable
from typing import Any


def load(name: str) -> Callable[..., Any]:
  """Returns the function that 'package.module:factory' names.

  Raises:
    ValueError: there is none, or it cannot be imported.
  """
  module, _, attribute = name.partition(":")
  try:
    found = getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(
      f"{name!r}: {error}; expected module:factory that can be imported from the folder"
      " in which you start the program"
    ) from error
  if not callable(found):
    raise ValueError(f"{name!r} is {found!r}, expected a function")
  return found
