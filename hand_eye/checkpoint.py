"""Checkpoints that explain themselves, kept by Orbax.

A checkpoint is a folder `<directory>/<step>/` of four items:

  policy   averaged parameters and batch statistics: all that inference needs
  state    the rest of the `TrainState`
  info     JSON: format, purpose, network, experiment config, score, shapes of arrays
           and inputs, versions of the software
  data     JSON: the state of the data iterator

The best by score and the last are kept. Scores are read from `info`, so a run that was
interrupted keeps what an uninterrupted one does. Of equals the later is the best.
Writing goes on in the background and ends with a rename, so a killed process leaves no
half checkpoint behind.

A folder that is no whole checkpoint (a copy that was cut short, something stray) is
passed over with a warning.
"""

import base64
import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import math
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from hand_eye import architectures, network, platforms, training

FORMAT = 1

# What a network was trained for, which its weights do not tell: to judge commands on
# whole images, or patches of one image that a calibrated camera took before.
SERVO = "servo"
OPEN_LOOP = "open_loop"

_ITEMS = ("policy", "state", "info", "data")


class CheckpointError(Exception):
  """A checkpoint is missing, unreadable, or of something else than was asked for."""


class UnreadableError(CheckpointError):
  """A checkpoint is incomplete or damaged."""


class Restored(NamedTuple):
  """What `Checkpointer.restore` returns.

  state: the `TrainState`, placed like the one given.
  data_state: state of the data iterator as it was saved, or None.
  step: of the checkpoint.
  """

  state: training.TrainState
  data_state: Any
  step: int


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
        item_names=_ITEMS,
      )
    except OSError as error:
      raise CheckpointError(
        f"cannot write checkpoints to {self._directory}: {error.strerror or error}."
      ) from error
    self._kept.scores |= _scores(_readable(self._manager, self._directory))

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind: type[BaseException] | None, *_) -> None:
    try:
      self.close()
    except CheckpointError:
      if kind is None:  # Otherwise what went wrong first is told.
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
        f"cannot write a checkpoint to {self._directory}: {_first_line(error)}. Fix"
        " that and run the same command again: it continues from the last checkpoint."
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
    info = {
      "format": FORMAT,
      "purpose": self._purpose,
      "step": step,
      "score": score,
      "network": dataclasses.asdict(self._config),
      "experiment": self._experiment,
      "inputs": input_shapes(self._config),
      "shapes": {"policy": _shapes(policy), "state": _shapes(rest)},
      "sha256": {"policy": _sha256(policy), "state": _sha256(rest)},
      "software": software_versions(),
    }
    if score is not None:
      self._kept.scores[step] = score
    with self._writing():
      _check_space(self._directory, (policy, rest))
      is_saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          policy=ocp.args.StandardSave(policy),
          state=ocp.args.StandardSave(rest),
          info=ocp.args.JsonSave(info),
          data=ocp.args.JsonSave(_pack(data_state)),
        ),
      )
    if not is_saved:
      raise CheckpointError(f"step {step} was not saved to {self._directory}.")

  def restore(self, state: training.TrainState, *, step: int | None = None) -> Restored:
    """Reads a checkpoint, the last one unless `step` says otherwise.

    Later folders that are no whole checkpoints are passed over with a warning, and
    renamed, as training will save these steps again.

    Args:
      state: a state of the same network and optimizer, such as `init_state` makes.
        Says where the arrays are to be placed, on whatever number of devices, also
        another than they were saved from; its values are not used.
      step: of the checkpoint.

    Raises:
      CheckpointError: if there is none, or it is of another purpose, network or
        optimizer; the message names the first field that differs.
    """
    if step is not None:
      return self._restore(state, _existing_step(self._manager, self._directory, step))
    unreadable: list[tuple[int, UnreadableError]] = []
    for step in reversed(_steps(self._manager, self._directory)):
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
    info = _read_info(self._manager, step, where)
    _check_purpose(info, self._purpose, where)
    _check_config(_config_of(info, where), self._config, where)
    policy, rest = _divide(state)
    for item, tree in (("policy", policy), ("state", rest)):
      _check_shapes(info["shapes"][item], _shapes(tree), where)
    restored = _read(
      self._manager,
      step,
      where,
      policy=ocp.args.StandardRestore(_abstract(policy)),
      state=ocp.args.StandardRestore(_abstract(rest)),
      data=ocp.args.JsonRestore(),
    )
    _check_sha256(info, where, policy=restored["policy"], state=restored["state"])
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
        folder = self._directory / str(step)
        names = (folder.with_name(f"{step}.unreadable{i or ''}") for i in range(10**6))
        folder.rename(next(name for name in names if not name.exists()))
    multihost_utils.sync_global_devices("unreadable checkpoints were renamed")
    self._manager.reload()
    for step in steps:
      self._kept.scores.pop(step, None)


def load_policy(
  directory: str | pathlib.Path, *, step: int | str = "best", purpose: str = SERVO
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
  directory = _existing(directory)
  platforms.check()
  with _reader(directory) as manager:
    if isinstance(step, str):
      infos = _readable(manager, directory, required=True)
      step = _best(infos) if step == "best" else max(infos)
    step = _existing_step(manager, directory, step)
    where = directory / str(step)
    info = _read_info(manager, step, where)
    _check_purpose(info, purpose, where)
    config = _config_of(info, where)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    params, batch_stats = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
      jax.eval_shape(architectures.build(config).init, jax.random.key(0)),
    )
    template = {"params": params, "batch_stats": batch_stats}
    restored = _read(manager, step, where, policy=ocp.args.StandardRestore(template))
  weights = jax.tree.map(np.asarray, restored["policy"])
  _check_sha256(info, where, policy=weights)
  return PolicyWeights(config, weights["params"], weights["batch_stats"], step)


def describe(
  directory: str | pathlib.Path, *, step: int | None = None
) -> dict[str, Any]:
  """Returns what a checkpoint says about itself, its `info`; of the last by default.

  Raises:
    CheckpointError: if there is none, or it cannot be read.
  """
  directory = _existing(directory)
  with _reader(directory) as manager:
    if step is None:
      infos = _readable(manager, directory, required=True)
      return infos[max(infos)]
    step = _existing_step(manager, directory, step)
    return _read_info(manager, step, directory / str(step))


def scores(directory: str | pathlib.Path) -> dict[int, float]:
  """Returns the scores of the checkpoints that have one, by step; of none, {}.

  Raises:
    CheckpointError: if there is no such directory.
  """
  directory = _existing(directory)
  with _reader(directory) as manager:
    return _scores(_readable(manager, directory))


def best_of(scores: Mapping[int, float]) -> int:
  """Returns the step with the highest score, the later one of equals."""
  return max(scores, key=lambda step: (scores[step], step))


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


def _check_sha256(info: dict[str, Any], where: pathlib.Path, **trees: Any) -> None:
  for name, tree in trees.items():
    if _sha256(tree) != info.get("sha256", {}).get(name):
      raise UnreadableError(
        f"{where} is damaged: the {name} is not what was saved. Use another checkpoint"
        " of the run, or remove this one and train on from the one before."
      )


def _check_purpose(info: dict[str, Any], expected: str, where: pathlib.Path) -> None:
  found = info.get("purpose", SERVO)  # Older checkpoints knew no other.
  if found != expected:
    raise CheckpointError(
      f"{where} holds a network that was trained for {found!r}, expected one for"
      f" {expected!r}: it takes other images. Use another directory."
    )


def _check_config(
  found: network.NetworkConfig, expected: network.NetworkConfig, where: pathlib.Path
) -> None:
  for name in ("architecture", *dataclasses.asdict(expected)):
    mine, theirs = getattr(expected, name), getattr(found, name, None)
    if mine != theirs:
      raise CheckpointError(
        f"{where} is a checkpoint of another network: {name} is {theirs!r} in"
        f" it, expected {mine!r}. Use the configuration that it was trained with, or"
        " another directory."
      )


def _check_shapes(
  found: dict[str, Any], expected: dict[str, Any], where: pathlib.Path
) -> None:
  for name in [*expected, *found]:
    mine, theirs = expected.get(name, "absent"), found.get(name, "absent")
    if mine != theirs:
      raise CheckpointError(
        f"{where} is a checkpoint of another optimizer: {name} is {theirs} in it,"
        f" expected {mine}. Use the configuration that it was trained with, or another"
        " directory."
      )


def _config_of(info: dict[str, Any], where: pathlib.Path) -> network.NetworkConfig:
  try:
    return architectures.configure(**info["network"])
  except (TypeError, ValueError) as error:
    raise CheckpointError(f"{where} holds a network unknown here: {error}") from error


def _existing(directory: str | pathlib.Path) -> pathlib.Path:
  directory = pathlib.Path(directory).absolute()
  if not directory.is_dir():
    raise CheckpointError(
      f"no checkpoint directory at {directory}: train first, or correct the path."
    )
  return directory


def _reader(directory: pathlib.Path) -> ocp.CheckpointManager:
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      read_only=True, create=False, save_interval_steps=0
    ),
    item_names=_ITEMS,
  )


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
    kept = {max(steps, default=None), best_of(scored) if scored else None}
    return [step in kept for step in steps]


def _steps(manager: ocp.CheckpointManager, directory: pathlib.Path) -> list[int]:
  """All steps, rising. Raises CheckpointError if there is none."""
  steps = sorted(manager.all_steps())
  if not steps:
    raise CheckpointError(
      f"no checkpoint in {directory}: train first, or correct the path."
    )
  return steps


def _existing_step(
  manager: ocp.CheckpointManager, directory: pathlib.Path, step: int
) -> int:
  steps = _steps(manager, directory)
  if step not in steps:
    raise CheckpointError(
      f"no checkpoint of step {step} in {directory}, there are: {steps}."
    )
  return step


def _readable(
  manager: ocp.CheckpointManager, directory: pathlib.Path, *, required: bool = False
) -> dict[int, dict[str, Any]]:
  """The `info` of all checkpoints that have one and weights, by step.

  If one is `required`, raises CheckpointError if there is none, and warns of those that
  are passed over.
  """
  infos, errors = {}, []
  for step in _steps(manager, directory) if required else manager.all_steps():
    try:
      infos[step] = _read_info(manager, step, directory / str(step))
    except UnreadableError as error:
      errors.append(error)
  if required and not infos:
    raise errors[-1]
  for reason in errors if required else ():
    logging.warning("%s It is passed over.", reason)
  return infos


def _scores(infos: Mapping[int, dict[str, Any]]) -> dict[int, float]:
  return {
    step: info["score"] for step, info in infos.items() if info["score"] is not None
  }


def _best(infos: Mapping[int, dict[str, Any]]) -> int:
  """The best step by score; the last if none has a score."""
  scored = _scores(infos)
  return best_of(scored) if scored else max(infos)


def _read_info(
  manager: ocp.CheckpointManager, step: int, where: pathlib.Path
) -> dict[str, Any]:
  info = _read(manager, step, where, info=ocp.args.JsonRestore())["info"]
  if not (where / "policy").is_dir():
    raise UnreadableError(f"{where} is incomplete: it holds no weights.")
  if info.get("format") != FORMAT:
    raise CheckpointError(
      f"{where} has format {info.get('format')!r}, expected {FORMAT}."
    )
  return info


def _read(
  manager: ocp.CheckpointManager, step: int, where: pathlib.Path, **args: Any
) -> Any:
  try:
    return manager.restore(step, args=ocp.args.Composite(**args))
  except Exception as error:  # Orbax has no one class for unreadable checkpoints.
    raise UnreadableError(
      f"cannot read checkpoint {where}: {_first_line(error)}."
    ) from error


def _first_line(error: Exception) -> str:
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


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
