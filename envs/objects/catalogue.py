"""What may lie in a bin: objects by family and instance, and sets to choose from."""

import colorsys
import dataclasses
import functools
from typing import Protocol

import numpy as np

from envs.objects.held_out import HELD_OUT
from envs.objects.shapes import ObjectSpec
from envs.objects.training import TRAINING

MOST = 40  # objects in a bin: more lie above its rim

FAMILIES = {**TRAINING, **HELD_OUT}
GROUPS = {"training": TRAINING, "held_out": HELD_OUT}
KINDS = ("rigid", "soft")


class ObjectsError(ValueError):
  """A selection that names no objects."""


class ObjectSet(Protocol):
  """Objects to fill bins from."""

  @property
  def families(self) -> tuple[str, ...]:
    """Names, in the order in which they are drawn from."""

  @property
  def fingerprint(self) -> str:
    """What else than the names decides the objects: '' or a checksum of files."""

  def sample(self, rng: np.random.Generator, count: int) -> list[ObjectSpec]:
    """Draws the contents of a bin."""

  def shared(self, other: "ObjectSet") -> list[str]:
    """Names of what another set holds, too: the same family, or geometry."""


@dataclasses.dataclass(frozen=True)
class Families:
  """Endless instances of some families, each family equally often."""

  families: tuple[str, ...]
  fingerprint: str = ""

  def sample(self, rng: np.random.Generator, count: int) -> list[ObjectSpec]:
    return [
      sample_object(
        self.families[rng.integers(len(self.families))], int(rng.integers(1_000_000))
      )
      for _ in range(count)
    ]

  def shared(self, other: ObjectSet) -> list[str]:
    same = isinstance(other, Families)
    return sorted(set(self.families) & set(other.families)) if same else []


@functools.lru_cache(maxsize=32)
def choose(selection: str) -> ObjectSet:
  """The set of objects that a text names.

  Args:
    selection: a group (`training`, `held_out`), a kind of it (`training:rigid`,
      `held_out:soft`), families by name (`box,hammer`), or a folder of meshes, which
      must contain a / (`./meshes`).

  Raises:
    ObjectsError: it names nothing that there is.
    MeshError: a folder without a usable mesh.
  """
  if "/" in selection or "?" in selection:
    from envs.objects.meshes import open_folder  # needs extra libraries

    return open_folder(selection)
  group, colon, kind = selection.partition(":")
  if group in GROUPS and (not colon or kind in KINDS):
    names = tuple(sorted(GROUPS[group]))
    return Families(tuple(n for n in names if not kind or kind_of(n) == kind))
  names = tuple(sorted(name.strip() for name in selection.split(",")))
  unknown = [name for name in names if name not in FAMILIES]
  if unknown:
    raise ObjectsError(
      f"objects {selection!r}: {unknown[0]!r} is not known; expected a group"
      f" ({', '.join(GROUPS)}), one kind of it (training:rigid, training:soft),"
      f" families ({', '.join(sorted(FAMILIES))}), or a folder of meshes, written with"
      " a / (./meshes)"
    )
  return Families(names)


def sample_objects(
  rng: np.random.Generator, count: int, selection: str = "training"
) -> list[ObjectSpec]:
  """Draws the contents of a bin; `selection` as in `choose`, which names the errors."""
  return choose(selection).sample(rng, count)


def sample_object(family: str, instance: int) -> ObjectSpec:
  """One object of a family; the same instance number is the same object forever.

  Raises:
    ValueError: an unknown family.
  """
  if family not in FAMILIES:
    raise ValueError(f"object family {family!r}: expected one of {sorted(FAMILIES)}")
  rng = np.random.default_rng([*family.encode(), instance])
  shape = FAMILIES[family](rng)
  hue = rng.uniform()
  colour = colorsys.hsv_to_rgb(
    hue, rng.uniform(*shape.saturation), rng.uniform(*shape.brightness)
  )
  return ObjectSpec(
    name=f"{family}-{instance:06d}",
    family=family,
    parts=shape.parts,
    density=float(rng.uniform(*shape.density)),
    friction=float(rng.uniform(*shape.friction)),
    colour=colour,
    soft=shape.soft,
    solid=shape.solid,
    opacity=shape.opacity,
    shine=shape.shine,
  )


def kind_of(family: str) -> str:
  """`rigid` or `soft`."""
  return "rigid" if sample_object(family, 0).soft is None else "soft"
