"""The folder of a run's checkpoints: which there are, which can be read, the best."""

import pathlib
from collections.abc import Mapping
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from hand_eye.checkpoint import info as info_lib
from hand_eye.checkpoint.info import CheckpointError, UnreadableError

ITEMS = ("policy", "state", "info", "data")


def existing(directory: str | pathlib.Path) -> pathlib.Path:
  """Returns the absolute path. Raises CheckpointError if there is no such folder."""
  directory = pathlib.Path(directory).absolute()
  if not directory.is_dir():
    raise CheckpointError(
      f"no checkpoint directory at {directory}: train first, or correct the path."
    )
  return directory


def reader(directory: pathlib.Path) -> ocp.CheckpointManager:
  """Returns a manager, a context manager, that writes nothing."""
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      read_only=True, create=False, save_interval_steps=0
    ),
    item_names=ITEMS,
  )


def steps(manager: ocp.CheckpointManager) -> list[int]:
  """Returns all steps, rising. Raises CheckpointError if there is none."""
  found = sorted(manager.all_steps())
  if not found:
    raise CheckpointError(
      f"no checkpoint in {manager.directory}: train first, or correct the path."
    )
  return found


def existing_step(manager: ocp.CheckpointManager, step: int) -> int:
  """Returns the step. Raises CheckpointError if there is no checkpoint of it."""
  found = steps(manager)
  if step not in found:
    raise CheckpointError(
      f"no checkpoint of step {step} in {manager.directory}, there are: {found}."
    )
  return step


def readable(
  manager: ocp.CheckpointManager, *, required: bool = False
) -> dict[int, dict[str, Any]]:
  """Returns the `info` of all checkpoints that have one and weights, by step.

  If one is `required`, raises CheckpointError if there is none, and warns of those that
  are skipped.
  """
  infos, errors = {}, []
  for step in steps(manager) if required else manager.all_steps():
    try:
      infos[step] = read_info(manager, step)
    except UnreadableError as error:
      errors.append(error)
  if required and not infos:
    raise errors[-1]
  for reason in errors if required else ():
    logging.warning("%s It is skipped.", reason)
  return infos


def scores_of(infos: Mapping[int, dict[str, Any]]) -> dict[int, float]:
  """Returns the scores of the checkpoints that have one, by step."""
  return {
    step: info["score"] for step, info in infos.items() if info["score"] is not None
  }


def best_of(scores: Mapping[int, float]) -> int:
  """Returns the step with the highest score, the later one of equals."""
  return max(scores, key=lambda step: (scores[step], step))


def read_info(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
  """Reads what the checkpoint of a step says about itself.

  Raises:
    UnreadableError: if it cannot be read, or there are no weights beside it.
    CheckpointError: if it has another format.
  """
  where = path_of(manager, step)
  info = read(manager, step, info=ocp.args.JsonRestore())["info"]
  if not (where / "policy").is_dir():
    raise UnreadableError(f"{where} is incomplete: it holds no weights.")
  info_lib.check_format(info, where)
  return info


def read(manager: ocp.CheckpointManager, step: int, **args: Any) -> Any:
  """Reads items of a checkpoint, each by its `ocp.args`.

  Raises:
    UnreadableError: if one cannot be read.
  """
  try:
    return manager.restore(step, args=ocp.args.Composite(**args))
  except Exception as error:  # Orbax has no one class for unreadable checkpoints.
    raise UnreadableError(
      f"cannot read checkpoint {path_of(manager, step)}: {first_line(error)}."
    ) from error


def path_of(manager: ocp.CheckpointManager, step: int) -> pathlib.Path:
  """Returns the folder of a step."""
  return pathlib.Path(manager.directory) / str(step)


def first_line(error: Exception) -> str:
  """Returns what an error says, in one line without a full stop."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
