"""Convex pieces of a closed body, as CoACD finds them; what it found is remembered.

CoACD takes seconds, so that its answers are kept in the user's cache folder, under a
checksum of the surface and the settings.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from envs.objects.mesh_errors import MeshError
from envs.objects.mesh_loading import missing
from envs.objects.shapes import Mesh
from envs.objects.surfaces import Body, moments

MOST_CORNERS = 64  # of one piece: every object is drawn and touched many times
TIME_LIMIT = 120  # s, to decompose one body
CONVEX = 0.98  # share of its hull that a convex body fills
_FIRST = 16  # pieces of a body; twice as many where these are too rough
_ROUGH = 1.05  # times the volume of the body
_MANY_FACES = 8_000  # more are remeshed first, or decomposing would take minutes
_SETTINGS: dict[str, Any] = {
  "threshold": 0.05,
  "max_convex_hull": _FIRST,
  "decimate": True,
  "max_ch_vertex": MOST_CORNERS,
  "seed": 0,
}
_FINER = {"threshold": 0.02, "max_convex_hull": 2 * _FIRST}
_REMESH = {"preprocess_mode": "on", "preprocess_resolution": 30}


def convex_pieces(body: Body, say: Callable[[str], None]) -> list[np.ndarray]:
  """Corners float64[V, 3] of the convex pieces of a body: itself, if it is convex.

  The same surface gives the same pieces, on any number of cores.

  Args:
    say: called with a message before slow steps.

  Raises:
    MeshError: it cannot be decomposed, or not without a library that is missing.
  """
  volume = moments([body]).volume
  if volume >= CONVEX * hull_volume(body.vertices):
    return [body.vertices]
  settings = _SETTINGS | (_REMESH if len(body.faces) > _MANY_FACES else {})
  pieces = _decompose(body, settings, say)
  if total_volume(pieces) > _ROUGH * volume:
    finer = _decompose(body, settings | _FINER, say)
    pieces = min(pieces, finer, key=lambda p: abs(total_volume(p) - volume))
  return pieces


def hull_volume(points: np.ndarray) -> float:
  """Of the convex hull of points [V, 3]; 0 if they are flat."""
  try:
    return float(ConvexHull(points).volume)
  except (QhullError, ValueError):
    return 0.0


def total_volume(pieces: list[np.ndarray]) -> float:
  return sum(map(hull_volume, pieces))


def hull(points: np.ndarray, *, factor: float = 1.0) -> Mesh:
  """The convex hull of points [V, 3], of at most MOST_CORNERS corners.

  Corners that are left out cost volume; the others move outwards to make up for it.

  Args:
    factor: of the volume, by moving the corners.

  Raises:
    MeshError: the points have no volume.
  """
  try:
    outside = ConvexHull(points)
    corners = points[outside.vertices]
    if len(corners) > MOST_CORNERS:
      middle = corners.mean(axis=0)
      furthest = ((corners - middle) @ _directions(MOST_CORNERS).T).argmax(axis=0)
      corners = corners[np.unique(furthest)]
    middle = corners.mean(axis=0)
    grown = factor * outside.volume / ConvexHull(corners).volume
    # What MuJoCo will see, to the last bit.
    corners = (middle + np.cbrt(grown) * (corners - middle)).astype(np.float32)
    surface = ConvexHull(corners.astype(np.float64))
  except (QhullError, ValueError, ZeroDivisionError) as error:
    raise MeshError("it has no volume") from error
  faces = surface.simplices.astype(np.int32)
  a, b, c = (corners[faces[:, i]].astype(np.float64) for i in range(3))
  inwards = np.einsum("ij,ij->i", np.cross(b - a, c - a), surface.equations[:, :3]) < 0
  faces[inwards] = faces[inwards, ::-1]
  return Mesh(corners, faces, float(surface.volume))


def centre(mesh: Mesh) -> np.ndarray:
  """float64[3]: the centre of mass of a mesh."""
  return moments([Body(mesh.vertices.astype(np.float64), mesh.faces)]).centre


def _directions(count: int) -> np.ndarray:
  """float64[count, 3]: unit vectors spread evenly over the sphere."""
  index = np.arange(count) + 0.5
  height = 1 - 2 * index / count
  angle = np.pi * (1 + np.sqrt(5)) * index
  radius = np.sqrt(1 - height**2)
  return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)


def _decompose(
  body: Body, settings: dict[str, Any], say: Callable[[str], None]
) -> list[np.ndarray]:
  """At most `max_convex_hull` pieces by CoACD, from the cache if found before."""
  try:
    import coacd  # noqa: F401  used by the process that is started
  except ImportError as error:
    raise missing(error) from error
  known = hashlib.sha256(np.ascontiguousarray(body.vertices).tobytes())
  known.update(np.ascontiguousarray(body.faces, np.int64).tobytes())
  known.update(
    repr((metadata.version("coacd"), TIME_LIMIT, sorted(settings.items()))).encode()
  )
  cached = _cache_folder() / f"{known.hexdigest()}.npz"
  with contextlib.suppress(OSError):
    reason = cached.with_suffix(".txt").read_text()
    raise MeshError(f"{reason} (remembered in {cached.with_suffix('.txt')})")
  pieces = _read(cached)
  if pieces is None:
    say(f"decomposing {len(body.faces)} faces, at most {TIME_LIMIT} s")
    try:
      pieces = _run(body, settings)
    except MeshError as error:
      _write(cached.with_suffix(".txt"), str(error).encode())
      raise
    with tempfile.TemporaryFile() as file:
      np.savez(file, *pieces)
      file.seek(0)
      _write(cached, file.read())
  return pieces


def _run(body: Body, settings: dict[str, Any]) -> list[np.ndarray]:
  """Starts CoACD and waits for it.

  Raises:
    MeshError: it took too long, failed, or found nothing.
  """
  with tempfile.TemporaryDirectory() as folder:
    source, target = Path(folder, "body.npz"), Path(folder, "pieces.npz")
    np.savez(source, vertices=body.vertices, faces=body.faces, **settings)
    program = Path(__file__).with_name("decompose.py")
    # -P: the folder of the program is no place to import from.
    command = [sys.executable, "-P", str(program), str(source), str(target)]
    try:
      done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired as error:
      raise MeshError(
        f"decomposing it took longer than {TIME_LIMIT} s: simplify it, or put convex"
        " pieces beside it (NAME_collision.obj)"
      ) from error
    if done.returncode != 0:
      last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
      raise MeshError(
        f"it cannot be decomposed: CoACD ended with status {done.returncode}"
        f" ({' '.join(last)[:120]})"
      )
    pieces = _read(target)
  pieces = [piece for piece in pieces or [] if hull_volume(piece) > 0]
  if not pieces:
    raise MeshError("decomposing it left nothing")
  return pieces


def _cache_folder() -> Path:
  base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(base) / "hand_eye" / "meshes"


def _read(path: Path) -> list[np.ndarray] | None:
  """Arrays in their order; None if there are none or the file is damaged."""
  try:
    with np.load(path) as stored:
      return [stored[f"arr_{i}"] for i in range(len(stored.files))]
  except Exception:  # a damaged file has many ways to fail; it is made again
    return None


def _write(path: Path, content: bytes) -> None:
  """Writes under another name first: several workers may find the same at once."""
  temporary = None
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
      dir=path.parent, suffix=".tmp", delete=False
    ) as file:
      temporary = file.name
      file.write(content)
    os.replace(temporary, path)
  except OSError:
    # A folder that cannot be written to costs time, not results.
    if temporary is not None:
      Path(temporary).unlink(missing_ok=True)
