"""Graph-based segmentation of a voxel map (Appendix B).

P. Felzenszwalb and D. Huttenlocher, Efficient Graph-Based Image Segmentation, IJCV
59(2), 2004, on the graph of neighbouring voxels instead of pixels. Edges weigh how
sharply the surface turns, as between objects that touch; a convex turn weighs little,
for that is how one object turns (A. Karpathy, S. Miller and L. Fei-Fei, Object
Discovery in 3D Scenes via Shape Analysis, ICRA 2013).
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import scipy.spatial

NEIGHBOURS = 0.0078  # m: voxels nearer to each other share an edge and a normal's fit
CONVEX = 0.003  # weight of a convex turn beside that of a concave one
CLEARLY = 0.5  # cosine from which on a turn is convex for certain
SCALE = 0.12  # of F & H: how much larger segments are preferred
SMALLEST = 12  # voxels of a segment; smaller ones join a neighbour


class Graph(NamedTuple):
  """Neighbouring voxels and how different they are."""

  edges: np.ndarray  # int[E, 2]
  weights: np.ndarray  # float64[E], from 0


def build_graph(points: np.ndarray, eye: np.ndarray) -> Graph:
  """The graph of surface points.

  Args:
    points: [V, 3], one for each voxel, m.
    eye: [3] where they were seen from, in the same frame: surfaces face it.
  """
  pairs = scipy.spatial.cKDTree(points).query_pairs(NEIGHBOURS, output_type="ndarray")
  normals = _normals(points, pairs, eye)
  step = points[pairs[:, 1]] - points[pairs[:, 0]]
  one, other = normals[pairs[:, 0]], normals[pairs[:, 1]]
  cosine = np.sum(one * other, axis=1)
  # Which side of a surface seen edge-on faces the eye is not sure: neighbours agree.
  other = other * np.where(cosine < 0, -1.0, 1.0)[:, None]
  turn = 1.0 - np.abs(cosine)
  # Cosine between the step and the change of normal: 1 on a ball, -1 in a bowl.
  change = other - one
  lengths = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
  opens = np.sum(step * change, axis=1) / np.maximum(lengths, 1e-12)
  return Graph(pairs, turn * np.clip(1.0 - opens / CLEARLY, CONVEX, 1.0))


def _normals(points: np.ndarray, pairs: np.ndarray, eye: np.ndarray) -> np.ndarray:
  """float64[V, 3]: unit normals of planes through each point's neighbours."""
  count = len(points)
  ones = np.ones(len(pairs))
  half = scipy.sparse.coo_array((ones, (pairs[:, 0], pairs[:, 1])), (count, count))
  around = (half + half.T + scipy.sparse.eye_array(count)).tocsr()
  products = points[:, :, None] * points[:, None, :]
  moments = np.column_stack([np.ones(count), points, products.reshape(count, 9)])
  moments = around @ moments
  means = moments[:, 1:] / moments[:, :1]
  spread = means[:, 3:].reshape(count, 3, 3)
  spread = spread - means[:, :3, None] * means[:, None, :3]
  normals = np.linalg.eigh(spread)[1][:, :, 0]
  facing = np.sum(normals * (eye - points), axis=1)
  return normals * np.where(facing < 0, -1.0, 1.0)[:, None]


def segment(
  count: int, graph: Graph, scale: float = SCALE, smallest: int = SMALLEST
) -> np.ndarray:
  """Felzenszwalb and Huttenlocher's segmentation.

  Args:
    count: of vertices.
    scale: k of the paper: two segments are joined by an edge that weighs no more than
      the heaviest edge within either plus k over its size.
    smallest: vertices; smaller segments are joined to a neighbour afterwards.

  Returns:
    int[count]: the segment of each vertex, from 0.
  """
  labels, size, edges, weights = _contract(count, graph, scale)
  parent = list(range(len(size)))
  limit = [scale / n for n in size]  # heaviest edge within, plus scale over size

  def root(vertex: int) -> int:
    while parent[vertex] != vertex:
      parent[vertex] = vertex = parent[parent[vertex]]
    return vertex

  for (a, b), weight in zip(edges, weights, strict=True):
    a, b = root(a), root(b)
    if a != b and weight <= limit[a] and weight <= limit[b]:
      parent[b] = a
      size[a] += size[b]
      limit[a] = weight + scale / size[a]
  # Whatever is small joins the neighbour to which its lightest edge leads.
  roots = np.array([root(vertex) for vertex in range(len(parent))], np.int64)
  ends = roots[np.array(edges, np.int64).reshape(-1, 2)]
  small = np.array(size)[ends].min(axis=1) < smallest
  for a, b in ends[small & (ends[:, 0] != ends[:, 1])].tolist():
    a, b = root(a), root(b)
    if a != b and min(size[a], size[b]) < smallest:
      parent[b] = a
      size[a] += size[b]
  roots = np.array([root(vertex) for vertex in range(len(parent))], np.int64)
  return np.unique(roots[labels], return_inverse=True)[1]


def _contract(
  count: int, graph: Graph, scale: float
) -> tuple[np.ndarray, list[int], list[list[int]], list[float]]:
  """The graph without the edges that join segments for certain.

  No segment is larger than the graph, so no limit is below `scale / count`: edges
  that weigh no more join whatever they connect. Of parallel edges the first decides.

  Returns:
    labels int[count] of the new vertices, how many old ones each is, and its edges
    with their weights, in ascending order.
  """
  light = graph.weights <= scale / max(count, 1)
  labels = connected(count, graph.edges[light])
  size = np.bincount(labels)
  ends = np.sort(labels[graph.edges[~light]], axis=1)
  weights = graph.weights[~light]
  order = np.argsort(weights, kind="stable")
  order = order[ends[order, 0] != ends[order, 1]]
  # The first of each, as `unique` finds it, is the lightest.
  key = ends[order, 0] * len(size) + ends[order, 1]
  kept = order[np.sort(np.unique(key, return_index=True)[1])]
  return labels, size.tolist(), ends[kept].tolist(), weights[kept].tolist()


def connected(count: int, edges: np.ndarray) -> np.ndarray:
  """int[count]: which connected component each vertex is in, from 0."""
  shape = (count, count)
  ones = np.ones(len(edges), np.int8)
  matrix = scipy.sparse.coo_array((ones, (edges[:, 0], edges[:, 1])), shape)
  return scipy.sparse.csgraph.connected_components(matrix, directed=False)[1]
