"""The gallery: its files, its words under pictures, its refusals."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from envs import objects, units
from envs.menagerie import MenagerieError
from experiments import cli, gallery
from experiments.pictures import sheets


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
    ({"arm": "menagerie:none"}, "menagerie:none"),
  ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, flags, words):
  refusals = (cli.UserError, objects.ObjectsError, MenagerieError)
  with pytest.raises(refusals, match=words) as caught:
    gallery.gallery(**{"workdir": tmp_path, **flags})
  assert cli.message_for_user(caught.value)  # a line, and no traceback
  assert not list(tmp_path.iterdir())


def test_meshes_that_are_called_as_a_family_are_shown_themselves(tmp_path):
  pytest.importorskip("trimesh")
  corners = [(0, 0, 0), (0.04, 0, 0), (0, 0.04, 0), (0, 0, 0.04)]
  lines = ["v {} {} {}".format(*corner) for corner in corners]
  lines += ["f 1 3 2", "f 1 2 4", "f 2 3 4", "f 3 1 4"]
  (tmp_path / "box.obj").write_text("\n".join(lines))
  shown = gallery.objects_shown(f"{tmp_path}/")
  assert {thing.family for batch in shown for thing in batch} == {"box"}
  assert all(part.mesh for batch in shown for thing in batch for part in thing.parts)


def test_long_words_under_a_picture_are_broken_into_lines_that_fit():
  image = np.zeros((80, 80, 3), np.uint8)
  short = sheets.Tile(image, ("one", "flat"))
  words = "rigid, flat, large, translucent, composed, of-a-word-without-any-break"
  long = sheets.Tile(image, ("two", words))
  page = sheets.sheet([short, long], 2)
  only = sheets.sheet([short], 2)
  assert page.shape[0] > only.shape[0]
  # Paper to the right of every word: none runs into the next picture.
  below = page[90:]
  assert (below[:, 84:88] == below[0, 0]).all()
  assert (below[:, -4:] == below[0, 0]).all()


def test_fingers_that_wear_differently_look_different():
  robot = units.sample_unit(0)
  new = dataclasses.replace(robot.fingers[0], pad_loss=0.0, tip_loss=0.0, bend=0.0)
  worn = dataclasses.replace(new, pad_loss=0.002, tip_loss=0.005, bend=np.deg2rad(5))
  plain, same, other = (
    gallery.gripper_tile(dataclasses.replace(robot, fingers=(left, new)), 128)
    for left in (new, new, worn)
  )
  np.testing.assert_array_equal(plain.image, same.image)
  # Of one colour, and the left finger alone: it is the shape that differs.
  changed = (np.ptp([plain.image, other.image], axis=0) > 20).any(axis=-1)
  assert changed[:, :64].sum() > 40
  assert changed[:, 64:].sum() < 0.1 * changed[:, :64].sum()
  assert plain.lines[0] == "training-00"
  assert any(line.startswith("left: pad -2.0 mm") for line in other.lines)
