"""What lies in the bin: families of shapes, each instance drawn from a seed."""

from envs.objects.families import (
  FAMILIES,
  HELD_OUT,
  MOST,
  TRAINING,
  add_objects,
  sample_object,
  sample_objects,
)
from envs.objects.shapes import ObjectSpec, Part

__all__ = [
  "FAMILIES",
  "HELD_OUT",
  "MOST",
  "TRAINING",
  "ObjectSpec",
  "Part",
  "add_objects",
  "sample_object",
  "sample_objects",
]
