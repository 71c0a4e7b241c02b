"""A folder of your own meshes, as a set of objects.

Every mesh in the folder and below is a family, named after its file; instances differ
in density, friction and, where the file has no colours, in colour. Mass and inertia
are those of the file's own surface. Unusable meshes are skipped and named with the
reason.

    objects=/path/to/folder?scale=fit&density=400

scale: what file units are in metres, such as 0.001 for millimetres (default: what the
file declares, else 1), or `fit`: every object is scaled so that the gripper can pinch
it. density: kg/m^3, one number or a range such as 300:700 (default 250:700). open=fill:
surfaces with an opening, such as a cup drawn as a single sheet, are closed and solid.
"""

import colorsys
import dataclasses
import functools
import hashlib
import multiprocessing
import sys
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from envs.objects import mesh_files
from envs.objects.mesh_errors import MeshError, MissingLibraryError
from envs.objects.mesh_objects import MeshObject, alike, read_object
from envs.objects.shapes import ObjectSpec, Part, Shape

_MATERIAL = Shape()


@dataclasses.dataclass(frozen=True)
class Options:
  """What follows the folder's name."""

  scale: float | str  # metres of a unit, `fit`, or `declared`
  density: tuple[float, float]  # kg/m^3
  fill: bool = False  # openings of any size


@dataclasses.dataclass(frozen=True, eq=False)
class MeshFolder:
  """Endless instances of some meshes, each mesh equally often."""

  things: Mapping[str, MeshObject]  # by family
  density: tuple[float, float]  # kg/m^3
  skipped: Mapping[str, str]  # file, relative to the folder: why
  unread: Mapping[str, int]  # files of kinds that are not read, by ending

  @property
  def families(self) -> tuple[str, ...]:
    return tuple(self.things)

  @property
  def parts(self) -> dict[str, tuple[Part, ...]]:
    """Of each family, about its centre of mass."""
    return {family: thing.parts for family, thing in self.things.items()}

  @property
  def fingerprint(self) -> str:
    digest = hashlib.sha256(repr(self.density).encode())
    for family, thing in self.things.items():
      digest.update(family.encode())
      digest.update(repr(thing.solid).encode())
      for part in thing.parts:
        assert part.mesh is not None
        digest.update(part.mesh.vertices.tobytes())
      for skin in thing.skins:
        digest.update(skin.vertices.tobytes())
        digest.update(b"" if skin.image is None else skin.image.tobytes())
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
    thing = self.things[family]
    colour = colorsys.hsv_to_rgb(
      rng.uniform(),
      rng.uniform(*_MATERIAL.saturation),
      rng.uniform(*_MATERIAL.brightness),
    )
    return ObjectSpec(
      name=f"{family}-{number:06d}",
      family=family,
      parts=thing.parts,
      density=float(rng.uniform(*self.density)),
      friction=float(rng.uniform(*_MATERIAL.friction)),
      colour=thing.colour or colour,
      solid=thing.solid,
      skins=thing.skins,
    )

  def shared(self, other: object) -> list[str]:
    """Names of those that have the geometry of one of another folder's, in pairs."""
    if not isinstance(other, MeshFolder):
      return []
    return [
      name if name == same else f"{name} (there {same})"
      for name in self.things
      for same in other.twins(self.things[name])
    ]

  def twins(self, thing: MeshObject) -> list[str]:
    """Families with the geometry of an object, in metres or in their files' units."""
    names = np.array(self.families)
    forms = np.array([one.form for one in self.things.values()])
    scales = np.array([[one.scale] for one in self.things.values()])
    same = alike(forms, thing.form) | alike(forms / scales, thing.form / thing.scale)
    return names[same].tolist()


def open_folder(selection: str) -> MeshFolder:
  """Reads all meshes of a folder; the first time, decomposing takes seconds each.

  Args:
    selection: a folder, with options as at the top of this file.

  Raises:
    MeshError: no such folder, an unknown option, a missing library, or no usable mesh.
  """
  folder, options = _parse(selection)
  sources, unread = mesh_files.find(folder)
  kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(unread.items()))
  if not sources:
    raise MeshError(
      f"objects {selection!r}: no mesh in {folder}"
      + (f", only {kinds}" if kinds else "")
      + f"; expected files of {_list(mesh_files.KINDS)}"
    )
  things: dict[str, MeshObject] = {}
  skipped: dict[str, str] = {}
  # Workers open the folder, too; once is enough to be told.
  first = multiprocessing.parent_process() is None
  for number, source in enumerate(sources, 1):
    name = source.mesh.relative_to(folder).as_posix()
    say = functools.partial(_say, f"{number}/{len(sources)} {name}: ", first)
    try:
      things[source.name] = read_object(source, options.scale, options.fill, say)
    except MissingLibraryError:
      raise
    except (MeshError, OSError) as error:
      skipped[name] = str(error)
  reasons = "\n".join(f"  {name}: {reason}" for name, reason in skipped.items())
  if not things:
    raise MeshError(
      f"objects {selection!r}: none of {len(sources)} meshes can be used\n{reasons}"
    )
  if skipped and first:
    logging.warning(
      "%d of %d meshes in %s are skipped:\n%s",
      len(skipped),
      len(sources),
      folder,
      reasons,
    )
  if unread and first:
    logging.warning(
      "%s in %s are not read; expected %s", kinds, folder, _list(mesh_files.KINDS)
    )
  return MeshFolder(things, options.density, skipped, unread)


def _say(where: str, first: bool, what: str) -> None:
  if first:
    print(f"objects: {where}{what}", file=sys.stderr, flush=True)


def _list(kinds: tuple[str, ...]) -> str:
  return f"{', '.join(kinds[:-1])} or {kinds[-1]}"


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
      f"objects {selection!r}: there is no folder {folder}; expected one with"
      f" {_list(mesh_files.KINDS)} files"
    )
  options = Options(scale="declared", density=_MATERIAL.density)
  for name, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
    if name == "scale" and text == "fit":
      options = dataclasses.replace(options, scale="fit")
    elif name == "scale":
      (scale,) = _numbers(selection, name, text, 1)
      options = dataclasses.replace(options, scale=scale)
    elif name == "density":
      numbers = _numbers(selection, name, text, 2)
      options = dataclasses.replace(options, density=(numbers[0], numbers[-1]))
    elif name == "open" and text == "fill":
      options = dataclasses.replace(options, fill=True)
    else:
      raise MeshError(
        f"objects {selection!r}: {name + '=' + text!r} is no option; expected"
        " scale=fit, scale=0.001 (metres of a unit), density=400, density=300:700"
        " (kg/m^3) or open=fill"
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
