"""The configuration of a training run, built from the sections of a config file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipeline import transforms
from experiments import cli
from hand_eye import architectures, optimizers, training
from hand_eye import network as network_lib


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """What determines a run, apart from the network and the data.

  Attributes:
    phases: the curriculum, (number of steps, longest command in metres) each.
    batch_size: samples a step, over all devices.
    eval_batch_size: samples at once in the held-out evaluation.
    log_every: steps averaged in one training row of metrics.jsonl.
    eval_every: steps between held-out evaluations; each one saves a checkpoint.
    ema_decay: of the moving average of the weights, which are the ones evaluated.
    mirror_probability: share of samples that are mirrored, with their commands.
    jitter: colour jitter.
    optimizer: the optimizer and its schedule.
    cache_bytes: memory that decoded frames may take.
    seed: of the first weights, the order of samples, crops, mirrors and jitter.
    batch_norm: 'global': with the statistics of the whole batch, so that the number of
      devices changes nothing; 'per_device': each with those of its share, which saves
      a sum over all devices a layer.
    auxiliary_weight: of the auxiliary loss, for architectures that have one.
    auxiliary_steps: first steps, which learn the auxiliary targets alone.
    save_every: steps between checkpoints, in addition to those of evaluations; 0: none.
      It bounds what a crash can lose.
  """

  phases: tuple[tuple[int, float], ...]
  batch_size: int
  eval_batch_size: int
  log_every: int
  eval_every: int
  ema_decay: float
  mirror_probability: float
  jitter: transforms.ColourJitter
  optimizer: optimizers.OptimizerConfig
  cache_bytes: int
  seed: int
  batch_norm: str = "global"
  save_every: int = 0
  auxiliary_weight: float = 1.0
  auxiliary_steps: int = 0

  def __post_init__(self) -> None:
    training.check_batch_norm(self.batch_norm)
    if self.save_every < 0:
      raise ValueError(f"save_every is {self.save_every}, expected 0 or more")
    for name in ("batch_size", "eval_batch_size", "log_every", "eval_every"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
    check_phases(self.phases)

  @property
  def num_steps(self) -> int:
    return int(sum(steps for steps, _ in self.phases))

  def phase_at(self, step: int) -> int:
    """The phase that step `step` + 1 belongs to, when `step` steps were taken."""
    ends = np.cumsum([steps for steps, _ in self.phases])
    return min(int(np.searchsorted(ends, step, side="right")), len(ends) - 1)


def check_phases(phases: Any) -> None:
  """Raises ValueError unless this is a curriculum: ((steps, metres), ...)."""
  expected = "expected one or more (steps > 0, longest command > 0 in metres)"
  if not isinstance(phases, list | tuple) or not phases:
    raise ValueError(f"phases is {phases!r}, {expected}")
  for phase in phases:
    good = (
      isinstance(phase, list | tuple)
      and len(phase) == 2
      and isinstance(phase[0], int)
      and min(phase) > 0
    )
    if not good:
      raise ValueError(f"phases has {phase!r}, {expected}")


def build_network(section: Mapping[str, Any]) -> network_lib.NetworkConfig:
  """The network of a config's section: a preset, and fields that are not None.

  A preset, or an architecture, of the form 'module:factory' is a network of your own,
  and the fields are its own.
  """
  fields = {k: v for k, v in section.items() if k != "preset" and v is not None}
  own = next(
    (n for n in (fields.get("architecture", ""), section["preset"]) if ":" in n), ""
  )
  try:
    if own:
      return architectures.configure(**{**fields, "architecture": own})
    return network_lib.preset(section["preset"], **fields)
  except (TypeError, ValueError) as error:
    raise cli.UserError(f"config.network: {error}") from error


def check_network(
  found: network_lib.NetworkConfig, expected: network_lib.NetworkConfig, what: str
) -> None:
  """Raises UserError that names the first field in which two networks differ."""
  for name in dataclasses.asdict(expected):
    theirs, ours = getattr(found, name, None), getattr(expected, name)
    if theirs != ours:
      raise cli.UserError(
        f"{what} is of another network: {name} is {theirs!r} in it, but"
        f" config.network says {ours!r}; use the --config that it was trained with"
      )


def build_train(section: Mapping[str, Any]) -> TrainConfig:
  """The training of a config's section."""
  values = dict(section.items())
  optimizer = dict(values.pop("optimizer", {}).items())
  jitter = dict(values.pop("jitter", {}).items())
  try:
    check_phases(values.get("phases"))
  except ValueError as error:
    raise cli.UserError(f"config.train: {error}") from error
  if optimizer.get("decay_steps") is None:
    optimizer["decay_steps"] = int(sum(steps for steps, _ in values["phases"]))
  if optimizer.get("warmup_steps", 0) >= optimizer["decay_steps"]:
    raise cli.UserError(
      f"config.train.optimizer.warmup_steps is {optimizer['warmup_steps']}, but the run"
      f" has {optimizer['decay_steps']} steps (phases); warm up for fewer"
    )
  return cli.build(
    TrainConfig,
    values,
    "train",
    optimizer=cli.build(optimizers.OptimizerConfig, optimizer, "train.optimizer"),
    jitter=cli.build(transforms.ColourJitter, jitter, "train.jitter"),
  )
