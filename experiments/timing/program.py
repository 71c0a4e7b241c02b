"""Runs the stages one after the other, within the time."""

import dataclasses
import functools
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from envs import rendering
from experiments import cli
from experiments.timing import child, rates, results, stages
from experiments.timing import machine as machine_lib
from experiments.timing.budget import Budget
from experiments.timing.known import Known

# Seconds that no stage is given: for one that must be killed, and for the results.
RESERVE = child.GRACE + 2.0
LOOKING = 60.0  # seconds that looking at the machine may take, at most
_ENDED = ("done", "cut")

Execute = Callable[..., child.Outcome]


def look(
  workdir: Path, required: str, seconds: float, execute: Execute = child.run
) -> machine_lib.Machine:
  """What the machine has; asked once for a work folder.

  Raises:
    UserError: JAX found no platform that is required, or nothing can draw here.
  """
  path = workdir / "machine.json"
  if not path.is_file():
    program = ["experiments.timing.machine", str(path), required]
    outcome = execute(program, min(LOOKING, seconds), {}, lambda line: None)
    if not path.is_file():
      said = outcome.last or (f"no answer in {outcome.seconds:.0f} s",)
      line = f"the machine cannot be used: {said[-1].removeprefix('error: ')}"
      raise cli.UserError(line)
  return machine_lib.read(path)


@dataclasses.dataclass
class Run:
  """A run; `run` does all of it.

  Attributes:
    config, arguments, required, workdir, machine: see `Known`.
    out: the folder of small files.
    seconds: that were given.
    begin: when they began, on the clock.
    execute: runs a program, as `child.run`.
    can_render: tries a backend, as `rendering.can_render`.
    clock: seconds.
    tell: is given lines for the terminal.
  """

  config: ConfigDict
  arguments: tuple[str, ...]
  required: str
  workdir: Path
  machine: machine_lib.Machine
  out: Path
  seconds: float
  begin: float
  execute: Execute = child.run
  can_render: Callable[[str, float], tuple[bool, str]] = rendering.can_render
  clock: Callable[[], float] = time.monotonic
  tell: Callable[[str], None] = functools.partial(print, flush=True)

  def __post_init__(self) -> None:
    """Finds what is missing.

    Raises:
      UserError: the folder holds a run of another config, or all results; or no time is
        left.
    """
    cli.check_same(
      self.workdir / "timed.json", {"config": list(self.arguments)}, "a timed run"
    )
    before = cli.read_json(self.out / "results.json")
    self._entries: dict[str, dict[str, Any]] = dict(before.get("stages", {}))
    self._spent = float(before.get("spent", 0.0))
    self._missing = [
      name
      for name in stages.STAGES
      if self._entries.get(name, {}).get("status") not in _ENDED
    ]
    if not self._missing:
      raise cli.UserError(f"{self.out} holds all results; choose another --workdir")
    seconds = self.seconds - self._spent - RESERVE
    if seconds <= 0:
      raise cli.UserError(
        f"{self._spent:.0f} s were spent before, of --seconds={self.seconds:.0f}; give"
        " more, or choose another --workdir"
      )
    shares = {name: stages.STAGES[name].share for name in self._missing}
    self._budget = Budget(seconds, shares, begin=self.begin, clock=self.clock)
    self._gl = self.machine.gl
    self._looking = self.clock() - self.begin

  def run(self) -> dict[str, Any]:
    """Runs the stages that are missing; returns what results.json holds."""
    for name in self._missing:
      self._run(name)
      if name == "held_out" and self._draws_without_egl():
        self._run(name)
    return self._write()

  def _draws_without_egl(self) -> bool:
    """Goes over to OSMesa if EGL drew nothing: some drivers hang in many processes."""
    if self._gl != rendering.BACKENDS[0] or rates.collecting(
      self.workdir / "data" / "held_out"
    ):
      return False
    other = rendering.BACKENDS[1]
    works, _ = self.can_render(other, self._budget.limit("held_out"))
    if works:
      self._gl = other
    return works

  def _run(self, name: str) -> None:
    limit, begin = self._budget.limit(name), self.clock()
    entry: dict[str, Any] = {
      "status": "running",
      "why": "",
      "command": "",
      "output": "",
    }
    entry |= {"limit": limit, "seconds": 0.0}
    before, self._entries[name] = self._entries.get(name, {}), entry
    try:
      command = self._command(name, limit, before)
    except stages.LeftOutError as error:
      entry |= {"status": "left out", "why": str(error)}
      self._say(f"{name} is left out: {error}")
      return
    entry["command"] = shlex.join(command)
    self._say(f"{name}, at most {limit:.0f} s")
    self._write()
    outcome = self.execute(command, limit, self._environment(name), self._say)
    why = outcome.last[-1] if outcome.last and outcome.status == "failed" else ""
    entry |= {
      "status": outcome.status,
      "why": why.removeprefix("error: "),
      "output": outcome.output,
      "seconds": self.clock() - begin,
    }
    if outcome.status != "done":
      self._say(f"{name}: {outcome.status} after {entry['seconds']:.0f} s")
    self._write()

  def _command(self, name: str, limit: float, before: dict[str, Any]) -> list[str]:
    """Its program and arguments; of a stage that was interrupted, the same again."""
    if before.get("status") == "running" and before["command"]:
      return shlex.split(before["command"])
    took = {one: entry["seconds"] for one, entry in self._entries.items()}
    took["look"] = self._looking
    known = Known(
      self.config, self.arguments, self.required, self.workdir, self.machine, took
    )
    return stages.STAGES[name].command(known, limit)

  def _environment(self, name: str) -> dict[str, str]:
    made = {
      "MUJOCO_GL": self._gl,
      "JAX_COMPILATION_CACHE_DIR": str(self.workdir.absolute() / "compiled"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    if name in ("evaluate", "control", "training"):
      # Several processes, or PyTorch, compute on one accelerator: JAX must not take
      # its memory ahead.
      made["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return made

  def _say(self, line: str) -> None:
    self.tell(f"[{self._budget.left:4.0f} s left] {line}")

  def _write(self) -> dict[str, Any]:
    took = {name: one["seconds"] for name, one in self._entries.items()}
    cli.write_json(self.workdir / "demo.json", {"seconds": took})  # for the report
    content = {
      "seconds": self.seconds,
      "spent": self._spent + self.clock() - self.begin,
      "config": list(self.arguments),
      "machine": dataclasses.asdict(self.machine),
      "machine_line": self.machine.describe(),
      "gl": self._gl,
      "stages": self._entries,
      "not_done": [
        f"{name}: {one['status']}{': ' if one['why'] else ''}{one['why']}"
        for name, one in self._entries.items()
        if one["status"] not in ("done", "running")
      ],
      "figures": results.figures(self.workdir, self.machine),
      "versions": cli.versions(),
    }
    results.write(self.out, self.workdir, content)
    return content
