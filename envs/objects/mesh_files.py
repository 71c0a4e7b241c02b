"""Which files of a folder are one object, and what it is called.

An object is a mesh and the collision pieces beside it: files whose name, or whose
folder's name, says collision, vhacd or coacd. An object is named after its file, or
after its path in the folder where several files have the same name.
"""

import collections
import dataclasses
import os
import re
from pathlib import Path

from envs.objects.mesh_errors import MeshError

KINDS = (".dae", ".glb", ".gltf", ".obj", ".off", ".ply", ".stl")
UNREAD = (
  *(".3ds", ".3mf", ".blend", ".fbx", ".iges", ".igs", ".step", ".stp", ".usd"),
  *(".usda", ".usdc", ".usdz", ".wrl", ".x3d"),
)
_COLLISION = re.compile(
  r"collision|vhacd|coacd|(?<![^\W_])coll(?![^\W_])", re.IGNORECASE
)
_ASIDE = ("collision", "collisions", "visual", "visuals", "meshes", "mesh")
_LFS = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class Source:
  """One object's files."""

  name: str
  mesh: Path  # what it looks like; its first collision piece where there is no other
  collision: tuple[Path, ...] = ()


def find(folder: Path) -> tuple[list[Source], dict[str, int]]:
  """The objects of a folder and below, and how many files of other kinds lie there.

  Links to folders are followed, each folder is entered once.
  """
  files, unread = [], collections.Counter[str]()
  for path in _walk(folder):
    kind = path.suffix.lower()
    if kind in KINDS:
      files.append(path)
    elif kind in UNREAD:
      unread[kind] += 1
  meshes = [f for f in files if not _COLLISION.search(_beside(f, folder))]
  known = set(meshes)
  pieces: dict[Path, list[Path]] = collections.defaultdict(list)
  for piece in files:
    if piece not in known:
      pieces[_owner(piece, meshes) or _first_of_its_kind(piece, files)].append(piece)
  owners = sorted({*meshes, *pieces})
  names = _names([path.relative_to(folder) for path in owners])
  return [
    Source(name, path, tuple(pieces.get(path, ())))
    for name, path in zip(names, owners, strict=True)
  ], dict(unread)


def read(path: Path) -> bytes:
  """A file's bytes.

  Raises:
    MeshError: it is a pointer to a file elsewhere, or cut short.
    OSError: it cannot be read.
  """
  content = path.read_bytes()
  if content.startswith(_LFS):
    raise MeshError("it is a Git LFS pointer, not the mesh itself: run git lfs pull")
  if not content.strip():
    raise MeshError("it is empty")
  if path.suffix.lower() == ".stl" and len(content) >= 84:
    _check_stl(content)
  return content


def _check_stl(content: bytes) -> None:
  count = int.from_bytes(content[80:84], "little")
  expected = 84 + 50 * count
  text = content[:5].lower() == b"solid" and b"facet" in content[:1000]
  if text and b"endsolid" not in content[-1000:].lower():
    raise MeshError("it is cut short: a text STL ends with 'endsolid'")
  if not text and len(content) < expected:
    raise MeshError(
      f"it is cut short: its header promises {count} triangles, {expected} bytes; it"
      f" has {len(content)}"
    )


def _walk(folder: Path) -> list[Path]:
  found, entered = [], set()
  for root, folders, names in os.walk(folder, followlinks=True):
    real = os.path.realpath(root)
    if real in entered:
      folders.clear()
      continue
    entered.add(real)
    folders.sort()
    found += [Path(root) / name for name in names if not name.startswith(".")]
  return sorted(found)


def _beside(path: Path, folder: Path) -> str:
  """What may call a file a collision piece: its folder's name and its own."""
  parent = path.parent.name if path.parent != folder else ""
  return f"{parent}/{path.stem}"


def _owner(piece: Path, meshes: list[Path]) -> Path | None:
  """The mesh beside a collision piece: of the longest stem that begins its own.

  Or of any stem, where it is the only one.

  Beside is the same folder, or the one above where folders keep `visual` and
  `collision` apart.
  """
  for place in (piece.parent, piece.parent.parent):
    near = [m for m in meshes if _place(m, place)]
    begun = [m for m in near if piece.stem.lower().startswith(m.stem.lower())]
    if begun:
      return max(begun, key=lambda m: (len(m.stem), m.name))
    if len(near) == 1:
      return near[0]
    if piece.parent.name.lower() not in _ASIDE:
      break
  return None


def _place(mesh: Path, place: Path) -> bool:
  parent = mesh.parent
  return parent == place or (parent.name.lower() in _ASIDE and parent.parent == place)


def _first_of_its_kind(piece: Path, files: list[Path]) -> Path:
  """Of pieces without a mesh, those in one folder that differ only by a number."""

  def stem(path: Path) -> str:
    return re.sub(r"\d+$", "", path.stem)

  return min(f for f in files if f.parent == piece.parent and stem(f) == stem(piece))


def _names(paths: list[Path]) -> list[str]:
  """The stem; where several have the same, the path, in the end with its ending."""
  names = [_words(Path(path.stem)) for path in paths]
  for write in (lambda p: _words(p.with_suffix("")), _words, Path.as_posix):
    often = collections.Counter(names)
    names = [
      write(path) if often[name] > 1 else name
      for name, path in zip(names, paths, strict=True)
    ]
  return names


def _words(path: Path) -> str:
  """Letters of any language and digits, in lower case, joined by _."""
  return re.sub(r"\W+", "_", path.as_posix().casefold()).strip("_") or path.as_posix()
