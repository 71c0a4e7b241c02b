"""Which samples a loader gives, in what order, and how they are changed."""

import dataclasses
import math

from data_pipeline import transforms


class LoaderError(ValueError):
  """A loader cannot be made, or cannot go on, with what it was given."""


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
  """Which samples, in what order, and how they are changed.

  Attributes:
    batch_size: samples of a batch, on this host.
    crop_size: height and width of the crops, pixels.
    seed: decides order and augmentation.
    shuffle: whether to draw a new order of all samples for each epoch.
    random_crop: whether a sample's crop lies anywhere in its frames; else in the
      middle. Both images of a sample share it.
    mirror_probability: how often left and right are exchanged, dy and dyaw with them.
    jitter: how far the colours of a sample are changed.
    num_epochs: passes over the samples; None for endlessly many.
    drop_remainder: whether the last batch is left out where it is not full. Without
      it every sample comes exactly `num_epochs` times.
    min_distance: samples with |p_T - p_t| below are left out, metres.
    max_distance: samples with |p_T - p_t| of this or above are left out, metres.
    mixture: share of each merged dataset (`Dataset.part`) in the batches, of which
      only the ratios count; each is shuffled and repeated by itself, endlessly.
      Empty: one epoch of all samples after the other.
    host_index: this host, 0 <= host_index < host_count. Its batches are the rows from
      `host_index * batch_size` on of batches of `host_count * batch_size`.
    host_count: how many hosts there are.
    num_workers: processes that make batches; 0 makes them in this one. Grain's
      workers need parsed flags, as in a program started by `absl.app.run`.
    num_threads: threads of each process that make batches.
    prefetch: batches kept ready.
  """

  batch_size: int
  crop_size: int
  seed: int = 0
  shuffle: bool = True
  random_crop: bool = True
  mirror_probability: float = 0.0
  jitter: transforms.ColourJitter = transforms.ColourJitter()
  num_epochs: int | None = None
  drop_remainder: bool = True
  min_distance: float = 0.0
  max_distance: float = math.inf
  mixture: tuple[float, ...] = ()
  host_index: int = 0
  host_count: int = 1
  num_workers: int = 0
  num_threads: int = 1
  prefetch: int = 4

  def __post_init__(self) -> None:
    for name in ("batch_size", "crop_size", "host_count", "num_threads", "prefetch"):
      if getattr(self, name) < 1:
        raise LoaderError(f"{name} is {getattr(self, name)}, expected at least 1")
    if self.num_epochs is not None and self.num_epochs < 1:
      raise LoaderError(f"num_epochs is {self.num_epochs}, expected 1 or more, or None")
    if not 0 <= self.host_index < self.host_count:
      raise LoaderError(
        f"host_index is {self.host_index}, expected 0 to {self.host_count - 1} as "
        f"host_count is {self.host_count}"
      )
    if not 0 <= self.mirror_probability <= 1:
      raise LoaderError(
        f"mirror_probability is {self.mirror_probability}, expected 0 to 1"
      )
    if self.mixture and not all(0 < w < math.inf for w in self.mixture):
      raise LoaderError(f"mixture is {self.mixture}, expected weights above 0")
    if self.mixture and self.num_epochs is not None:
      raise LoaderError(
        f"num_epochs is {self.num_epochs}, expected None with a mixture, whose parts "
        "end at different times"
      )

  def identity(self) -> dict[str, object]:
    """Returns what decides the batches of all hosts; workers and threads do not."""
    fields = dataclasses.asdict(self)
    for name in ("num_workers", "num_threads", "prefetch"):
      del fields[name]
    # A batch is the same on one host or many, so its place is, too.
    fields |= {"batch_size": self.batch_size * self.host_count}
    fields |= {"host_index": 0, "host_count": 1}
    if not self.mixture:
      del fields["mixture"]  # So that states of before mixtures stay valid.
    return fields


def evaluation_config(batch_size: int, crop_size: int) -> LoaderConfig:
  """Every sample once, in order, in its centre crop; the last batch may be short.

  Where broken records are skipped, another sample stands in for a broken one and so
  comes twice: leave out the rows that `Batch.replaced` marks.
  """
  return LoaderConfig(
    batch_size=batch_size,
    crop_size=crop_size,
    shuffle=False,
    random_crop=False,
    num_epochs=1,
    drop_remainder=False,
  )
