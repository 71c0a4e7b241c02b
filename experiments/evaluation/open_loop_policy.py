"""Makes the open-loop policy from the checkpoints of experiments.train_open_loop."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from envs import calibration
from envs.baselines.open_loop import SEARCH, OpenLoopPolicy, Search
from envs.baselines.patches import Square
from experiments.fitting import patch_inputs
from hand_eye import architectures, checkpoint, commands


def make_open_loop(
  checkpoints: str | Path,
  step: int,
  *,
  search: Search = SEARCH,
  error: calibration.CalibrationError = calibration.EXACT,
) -> OpenLoopPolicy:
  """The open-loop policy with the network of a checkpoint.

  Args:
    checkpoints: folder that python -m experiments.train_open_loop writes.
    step: which checkpoint.
    search, error: see `OpenLoopPolicy`.

  Raises:
    CheckpointError: there is none of that step, or it is of another purpose.
  """
  score, size, square = _load(str(checkpoints), step)
  return OpenLoopPolicy(score, size, square=square, search=search, error=error)


@functools.lru_cache(maxsize=2)
def _load(checkpoints: str, step: int) -> "tuple[PatchScore, int, Square]":
  """Once for all robots: it compiles."""
  weights = checkpoint.load_policy(checkpoints, step=step, purpose=checkpoint.OPEN_LOOP)
  experiment = checkpoint.describe(checkpoints, step=step)["experiment"]
  square = patch_inputs.settings_of(experiment).square
  return PatchScore(weights), weights.config.crop_size, square


class PatchScore:
  """The network as an `open_loop.Score`: probabilities that closing here succeeds."""

  def __init__(self, weights: checkpoint.PolicyWeights):
    predictor = architectures.build_for_control(weights.config)
    prepared = jax.device_put(predictor.prepare(weights.params, weights.batch_stats))

    @jax.jit
    def probabilities(prepared, patches):
      params, batch_stats = prepared
      images = jnp.concatenate([patches, patches], axis=-1)
      features = predictor.encode(params, batch_stats, images)
      null = jnp.broadcast_to(commands.NULL_COMMAND, (len(patches), 5))
      return jax.nn.sigmoid(predictor.score(params, batch_stats, features, null))

    self._probabilities = functools.partial(probabilities, prepared)

  def __call__(self, patches: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """float32[N]; each N that comes is compiled once."""
    del poses
    return np.asarray(self._probabilities(patches))
