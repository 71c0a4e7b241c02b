#!/bin/sh
# trimesh 5.2.0 with pycollada 0.9.3: units in glTF and COLLADA.
#
# glTF is in metres by its specification. A mesh whose `units` are millimetres is
# exported with its numbers as they are: 50 in the file, which every other reader takes
# for metres. trimesh itself finds 'mm' in the file's extras. A .dae file that declares
# centimetres comes back with its numbers as they are, too, and says so in `units`: not
# by a unit's name, but as '0.01 * meters'.
#
# Seen:
#   glb: 50 mm are written as 50, and come back as 50 mm
#   dae: 5 cm come back as 5, units '0.01 * meters'
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trimesh==5.2.0 pycollada==0.9.3 scipy==1.17.1 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path
import trimesh

box = trimesh.creation.box((50, 50, 50))
box.units = "mm"
box.export("box.glb")
glb = trimesh.load_scene("box.glb")
trimesh.creation.box((5, 5, 5)).export("box.dae")
text = Path("box.dae").read_text()
unit = '<unit name="centimeter" meter="0.01"/><up_axis>'
Path("box.dae").write_text(text.replace("<up_axis>", unit))
dae = trimesh.load_scene("box.dae")
import json, struct
data = Path("box.glb").read_bytes()
(length,) = struct.unpack_from("<I", data, 12)
largest = max(max(a["max"]) - min(a["min"]) for a in
  json.loads(data[20 : 20 + length])["accessors"] if a["type"] == "VEC3")
print(f"glb: 50 mm are written as {largest:g}, and come back as"
  f" {glb.extents[0]:g} {glb.units}")
print(f"dae: 5 cm come back as {dae.extents[0]:g}, units {dae.units!r}")
assert (largest, round(float(glb.extents[0])), glb.units) == (50, 50, "mm")
assert (round(float(dae.extents[0])), dae.units) == (5, "0.01 * meters")
PYTHON
