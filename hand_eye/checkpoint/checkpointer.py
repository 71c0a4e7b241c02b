"""The checkpoints of one training run: saved in the background, restored exactly."""

import base64
import contextlib
import dataclasses
import errno
import math
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from hand_eye import network, training
from hand_eye.checkpoint import folder, info
from hand_eye.checkpoint.info import SERVO, CheckpointError, UnreadableError


class Restored(NamedTuple):
  """What `Checkpointer.restore` returns.

  state: the `TrainState`, placed like the one given.
  data_state: state of the data iterator as it was saved, or None.
  step: of the checkpoint.
  """

  state: training.TrainState
  data_state: Any
  step: int


class Checkpointer:
  """Writes and reads the checkpoints of one training run.

  A context manager: leaving it waits for the last write.

  Args:
    directory: of this run's checkpoints; made if absent.
    config: network that is trained.
    purpose: what for, `SERVO` or `OPEN_LOOP`.
    experiment: JSON-able description of the run, stored with each checkpoint.

  Raises:
    CheckpointError: if the directory cannot be written.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    config: network.NetworkConfig,
    *,
    purpose: str = SERVO,
    experiment: Mapping[str, Any] | None = None,
  ):
    self._directory = pathlib.Path(directory).absolute()
    self._config, self._purpose = config, purpose
    self._experiment = dict(experiment or {})
    self._kept = _BestAndLast()
    try:
      self._directory.mkdir(parents=True, exist_ok=True)
      self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self._kept,
          # Else threads that wait for a folder that cannot be made keep a process
          # from ending for minutes.
          async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
          cleanup_tmp_directories=True,  # of a run that was killed
        ),
        item_names=folder.ITEMS,
      )
    except OSError as error:
      raise CheckpointError(
        f"cannot write checkpoints to {self._directory}: {error.strerror or error}."
      ) from error
    self._kept.scores |= folder.scores_of(folder.readable(self._manager))

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_) -> None:
    try:
      self.close()
    except CheckpointError:
      if kind is None:  # Otherwise the first error is the one to report.
        raise

  def close(self) -> None:
    """Waits for the last write and lets go of the directory.

    Raises:
      CheckpointError: if it could not be written.
    """
    with self._writing():
      self._manager.close()

  def wait(self) -> None:
    """Waits until all that was saved is on the disk.

    Raises:
      CheckpointError: if it could not be written.
    """
    with self._writing():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # Orbax has no one class for failed writes either.
      raise CheckpointError(
        f"cannot write a checkpoint to {self._directory}: {folder.first_line(error)}."
        " Fix that and run the same command again: it continues from the last"
        " checkpoint."
      ) from error

  @property
  def latest_step(self) -> int | None:
    """Step of the last checkpoint, or None."""
    return self._manager.latest_step()

  @property
  def latest(self) -> pathlib.Path | None:
    """Folder of the last checkpoint, or None."""
    step = self.latest_step
    return None if step is None else self._directory / str(step)

  def save(
    self,
    state: training.TrainState,
    *,
    score: float | None = None,
    data_state: Any = None,
  ) -> None:
    """Saves a checkpoint of `state.step` in the background.

    Args:
      state: may be donated to the next step as soon as this returns.
      score: measure of the weights, higher is better; None or NaN if not known.
      data_state: state of the data iterator: bytes, or what JSON can hold.

    Raises:
      CheckpointError: if there is one of this step or a later one, which resuming
        would take; if no space is left; or if the one before could not be written.
    """
    step = int(jax.device_get(state.step))
    if self.latest_step is not None and step <= self.latest_step:
      raise CheckpointError(
        f"cannot save step {step}: {self.latest} is there already and would be resumed"
        " from. Remove what is not wanted, or use another directory."
      )
    if score is not None:
      score = float(score) if math.isfinite(score) else None
    policy, rest = _divide(state)
    described = info.make(
      self._config,
      purpose=self._purpose,
      step=step,
      score=score,
      experiment=self._experiment,
      policy=policy,
      state=rest,
    )
    if score is not None:
      self._kept.scores[step] = score
    with self._writing():
      _check_space(self._directory, (policy, rest))
      is_saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          policy=ocp.args.StandardSave(policy),
          state=ocp.args.StandardSave(rest),
          info=ocp.args.JsonSave(described),
          data=ocp.args.JsonSave(_pack(data_state)),
        ),
      )
    if not is_saved:
      raise CheckpointError(f"step {step} was not saved to {self._directory}.")

  def restore(self, state: training.TrainState, *, step: int | None = None) -> Restored:
    """Reads a checkpoint, the last one unless `step` says otherwise.

    Later folders that are not complete checkpoints are skipped with a warning, and
    renamed, because training will save these steps again.

    Args:
      state: a state of the same network and optimizer, such as `init_state` makes.
        Arrays are placed like its arrays, on any number of devices; its values are
        not used.
      step: of the checkpoint.

    Raises:
      CheckpointError: if there is none, or it is of another purpose, network or
        optimizer; the message names the first field that differs.
    """
    if step is not None:
      return self._restore(state, folder.existing_step(self._manager, step))
    unreadable: list[tuple[int, UnreadableError]] = []
    for step in reversed(folder.steps(self._manager)):
      try:
        restored = self._restore(state, step)
      except UnreadableError as error:
        unreadable.append((step, error))
        continue
      for _, reason in unreadable:
        logging.warning("%s Step %d follows.", reason, step)
      self._set_aside([step for step, _ in unreadable])
      return restored
    raise unreadable[0][1]

  def _restore(self, state: training.TrainState, step: int) -> Restored:
    where = self._directory / str(step)
    described = folder.read_info(self._manager, step)
    info.check_purpose(described, self._purpose, where)
    info.check_network(described, self._config, where)
    policy, rest = _divide(state)
    info.check_shapes(described, where, policy=policy, state=rest)
    restored = folder.read(
      self._manager,
      step,
      policy=ocp.args.StandardRestore(_abstract(policy)),
      state=ocp.args.StandardRestore(_abstract(rest)),
      data=ocp.args.JsonRestore(),
    )
    info.check_values(
      described, where, policy=restored["policy"], state=restored["state"]
    )
    restored_state = training.TrainState(
      ema_params=restored["policy"]["params"],
      ema_batch_stats=restored["policy"]["batch_stats"],
      **restored["state"],
    )
    return Restored(restored_state, _unpack(restored["data"]), step)

  def _set_aside(self, steps: Sequence[int]) -> None:
    """Renames the folders of steps, so that these can be saved again."""
    if not steps:
      return
    if jax.process_index() == 0:
      for step in steps:
        old = self._directory / str(step)
        names = (old.with_name(f"{step}.unreadable{i or ''}") for i in range(10**6))
        old.rename(next(name for name in names if not name.exists()))
    multihost_utils.sync_global_devices("unreadable checkpoints were renamed")
    self._manager.reload()
    for step in steps:
      self._kept.scores.pop(step, None)


class _BestAndLast(ocp.checkpoint_managers.PreservationPolicy):
  """Keeps the best checkpoint by score and the last one.

  Orbax has a policy of this name, `BestN`, but it only knows the scores that its own
  process saved, and would remove the best checkpoint of the process before.

  Attributes:
    scores: by step, of this process and those before.
  """

  def __init__(self) -> None:
    self.scores: dict[int, float] = {}

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    del context
    steps = [one.step for one in checkpoints]
    scored = {step: self.scores[step] for step in steps if step in self.scores}
    kept = {max(steps, default=None), folder.best_of(scored) if scored else None}
    return [step in kept for step in steps]


def _divide(state: training.TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
  """Divides a state into its policy and the rest."""
  rest = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
  policy = {
    "params": rest.pop("ema_params"),
    "batch_stats": rest.pop("ema_batch_stats"),
  }
  return policy, rest


def _abstract(tree: Any) -> Any:
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
    tree,
  )


def _check_space(directory: pathlib.Path, tree: Any) -> None:
  """Raises OSError if a checkpoint may not fit, before Orbax fails in many threads."""
  needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + 1_000_000
  if shutil.disk_usage(directory).free < needed:
    raise OSError(
      errno.ENOSPC, f"no space left on the disk, {needed / 1e6:.1f} MB are needed"
    )


def _pack(data_state: Any) -> dict[str, Any]:
  if isinstance(data_state, bytes):
    return {"base64": base64.b64encode(data_state).decode()}
  return {"json": data_state}


def _unpack(packed: dict[str, Any]) -> Any:
  if "base64" in packed:
    return base64.b64decode(packed["base64"])
  return packed["json"]
