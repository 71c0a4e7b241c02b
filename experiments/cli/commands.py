"""The commands that made a work folder, recorded by the programs themselves.

A program that ends well appends its command line to commands.txt in its --workdir.
"""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli.rows import write_atomically

FILE = "commands.txt"


def record_command(
  workdir: str | Path, program: str, arguments: Sequence[str] | Mapping[str, Any]
) -> None:
  """Puts `python -m PROGRAM ARGUMENTS` at the end of the folder's commands, once.

  Args:
    program: its module.
    arguments: as they were given, or flags by name.
  """
  if isinstance(arguments, Mapping):
    arguments = [f"--{name}={value}" for name, value in arguments.items()]
  line = shlex.join(["python", "-m", program, *arguments])
  before = [one for one in recorded_commands(workdir) if one != line]
  write_atomically(Path(workdir) / FILE, "\n".join([*before, line]) + "\n")


def recorded_commands(workdir: str | Path) -> list[str]:
  """The command lines that made a folder, the last one last; [] if none is known."""
  path = Path(workdir) / FILE
  return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def this_program() -> str:
  """The module that Python runs: experiments.train."""
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  return spec.name if spec else Path(sys.argv[0]).stem
