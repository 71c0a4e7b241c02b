"""Clusters of voxels as graspable objects, each with its bounding box (Appendix B)."""

from typing import NamedTuple

import numpy as np

from envs.baselines import pinch
from envs.baselines.segmentation import connected

LAYER = 0.006  # thickness of the layers that are taken off, m
FLATTEST = 0.008  # of a layer that can be held by itself, m
NARROWEST = 0.006  # of an object; what is narrower is a part of some side, m
SQUARE = 1.1  # ratio of the edges below which either may be the longer one
SMALLEST = 15  # voxels of a graspable object
_YAWS = np.deg2rad(np.arange(0.0, 90.0, 1.0))
_AXES = np.stack([pinch.axes(yaw) for yaw in _YAWS])  # [Y, 2, 2]


class Box(NamedTuple):
  """The smallest upright box around points, seen from above; frame of the points."""

  centre: np.ndarray  # float64[2], m
  yaw: float  # of the longer edges, in [-90, 90) degrees, rad
  length: float  # of the longer edges, m
  width: float  # of the shorter edges, m

  def alternatives(self) -> tuple["Box", ...]:
    """This box, and with its edges exchanged if they are about as long."""
    if self.length > SQUARE * self.width:
      return (self,)
    turned = self.yaw - np.pi / 2 if self.yaw > 0 else self.yaw + np.pi / 2
    return self, Box(self.centre, turned, self.width, self.length)

  def corners(self) -> np.ndarray:
    """float64[4, 2], in turn."""
    signs = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    return self.centre + signs * (self.width / 2, self.length / 2) @ pinch.axes(
      self.yaw
    )


def smallest_box(points: np.ndarray) -> Box:
  """The box of the smallest area around points [N, 2 or 3], seen from above."""
  turned = (_AXES.reshape(-1, 2) @ points[:, :2].T).reshape(len(_YAWS), 2, -1)
  low, high = turned.min(axis=2), turned.max(axis=2)  # [Y, 2]
  extent = high - low
  best = int(np.argmin(extent[:, 0] * extent[:, 1]))
  centre = (low[best] + high[best]) / 2 @ _AXES[best]
  across, along = (float(e) for e in extent[best])
  if across > along:
    return Box(centre, float(_YAWS[best]) - np.pi / 2, across, along)
  return Box(centre, float(_YAWS[best]), along, across)


def graspable(points: np.ndarray, edges: np.ndarray, widest: float) -> list[np.ndarray]:
  """Splits clusters from top to bottom into what fits between the fingers.

  A cluster whose box is narrow enough is one object. Of others the lowest level is
  looked for above which every piece is narrow enough; those pieces are objects, and
  what is left below is split on. What is too wide at its very top stays one object:
  nothing of it fits.

  Args:
    points: [V, 3], z the height above the floor, m.
    edges: int[E, 2] between neighbours of the same cluster.
    widest: shorter edge of a box that fits, m.

  Returns:
    int[K] each, of V: the points of an object.
  """
  found: list[np.ndarray] = []
  waiting = _pieces(_Cluster(np.arange(len(points)), edges))
  while waiting:
    cluster = waiting.pop()
    members = cluster.members
    if len(members) < SMALLEST:
      continue
    width = smallest_box(points[members]).width
    if width <= widest:
      found += [members] if width >= NARROWEST else []
      continue
    above = _above(points, cluster, widest)
    found += [piece for piece in above if len(piece) >= SMALLEST] or [members]
    if above:
      waiting += _pieces(cluster, ~np.isin(members, np.concatenate(above)))
  return found


class _Cluster(NamedTuple):
  members: np.ndarray  # int[K] of all points
  edges: np.ndarray  # int[E, 2] of `members`


def _above(points: np.ndarray, cluster: _Cluster, widest: float) -> list[np.ndarray]:
  """The pieces, all narrow enough, above the lowest level where they are; maybe none.

  Pieces that are too thin to be held stay with what is below.
  """
  heights = points[cluster.members, 2]
  above: list[np.ndarray] = []
  for level in np.arange(heights.max() - LAYER, heights.min(), -LAYER):
    pieces = [piece.members for piece in _pieces(cluster, heights > level)]
    if any(smallest_box(points[piece]).width > widest for piece in pieces):
      break
    above = pieces
  return [piece for piece in above if np.ptp(points[piece, 2]) >= FLATTEST]


def _pieces(cluster: _Cluster, chosen: np.ndarray | None = None) -> list[_Cluster]:
  """The connected pieces of a cluster, or of those of its members that are chosen."""
  members, edges = cluster
  if chosen is not None:
    number = np.cumsum(chosen) - 1
    edges = number[edges[chosen[edges].all(axis=1)]]
    members = members[chosen]
  labels = connected(len(members), edges)
  counts = np.bincount(labels)
  order = np.argsort(labels, kind="stable")
  place = np.empty_like(order)  # of each member in its piece
  place[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
  owner = labels[edges[:, 0]]
  edges = place[edges[np.argsort(owner, kind="stable")]]
  owned = np.cumsum(np.bincount(owner, minlength=len(counts)))
  pieces = np.split(members[order], np.cumsum(counts)[:-1])
  return [
    _Cluster(*both) for both in zip(pieces, np.split(edges, owned[:-1]), strict=True)
  ]
