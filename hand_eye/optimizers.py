"""Optimizers by name, with a warmup, a cosine decay and clipping around them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import optax

from hand_eye import factories

_OURS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The optimizer. The paper gives none of these numbers.

  Attributes:
    name: `adamw`, `sgd` (with Nesterov momentum), any other function of optax that
      takes a `learning_rate`, such as `lion`, or such a function of your own
      as 'module:factory'.
    learning_rate: peak of the schedule.
    warmup_steps: steps of linear rise from zero.
    decay_steps: step at which the cosine decay reaches zero; 0 keeps the peak.
    weight_decay: decoupled, on kernels only: not on biases nor on batch norm. 0 for
      functions that take none.
    momentum: of `sgd`.
    clip_norm: largest global norm of the gradient; 0 does not clip.
  """

  name: str = "adamw"
  learning_rate: float = 1e-3
  warmup_steps: int = 0
  decay_steps: int = 0
  weight_decay: float = 1e-4
  momentum: float = 0.9
  clip_norm: float = 1.0

  def __post_init__(self):
    if self.name not in _OURS:
      _check_takes(_optimizer(self.name), self)
    if not self.learning_rate > 0:
      raise ValueError(f"learning_rate is {self.learning_rate!r}, expected > 0.")
    if 0 < self.decay_steps <= self.warmup_steps:
      raise ValueError(
        f"decay_steps {self.decay_steps} is not after warmup_steps {self.warmup_steps}."
      )


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
  """Returns the learning rate as a function of the step."""
  peak = config.learning_rate
  if config.decay_steps:
    after = optax.cosine_decay_schedule(peak, config.decay_steps - config.warmup_steps)
  else:
    after = optax.constant_schedule(peak)
  if not config.warmup_steps:
    return after
  warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
  return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  """Builds the optimizer that `config` defines."""
  steps, schedule = [], learning_rate_schedule(config)
  if config.clip_norm:
    steps.append(optax.clip_by_global_norm(config.clip_norm))
  if config.name not in _OURS:
    options: dict[str, Any] = {"learning_rate": schedule}
    if config.weight_decay:
      options |= {"weight_decay": config.weight_decay, "mask": _is_kernel}
    return optax.chain(*steps, _optimizer(config.name)(**options))
  if config.name == "adamw":
    steps.append(optax.scale_by_adam())
  else:
    steps.append(optax.trace(config.momentum, nesterov=True))
  steps.append(optax.add_decayed_weights(config.weight_decay, mask=_is_kernel))
  steps.append(optax.scale_by_learning_rate(schedule))
  return optax.chain(*steps)


def _optimizer(name: str) -> Callable[..., optax.GradientTransformation]:
  """The function of a name, of optax or 'module:factory'."""
  if ":" in name:
    return factories.load(name)
  found = getattr(optax, name, None)
  if not callable(found):
    raise ValueError(
      f"unknown optimizer {name!r}, expected adamw, sgd, another of optax, or"
      " module:factory for your own."
    )
  return found


def _check_takes(make: Callable[..., Any], config: OptimizerConfig) -> None:
  takes = inspect.signature(make).parameters
  if "learning_rate" not in takes:
    raise ValueError(f"{config.name!r} takes no learning_rate: it is no optimizer.")
  if config.weight_decay and not {"weight_decay", "mask"} <= set(takes):
    raise ValueError(
      f"the optimizer {config.name!r} takes no weight_decay with a mask: set"
      " weight_decay to 0, or choose another one."
    )


def _is_kernel(params: chex.ArrayTree) -> chex.ArrayTree:
  return jax.tree.map_with_path(
    lambda path, _: getattr(path[-1], "key", None) == "kernel", params
  )
