"""A video as a GIF: the same scene, repeated for ever."""

import av
import numpy as np
from PIL import Image, ImageSequence

from experiments.pictures import animation


def test_a_video_becomes_a_gif_of_the_same_length(tmp_path):
  path = tmp_path / "video.mp4"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=25)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    for level in np.linspace(0, 250, 50):
      picture = np.full((64, 64, 3), level, np.uint8)
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  made = Image.open(animation.write_gif(path, tmp_path / "video.gif"))
  assert made.info["loop"] == 0
  frames = [np.asarray(f.convert("L")) for f in ImageSequence.Iterator(made)]
  assert abs(len(frames) / animation.FRAMES_PER_SECOND - 2.0) < 0.2
  assert frames[0].mean() < 40 < 200 < frames[-1].mean()
