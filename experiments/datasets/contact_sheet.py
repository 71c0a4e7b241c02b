"""A contact sheet: a few attempts, each as a strip of its images with its outcome."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline import source
from data_pipeline.attempts import family_of

TILE = 132  # pixels, of one image.
_CAPTION, _GAP, _BAND = 18, 10, 4
_PAPER, _INK = (24, 24, 28), (235, 235, 235)
_SUCCESS, _FAILURE = (79, 190, 116), (214, 82, 72)


def choose(attempts: source.Attempts, count: int, seed: int = 0) -> list[int]:
  """Picks attempts: successes and failures in turn, from as many units as there are.

  Returns:
    At most `count` indices, successes and failures half and half where both are
    there.
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
    uint8[H, W, 3].
  """
  strips = [_strip(attempt) for attempt in attempts]
  columns = max(1, min(columns, len(strips)))
  rows = -(-len(strips) // columns)
  width, height = strips[0].size if strips else (1, 1)
  sheet = Image.new(
    "RGB",
    (columns * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP),
    _PAPER,
  )
  for i, strip in enumerate(strips):
    # Column by column, so that successes stand beside failures.
    column, row = divmod(i, rows)
    sheet.paste(strip, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
  return np.asarray(sheet)


def _strip(record: dict[str, Any]) -> Image.Image:
  images = [record["pregrasp_image"], record["images"][0], record["images"][-1]]
  strip = Image.new("RGB", (3 * TILE, TILE + _CAPTION + _BAND), _PAPER)
  for i, image in enumerate(images):
    tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC)
    strip.paste(tile, (i * TILE, _CAPTION))
  draw = ImageDraw.Draw(strip)
  colour = _SUCCESS if record["success"] else _FAILURE
  draw.rectangle((0, TILE + _CAPTION, 3 * TILE, TILE + _CAPTION + _BAND), fill=colour)
  outcome = "success" if record["success"] else "failure"
  if record["grasped"]:
    outcome += f": {family_of(record['grasped'])}"
  left = f"{_shortened(record['unit'], 28)}, T = {len(record['poses'])}"
  draw.text((2, 2), left, fill=_INK)
  draw.text((3 * TILE - 2, 2), outcome, fill=colour, anchor="ra")
  return strip


def _shortened(text: str, length: int) -> str:
  return text if len(text) <= length else text[: length - 3] + "..."
