#!/bin/sh
# MuJoCo 3.17.0: the moment of inertia of a trilinear flex.
#
# A soft body with dof="trilinear" has eight nodes, at the corners of its bounding box,
# and its whole mass is shared among them. Its moment of inertia is that of eight
# points: 3 times that of a solid box, 4 times a cylinder's about its axis, 5 times an
# ellipsoid's.
#
# Seen (about z, as a multiple of the solid's):
#   grid 3.00, cylinder 4.00, ellipsoid 5.00
set -eu
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q mujoco==3.17.0 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import mujoco
import numpy as np

HALF, MASS = np.array([0.03, 0.03, 0.03]), 0.1
SOLID = {"grid": 2 / 3, "cylinder": 1 / 2, "ellipsoid": 2 / 5}  # times m r^2, about z
found = {}
for kind, share in SOLID.items():
  spec = mujoco.MjSpec()
  count = np.array([5, 5, 5])
  spec.worldbody.add_body(name="soft").make_flex(
    name="soft", type=kind, dim=3, dof="trilinear", count=count,
    spacing=2 * HALF / (count - 1), radius=0.0005, mass=MASS)
  model = spec.compile()
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  nodes = model.body_mass > 0
  away = data.xipos[nodes, :2] - data.xipos[nodes, :2].mean(axis=0)
  moment = model.body_mass[nodes] @ (away**2).sum(axis=1)
  found[kind] = moment / (share * MASS * HALF[0] ** 2)
print(", ".join(f"{kind} {times:.2f}" for kind, times in found.items()))
assert np.allclose(list(found.values()), [3, 4, 5], atol=0.02)
PYTHON
