"""Closed bodies from the triangles of a file, and what they hold.

Triangles of all groups and materials are taken together: a group is no body. Bodies
that touch are separated where four or more faces meet at an edge: each keeps the faces
that enclose its own inside. Faces that are drawn twice count once, and a surface turned
inwards inside another is a cavity.
"""

import dataclasses
import warnings

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from envs.objects.mesh_errors import MeshError

FILLED = 0.02  # of the surface: a larger opening is no flaw of a scan
_COLUMNS = 160  # along x and y, where bodies overlap
_FLAT = 1e-6  # volume of a body, as a share of its longest side cubed


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
  """A closed surface, counterclockwise from outside; its cavities belong to it."""

  vertices: np.ndarray  # float64[V, 3]
  faces: np.ndarray  # int[F, 3]

  @property
  def triangles(self) -> np.ndarray:
    """float64[F, 3, 3]."""
    return self.vertices[self.faces]


@dataclasses.dataclass(frozen=True)
class Moments:
  """A solid of density 1; what several bodies share counts once."""

  volume: float
  centre: np.ndarray  # float64[3]
  second: np.ndarray  # float64[3, 3]: integral of (x - centre)(x - centre)^T


def closed_bodies(
  vertices: np.ndarray, faces: np.ndarray, *, fill: bool = False
) -> tuple[list[Body], list[str]]:
  """The bodies that the triangles enclose, and notes on what was repaired.

  Args:
    vertices: float64[V, 3].
    faces: int[F, 3].
    fill: close openings of any size.

  Raises:
    MeshError: nothing is enclosed; the text says why.
  """
  vertices, faces = _merged(vertices, faces)
  if not len(faces):
    raise MeshError("it holds no faces that have an area")
  notes: list[str] = []
  surfaces = []
  for surface in _split(faces, _edge_neighbours(faces)):
    single = _without_doubles(surface, notes)
    surfaces += _split(single, _sides_of_bodies(vertices, single))
  # Where faces were dropped or turned, a cavity looks like a nested body.
  doubtful = bool(notes)
  closed = []
  sheets = 0
  for surface in surfaces:
    body = Body(*_compact(vertices, surface))
    if not _is_closed(body.faces):
      if np.ptp(body.vertices, axis=0).max() == 0 or len(body.faces) < 3:
        sheets += 1  # a loose face
        continue
      body, how = _repaired(body, fill)
      notes.append(how)
      doubtful = True
    size = np.ptp(body.vertices, axis=0).max()
    if abs(_signed_volume(body.triangles)) < _FLAT * size**3:
      sheets += 1
      continue
    closed.append(body)
  if not closed:
    raise MeshError("it is flat: nothing is enclosed" if sheets else "it has no volume")
  if sheets:
    notes.append(f"{sheets} flat or loose parts left out")
  return _nested(closed, notes, doubtful), list(dict.fromkeys(notes))


def moments(bodies: list[Body]) -> Moments:
  """Volume, centre and second moments of the union of bodies.

  Exact where they are apart from each other; else summed along columns, to about half a
  percent.
  """
  exact = _exact_moments(np.concatenate([body.triangles for body in bodies]))
  if not _any_overlap(bodies):
    return exact
  union = _column_moments(np.concatenate([body.triangles for body in bodies]))
  return exact if abs(union.volume - exact.volume) < 0.01 * exact.volume else union


def _merged(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Equal vertices as one, without faces of no area.

  Vertices closer than a millionth of the size are equal where exact equality leaves
  cracks.
  """
  size = max(float(np.ptp(vertices, axis=0).max()), 1e-300)
  best = None
  for step in (0.0, 1e-6 * size, 1e-5 * size):
    keys = (
      np.round((vertices - vertices.min(axis=0)) / step) if step else vertices + 0.0
    )
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    merged = inverse.reshape(-1)[faces]
    following = merged[:, [1, 2, 0]]
    merged = merged[(merged != following).all(axis=1)]
    border = int((np.bincount(_edges(merged)[0]) == 1).sum()) if len(merged) else 0
    if best is None or border < best[0]:
      best = border, vertices[first], merged
    if border == 0:
      break
  assert best is not None
  return best[1], best[2]


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Undirected edge [3F], whether it runs upwards [3F], and its face [3F]."""
  directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
  upwards = directed[:, 0] < directed[:, 1]
  low, high = directed.min(axis=1), directed.max(axis=1)
  _, edge = np.unique(low * (high.max() + 1) + high, return_inverse=True)
  return edge, upwards, np.repeat(np.arange(len(faces)), 3)


def _is_closed(faces: np.ndarray) -> bool:
  """Whether every edge is run along as often one way as the other."""
  if not len(faces):
    return False
  edge, upwards, _ = _edges(faces)
  return not np.bincount(edge, np.where(upwards, 1, -1)).any()


def _split(faces: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
  """Faces in groups that pairs [P, 2] of neighbours connect."""
  ones = np.ones(len(pairs), bool)
  graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), (len(faces),) * 2)
  count, label = connected_components(graph, directed=False)
  order = np.argsort(label, kind="stable")
  return np.split(faces[order], np.cumsum(np.bincount(label, minlength=count))[:-1])


def _edge_neighbours(faces: np.ndarray) -> np.ndarray:
  """int[P, 2]: faces that share an edge, each edge's in a chain."""
  edge, _, face = _edges(faces)
  order = np.argsort(edge, kind="stable")
  same = edge[order][1:] == edge[order][:-1]
  return np.stack([face[order][:-1][same], face[order][1:][same]], axis=1)


def _without_doubles(faces: np.ndarray, notes: list[str]) -> np.ndarray:
  """Each face once; one side of a surface whose every face is drawn from both."""
  ordered = np.sort(faces, axis=1)
  _, key, counts = np.unique(ordered, axis=0, return_inverse=True, return_counts=True)
  if counts.max() == 1:
    return faces
  key = key.reshape(-1)
  # An even permutation of the sorted corners, or an odd one.
  first = faces.argmin(axis=1)
  rolled = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, axis=1)
  even = rolled[:, 1] < rolled[:, 2]
  both = np.unique(key[even]), np.unique(key[~even])
  if len(both[0]) == len(both[1]) == len(counts):
    notes.append("faces drawn from both sides counted once")
    _, keep = np.unique(key, return_index=True)
  else:
    _, keep = np.unique(2 * key + even, return_index=True)
    if len(keep) < len(faces):
      notes.append("doubled faces counted once")
  return faces[np.sort(keep)]


def _sides_of_bodies(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """int[P, 2]: neighbours that bound the same body.

  Where more than two faces meet at an edge, those are paired that have the inside of
  a body between them.
  """
  edge, upwards, face = _edges(faces)
  order = np.argsort(edge, kind="stable")
  starts = np.flatnonzero(np.r_[True, np.diff(edge[order]) > 0])
  sizes = np.diff(np.r_[starts, len(order)])
  two = starts[sizes == 2]
  pairs = [np.stack([face[order[two]], face[order[two + 1]]], axis=1)]
  for start, size in zip(starts[sizes > 2], sizes[sizes > 2], strict=True):
    chosen = order[start : start + size]
    around = face[chosen]
    if size % 2 or 2 * upwards[chosen].sum() != size:
      pairs.append(np.stack([around[:-1], around[1:]], axis=1))  # left to the mending
      continue
    corner = chosen[0]
    ends = faces[around[0]][[corner % 3, (corner + 1) % 3]]
    low, high = vertices[ends.min()], vertices[ends.max()]
    pairs.append(around[_wedges(vertices, faces[around], upwards[chosen], low, high)])
  return np.concatenate(pairs)


def _wedges(vertices, faces, upwards, low, high) -> np.ndarray:
  """int[P, 2]: the faces around the edge low-high, paired about the insides."""
  axis = (high - low) / np.linalg.norm(high - low)
  across = vertices[faces].mean(axis=1) - low
  across -= np.outer(across @ axis, axis)
  x = across[0] / np.linalg.norm(across[0])
  angle = np.arctan2(across @ np.cross(axis, x), across @ x)
  angle = np.round(angle, 6) % np.round(2 * np.pi, 6)
  # Seen along the edge, the inside lies clockwise of a face that runs upwards. At one
  # angle, an inside ends before the next begins.
  order = np.lexsort((~upwards, angle))
  order = np.roll(order, -int(np.argmax(~upwards[order])))  # begin where one begins
  opened: list[int] = []
  pairs = []
  for index in order:
    if not upwards[index]:
      opened.append(index)
    elif opened:
      pairs.append((opened.pop(), index))
  return np.array(pairs)


def _compact(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  used, inverse = np.unique(faces, return_inverse=True)
  return vertices[used], inverse.reshape(faces.shape)


def _repaired(body: Body, fill: bool) -> tuple[Body, str]:
  """The body with all faces turned alike and its holes filled.

  Raises:
    MeshError: it does not close, or only over an opening that is no flaw.
  """
  import trimesh

  mesh = trimesh.Trimesh(body.vertices, body.faces, process=False)
  count, before = len(mesh.faces), float(mesh.area)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if not mesh.is_watertight:
      trimesh.repair.fill_holes(mesh, use_fan=True)
    if not mesh.is_winding_consistent:
      trimesh.repair.fix_winding(mesh)
  opening = float(mesh.area_faces[count:].sum())
  faces = np.asarray(mesh.faces)
  if not _is_closed(faces):
    raise MeshError("its surface does not close around an inside: repair it")
  if opening > FILLED * before and not fill:
    raise MeshError(
      f"its surface is an open sheet without thickness: the opening is"
      f" {100 * opening / before:.0f} % of it. Give it walls (Blender: solidify), or"
      " have it closed and taken as solid (?open=fill)"
    )
  what = "holes filled" if len(faces) > count else "faces turned outwards"
  return Body(np.asarray(mesh.vertices, np.float64), faces), what


def _nested(closed: list[Body], notes: list[str], doubtful: bool) -> list[Body]:
  """Bodies with their cavities, all turned outwards."""
  if sum(_signed_volume(body.triangles) for body in closed) < 0:
    closed = [Body(b.vertices, b.faces[:, ::-1]) for b in closed]
    if not doubtful:
      notes.append("turned inside out")
    doubtful |= len(closed) > 1
  closed = sorted(closed, key=lambda b: -abs(_signed_volume(b.triangles)))
  bodies: list[Body] = []
  cavities = 0
  for body in closed:
    inwards = _signed_volume(body.triangles) < 0
    around = [
      i
      for i, outer in enumerate(bodies)
      if _boxes_meet(outer, body) and _encloses(outer, body)
    ]
    hollow = bool(around) and (inwards or doubtful)
    if inwards != hollow:
      body = Body(body.vertices, body.faces[:, ::-1])
    if hollow:
      outer = bodies[around[-1]]
      bodies[around[-1]] = Body(
        np.concatenate([outer.vertices, body.vertices]),
        np.concatenate([outer.faces, body.faces + len(outer.vertices)]),
      )
      cavities += 1
    elif around:
      notes.append("parts within others left out")
    else:
      bodies.append(body)
  if cavities:
    notes.append(f"{cavities} cavities" if cavities > 1 else "a cavity")
  return bodies


def _boxes_meet(one: Body, other: Body) -> bool:
  low, high = one.vertices.min(axis=0), one.vertices.max(axis=0)
  return bool(
    (other.vertices.min(axis=0) < high).all()
    and (other.vertices.max(axis=0) > low).all()
  )


def _any_overlap(bodies: list[Body]) -> bool:
  low = np.array([body.vertices.min(axis=0) for body in bodies])
  high = np.array([body.vertices.max(axis=0) for body in bodies])
  margin = 1e-6 * (high.max(axis=0) - low.min(axis=0)).max()
  meet = (low[:, None] + margin < high[None]).all(axis=-1)
  meet &= meet.T
  return bool(meet[~np.eye(len(bodies), dtype=bool)].any())


def _signed_volume(triangles: np.ndarray) -> float:
  origin = triangles.reshape(-1, 3).mean(axis=0)
  return float(np.linalg.det(triangles - origin).sum() / 6)


def _encloses(outer: Body, body: Body) -> bool:
  """Whether a body lies inside another, by up to 64 of its faces."""
  spread = np.unique(np.linspace(0, len(body.faces) - 1, 64).astype(int))
  points = body.triangles[spread].mean(axis=1)
  # Off the faces of the other, should they coincide.
  points += 1e-4 * (body.vertices.mean(axis=0) - points)
  return all(_solid_angle(outer.triangles, point) > 0 for point in points)


def _solid_angle(triangles: np.ndarray, point: np.ndarray) -> int:
  """Winding number of closed triangles about a point (Van Oosterom and Strackee)."""
  a, b, c = np.moveaxis(triangles - point, 1, 0)
  la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
  above = np.einsum("ij,ij->i", a, np.cross(b, c))
  below = (
    la * lb * lc
    + np.einsum("ij,ij->i", a, b) * lc
    + np.einsum("ij,ij->i", b, c) * la
    + np.einsum("ij,ij->i", c, a) * lb
  )
  return round(float(2 * np.arctan2(above, below).sum() / (4 * np.pi)))


def _exact_moments(triangles: np.ndarray) -> Moments:
  """By the divergence theorem: signed tetrahedra from a common point."""
  origin = triangles.reshape(-1, 3).mean(axis=0)
  local = triangles - origin
  volumes = np.linalg.det(local) / 6
  volume = volumes.sum()
  total = local.sum(axis=1)
  centre = volumes @ total / (4 * volume)
  second = np.einsum("f,fki,fkj->ij", volumes, local, local)
  second = (second + np.einsum("f,fi,fj->ij", volumes, total, total)) / 20
  second -= volume * np.outer(centre, centre)
  return Moments(float(volume), origin + centre, second)


def _column_moments(triangles: np.ndarray) -> Moments:
  """Of all points that are enclosed at least once, along columns parallel to z."""
  low = triangles.min(axis=(0, 1))
  sides = triangles.max(axis=(0, 1)) - low
  step = sides[:2] / _COLUMNS
  column, height, sign = _crossings(triangles, low, step)
  order = np.lexsort((height, column))
  column, height, sign = column[order], height[order], sign[order]
  inside = np.cumsum(sign) > 0  # every column ends at zero
  inside[-1] = False
  here = np.flatnonzero(inside[:-1] & (column[1:] == column[:-1]))
  bottom, top = height[here], height[here + 1]
  weight = (top - bottom) * step.prod()
  x = low[0] + (column[here] // _COLUMNS + 0.5) * step[0]
  y = low[1] + (column[here] % _COLUMNS + 0.5) * step[1]
  points = np.stack([x, y, (bottom + top) / 2], axis=1)
  volume = weight.sum()
  centre = weight @ points / volume
  away = points - centre
  second = np.einsum("n,ni,nj->ij", weight, away, away)
  second[0, 0] += volume * step[0] ** 2 / 12
  second[1, 1] += volume * step[1] ** 2 / 12
  second[2, 2] += (weight * (top - bottom) ** 2).sum() / 12
  return Moments(float(volume), centre, second)


def _crossings(triangles, low, step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Where columns meet triangles: column [C], height [C], +1 where one goes inside."""
  flat = (triangles[..., :2] - low[:2]) / step - 0.5  # columns at whole numbers
  flat = flat + (1.7e-7, 2.3e-7)  # off every edge that lies on the grid
  first = np.ceil(flat.min(axis=1)).astype(int).clip(0)
  last = np.floor(flat.max(axis=1)).astype(int).clip(max=_COLUMNS - 1)
  span = (last - first + 1).clip(0)
  found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
  number = span.prod(axis=1)
  for chunk in np.array_split(np.arange(len(triangles)), 1 + number.sum() // 2_000_000):
    face = np.repeat(chunk, number[chunk])
    start = np.cumsum(number[chunk]) - number[chunk]
    index = np.arange(len(face)) - np.repeat(start, number[chunk])
    i = first[face, 0] + index // span[face, 1]
    j = first[face, 1] + index % span[face, 1]
    a, b, c = np.moveaxis(flat[face], 1, 0)
    point = np.stack([i, j], axis=1)
    areas = np.stack(
      [
        _cross(b - point, c - point),
        _cross(c - point, a - point),
        _cross(a - point, b - point),
      ]
    )
    hit = (areas > 0).all(axis=0) | (areas < 0).all(axis=0)
    shares = areas[:, hit] / areas[:, hit].sum(axis=0)
    height = np.einsum("kn,nk->n", shares, triangles[face[hit], :, 2])
    sign = np.where(areas[0, hit] > 0, -1, 1)  # upwards through a top: outside again
    found.append((i[hit] * _COLUMNS + j[hit], height, sign))
  column, height, sign = (np.concatenate(part) for part in zip(*found, strict=True))
  return column, height, sign


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
