"""What is known when a stage is planned."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from experiments.fitting import train_config
from experiments.timing import rates
from experiments.timing.machine import Machine
from hand_eye.presets import NetworkConfig


@dataclasses.dataclass(frozen=True)
class Known:
  """What a stage is planned with.

  Attributes:
    config: the experiment.
    arguments: flags that give it.
    required: platforms, of --require_platform.
    workdir: of the run.
    machine: that it runs on.
    seconds: that earlier stages took, by name; `look`: before the first of them.
  """

  config: ConfigDict
  arguments: tuple[str, ...]
  required: str
  workdir: Path
  machine: Machine
  seconds: Mapping[str, float]

  @property
  def data(self) -> Path:
    return self.workdir / "data"

  @property
  def checkpoints(self) -> Path:
    return self.workdir / "train" / "checkpoints"

  @property
  def is_trained(self) -> bool:
    return any(self.checkpoints.glob("[0-9]*"))

  @property
  def network(self) -> NetworkConfig:
    return train_config.build_network(self.config.network)

  @property
  def dtype(self) -> list[str]:
    """Flags: bfloat16 on accelerators, unless the config says which format."""
    if self.machine.has_accelerator and self.config.network.dtype is None:
      return ["--config.network.dtype=bfloat16"]
    return []

  @property
  def benchmarked(self) -> str:
    """The preset that is benchmarked, as the benchmarks know Figure 4's networks."""
    network = self.network
    return network.name if network.architecture == "figure4" else "small"

  def overhead(self, name: str) -> float:
    """Seconds of a collection in which its workers made no attempt."""
    found = rates.collecting(self.data / name)
    working = found.seconds * found.attempts / self.machine.cores if found else 0.0
    return max(0.0, self.seconds.get(name, 0.0) - working)
