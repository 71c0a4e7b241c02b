r"""Shows how a folder of meshes was understood: a table, and pictures.

  python -m experiments.objects --objects='meshes?scale=0.001' --workdir=runs/objects

Prints a line for each file: convex pieces, size, mass and repairs, or why it is
skipped. With --workdir, also writes objects.png (each object in a bin), objects.md and
objects.json.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import objects
from envs.objects.meshes import MeshFolder
from experiments import cli, gallery
from experiments.cli import tables
from experiments.pictures.sheets import write_sheet

_COLUMNS = 5
_HEADER = ("object", "pieces", "size, cm", "volume, cm³", "mass, g", "what was done")


def describe(
  selection: str,
  workdir: str | Path = "",
  *,
  size: int = 200,
  say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
  """Describes the meshes of a folder; returns a row a file.

  Args:
    selection: a folder of meshes, see `envs.objects.meshes`.
    workdir: where pictures and the table go; '' makes none.
    size: of one image, pixels.

  Raises:
    UserError, MeshError: no folder of meshes, or nothing in it can be used.
  """
  chosen = objects.choose(selection)
  if not isinstance(chosen, MeshFolder):
    raise cli.UserError(
      f"--objects={selection}: expected a folder of meshes, written with a /"
      " (./meshes); `python -m experiments.gallery` shows families"
    )
  rows = [_row(chosen, family) for family in chosen.families]
  rows += [{"object": name, "skipped": why} for name, why in chosen.skipped.items()]
  text = tables.table(_HEADER, [_cells(row) for row in rows], numbers=(1, 3))
  say(text)
  for kind, count in sorted(chosen.unread.items()):
    say(f"{count} {kind} not read")
  if workdir:
    folder = cli.prepare_workdir(workdir)
    (folder / "objects.md").write_text(text + "\n", encoding="utf-8")
    (folder / "objects.json").write_text(
      json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8"
    )
    things = [chosen.instance(family, 0) for family in chosen.families]
    tiles = [
      tile
      for first in range(0, len(things), objects.MOST)
      for tile in gallery.portraits(things[first : first + objects.MOST], size)
    ]
    write_sheet(folder / "objects.png", tiles, _COLUMNS)
    say(f"{folder / 'objects.png'}: {len(tiles)} objects")
  return rows


def _row(folder: MeshFolder, family: str) -> dict[str, Any]:
  thing = folder.things[family]
  notes = list(thing.notes)
  if thing.scale != 1.0:
    notes.insert(0, f"a unit is {thing.scale:.4g} m")
  if abs(thing.roughness) >= 0.005:
    notes.append(
      f"pieces moved by {-100 * thing.roughness / 3:+.1f} % to keep its volume"
    )
  if twins := [name for name in folder.twins(thing) if name != family]:
    notes.append(f"the same geometry as {', '.join(twins)}")
  return {
    "object": family,
    "pieces": len(thing.parts),
    "size": list(thing.size),
    "volume": thing.solid.volume,
    "mass": [density * thing.solid.volume for density in folder.density],
    "notes": notes,
  }


def _cells(row: dict[str, Any]) -> list[str]:
  if "skipped" in row:
    return [row["object"], "", "", "", "", f"skipped: {row['skipped']}"]
  low, high = (f"{1e3 * mass:.3g}" for mass in row["mass"])
  return [
    row["object"],
    str(row["pieces"]),
    " x ".join(f"{1e2 * side:.1f}" for side in row["size"]),
    f"{1e6 * row['volume']:.4g}",
    low if low == high else f"{low} to {high}",
    "; ".join(row["notes"]) or "taken as it is",
  ]


def define_flags() -> None:
  flags.DEFINE_string("objects", "", "A folder of meshes, with options.")
  flags.DEFINE_string("workdir", "", "Folder for pictures and the table; '': none.")
  flags.DEFINE_integer("size", 200, "Of one image, pixels.", lower_bound=64)


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.objects:
    raise cli.UserError("--objects is needed: a folder of meshes")
  describe(args.objects, args.workdir, size=args.size)


if __name__ == "__main__":
  cli.run(main, define_flags)
