"""What the benchmarks share: measuring in turns, and writing results."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from experiments import cli

Value = TypeVar("Value")


def in_turns(
  measures: Mapping[str, Callable[[], Value]], rounds: int, label: str
) -> dict[str, list[Value]]:
  """Takes every measure `rounds` times, in turns: a busy machine slows all equally.

  Args:
    label: of the progress bar.
  """
  found: dict[str, list[Value]] = {name: [] for name in measures}
  with cli.progress(rounds * len(measures), label, "measures") as bar:
    for _ in range(rounds):
      for name, measure in measures.items():
        found[name].append(measure())
        bar.update(1)
  return found


def write(workdir: Path, name: str, result: Mapping[str, Any]) -> dict[str, Any]:
  """Writes NAME.json with the versions of the software; returns what it holds."""
  content = {**result, "software": cli.versions()}
  cli.write_json(workdir / f"{name}.json", content)
  return content
