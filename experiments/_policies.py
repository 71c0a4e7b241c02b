"""Policies by name, as they travel to worker processes."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
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
    name: `random`, `oracle` or `servo`.
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


@functools.lru_cache(maxsize=4)
def make_policy(spec: PolicySpec) -> rollout.Policy:
  """The policy itself; in a process the same spec is loaded and compiled once."""
  if spec.name == "random":
    return baselines.RandomPolicy()
  if spec.name == "oracle":
    return baselines.OraclePolicy()
  _edge.quieten_libraries()
  weights = checkpoint.load_policy(spec.checkpoints, step=spec.step)
  return servo_lib.ServoPolicy(
    network_lib.build_predictor(weights.config),
    weights.params,
    weights.batch_stats,
    config=_edge.build(servo_lib.ServoConfig, dict(spec.servo), "servo"),
  )
