"""What a checkpoint says about itself, and checks against what is expected of it."""

import dataclasses
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hand_eye import architectures, network

FORMAT = 1

# What a network was trained for, which its weights do not tell: to judge commands on
# whole images, or on patches of one image from a calibrated camera.
SERVO = "servo"
OPEN_LOOP = "open_loop"


class CheckpointError(Exception):
  """A checkpoint is missing, unreadable, or of something else than was asked for."""


class UnreadableError(CheckpointError):
  """A checkpoint is incomplete or damaged."""


def make(
  config: network.NetworkConfig,
  *,
  purpose: str,
  step: int,
  score: float | None,
  experiment: Mapping[str, Any],
  **trees: Any,
) -> dict[str, Any]:
  """Returns the `info` of a checkpoint, JSON-able.

  Args:
    config: definition of the network.
    purpose: `SERVO` or `OPEN_LOOP`.
    step: of the checkpoint.
    score: measure of the weights, None if not known.
    experiment: JSON-able description of the run.
    **trees: arrays of each item that is stored; their shapes and checksums are kept.
  """
  return {
    "format": FORMAT,
    "purpose": purpose,
    "step": step,
    "score": score,
    "network": dataclasses.asdict(config),
    "experiment": dict(experiment),
    "inputs": input_shapes(config),
    "shapes": {name: _shapes(tree) for name, tree in trees.items()},
    "sha256": {name: _sha256(tree) for name, tree in trees.items()},
    "software": software_versions(),
  }


def input_shapes(config: network.NetworkConfig) -> dict[str, Any]:
  """Returns dtype and shape of the network's inputs; B is the size of the batch."""
  size = config.crop_size
  return {
    "images": ["uint8", ["B", size, size, network.IMAGE_CHANNELS]],
    "commands": ["float32", ["B", network.COMMAND_SIZE]],
  }


def software_versions() -> dict[str, str]:
  """Returns the versions of the packages that weights depend on."""
  packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  return {package: importlib.metadata.version(package) for package in packages}


def network_of(info: Mapping[str, Any], where: pathlib.Path) -> network.NetworkConfig:
  """Returns the definition of the network that a checkpoint holds.

  Raises:
    CheckpointError: if this version does not know such a network.
  """
  try:
    return architectures.configure(**info["network"])
  except (TypeError, ValueError) as error:
    raise CheckpointError(f"{where} holds a network unknown here: {error}") from error


def check_format(info: Mapping[str, Any], where: pathlib.Path) -> None:
  """Raises CheckpointError if the checkpoint has another format."""
  if info.get("format") != FORMAT:
    raise CheckpointError(
      f"{where} has format {info.get('format')!r}, expected {FORMAT}."
    )


def check_purpose(info: Mapping[str, Any], expected: str, where: pathlib.Path) -> None:
  """Raises CheckpointError if the network was trained for something else."""
  found = info.get("purpose", SERVO)  # Older checkpoints knew no other.
  if found != expected:
    raise CheckpointError(
      f"{where} holds a network that was trained for {found!r}, expected one for"
      f" {expected!r}: it takes other images. Use another directory."
    )


def check_network(
  info: Mapping[str, Any], expected: network.NetworkConfig, where: pathlib.Path
) -> None:
  """Raises CheckpointError, naming the first field that differs."""
  found = network_of(info, where)
  for name in ("architecture", *dataclasses.asdict(expected)):
    mine, theirs = getattr(expected, name), getattr(found, name, None)
    if mine != theirs:
      raise CheckpointError(
        f"{where} is a checkpoint of another network: {name} is {theirs!r} in"
        f" it, expected {mine!r}. Use the configuration that it was trained with, or"
        " another directory."
      )


def check_shapes(info: Mapping[str, Any], where: pathlib.Path, **trees: Any) -> None:
  """Raises CheckpointError, naming the first array that has another shape or type."""
  for item, tree in trees.items():
    expected, found = _shapes(tree), info["shapes"][item]
    for name in [*expected, *found]:
      mine, theirs = expected.get(name, "absent"), found.get(name, "absent")
      if mine != theirs:
        raise CheckpointError(
          f"{where} is a checkpoint of another optimizer: {name} is {theirs} in it,"
          f" expected {mine}. Use the configuration that it was trained with, or"
          " another directory."
        )


def check_values(info: Mapping[str, Any], where: pathlib.Path, **trees: Any) -> None:
  """Raises UnreadableError if arrays differ from those that were saved."""
  for name, tree in trees.items():
    if _sha256(tree) != info.get("sha256", {}).get(name):
      raise UnreadableError(
        f"{where} is damaged: the {name} is not what was saved. Use another checkpoint"
        " of the run, or remove this one and train on from the one before."
      )


def _shapes(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): [
      str(leaf.dtype),
      list(leaf.shape),
    ]
    for path, leaf in leaves
  }


def _sha256(tree: Any) -> str:
  """Checksum of the values of a tree, hexadecimal; waits for them to be computed."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(jax.device_get(tree)):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
