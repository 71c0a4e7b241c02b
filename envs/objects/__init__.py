"""What lies in the bin: families of shapes, each instance drawn from a seed."""

from envs.objects.bodies import Body, RigidBody, SoftNodes, find_bodies
from envs.objects.build import add_objects
from envs.objects.catalogue import (
  FAMILIES,
  MOST,
  ObjectsError,
  ObjectSet,
  choose,
  sample_object,
  sample_objects,
)
from envs.objects.held_out import HELD_OUT
from envs.objects.shapes import ObjectSpec, Part, SoftBody, properties
from envs.objects.training import TRAINING

__all__ = [
  "Body",
  "FAMILIES",
  "HELD_OUT",
  "MOST",
  "ObjectSet",
  "ObjectSpec",
  "ObjectsError",
  "Part",
  "RigidBody",
  "SoftBody",
  "SoftNodes",
  "TRAINING",
  "add_objects",
  "choose",
  "find_bodies",
  "properties",
  "sample_object",
  "sample_objects",
]
