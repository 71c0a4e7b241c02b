"""Sheets of pictures with captions."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments import cli

_MARGIN = 4  # pixels
_PAPER, _INK, _GREY = (250, 250, 250), (20, 20, 24), (110, 110, 118)


@dataclasses.dataclass(frozen=True)
class Tile:
  """A picture with words under it, the first line its name."""

  image: np.ndarray  # uint8[H, W, 3]
  lines: tuple[str, ...]


def sheet(tiles: Sequence[Tile], columns: int) -> np.ndarray:
  """uint8[H, W, 3]: the tiles in rows, each with its words below, wrapped to fit."""
  columns = min(columns, len(tiles))
  height, width = tiles[0].image.shape[:2]
  text = max(10, min(16, width // 16))  # pixels
  plain = ImageFont.load_default(text)
  wrapped = [_wrapped(tile.lines, plain, width) for tile in tiles]
  line = round(1.3 * text)
  cell = (width + 2 * _MARGIN, height + line * max(map(len, wrapped)) + 3 * _MARGIN)
  rows = -(-len(tiles) // columns)
  canvas = Image.new("RGB", (cell[0] * columns, cell[1] * rows), _PAPER)
  draw = ImageDraw.Draw(canvas)
  for i, (tile, lines) in enumerate(zip(tiles, wrapped, strict=True)):
    left = cell[0] * (i % columns) + _MARGIN
    top = cell[1] * (i // columns) + _MARGIN
    canvas.paste(Image.fromarray(tile.image), (left, top))
    for k, words in enumerate(lines):
      spot = (left, top + height + _MARGIN // 2 + k * line)
      draw.text(spot, words, fill=_GREY if k else _INK, font=plain)
  return np.asarray(canvas)


def write_sheet(path: str | Path, tiles: Sequence[Tile], columns: int) -> None:
  """Writes `sheet` as a PNG."""
  write_png(path, sheet(tiles, columns))


def write_png(path: str | Path, image: np.ndarray) -> None:
  """Writes uint8[H, W, 3]; the file appears under its name only when it is whole."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format="png")
  cli.write_atomically(path, buffer.getvalue())


def _wrapped(lines: Sequence[str], font, width: int) -> list[str]:
  """The lines, broken between words where they are wider than a tile."""
  broken = []
  for line in lines:
    current = ""
    for word in line.split():
      while font.getlength(word) > width:  # nowhere to break it: cut it short
        word = f"{word.removesuffix('…')[:-1]}…"
      longer = f"{current} {word}".strip()
      if current and font.getlength(longer) > width:
        broken.append(current)
        longer = word
      current = longer
    broken.append(current)
  return broken
