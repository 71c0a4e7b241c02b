"""The gallery: its files, its words under pictures, its refusals."""

import numpy as np
import pytest
from PIL import Image

from experiments import _edge, _sheet, gallery


def test_all_pictures_are_drawn(tmp_path):
  said: list[str] = []
  files = gallery.gallery(
    tmp_path, selection="box,sponge", num_units=1, size=64, say=said.append
  )
  assert [path.name for path in files] == [
    "units.png", "grippers.png", "objects_box_sponge.png", "depth.png",
  ]  # fmt: skip
  assert len(said) == 4
  for path, line in zip(files, said, strict=True):
    assert line.startswith(str(path))
    image = np.asarray(Image.open(path))
    assert image.ndim == 3
    assert image.std() > 5
  # Two families of four, each tile with words below.
  tiles = np.asarray(Image.open(files[2]))
  assert tiles.shape[1] == 8 * (64 + 8)


@pytest.mark.parametrize(
  "flags, words",
  [
    ({"num_units": 0}, "--num_units=0"),
    ({"size": 20}, "--size=20"),
    ({"selection": "teapot"}, "teapot"),
    ({"workdir": ""}, "--workdir"),
  ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, flags, words):
  with pytest.raises(_edge.UserError, match=words):
    gallery.gallery(**{"workdir": tmp_path, **flags})
  assert not list(tmp_path.iterdir())


def test_long_words_under_a_picture_are_broken_into_lines_that_fit():
  image = np.zeros((80, 80, 3), np.uint8)
  short = _sheet.Tile(image, ("one", "flat"))
  words = "rigid, flat, large, translucent, composed, of-a-word-without-any-break"
  long = _sheet.Tile(image, ("two", words))
  page = _sheet.sheet([short, long], 2)
  only = _sheet.sheet([short], 2)
  assert page.shape[0] > only.shape[0]
  # Paper to the right of every word: none runs into the next picture.
  below = page[90:]
  assert (below[:, 84:88] == below[0, 0]).all()
  assert (below[:, -4:] == below[0, 0]).all()


def test_fingers_that_wear_differently_look_different():
  first, second = (
    gallery.gripper_tile(robot, 64) for robot in gallery.units.fleet_units(2)
  )
  assert (first.image != second.image).any(axis=-1).mean() > 0.05
  assert first.lines[0] == "training-00"
  assert any(line.startswith("left") for line in first.lines)
