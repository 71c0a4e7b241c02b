"""The batches of a training run: the curriculum's phases, each host its share."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import source
from experiments.fitting.train_config import TrainConfig
from hand_eye import training


@dataclasses.dataclass(frozen=True)
class Loading:
  """How batches are made.

  Attributes:
    mixture: share of each dataset in them; empty for as many samples as each has.
    num_threads: threads that make them; does not change them.
    num_workers: processes that make them; does not change them. With any, images are
      not kept in memory, of which each would have its own copy.
    host_index: this process, 0 <= host_index < host_count.
    host_count: processes that train together; each makes its share of a batch.
  """

  mixture: tuple[float, ...] = ()
  num_threads: int = 1
  num_workers: int = 0
  host_index: int = 0
  host_count: int = 1


ONE_THREAD = Loading()


def loader_configs(
  settings: TrainConfig, crop_size: int, loading: Loading = ONE_THREAD
) -> list[loader_lib.LoaderConfig]:
  """One loader a phase; each has an order and augmentation of its own."""
  return [
    loader_lib.LoaderConfig(
      batch_size=settings.batch_size // loading.host_count,
      crop_size=crop_size,
      seed=settings.seed * len(settings.phases) + phase,
      mirror_probability=settings.mirror_probability,
      jitter=settings.jitter,
      max_distance=longest,
      mixture=loading.mixture,
      num_threads=loading.num_threads,
      num_workers=loading.num_workers,
      host_index=loading.host_index,
      host_count=loading.host_count,
    )
    for phase, (_, longest) in enumerate(settings.phases)
  ]


class Batches:
  """The batches of the whole curriculum, one phase after the other.

  Attributes:
    phase: of the last batch.
  """

  def __init__(
    self,
    dataset: source.Dataset,
    phases: list[loader_lib.LoaderConfig],
    settings: TrainConfig,
    frames: frames_lib.Frames,
  ):
    self._dataset, self._phases = dataset, phases
    self._settings, self._frames = settings, frames
    self._loader: loader_lib.Loader
    self._step = 0
    self.phase = -1

  def start(self, step: int, state: Mapping[str, Any] | None) -> None:
    """Goes to where `step` steps were taken; `state` is that of `self.state()`.

    The state may come from another host, or from a run on another number of them: the
    batches are the same.
    """
    self._step = step
    self._enter(self._settings.phase_at(step))
    if state is None or state["phase"] != self.phase:
      return
    self._loader.set_state(state["loader"].encode())

  def state(self) -> dict[str, Any]:
    """What `start` needs, as JSON."""
    return {"phase": self.phase, "loader": self._loader.get_state().decode()}

  def __next__(self) -> loader_lib.Batch:
    phase = self._settings.phase_at(self._step)
    if phase != self.phase:
      self._enter(phase)
    self._step += 1
    return next(self._loader)

  def close(self) -> None:
    """Stops threads and workers."""
    if self.phase >= 0:
      self._loader.close()

  def _enter(self, phase: int) -> None:
    self.close()
    self.phase = phase
    self._loader = loader_lib.make_loader(
      self._dataset, self._phases[phase], self._frames
    )


def to_device(batch: Mapping[str, Any], mesh: jax.sharding.Mesh) -> training.Batch:
  """Places this host's share of a batch on its devices, joined with the others'."""
  return training.shard_batch(
    training.Batch(
      pregrasp_image=batch["pregrasp_image"],
      image=batch["image"],
      command=batch["command"],
      success=batch["success"],
      pose=batch.get("pose"),
      crop_offset=batch.get("crop_offset"),
    ),
    mesh,
  )
