"""What a network sees of attempts: the whole images of every step, or patches."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from data_pipeline import frames as frames_lib
from data_pipeline import source
from hand_eye import checkpoint


def _every_step(dataset: source.Dataset, *, is_training: bool) -> source.Dataset:
  del is_training
  return dataset


@dataclasses.dataclass(frozen=True)
class InputSpec:
  """What a network sees, and what it is for. The default is the servo's.

  Attributes:
    purpose: of its checkpoints, see hand_eye.checkpoint.
    details: what else decides it, for config.json.
    samples: `(dataset, *, is_training) -> dataset`, the one whose steps are samples.
    load_frames: `(dataset, cache_bytes) -> frames`, the images of those samples.
  """

  purpose: str = checkpoint.SERVO
  details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  samples: Callable[..., source.Dataset] = _every_step
  load_frames: Callable[[source.Dataset, int], frames_lib.Frames] = (
    frames_lib.load_frames
  )

  @property
  def identity(self) -> dict[str, Any]:
    """The section of config.json."""
    return {"purpose": self.purpose, **self.details}


WHOLE_IMAGES = InputSpec()
