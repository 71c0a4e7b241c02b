"""Trained weights and their description, read without an optimizer."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from hand_eye import architectures, network, platforms
from hand_eye.checkpoint import folder, info


class PolicyWeights(NamedTuple):
  """What inference needs of a training run.

  config: definition of the network.
  params, batch_stats: moving averages, nested dicts of NumPy arrays.
  step: of the checkpoint that they come from.
  """

  config: network.NetworkConfig
  params: network.ArrayTree
  batch_stats: network.ArrayTree
  step: int


def load_policy(
  directory: str | pathlib.Path, *, step: int | str = "best", purpose: str = info.SERVO
) -> PolicyWeights:
  """Reads the averaged weights of a training run. Needs no optimizer.

  Args:
    directory: of the checkpoints of a run.
    step: of the checkpoint, or `best` (by score; the last if none has a score), or
      `last`.
    purpose: what the network must have been trained for.

  Raises:
    CheckpointError: if there is no such checkpoint, it is of another purpose, or it
      cannot be read.
  """
  directory = folder.existing(directory)
  platforms.check()
  with folder.reader(directory) as manager:
    if isinstance(step, str):
      infos = folder.readable(manager, required=True)
      scored = folder.scores_of(infos) if step == "best" else {}
      step = folder.best_of(scored) if scored else max(infos)
    step = folder.existing_step(manager, step)
    where = folder.path_of(manager, step)
    described = folder.read_info(manager, step)
    info.check_purpose(described, purpose, where)
    config = info.network_of(described, where)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, batch_stats = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
      jax.eval_shape(architectures.build(config).init, jax.random.key(0)),
    )
    template = {"params": params, "batch_stats": batch_stats}
    restored = folder.read(manager, step, policy=ocp.args.StandardRestore(template))
  weights = jax.tree.map(np.asarray, restored["policy"])
  info.check_values(described, where, policy=weights)
  return PolicyWeights(config, weights["params"], weights["batch_stats"], step)


def describe(
  directory: str | pathlib.Path, *, step: int | None = None
) -> dict[str, Any]:
  """Returns what a checkpoint says about itself, its `info`; of the last by default.

  Raises:
    CheckpointError: if there is none, or it cannot be read.
  """
  with folder.reader(folder.existing(directory)) as manager:
    if step is None:
      infos = folder.readable(manager, required=True)
      return infos[max(infos)]
    return folder.read_info(manager, folder.existing_step(manager, step))


def scores(directory: str | pathlib.Path) -> dict[int, float]:
  """Returns the scores of the checkpoints that have one, by step; of none, {}.

  Raises:
    CheckpointError: if there is no such directory.
  """
  with folder.reader(folder.existing(directory)) as manager:
    return folder.scores_of(folder.readable(manager))
