"""Devices of a training program: several processes, compilation caches, traces."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from envs import fleet
from experiments import cli

# A trace of more steps is too large to look at; the first ones compile.
_TRACE_AFTER, _TRACE_STEPS = 5, 10

# Platforms by JAX's names, and what is missing where JAX does not find one.
_INSTALL = {
  "gpu": "for an NVIDIA GPU pip install 'hand_eye[cuda13]', or hand_eye[cuda12] where"
  " nvidia-smi says CUDA 12, and unset JAX_PLATFORMS",
  "tpu": "for a TPU pip install 'hand_eye[tpu]', and unset JAX_PLATFORMS",
  "cpu": "set JAX_PLATFORMS=cpu",
}
_CHOSEN = "devices.json"  # in a work folder

# What names the processes of a run where no cluster does.
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def define_flags(automatic: str = "as many as cores are idle when it begins") -> None:
  """Defines the flags; `automatic` says what --cpu_devices=0, the default, means."""
  flags.DEFINE_bool(
    "distributed",
    False,
    "Join the other processes of this run: of a cluster that announces itself to JAX"
    " (Cloud TPU, Slurm, Open MPI, Kubernetes with JAX's extra k8s), or those that the"
    f" environment names: {', '.join(VARIABLES)}.",
  )
  flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, to join processes by hand; with --num_processes and"
    " --process_id.",
  )
  flags.DEFINE_integer("num_processes", 0, "Processes to join by hand.")
  flags.DEFINE_integer("process_id", -1, "Which of them this one is, from 0.")
  flags.DEFINE_integer(
    "cpu_devices",
    0,
    "Devices that a CPU is divided into, each with its share of the batch: XLA leaves"
    " much of a step to one core. A loss where other programs use the cores. 0:"
    f" {automatic}.",
    lower_bound=0,
  )
  flags.DEFINE_string(
    "require_platform",
    "",
    "Stop unless JAX uses this: gpu, tpu or cpu, or several (gpu,tpu); any for no"
    " requirement. Without it, the config's require_platform counts, if it has one.",
  )
  flags.DEFINE_string(
    "compilation_cache",
    "auto",
    "Folder that keeps compiled programs for the next start; auto: inside --workdir on"
    " accelerators, none on CPUs; '': none.",
  )


def join(
  distributed: bool, coordinator: str, num_processes: int, process_id: int
) -> None:
  """Joins this process with the others of its run, if flags say that there are any.

  Must come before anything asks JAX for devices. What is not given and stands in the
  environment is taken from there if `distributed`.

  Raises:
    UserError: the flags contradict each other, or the others do not answer.
  """
  # The address alone is JAX's own business: a cluster may tell it the rest.
  if distributed and any(os.environ.get(name) for name in VARIABLES[1:]):
    coordinator = coordinator or os.environ.get(VARIABLES[0], "")
    num_processes = num_processes or _number(VARIABLES[1], 0)
    process_id = process_id if process_id >= 0 else _number(VARIABLES[2], -1)
  by_hand = (bool(coordinator), num_processes > 0, process_id >= 0)
  if not (distributed or any(by_hand)):
    return
  if any(by_hand) and not all(by_hand):
    raise cli.UserError(
      "--coordinator=HOST:PORT, --num_processes and --process_id belong together (or,"
      f" with --distributed, {', '.join(VARIABLES)}); found coordinator"
      f" {coordinator!r}, num_processes {num_processes}, process_id {process_id}"
    )
  if any(by_hand) and process_id >= num_processes:
    raise cli.UserError(
      f"--process_id is {process_id}, expected 0 to {num_processes - 1} as"
      f" --num_processes is {num_processes}"
    )
  arguments = (coordinator, num_processes, process_id) if all(by_hand) else ()
  try:
    jax.distributed.initialize(*arguments)
  except (RuntimeError, ValueError) as error:
    reason = str(error).splitlines()[0].rstrip(".")
    if arguments:
      raise cli.UserError(
        f"cannot join the processes at {coordinator}: {reason}; start all of them"
        " within five minutes, with the same --coordinator and --num_processes"
      ) from error
    raise cli.UserError(
      f"--distributed finds no cluster that it can join ({reason}); set"
      f" {', '.join(VARIABLES)}, or leave it out to train with one process"
    ) from error


def divide_cpu(devices: int) -> None:
  """Makes several devices of a CPU. Must come before anything asks JAX for devices.

  Each computes its share in a thread of its own and waits for the others at every
  batch norm: a gain on idle cores, a loss on busy ones.
  """
  if devices > 1:
    jax.config.update("jax_num_cpu_devices", devices)


def check_platform(required: str) -> None:
  """Stops a run that would silently train on something else.

  Args:
    required: platforms separated by commas, of --require_platform or a config; '' or
      'any' requires nothing.

  Raises:
    UserError: JAX found another platform, or `required` names none.
  """
  names = [name.strip() for name in required.split(",") if name.strip()]
  unknown = [name for name in names if name not in (*_INSTALL, "any")]
  if unknown:
    raise cli.UserError(
      f"--require_platform={required}: {unknown[0]!r} is none of"
      f" {', '.join((*_INSTALL, 'any'))}"
    )
  found = jax.default_backend()
  if not names or "any" in names or found in names:
    return
  raise cli.UserError(
    f"--require_platform={required}, but JAX found {len(jax.devices())} x {found}"
    f" ({jax.devices()[0].device_kind}); {_INSTALL[names[0]]}; or, to use what there"
    " is, --require_platform=any"
  )


def choose_cpu_devices(
  workdir: str | Path, batch_sizes: Sequence[int], asked: int, alone: bool
) -> int:
  """How many devices a CPU is divided into.

  A run that goes on keeps its number: the weights follow from it to the last bit.

  Args:
    batch_sizes: that must divide over the devices.
    asked: of --cpu_devices; 0 to choose as many as cores are idle.
    alone: whether no other process trains with this one, as they must agree.
  """
  path = Path(workdir) / _CHOSEN
  if asked:
    devices = asked
  elif path.is_file():
    devices = int(json.loads(path.read_text())["cpu_devices"])
  else:
    divided = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    most = idle_cores() if alone and not divided else 1
    batch = math.gcd(*batch_sizes)
    devices = max(n for n in range(1, max(most, 1) + 1) if batch % n == 0)
  return devices


def remember_devices(workdir: Path) -> None:
  """Writes the number of devices of a run that begins, for `choose_cpu_devices`."""
  if jax.default_backend() == "cpu":
    cli.write_json(workdir / _CHOSEN, {"cpu_devices": len(jax.devices())})


def idle_cores(seconds: float = 0.5) -> int:
  """Cores of this process that other programs leave idle, looking for so long.

  Where the system does not say, all that the process may use.
  """
  try:
    before = idle_ticks()
    time.sleep(seconds)
    after = idle_ticks()
  except (OSError, AttributeError):
    return fleet.num_cores()
  shares = [
    (after[core][0] - before[core][0]) / max(1, after[core][1] - before[core][1])
    for core in before.keys() & after.keys()
  ]
  # A tenth of the machine is a shell or a browser; it should not cost a core.
  return int(sum(shares) + max(0.25, 0.1 * len(shares)))


def idle_ticks() -> dict[str, tuple[int, int]]:
  """Idle and all clock ticks so far of each core that this process may use (Linux)."""
  mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
  ticks = {}
  for line in Path("/proc/stat").read_text().splitlines():
    name, *fields = line.split()
    if name in mine:
      counts = [int(field) for field in fields[:8]]
      ticks[name] = (counts[3] + counts[4], sum(counts))
  return ticks


def _number(variable: str, absent: int) -> int:
  """A variable of the environment as a whole number."""
  text = os.environ.get(variable, "")
  if text and not text.isdigit():
    raise cli.UserError(f"{variable} is {text!r}, expected a whole number")
  return int(text) if text else absent


def keep_compiled(flag: str, workdir: str | Path) -> None:
  """Sets the folder of --compilation_cache."""
  if flag == "auto":
    # On a CPU it saves seconds, and another CPU may lack an instruction of this one.
    flag = "" if jax.default_backend() == "cpu" else str(Path(workdir) / "compiled")
  if flag:
    jax.config.update("jax_compilation_cache_dir", str(Path(flag).absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class Trace:
  """Writes a profiler's trace of a few steps of a run into a folder."""

  def __init__(self, folder: Path | None, begin: int):
    """`begin` steps were taken before; with no folder it does nothing."""
    self._folder = folder
    self._first = begin + 1 + _TRACE_AFTER
    self._is_running = False

  def __enter__(self) -> "Trace":
    return self

  def __exit__(self, *_: object) -> None:
    self._stop()

  def before(self, step: int) -> None:
    """Must be called before each step is started."""
    if self._folder is None:
      return
    if step == self._first:
      jax.profiler.start_trace(str(self._folder))
      self._is_running = True
    elif step == self._first + _TRACE_STEPS:
      self._stop()

  def _stop(self) -> None:
    if self._is_running:
      jax.effects_barrier()
      jax.profiler.stop_trace()
      self._is_running = False
