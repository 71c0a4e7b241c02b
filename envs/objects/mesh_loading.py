"""A mesh file as triangles, colours and the unit that it declares."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from envs.objects import mesh_files
from envs.objects.mesh_errors import MeshError, MissingLibraryError
from envs.objects.shapes import Skin

MOST_FACES = 500_000  # of a file
DRAWN_FACES = 20_000  # more would slow every image
_TEXTURE = 512  # pixels, the longer side of a texture


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
  """What a file holds, in its own frame and units."""

  vertices: np.ndarray  # float64[V, 3]
  faces: np.ndarray  # int[F, 3]
  skins: tuple[Skin, ...]  # its surfaces; none if drawing them would take long
  colour: tuple[float, float, float] | None  # mean RGB in [0, 1], if it has colours
  unit: float | None  # metres, if the file says so
  notes: tuple[str, ...]


def load(path: Path, *, colours: bool = True) -> Loaded:
  """Reads a file of one of the kinds in `mesh_files.KINDS`.

  Raises:
    MissingLibraryError: trimesh is not installed, or what it reads .dae with.
    MeshError: the file is unusable.
    OSError: it cannot be read.
  """
  content = mesh_files.read(path)
  try:
    import networkx  # noqa: F401  trimesh needs it to repair surfaces
    import trimesh
  except ImportError as error:
    raise missing(error) from error
  kind = path.suffix.lower().lstrip(".")
  try:
    scene = trimesh.load_scene(
      io.BytesIO(content),
      file_type=kind,
      process=False,
      resolver=trimesh.resolvers.FilePathResolver(str(path)),
    )
    groups = []
    for node in sorted(scene.graph.nodes_geometry):  # no order to rely on otherwise
      matrix, name = scene.graph[node]
      group = scene.geometry[name]
      if len(getattr(group, "faces", ())):
        groups.append(group.copy().apply_transform(matrix))
    unit = _unit(scene.units or "")
  except ImportError as error:
    raise MeshError(
      f"reading .{kind} needs {error.name or 'pycollada'}, which is not installed:"
      " pip install pycollada"
    ) from error
  except Exception as error:  # whatever a parser makes of any bytes
    raise MeshError(f"it cannot be read ({first_line(error)})") from error
  if not groups:
    raise MeshError("it holds no faces")
  vertices = np.concatenate([np.asarray(g.vertices, np.float64) for g in groups])
  if not np.isfinite(vertices).all():
    raise MeshError("it holds vertices that are no numbers")
  firsts = np.cumsum([0, *(len(g.vertices) for g in groups[:-1])])
  faces = np.concatenate(
    [np.asarray(g.faces) + first for g, first in zip(groups, firsts, strict=True)]
  )
  if len(faces) > MOST_FACES:
    raise MeshError(
      f"it has {len(faces)} faces; at most {MOST_FACES} are read: simplify it"
    )
  skins, colour, notes = _coloured(groups) if colours else ((), None, ())
  return Loaded(vertices, faces, skins, colour, unit, notes)


def _unit(words: str) -> float | None:
  """Metres, of `mm`, `meters`, ... or of `0.01 * meters` as trimesh says of .dae."""
  import trimesh

  factor, times, _ = words.partition(" * meters")
  if times:
    return float(factor)
  try:
    return float(trimesh.units.unit_conversion(words, "meters"))
  except (KeyError, ValueError):
    return None


def missing(error: ImportError) -> MissingLibraryError:
  return MissingLibraryError(
    f"a folder of meshes needs {error.name}, which is not installed:"
    " pip install 'hand_eye[meshes]'"
  )


def first_line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:120]


def _coloured(groups: list[Any]):
  """Skins, mean colour and notes of the groups of a file."""
  found = [_skin(group) for group in groups]
  count = sum(len(group.faces) for group in groups)
  drawn = tuple(skin for skin, _, _ in found) if count <= DRAWN_FACES else ()
  if not any(coloured for _, _, coloured in found):
    plain = (dataclasses.replace(skin, image=None, uv=None) for skin in drawn)
    return tuple(plain), None, ()
  areas = [float(group.area) for group in groups]
  mean = np.average([colour for _, colour, _ in found], axis=0, weights=areas)
  colour = tuple(float(c) for c in mean)
  notes = () if drawn else (f"{count} faces: drawn in its mean colour",)
  return drawn, colour, notes


def _skin(group: Any) -> tuple[Skin, np.ndarray, bool]:
  """A group's surface, its mean colour float64[3], and whether it has colours."""
  vertices = np.asarray(group.vertices, np.float32)
  faces = np.asarray(group.faces, np.int32)
  visual = group.visual
  image = _image(visual)
  uv = getattr(visual, "uv", None)
  if image is not None and uv is not None and len(uv) == len(vertices):
    uv = np.asarray(uv, np.float32)
    middle = uv[faces].mean(axis=1) % 1.0
    height, width = image.shape[:2]
    row = ((1 - middle[:, 1]) * (height - 1)).astype(int)
    texels = image[row, (middle[:, 0] * (width - 1)).astype(int)]
    mean = np.average(texels / 255.0, axis=0, weights=group.area_faces + 1e-300)
    return Skin(vertices, faces, uv, image), mean, True
  if visual.kind in ("vertex", "face"):
    colours = np.asarray(visual.face_colors)[:, :3]
    mean = np.average(colours / 255.0, axis=0, weights=group.area_faces + 1e-300)
    return _painted(vertices[faces], colours), mean, True
  given = visual.kind == "texture"
  plain = np.asarray(visual.material.main_color[:3] if given else (150, 150, 150))
  return (
    Skin(vertices, faces, None, plain[None, None].astype(np.uint8)),
    plain / 255,
    given,
  )


def _painted(triangles: np.ndarray, colours: np.ndarray) -> Skin:
  """A skin whose faces have a colour each: a texture of a texel a colour."""
  palette, index = np.unique(colours, axis=0, return_inverse=True)
  side = int(np.ceil(np.sqrt(len(palette))))
  image = np.zeros((side * side, 3), np.uint8)
  image[: len(palette)] = palette
  row, column = np.divmod(index.reshape(-1), side)
  uv = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], axis=1)
  return Skin(
    triangles.reshape(-1, 3),
    np.arange(3 * len(triangles), dtype=np.int32).reshape(-1, 3),
    np.repeat(uv, 3, axis=0).astype(np.float32),
    image.reshape(side, side, 3),
  )


def _image(visual: Any) -> np.ndarray | None:
  """uint8[H, W, 3], top row first: a group's texture, if it has one."""
  material = getattr(visual, "material", None)
  image = getattr(material, "image", None) or getattr(
    material, "baseColorTexture", None
  )
  if image is None:
    return None
  image = image.convert("RGB")
  image.thumbnail((_TEXTURE, _TEXTURE))
  return np.asarray(image, np.uint8)
