"""Policies by name, as they travel to worker processes.

Whoever adds one enters it in POLICIES; all programs take it from there.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from envs import baselines, rollout
from experiments import _edge, _train_config
from hand_eye import checkpoint
from hand_eye import network as network_lib
from hand_eye import servo as servo_lib


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """What a worker needs to make a policy.

  Attributes:
    name: of POLICIES.
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


RANDOM = PolicySpec("random")
ORACLE = PolicySpec("oracle")  # reads the simulator's state: a ceiling


def choose(
  name: str, config: Mapping[str, Any], checkpoints: str | Path, *, flag: str
) -> PolicySpec:
  """The policy of a name.

  Args:
    name: of POLICIES.
    config: its sections `network` and `servo` are for the servo.
    checkpoints: folder of the network's checkpoints, for the servo.
    flag: by which the person gave that folder, for messages.

  Raises:
    UserError, CheckpointError: there is none of that name, or no network for it.
  """
  _require_known(name)
  if name != "servo":
    return PolicySpec(name)
  network = _train_config.build_network(config["network"])
  return servo_spec(checkpoints, config["servo"], network, flag=flag)


def servo_spec(
  checkpoints: str | Path,
  servo: Mapping[str, Any],
  expected: network_lib.NetworkConfig,
  *,
  flag: str,
) -> PolicySpec:
  """The learned servo with the best checkpoint of a folder.

  Args:
    checkpoints: folder that python -m experiments.train writes.
    servo: the config's section of that name.
    expected: the network that the checkpoint must be of.
    flag: by which the person gave the folder, for messages.

  Raises:
    UserError, CheckpointError: there is no such policy, or it is of another network.
  """
  path = _edge.require_folder(checkpoints, flag, "python -m experiments.train")
  _edge.build(servo_lib.ServoConfig, servo, "servo")
  weights = checkpoint.load_policy(path, step="best")
  _train_config.check_network(weights.config, expected, f"--{flag}={path}")
  return PolicySpec(
    "servo",
    version=f"step-{weights.step}-{_fingerprint(weights)}",
    checkpoints=str(path.resolve()),
    step=weights.step,
    servo=tuple(sorted(dict(servo.items()).items())),
  )


def _fingerprint(weights: checkpoint.PolicyWeights) -> str:
  """Twelve hexadecimal digits that change with any weight."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves((weights.params, weights.batch_stats)):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()[:12]


def _make_servo(spec: PolicySpec) -> rollout.Policy:
  _edge.quieten_libraries()
  weights = checkpoint.load_policy(spec.checkpoints, step=spec.step)
  return servo_lib.ServoPolicy(
    network_lib.build_predictor(weights.config),
    weights.params,
    weights.batch_stats,
    config=_edge.build(servo_lib.ServoConfig, dict(spec.servo), "servo"),
  )


# What makes each policy, in the order in which programs list them.
POLICIES: dict[str, Callable[[PolicySpec], rollout.Policy]] = {
  "random": lambda spec: baselines.RandomPolicy(),
  "servo": _make_servo,
  "oracle": lambda spec: baselines.OraclePolicy(),
}


@functools.lru_cache(maxsize=4)
def make_policy(spec: PolicySpec) -> rollout.Policy:
  """The policy itself; in a process the same spec is loaded and compiled once.

  Raises:
    UserError: POLICIES has none of that name.
  """
  _require_known(spec.name)
  return POLICIES[spec.name](spec)


def _require_known(name: str) -> None:
  if name not in POLICIES:
    raise _edge.UserError(
      f"policy {name!r} is not known; expected one of {', '.join(POLICIES)}"
    )
