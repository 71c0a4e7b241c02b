"""Runs CoACD in a process of its own: `python decompose.py input.npz output.npz`.

CoACD can end the whole process, and knows no time limit. The input holds `vertices`,
`faces` and CoACD's settings; the output the corners of each convex piece.
"""

import sys

import coacd
import numpy as np


def main(source: str, target: str) -> None:
  with np.load(source) as stored:
    arrays = {name: stored[name] for name in stored.files}
  mesh = coacd.Mesh(arrays.pop("vertices"), arrays.pop("faces"))
  settings = {name: value.item() for name, value in arrays.items()}
  coacd.set_log_level("off")
  pieces = coacd.run_coacd(mesh, **settings)
  with open(target, "wb") as file:
    np.savez(file, *(np.asarray(vertices, np.float64) for vertices, _ in pieces))


if __name__ == "__main__":
  main(*sys.argv[1:])
