"""Whether the libraries are there. Needs none of them: it runs before their import."""

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
EXTRA = "train"


def missing(project: Path = PROJECT) -> list[str]:
  """Packages, by name, that the programs need and this Python lacks.

  Args:
    project: pyproject.toml; without it, the installation says what it needs.
  """
  if project.is_file():
    content = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    wanted = [*content["dependencies"], *content["optional-dependencies"][EXTRA]]
  else:
    all_of_them = importlib.metadata.requires("hand_eye") or []
    wanted = [r for r in all_of_them if "extra" not in r or f'"{EXTRA}"' in r]
  names = [re.split(r"[^\w.-]", requirement)[0] for requirement in wanted]
  return [name for name in names if not _is_installed(name)]


def check(project: Path = PROJECT) -> None:
  """Ends the program with one line if packages are missing."""
  if lacking := missing(project):
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    sys.exit(
      f"error: {python} lacks {', '.join(lacking)}: pip install -c constraints.txt"
      f" -e '.[{EXTRA}]' where there is a network; where there is none, bring their"
      " wheels as docs/timed.md says"
    )


def _is_installed(name: str) -> bool:
  try:
    importlib.metadata.distribution(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True
