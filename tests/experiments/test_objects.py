"""`experiments.objects` on a folder of meshes."""

import json

import pytest

from experiments import cli, objects

trimesh = pytest.importorskip("trimesh")


def test_a_table_and_pictures_of_a_folder(tmp_path):
  meshes = tmp_path / "meshes"
  meshes.mkdir()
  trimesh.creation.box((50, 40, 30)).export(str(meshes / "box.stl"))
  trimesh.creation.box((1, 1, 1)).export(str(meshes / "mite.ply"))
  trimesh.creation.box((40, 50, 30)).export(str(meshes / "twin.off"))
  said: list[str] = []
  rows = objects.describe(
    f"{meshes}?scale=0.001&density=500", tmp_path / "out", size=64, say=said.append
  )
  assert rows[0]["mass"] == pytest.approx([0.03, 0.03])
  assert rows[0]["size"] == pytest.approx([0.03, 0.04, 0.05])
  cells = [cell.strip() for cell in said[0].splitlines()[2].split("|")]
  expected = [
    "box",
    "1",
    "3.0 x 4.0 x 5.0",
    "60",
    "30",
    "a unit is 0.001 m; the same geometry as twin",
  ]
  assert cells[1:-1] == expected
  assert "skipped: it is only 0.001 m long" in said[0]
  written = {path.name for path in (tmp_path / "out").iterdir()}
  assert written == {"objects.md", "objects.json", "objects.png"}
  assert json.loads((tmp_path / "out" / "objects.json").read_text()) == rows


def test_what_is_no_folder_is_refused():
  with pytest.raises(cli.UserError, match="expected a folder of meshes"):
    objects.describe("training")
