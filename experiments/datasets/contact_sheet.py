"""A contact sheet: a few attempts, each as a strip of its images with its outcome."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline import source
from data_pipeline.attempts import family_of
from experiments.pictures import sheets

TILE = 132  # pixels, of one image.
_BAND = 4
_SUCCESS, _FAILURE = (79, 190, 116), (214, 82, 72)


def choose(attempts: source.Attempts, count: int, seed: int = 0) -> list[int]:
  """Picks attempts: successes and failures, spread over all units.

  Returns:
    At most `count` indices, half successes and half failures where both exist.
  """
  order = np.random.default_rng(seed).permutation(len(attempts))
  unit, success = np.asarray(attempts.unit), attempts.success
  queues = []
  for label in (True, False):
    mine = order[success[order] == label]
    # How many of the same unit come before: the first of each unit go first.
    _, codes = np.unique(unit[mine], return_inverse=True)
    rank = np.zeros(len(mine), int)
    for code in range(codes.max(initial=-1) + 1):
      rank[codes == code] = np.arange(np.sum(codes == code))
    queues.append(mine[np.argsort(rank, kind="stable")].tolist())
  wins, losses = queues
  shown = min(count, len(attempts))
  first = min(len(wins), max(shown // 2, shown - len(losses)))
  mixed = [*wins[:first], *losses[: shown - first]]
  return sorted(mixed, key=lambda i: (not success[i], str(unit[i]), i))


def draw(attempts: Sequence[dict[str, Any]], *, columns: int = 2) -> np.ndarray:
  """Draws attempts: the scene before, the first image, the image at closing.

  Args:
    attempts: decoded, with their images.
    columns: strips beside each other.

  Returns:
    uint8[H, W, 3]: a strip an attempt, with a band in the colour of its outcome below.
  """
  if not attempts:
    return np.zeros((1, 1, 3), np.uint8)
  tiles = [sheets.Tile(_strip(attempt), _words(attempt)) for attempt in attempts]
  rows = -(-len(tiles) // columns)
  # Column by column, so that successes stand beside failures.
  ordered = [tile for row in range(rows) for tile in tiles[row::rows]]
  return sheets.sheet(ordered, columns)


def _strip(record: dict[str, Any]) -> np.ndarray:
  images = [record["pregrasp_image"], record["images"][0], record["images"][-1]]
  tiles = [
    np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC))
    for image in images
  ]
  strip = np.concatenate(tiles, axis=1)
  colour = _SUCCESS if record["success"] else _FAILURE
  band = np.broadcast_to(np.array(colour, np.uint8), (_BAND, *strip.shape[1:]))
  return np.concatenate([strip, band])


def _words(record: dict[str, Any]) -> tuple[str, str]:
  outcome = "success" if record["success"] else "failure"
  if record["grasped"]:
    outcome += f": {family_of(record['grasped'])}"
  return f"{record['unit']}, T = {len(record['poses'])}", outcome
