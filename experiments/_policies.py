"""Policies by name, as they travel to worker processes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from envs import baselines, rollout
from experiments import _edge, _train_config


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """What a worker needs to make a policy.

  Attributes:
    name: `random` or `servo`.
    version: of the network, '' for policies without one.
    checkpoints: folder of the network's checkpoints, '' for policies without one.
    step: which checkpoint.
    servo: fields of ServoConfig, as (name, value) pairs.
  """

  name: str
  version: str = ""
  checkpoints: str = ""
  step: int = 0
  servo: tuple[tuple[str, Any], ...] = ()


def make_spec(
  policy: str, servo: Mapping[str, Any], expected: Any = None
) -> PolicySpec:
  """Reads --policy: 'random', or a folder of checkpoints for the learned servo.

  Args:
    policy: what the person gave.
    servo: the config's section of that name.
    expected: NetworkConfig that the checkpoint must be of, None for any.

  Raises:
    UserError, CheckpointError: there is no such policy, or it is of another network.
  """
  if policy == "random":
    return PolicySpec("random")
  # JAX is imported only where a network decides: collectors at random start faster.
  from hand_eye import checkpoint
  from hand_eye import servo as servo_lib

  path = _edge.require_folder(policy, "checkpoint", "python -m experiments.train")
  _edge.build(servo_lib.ServoConfig, servo, "servo")
  weights = checkpoint.load_policy(path, step="best")
  if expected is not None:
    _train_config.check_network(weights.config, expected, f"--checkpoint={path}")
  return PolicySpec(
    "servo",
    version=f"{path.resolve().parent.name}-{weights.step}",
    checkpoints=str(path.resolve()),
    step=weights.step,
    servo=tuple(sorted(dict(servo.items()).items())),
  )


@functools.lru_cache(maxsize=4)
def make_policy(spec: PolicySpec) -> rollout.Policy:
  """The policy itself; in a process the same spec is loaded and compiled once."""
  if spec.name == "random":
    return baselines.RandomPolicy()
  from hand_eye import checkpoint, network
  from hand_eye import servo as servo_lib

  _edge.quieten_libraries()
  weights = checkpoint.load_policy(spec.checkpoints, step=spec.step)
  return servo_lib.ServoPolicy(
    network.build_predictor(weights.config),
    weights.params,
    weights.batch_stats,
    config=_edge.build(servo_lib.ServoConfig, dict(spec.servo), "servo"),
  )
