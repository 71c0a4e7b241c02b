"""Turns a user's mesh files into one object: convex parts, mass and appearance."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from envs.objects import pieces, surfaces
from envs.objects.mesh_errors import MeshError
from envs.objects.mesh_files import Source
from envs.objects.mesh_loading import Loaded, load
from envs.objects.shapes import Mesh, Part, Skin, Solid

LONGEST = 0.20  # m; longer things hang over the bin's sides
SHORTEST = 0.02  # m, the longest side of the smallest object
THINNEST = 0.002  # m; thinner things slip through others between two physics steps
FIT_MIDDLE = 0.05  # m: well within the gripper's opening
MOST_PIECES = 64  # of one object
TOO_ROUGH = 0.15  # of the volume: what pieces may lack or have too much
_LEAST_VOLUME = 1e-9  # m^3: slivers of a decomposition, without weight or use
_ALIKE = 0.01  # relative: the same geometry, written by other programs
_UNITS = {"millimetres": 0.001, "centimetres": 0.01, "inches": 0.0254}


@dataclasses.dataclass(frozen=True, eq=False)
class MeshObject:
  """An object about its centre of mass, m."""

  parts: tuple[Part, ...]  # convex
  solid: Solid  # what the file's surface encloses
  skins: tuple[Skin, ...]
  colour: tuple[float, float, float] | None  # None: the file has no colours
  size: tuple[float, float, float]  # sides of the smallest box around it, sorted, m
  scale: float  # metres of a unit of the file
  roughness: float  # volume of the pieces as they were found, of the mesh's own, less 1
  notes: tuple[str, ...]  # what was done to the file
  form: np.ndarray  # float64[4]: volume and principal second moments, as lengths, m


def alike(forms: np.ndarray, form: np.ndarray) -> np.ndarray:
  """bool[N]: which forms [N, 4] are as good as equal to one [4]."""
  return np.isclose(forms, form, rtol=_ALIKE, atol=0).all(axis=1)


def read_object(
  source: Source, scale: float | str, fill: bool, say: Callable[[str], None]
) -> MeshObject:
  """Makes an object of its files.

  Args:
    scale: metres of a unit, `fit`, or `declared`: what the file says, else 1.
    fill: close openings of any size.
    say: called with a message before slow steps.

  Raises:
    MeshError: it cannot be used; a MissingLibraryError if it may well be.
    OSError: a file cannot be read.
  """
  alone = source.mesh in source.collision  # pieces without a mesh
  loaded = _joined(source.collision) if alone else load(source.mesh)
  size = sides(loaded.vertices)
  unit = _metres(size, loaded, scale)  # before decomposing takes time
  notes = list(loaded.notes)
  if scale == "declared" and loaded.unit not in (None, 1.0):
    notes.append(f"declares units of {loaded.unit:g} m")
  collision = () if alone else source.collision
  try:
    bodies, repairs = surfaces.closed_bodies(loaded.vertices, loaded.faces, fill=fill)
    notes += repairs
  except MeshError:
    if not collision:
      raise
    bodies = []
  made = _given_pieces(collision, loaded, say) if collision else []
  if collision:
    notes.append(f"{len(collision)} collision files beside it")
  if len(made) > MOST_PIECES and bodies:
    notes.append(f"its {len(made)} collision pieces not used, at most {MOST_PIECES}")
    made = []
  made = made or [piece for body in bodies for piece in pieces.convex_pieces(body, say)]
  if len(made) > MOST_PIECES:
    raise MeshError(f"it has {len(made)} convex pieces, at most {MOST_PIECES} are held")
  if not bodies:
    notes.append("mass from its collision pieces: its own surface does not close")
    bodies = [_as_body(piece) for piece in made]
  return _assemble(loaded, unit, size, bodies, made, notes)


def _joined(files: Sequence[Path]) -> Loaded:
  """Several files as one, without colours."""
  found = [load(path, colours=False) for path in files]
  firsts = np.cumsum([0, *(len(one.vertices) for one in found[:-1])])
  return dataclasses.replace(
    found[0],
    vertices=np.concatenate([one.vertices for one in found]),
    faces=np.concatenate(
      [one.faces + first for one, first in zip(found, firsts, strict=True)]
    ),
  )


def sides(points: np.ndarray) -> np.ndarray:
  """float64[3]: sides of the smallest box around points, in whatever turn; sorted.

  Raises:
    MeshError: the points are flat.
  """
  import trimesh

  try:
    _, found = trimesh.bounds.oriented_bounds(points)
  except Exception as error:  # flat: there is no hull to put a box around
    raise MeshError("it is flat: nothing is enclosed") from error
  found = np.sort(found)
  if found[0] < 1e-9 * found[2]:
    raise MeshError("it is flat: nothing is enclosed")
  return found


def _metres(size: np.ndarray, loaded: Loaded, scale: float | str) -> float:
  """What a unit of a file is in metres.

  Raises:
    MeshError: in metres it is too large, too small or too thin.
  """
  if scale == "fit":
    unit = min(FIT_MIDDLE / max(size[1], 1e-12), LONGEST / size[2])
  else:
    unit = (loaded.unit or 1.0) if scale == "declared" else float(scale)
  thin, _, longest = size * unit
  if longest > LONGEST * 1.001:
    raise MeshError(
      f"it is {longest:.3g} m long, at most {LONGEST} m fit into the bin: give its"
      f" unit (?scale=0.001 for millimetres{_guess(size[2])}) or have it scaled"
      " (?scale=fit)"
    )
  if longest < SHORTEST:
    raise MeshError(
      f"it is only {longest:.3g} m long, at least {SHORTEST} m can be seen and"
      f" grasped: give its unit (?scale=...{_guess(size[2])}) or have it scaled"
      " (?scale=fit)"
    )
  if thin < THINNEST:
    raise MeshError(f"it is only {thin:.2g} m thin, at least {THINNEST} m hold")
  return float(unit)


def _guess(longest: float) -> str:
  """Which units would make a usable size, for `longest` file units."""
  found = [
    f"{100 * unit * longest:.3g} cm in {name}"
    for name, unit in _UNITS.items()
    if SHORTEST <= unit * longest <= LONGEST
  ]
  return f"; it would be {' or '.join(found)}" if found else ""


def _given_pieces(collision, loaded: Loaded, say) -> list[np.ndarray]:
  """Convex pieces from collision files, in the mesh's frame and units.

  Raises:
    MeshError: they are no bodies, or lie elsewhere than the mesh.
  """
  found = []
  for path in collision:
    try:
      shape = load(path, colours=False)
      bodies, _ = surfaces.closed_bodies(shape.vertices, shape.faces, fill=True)
      found += [piece for body in bodies for piece in pieces.convex_pieces(body, say)]
    except MeshError as error:
      raise type(error)(f"its collision file {path.name}: {error}") from error
  points = np.concatenate(found)
  theirs = np.array([points.min(axis=0), points.max(axis=0)])
  ours = np.array([loaded.vertices.min(axis=0), loaded.vertices.max(axis=0)])
  if np.abs(theirs - ours).max() > 0.1 * np.ptp(ours, axis=0).max():
    raise MeshError(
      f"its collision files span {_box(theirs)}, the mesh {_box(ours)}: expected the"
      " same frame and units"
    )
  return found


def _box(corners: np.ndarray) -> str:
  low, high = (" ".join(f"{x:.3g}" for x in corner) for corner in corners)
  return f"({low}) to ({high})"


def _as_body(piece: np.ndarray) -> surfaces.Body:
  mesh = pieces.hull(piece)
  return surfaces.Body(mesh.vertices.astype(np.float64), mesh.faces)


def _assemble(
  loaded: Loaded,
  unit: float,
  size: np.ndarray,
  bodies: list[surfaces.Body],
  made: list[np.ndarray],
  notes: list[str],
) -> MeshObject:
  """Scales everything to metres, about the centre of mass.

  Raises:
    MeshError: the pieces are not what the mesh encloses.
  """
  own = surfaces.moments(bodies)
  # What bodies share is in as many pieces: their volumes are compared one by one.
  volume = sum(surfaces.moments([body]).volume for body in bodies)
  roughness = pieces.total_volume(made) / volume - 1
  if abs(roughness) > TOO_ROUGH:
    raise MeshError(
      f"{len(made)} convex pieces of it have {100 * roughness:+.0f} % of the volume of"
      f" the mesh, at most {100 * TOO_ROUGH:.0f} % can be made good: put convex pieces"
      " beside it (NAME_collision.obj)"
    )
  # Pieces move their corners so that together they have the volume of the mesh.
  hulls = [
    pieces.hull((piece - own.centre) * unit, factor=1 / (1 + roughness))
    for piece in made
  ]
  hulls = [mesh for mesh in hulls if mesh.volume >= _LEAST_VOLUME]
  if not hulls:
    raise MeshError("it has no volume")
  second = own.second * unit**5
  inertia = np.trace(second) * np.eye(3) - second
  solid = Solid(own.volume * unit**3, tuple(map(tuple, inertia.tolist())))
  principal = np.linalg.eigvalsh(second) / solid.volume
  return MeshObject(
    parts=tuple(_part(mesh) for mesh in hulls),
    solid=solid,
    skins=tuple(
      dataclasses.replace(
        skin, vertices=((skin.vertices - own.centre) * unit).astype(np.float32)
      )
      for skin in loaded.skins
      if loaded.colour or len(hulls) > 1  # a plain hull is drawn as it is
    ),
    colour=loaded.colour,
    size=(float(size[0] * unit), float(size[1] * unit), float(size[2] * unit)),
    scale=unit,
    roughness=float(roughness),
    notes=tuple(notes),
    form=np.array([np.cbrt(solid.volume), *np.sqrt(np.maximum(principal, 0))]),
  )


def _part(mesh: Mesh) -> Part:
  return Part("mesh", mesh=mesh)
