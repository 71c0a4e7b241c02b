#!/bin/sh
# trimesh 5.2.0: blocks that touch, after their vertices were merged.
#
# Three cubes in an L, each closed. As they are, `split` finds three cubes of volume 1.
# After `merge_vertices` the edges where two cubes meet belong to four faces; such edges
# join nothing, so that walls fall off as parts of their own, and asking for the closed
# parts alone loses volume. The whole still has its volume of 3.
#
# Seen:
#   apart: 3 parts, closed volume 3.000
#   merged: volume 3.000
#   merged and split: 7 parts, closed volume 2.000
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trimesh==5.2.0 networkx==3.6.1 scipy==1.17.1 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import trimesh

def closed(mesh):
  parts = mesh.split(only_watertight=False)
  return len(parts), sum(part.volume for part in parts if part.is_watertight)

cubes = []
for place in ((0, 0, 0), (1, 0, 0), (0, 1, 0)):
  cube = trimesh.creation.box((1, 1, 1))
  cube.apply_translation(place)
  cubes.append(cube)
whole = trimesh.util.concatenate(cubes)
apart = closed(whole)
whole.merge_vertices()
merged = closed(whole)
print(f"apart: {apart[0]} parts, closed volume {apart[1]:.3f}")
print(f"merged: volume {whole.volume:.3f}")
print(f"merged and split: {merged[0]} parts, closed volume {merged[1]:.3f}")
assert apart[0] == 3 and abs(apart[1] - 3) < 1e-9
assert abs(whole.volume - 3) < 1e-9 and merged[0] == 7
assert abs(merged[1] - 2) < 1e-9
PYTHON
