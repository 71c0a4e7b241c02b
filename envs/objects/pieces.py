"""From a mesh file to convex pieces: load, mend, split, decompose, remember.

Convex pieces are taken as they are; all others are decomposed by CoACD, which takes
seconds, so that what it found is kept in the user's cache folder.
"""

import dataclasses
import hashlib
import io
import os
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from envs.objects.shapes import Mesh

MOST_PIECES = 16  # of one object
MOST_CORNERS = 64  # of one piece: every object is drawn and touched many times
MOST_FACES = 500_000  # of a file
_LEAST_PIECES = 4  # for all bodies of a file that are not convex
_MANY_FACES = 8_000  # more are remeshed first, or decomposing would take minutes
_CONVEX = 0.98  # share of its hull that a convex piece fills
_ON_HULL = 0.005  # of its size: as far from its hull an open but convex piece may be
_SETTINGS: dict[str, Any] = {
  "threshold": 0.05,
  "decimate": True,
  "max_ch_vertex": MOST_CORNERS,
  "seed": 0,
}
_REMESH = {"preprocess_mode": "on", "preprocess_resolution": 30}


class MeshError(ValueError):
  """Meshes that cannot be used; the text says which, why, and what to do."""


class MissingLibraryError(MeshError):
  """What reads or decomposes meshes is not installed."""


@dataclasses.dataclass(frozen=True, eq=False)
class MeshFile:
  """A mended mesh, split into bodies. Frame and units are the file's own."""

  content: bytes
  whole: list  # trimesh's meshes: convex bodies, taken as they are
  others: list  # those that must be decomposed

  def points(self) -> np.ndarray:
    """float64[V, 3]: all vertices."""
    return np.concatenate([body.vertices for body in self.whole + self.others])

  def pieces(self) -> list[np.ndarray]:
    """Corners float64[V, 3] of each of 1 to MOST_PIECES convex pieces.

    The same bytes give the same pieces, on any number of cores.

    Raises:
      MeshError: it cannot be decomposed, or not without a library that is missing.
    """
    whole, others = self.whole, self.others
    if len(whole) > MOST_PIECES - (_LEAST_PIECES if others else 0):
      whole, others = [], whole + others
    pieces = [np.asarray(body.vertices) for body in whole]
    if others:
      pieces += _decompose(others, MOST_PIECES - len(whole), self.content)
    return pieces


def read_mesh(path: Path) -> MeshFile:
  """Reads and mends an .obj or .stl file; of an .obj each group is a body of its own.

  Raises:
    MeshError: the file is unusable; a MissingLibraryError if it may well be usable.
  """
  content = path.read_bytes()
  groups = _load(content, path.suffix.lower().lstrip("."))
  bodies = [body for group in groups for body in _bodies(group)]
  if not bodies:
    raise MeshError("it has no volume")
  return MeshFile(
    content,
    [body for body, convex in bodies if convex],
    [body for body, convex in bodies if not convex],
  )


def hull(points: np.ndarray) -> Mesh:
  """The convex hull of points [V, 3], of at most MOST_CORNERS corners.

  Raises:
    MeshError: the points have no volume.
  """
  try:
    corners = points[ConvexHull(points).vertices]
    if len(corners) > MOST_CORNERS:
      middle = corners.mean(axis=0)
      furthest = ((corners - middle) @ _directions(MOST_CORNERS).T).argmax(axis=0)
      corners = corners[np.unique(furthest)]
    # What MuJoCo will see, to the last bit.
    corners = corners.astype(np.float32)
    surface = ConvexHull(corners.astype(np.float64))
  except (QhullError, ValueError) as error:
    raise MeshError("it has no volume") from error
  faces = surface.simplices.astype(np.int32)
  a, b, c = (corners[faces[:, i]].astype(np.float64) for i in range(3))
  inwards = np.einsum("ij,ij->i", np.cross(b - a, c - a), surface.equations[:, :3]) < 0
  faces[inwards] = faces[inwards, ::-1]
  return Mesh(corners, faces, float(surface.volume))


def centre(mesh: Mesh) -> np.ndarray:
  """float64[3]: the centre of mass of a mesh, summed over its tetrahedra."""
  corners = mesh.vertices.astype(np.float64)
  origin = corners.mean(axis=0)
  triangles = corners[mesh.faces] - origin  # [F, 3, 3]
  volumes = np.linalg.det(triangles)
  return origin + volumes @ triangles.sum(axis=1) / (4 * volumes.sum())


def _directions(count: int) -> np.ndarray:
  """float64[count, 3]: unit vectors spread evenly over the sphere."""
  index = np.arange(count) + 0.5
  height = 1 - 2 * index / count
  angle = np.pi * (1 + np.sqrt(5)) * index
  radius = np.sqrt(1 - height**2)
  return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)


def _missing(error: ImportError) -> MissingLibraryError:
  return MissingLibraryError(
    f"a folder of meshes needs {error.name}, which is not installed:"
    " pip install 'hand_eye[meshes]'"
  )


def _load(content: bytes, kind: str):
  """The groups of a file, as trimesh's meshes with equal vertices merged."""
  try:
    import networkx  # noqa: F401  trimesh mends surfaces with it
    import trimesh
  except ImportError as error:
    raise _missing(error) from error
  options = {"split_objects": True, "split_groups": True} if kind == "obj" else {}
  try:
    scene = trimesh.load_scene(
      io.BytesIO(content),
      file_type=kind,
      process=False,
      skip_materials=True,
      **options,
    )
    # By name: the order of a dictionary is no order to rely on.
    groups = [g for _, g in sorted(scene.geometry.items()) if len(_faces(g))]
  except Exception as error:  # whatever a parser makes of any bytes
    raise MeshError(f"it cannot be read ({_first_line(error)})") from error
  if not groups:
    raise MeshError("it holds no faces")
  if not all(np.isfinite(group.vertices).all() for group in groups):
    raise MeshError("it holds vertices that are no numbers")
  count = sum(len(group.faces) for group in groups)
  if count > MOST_FACES:
    raise MeshError(f"it has {count} faces; at most {MOST_FACES} are read: simplify it")
  for group in groups:
    group.merge_vertices(merge_tex=True, merge_norm=True)
    group.update_faces(group.nondegenerate_faces())
  return groups


def _bodies(group) -> list[tuple]:
  """The connected surfaces of a group, closed, and whether each is convex."""
  found = []
  for body in group.split(only_watertight=False):
    points = np.asarray(body.vertices)
    try:
      outside = ConvexHull(points)
    except (QhullError, ValueError):
      continue  # flat, a loose face: it has no inside
    _mend(body)
    if body.is_watertight and body.is_winding_consistent:
      found.append((body, abs(body.volume) >= _CONVEX * outside.volume))
      continue
    # Open, but no more than the shell of its own hull, such as a box without a lid.
    inside = -(outside.equations[:, :3] @ points.T + outside.equations[:, 3:])
    if inside.min(axis=0).max() > _ON_HULL * np.ptp(points, axis=0).max():
      raise MeshError("its surface does not close around an inside: mend it")
    found.append((body, True))
  return found


def _mend(body) -> None:
  """Closes holes and turns all faces outwards, as far as that is possible."""
  import trimesh

  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if not body.is_watertight:
      trimesh.repair.fill_holes(body, use_fan=True)
    if not body.is_winding_consistent or body.volume < 0:
      trimesh.repair.fix_normals(body)


def _decompose(bodies: list, most: int, content: bytes) -> list[np.ndarray]:
  """At most `most` convex pieces by CoACD, from the cache if found before."""
  try:
    import coacd
    import trimesh
  except ImportError as error:
    raise _missing(error) from error
  whole = trimesh.util.concatenate(bodies)
  settings = _SETTINGS | {"max_convex_hull": most}
  settings |= _REMESH if len(whole.faces) > _MANY_FACES else {}
  known = hashlib.sha256(content)
  known.update(repr((metadata.version("coacd"), sorted(settings.items()))).encode())
  cached = _cache_folder() / f"{known.hexdigest()}.npz"
  pieces = _read(cached)
  if pieces is None:
    coacd.set_log_level("off")
    try:
      answer = coacd.run_coacd(coacd.Mesh(whole.vertices, whole.faces), **settings)
    except RuntimeError as error:
      raise MeshError(f"it cannot be decomposed ({_first_line(error)})") from error
    pieces = [np.asarray(vertices, np.float64) for vertices, _ in answer]
    if not pieces:
      raise MeshError("decomposing it left nothing")
    _write(cached, pieces)
  return pieces


def _cache_folder() -> Path:
  base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(base) / "hand_eye" / "meshes"


def _read(path: Path) -> list[np.ndarray] | None:
  """What `_write` wrote; None if there is nothing or it is damaged."""
  try:
    with np.load(path) as stored:
      return [stored[f"arr_{i}"] for i in range(len(stored.files))]
  except Exception:  # a damaged file has many ways to fail; it is made again
    return None


def _write(path: Path, pieces: list[np.ndarray]) -> None:
  """Writes under another name first: several workers may find the same at once."""
  temporary = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
      dir=path.parent, suffix=".tmp", delete=False
    ) as file:
      temporary = file.name
      np.savez(file, *pieces)
    os.replace(temporary, path)
  except OSError:
    # A folder that cannot be written to costs time, not results.
    if temporary is not None:
      Path(temporary).unlink(missing_ok=True)


def _faces(geometry) -> np.ndarray:
  return getattr(geometry, "faces", np.empty((0, 3)))


def _first_line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:120]
