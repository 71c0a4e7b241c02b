"""A folder of a person's own meshes, as a set of objects.

Every .obj and .stl file in the folder and below is a family, named after its file;
instances differ in colour, density and friction. What cannot be used is skipped, and
named with its reason.

    objects=/path/to/folder?scale=fit&density=400

scale: what file units are in metres, such as 0.001 for millimetres (default 1), or
`fit`: every object is scaled so that the gripper can pinch it. density: kg/m^3, one
number or a range such as 300:700 (default 250:700).
"""

import colorsys
import dataclasses
import hashlib
import multiprocessing
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from envs.objects.pieces import (
  MeshError,
  MissingLibraryError,
  centre,
  hull,
  read_mesh,
)
from envs.objects.shapes import ObjectSpec, Part, Shape

KINDS = (".obj", ".stl")
LONGEST = 0.20  # m; longer things hang over the bin's sides
SHORTEST = 0.02  # m, the longest side of the smallest object
THINNEST = 0.002  # m; thinner things slip through others between two physics steps
FIT_MIDDLE = 0.05  # m: well within the gripper's opening
_LEAST_VOLUME = 1e-9  # m^3: slivers of a decomposition, without weight or use
_MATERIAL = Shape()


@dataclasses.dataclass(frozen=True)
class Options:
  """What follows the folder's name."""

  scale: float | None  # metres of a unit; None to fit the gripper
  density: tuple[float, float]  # kg/m^3


@dataclasses.dataclass(frozen=True, eq=False)
class MeshFolder:
  """Endless instances of some meshes, each mesh equally often."""

  parts: Mapping[str, tuple[Part, ...]]  # by family
  density: tuple[float, float]  # kg/m^3
  skipped: Mapping[str, str]  # file, relative to the folder: why

  @property
  def families(self) -> tuple[str, ...]:
    return tuple(self.parts)

  @property
  def fingerprint(self) -> str:
    digest = hashlib.sha256(repr(self.density).encode())
    for family, parts in self.parts.items():
      digest.update(family.encode())
      for part in parts:
        assert part.mesh is not None
        digest.update(part.mesh.vertices.tobytes())
    return digest.hexdigest()[:12]

  def sample(self, rng: np.random.Generator, count: int) -> list[ObjectSpec]:
    return [
      self.instance(
        self.families[rng.integers(len(self.families))], int(rng.integers(1_000_000))
      )
      for _ in range(count)
    ]

  def instance(self, family: str, number: int) -> ObjectSpec:
    """One object; the same number is the same object forever."""
    rng = np.random.default_rng([*family.encode(), number])
    colour = colorsys.hsv_to_rgb(
      rng.uniform(),
      rng.uniform(*_MATERIAL.saturation),
      rng.uniform(*_MATERIAL.brightness),
    )
    return ObjectSpec(
      name=f"{family}-{number:06d}",
      family=family,
      parts=self.parts[family],
      density=float(rng.uniform(*self.density)),
      friction=float(rng.uniform(*_MATERIAL.friction)),
      colour=colour,
    )


def open_folder(selection: str) -> MeshFolder:
  """Reads all meshes of a folder; the first time, decomposing takes seconds each.

  Args:
    selection: a folder, with options as at the top of this file.

  Raises:
    MeshError: no such folder, an unknown option, a missing library, or no usable mesh.
  """
  folder, options = _parse(selection)
  files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in KINDS)
  if not files:
    raise MeshError(f"objects {selection!r}: no .obj or .stl file in {folder}")
  parts: dict[str, tuple[Part, ...]] = {}
  skipped: dict[str, str] = {}
  for path in files:
    name = str(path.relative_to(folder))
    try:
      family = _unique(_snake(path.stem), parts)
      mesh = read_mesh(path)
      scale = metres(mesh.points(), options.scale)  # before decomposing takes time
      parts[family] = object_parts(mesh.pieces(), scale)
    except MissingLibraryError:
      raise
    except (MeshError, OSError) as error:
      skipped[name] = str(error)
  reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped.items())
  if not parts:
    raise MeshError(
      f"objects {selection!r}: none of {len(files)} meshes can be used\n{reasons}"
    )
  # Workers open the folder, too; once is enough to be told.
  if skipped and multiprocessing.parent_process() is None:
    logging.warning(
      "%d of %d meshes in %s are skipped:\n%s",
      len(skipped),
      len(files),
      folder,
      reasons,
    )
  return MeshFolder(parts, options.density, skipped)


def metres(points: np.ndarray, scale: float | None) -> float:
  """What a unit of a mesh is in metres; `scale` None: so that it fits the gripper.

  Raises:
    MeshError: in metres it is too large, too small or too thin.
  """
  sides = _sides(points)
  if scale is None:
    scale = min(FIT_MIDDLE / max(sides[1], 1e-12), LONGEST / sides[2])
  _check_size(sides * scale)
  return float(scale)


def object_parts(pieces: list[np.ndarray], scale: float) -> tuple[Part, ...]:
  """Parts about their common centre of mass.

  Args:
    pieces: float64[V, 3] each, corners of convex pieces, file's units.
    scale: metres of a unit.

  Raises:
    MeshError: nothing has a volume.
  """
  hulls = [hull((piece - pieces[0][0]) * scale) for piece in pieces]
  hulls = [mesh for mesh in hulls if mesh.volume >= _LEAST_VOLUME]
  if not hulls:
    raise MeshError("it has no volume")
  centres = [centre(mesh) for mesh in hulls]
  middle = np.average(centres, axis=0, weights=[mesh.volume for mesh in hulls])
  return tuple(
    Part(
      "mesh",
      mesh=dataclasses.replace(mesh, vertices=(mesh.vertices - middle).astype("f4")),
    )
    for mesh in hulls
  )


def _check_size(sides: np.ndarray) -> None:
  thin, _, longest = sides
  if longest > LONGEST * 1.001:
    raise MeshError(
      f"it is {longest:.3g} m long, at most {LONGEST} m fit into the bin: give its"
      " unit (?scale=0.001 for millimetres) or have it scaled (?scale=fit)"
    )
  if longest < SHORTEST:
    raise MeshError(
      f"it is only {longest:.3g} m long, at least {SHORTEST} m can be seen and"
      " grasped: give its unit (?scale=...) or have it scaled (?scale=fit)"
    )
  if thin < THINNEST:
    raise MeshError(f"it is only {thin:.2g} m thin, at least {THINNEST} m hold")


def _sides(points: np.ndarray) -> np.ndarray:
  """float64[3]: sides of the smallest box around points, in whatever turn; sorted."""
  import trimesh

  try:
    _, sides = trimesh.bounds.oriented_bounds(points)
  except Exception as error:  # flat: there is no hull to put a box around
    raise MeshError("it has no volume") from error
  return np.sort(sides)


def _parse(selection: str) -> tuple[Path, Options]:
  """A folder and its options.

  Raises:
    MeshError: no such folder, or an option that there is not.
  """
  folder, query = Path(selection).expanduser(), ""
  if not folder.is_dir() and "?" in selection:
    name, _, query = selection.rpartition("?")
    folder = Path(name).expanduser()
  if not folder.is_dir():
    raise MeshError(
      f"objects {selection!r}: there is no folder {folder}; expected one with .obj or"
      " .stl files"
    )
  options = Options(scale=1.0, density=_MATERIAL.density)
  for name, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
    if name == "scale" and text == "fit":
      options = dataclasses.replace(options, scale=None)
    elif name == "scale":
      (scale,) = _numbers(selection, name, text, 1)
      options = dataclasses.replace(options, scale=scale)
    elif name == "density":
      numbers = _numbers(selection, name, text, 2)
      options = dataclasses.replace(options, density=(numbers[0], numbers[-1]))
    else:
      raise MeshError(
        f"objects {selection!r}: {name!r} is no option; expected scale=fit,"
        " scale=0.001 (metres of a unit), density=400 or density=300:700 (kg/m^3)"
      )
  return folder, options


def _numbers(selection: str, name: str, text: str, most: int) -> list[float]:
  try:
    numbers = [float(word) for word in text.split(":")]
  except ValueError:
    numbers = []
  good = all(0 < number < np.inf for number in numbers)
  if not 1 <= len(numbers) <= most or not good or numbers != sorted(numbers):
    raise MeshError(
      f"objects {selection!r}: {name}={text}: expected"
      f" {'a positive number or fit' if name == 'scale' else 'a number or a range'}"
    )
  return numbers


def _snake(stem: str) -> str:
  return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "mesh"


def _unique(name: str, taken: Mapping[str, object]) -> str:
  number, candidate = 2, name
  while candidate in taken:
    candidate, number = f"{name}_{number}", number + 1
  return candidate
