"""Videos as animated GIFs, for pages that play no video."""

from pathlib import Path

import av
from PIL import Image

FRAMES_PER_SECOND = 8
_COLOURS = 96
_SHOWN = 12  # frames that the palette is made of


def write_gif(video: Path, path: Path) -> Path:
  """Writes a video's frames, some left out, as a GIF that repeats for ever.

  Args:
    video: an .mp4 that `VideoRecorder` wrote.
    path: of the GIF.

  Returns:
    The path.
  """
  with av.open(str(video)) as container:
    stream = container.streams.video[0]
    every = max(1, round(float(stream.average_rate or 25) / FRAMES_PER_SECOND))
    chosen = [
      frame.to_image()
      for index, frame in enumerate(container.decode(stream))
      if index % every == 0
    ]
  # One palette for all: colours that change from frame to frame would flicker.
  shown = chosen[:: max(1, len(chosen) // _SHOWN)]
  strip = Image.new("RGB", (chosen[0].width * len(shown), chosen[0].height))
  for index, frame in enumerate(shown):
    strip.paste(frame, (index * frame.width, 0))
  palette = strip.quantize(_COLOURS)
  frames = [
    frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in chosen
  ]
  temporary = path.with_name(f".{path.name}.tmp")
  frames[0].save(
    temporary,
    format="GIF",
    save_all=True,
    append_images=frames[1:],
    duration=round(1000 / FRAMES_PER_SECOND),
    loop=0,
  )
  return temporary.replace(path)
