"""What a machine has: `python -m experiments.timing.machine FILE PLATFORMS`.

A program of its own, so that the one that starts the others holds no accelerator.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Machine:
  """What decides how a run is planned.

  Attributes:
    cores: that this process may use.
    memory: bytes.
    cpu: its name.
    platform: on which JAX computes: cpu, gpu or tpu.
    devices: of them.
    device: their kind.
    device_memory: bytes of one, 0 if unknown.
    gl: the backend that draws.
    renderer: what draws with it: a GPU, or Mesa's llvmpipe on the cores.
  """

  cores: int
  memory: int
  cpu: str
  platform: str
  devices: int
  device: str
  device_memory: int
  gl: str
  renderer: str

  @property
  def has_accelerator(self) -> bool:
    return self.platform != "cpu"

  def describe(self) -> str:
    """One line for people."""
    of_device = f" ({self.device_memory / 2**30:.0f} GiB)" if self.device_memory else ""
    accelerators = f"{self.devices} x {self.device}{of_device}, "
    return (
      f"{accelerators if self.has_accelerator else ''}{self.cores} cores of {self.cpu},"
      f" {self.memory / 2**30:.0f} GiB; {self.renderer} draws ({self.gl})"
    )


def look(required: str = "") -> Machine:
  """Looks at this machine; starts JAX and draws.

  Args:
    required: platforms, see `devices.check_platform`.

  Raises:
    UserError: JAX computes on another platform; or there is an accelerator that JAX
      does not use, and nothing is required.
    SystemExit: nothing can draw here.
  """
  import jax

  from envs import fleet, rendering
  from experiments import setup_gl
  from experiments.campaigns import schedule
  from experiments.fitting import devices
  from hand_eye import platforms

  platforms.check()
  if not required and jax.default_backend() == "cpu" and schedule.has_accelerator():
    required = "gpu,tpu"  # rather than leave it idle
  devices.check_platform(required)
  if setup_gl.main():
    sys.exit(1)  # it has said what to do
  device = jax.devices()[0]
  statistics: dict[str, Any] = device.memory_stats() or {}
  return Machine(
    cores=fleet.num_cores(),
    memory=_memory(),
    cpu=_cpu(),
    platform=device.platform if device.platform != "cuda" else "gpu",
    devices=len(jax.devices()),
    device=device.device_kind,
    device_memory=int(statistics.get("bytes_limit", 0)),
    gl=rendering.choose_backend(),
    renderer=_renderer(),
  )


def read(path: Path) -> Machine:
  """What the program wrote. Raises UserError if the file is broken."""
  from experiments import cli

  return cli.build(Machine, cli.read_json(path), "machine")


def _memory() -> int:
  """Bytes; of a container, what it may take."""
  found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  limit = Path("/sys/fs/cgroup/memory.max")
  text = limit.read_text().strip() if limit.is_file() else ""
  return min(found, int(text)) if text.isdigit() else found


def _cpu() -> str:
  path = Path("/proc/cpuinfo")
  lines = path.read_text().splitlines() if path.is_file() else []
  names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
  return names[0] if names else os.uname().machine


def _renderer() -> str:
  """What OpenGL calls itself."""
  import mujoco
  from OpenGL import GL

  context = mujoco.GLContext(16, 16)
  context.make_current()
  name = GL.glGetString(GL.GL_RENDERER)
  context.free()
  return name.decode() if name else "unknown"


def main() -> None:
  from experiments import cli

  path, required = sys.argv[1:]
  try:
    found = look(required)
  except Exception as error:
    line = cli.message_for_user(error)
    if line is None:
      raise
    cli.stop(line)
  cli.write_json(path, dataclasses.asdict(found))
  print(found.describe())


if __name__ == "__main__":
  main()
