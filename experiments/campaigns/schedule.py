"""Whether collecting and training take turns, and with how many cores each."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

# With fewer cores, whatever collects meanwhile slows training by as much as it gains:
# a CPU that trains keeps all of its cores busy.
LEAST_CORES = 4


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How a machine is shared.

  Attributes:
    together: whether the next round is collected while the network trains.
    workers: processes that collect while nothing trains.
    workers_meanwhile: processes that collect while it trains.
    cpu_devices: devices that a CPU is divided into for training.
  """

  together: bool
  workers: int
  workers_meanwhile: int
  cpu_devices: int


def choose(
  wanted: str,
  *,
  cores: int,
  has_accelerator: bool,
  batch_sizes: tuple[int, ...],
  cpu_devices: int = 0,
  num_workers: int = 0,
) -> Schedule:
  """Shares a machine between collecting and training.

  Args:
    wanted: 'turns', 'together', or 'auto': together where an accelerator trains, or
      where there are at least LEAST_CORES cores to share.
    cores: that this process may use.
    has_accelerator: whether training leaves the cores alone.
    batch_sizes: that must be multiples of the number of devices.
    cpu_devices: 0 for one a core that trains.
    num_workers: that collect, 0 for one a core.
  """
  together = wanted == "together" or (
    wanted == "auto" and (has_accelerator or cores >= LEAST_CORES)
  )
  workers = num_workers or cores
  if has_accelerator:
    return Schedule(together, workers, max(1, min(workers, cores - 1)), 1)
  # Half and half: attempts are the slower half, but they need a network to be worth it.
  for_training = max(1, cores // 2) if together else cores
  devices = cpu_devices or for_training
  if not cpu_devices:
    while any(size % devices for size in batch_sizes):
      devices -= 1
  meanwhile = max(1, min(workers, cores - for_training))
  return Schedule(together, workers, meanwhile, devices)


def has_accelerator() -> bool:
  """Whether JAX would train on something else than CPUs; does not start it."""
  if (jax.config.jax_platforms or "").split(",")[0] == "cpu":
    return False
  names = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*")
  return any(path for name in names for path in Path("/dev").glob(name))


class Background:
  """Runs a function in a thread; the end of the block waits for it.

  An exception in the block is not held up by the thread; one in the thread comes out
  at the end of the block.
  """

  def __init__(self, function: Callable[[], Any]):
    self._function = function
    self._error: BaseException | None = None
    self._thread = threading.Thread(target=self._run, daemon=True)

  def __enter__(self) -> "Background":
    self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    if kind is not None:
      return  # Its processes end with this one.
    while self._thread.is_alive():
      self._thread.join(0.5)  # so that signals are heard
    if self._error is not None:
      raise self._error

  def _run(self) -> None:
    try:
      self._function()
    except BaseException as error:  # noqa: BLE001 - raised again in the other thread
      self._error = error
