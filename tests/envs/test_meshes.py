"""Folders of a person's own meshes."""

import builtins
import dataclasses
import importlib.util
import pickle
import re

import mujoco
import numpy as np
import PIL.Image
import pytest
from scipy.spatial import Delaunay

from envs import fleet, grasp_env, objects, rendering, rollout, scene, units
from envs.attempt import Attempt
from envs.baselines import RandomPolicy
from envs.objects import build, pieces, shapes, surfaces
from envs.objects.mesh_errors import MeshError, MissingLibraryError
from envs.objects.meshes import open_folder

trimesh = pytest.importorskip("trimesh")
pytest.importorskip("coacd")
pytest.importorskip("networkx")

CUBE = 0.04  # m


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
  """No test reads or fills the cache of who runs it."""
  folder = tmp_path_factory.mktemp("cache")
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
  return folder / "hand_eye" / "meshes"


def box_faces(first: int = 1) -> str:
  """Twelve triangles outwards over eight vertices in the order of `box_vertices`."""
  quads = ((0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2))
  return "".join(
    f"f {first + a} {first + b} {first + c}\nf {first + a} {first + c} {first + d}\n"
    for a, b, c, d in (*quads, (1, 3, 7, 5))
  )


def box_vertices(low, high) -> str:
  return "".join(
    f"v {x} {y} {z}\n"
    for z in (low[2], high[2])
    for y in (low[1], high[1])
    for x in (low[0], high[0])
  )


def box_obj(low, high, first: int = 1) -> str:
  return box_vertices(low, high) + box_faces(first)


def cube_obj(side: float = CUBE, at: float = 0.3) -> str:
  return box_obj((at,) * 3, (at + side,) * 3)


def stl(triangles: np.ndarray) -> bytes:
  """A binary STL of triangles [F, 3, 3]."""
  record = np.zeros(
    len(triangles), [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")]
  )
  record["v"] = triangles
  return bytes(80) + np.uint32(len(triangles)).tobytes() + record.tobytes()


def prism_stl(outline, height: float) -> bytes:
  """A closed prism over a star-shaped outline [N, 2], seen from its first point."""
  bottom = np.column_stack([outline, np.zeros(len(outline))])
  top = bottom + (0, 0, height)
  triangles = []
  for i in range(1, len(outline) - 1):
    triangles += [bottom[[0, i + 1, i]], top[[0, i, i + 1]]]
  for i in range(len(outline)):
    j = (i + 1) % len(outline)
    triangles += [[bottom[i], bottom[j], top[j]], [bottom[i], top[j], top[i]]]
  return stl(np.array(triangles))


def angle_stl(scale: float = 1.0) -> bytes:
  """An L of 10 cm by 6 cm, 2 cm thick and 2 cm high; the corner sees all of it."""
  outline = [(0.02, 0.02), (0.02, 0.1), (0, 0.1), (0, 0), (0.06, 0), (0.06, 0.02)]
  return prism_stl(scale * np.array(outline), 0.02 * scale)


ANGLE_VOLUME = 0.02 * (0.02 * 0.1 + 0.04 * 0.02)
ANGLE_MIDDLE = np.array([0.01 * 0.1 + 0.04 * 0.04, 0.05 * 0.1 + 0.01 * 0.04, 0.0014])
ANGLE_MIDDLE /= 0.14


def boxes_stl(*corners) -> bytes:
  """Boxes from low to high corners, as a binary STL: no vertex says whose it is."""
  triangles = []
  for low, high in corners:
    lines = box_obj(low, high).splitlines()
    points = np.array([line.split()[1:] for line in lines[:8]], float)
    faces = np.array([line.split()[1:] for line in lines[8:]], int) - 1
    triangles.append(points[faces])
  return stl(np.concatenate(triangles))


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "Cube One.OBJ").write_text(cube_obj())
  (tmp_path / "more").mkdir()
  (tmp_path / "more" / "angle.stl").write_bytes(angle_stl())
  return tmp_path


def test_each_file_is_a_family_and_a_seed_an_object(folder):
  found = objects.choose(f"{folder}/")
  assert found.families == ("cube_one", "angle")
  first = found.sample(np.random.default_rng(0), 20)
  again = open_folder(str(folder)).sample(np.random.default_rng(0), 20)
  assert [thing.name for thing in first] == [thing.name for thing in again]
  assert [thing.colour for thing in first] == [thing.colour for thing in again]
  assert {thing.family for thing in first} == set(found.families)
  assert len({thing.density for thing in first}) == 20
  assert len({thing.colour for thing in first}) == 20


def test_a_convex_mesh_is_one_part_about_its_middle(folder):
  (part,) = open_folder(str(folder)).parts["cube_one"]
  corners = np.sort(part.mesh.vertices, axis=0)
  np.testing.assert_allclose(corners[:4], -CUBE / 2, atol=1e-7)
  np.testing.assert_allclose(corners[4:], CUBE / 2, atol=1e-7)
  assert part.mesh.volume == pytest.approx(CUBE**3, rel=1e-5)


def test_a_mesh_that_is_not_convex_is_decomposed_and_remembered(folder, own_cache):
  parts = open_folder(str(folder)).parts["angle"]
  assert 2 <= len(parts) <= 16
  assert sum(p.mesh.volume for p in parts) == pytest.approx(ANGLE_VOLUME, rel=1e-3)
  # The notch stays empty: no part reaches into it.
  notch = np.array([0.035, 0.035, 0.01]) - ANGLE_MIDDLE
  assert all(Delaunay(part.mesh.vertices).find_simplex(notch) < 0 for part in parts)
  (stored,) = own_cache.glob("*.npz")
  before = stored.read_bytes()
  again = open_folder(str(folder)).parts["angle"]
  for part, same in zip(parts, again, strict=True):
    np.testing.assert_array_equal(part.mesh.vertices, same.mesh.vertices)
  assert stored.read_bytes() == before
  assert not list(own_cache.glob("*.tmp"))


def test_a_damaged_cache_is_made_anew(folder, own_cache):
  parts = open_folder(str(folder)).parts["angle"]
  (stored,) = own_cache.glob("*.npz")
  stored.write_bytes(stored.read_bytes()[:100])
  again = open_folder(str(folder)).parts["angle"]
  for part, same in zip(parts, again, strict=True):
    np.testing.assert_array_equal(part.mesh.vertices, same.mesh.vertices)


def test_bodies_that_are_convex_are_parts_as_they_are(tmp_path, own_cache):
  before = set(own_cache.glob("*"))
  seat = box_obj((0, 0, 0), (0.1, 0.04, 0.02))
  back = box_obj((0, 0, 0.02), (0.02, 0.04, 0.08), first=9)
  (tmp_path / "chair.obj").write_text(f"o chair\ng seat\n{seat}g back\n{back}")
  parts = open_folder(str(tmp_path)).parts["chair"]
  volumes = sorted(part.mesh.volume for part in parts)
  np.testing.assert_allclose(volumes, [4.8e-5, 8e-5], rtol=1e-5)
  assert set(own_cache.glob("*")) == before


def test_what_can_be_mended_is_mended(tmp_path):
  lines = cube_obj().splitlines()
  (tmp_path / "inside_out.obj").write_text(
    "\n".join(
      "f " + " ".join(line.split()[:0:-1]) if line.startswith("f") else line
      for line in lines
    )
  )
  (tmp_path / "no_lid.obj").write_text("\n".join(lines[:-2]))
  found = open_folder(f"{tmp_path}?open=fill")
  assert not found.skipped
  assert found.things["no_lid"].notes == ("holes filled",)
  for (part,) in found.parts.values():
    assert part.mesh.volume == pytest.approx(CUBE**3, rel=1e-5)


def test_round_pieces_have_few_corners():
  rng = np.random.default_rng(0)
  ball = rng.normal(size=(3000, 3))
  ball *= 0.03 / np.linalg.norm(ball, axis=1, keepdims=True)
  mesh = pieces.hull(ball)
  assert len(mesh.vertices) <= pieces.MOST_CORNERS
  assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.03**3, rel=0.01)


def test_unusable_meshes_are_named_and_counted(folder, caplog):
  flat = np.array([[[0, 0, 0], [0.05, 0, 0], [0, 0.05, 0]]] * 2)
  (folder / "broken.stl").write_bytes(b"solid nothing that anybody can read")
  (folder / "empty.obj").write_text("# nothing\n")
  (folder / "flat.stl").write_bytes(stl(flat))
  (folder / "nan.obj").write_text(cube_obj().replace("v 0.3 ", "v nan ", 1))
  (folder / "millimetres.obj").write_text(cube_obj(side=50.0))
  (folder / "mite.obj").write_text(cube_obj(side=0.004))
  (folder / "sheet.obj").write_text(box_obj((0, 0, 0), (0.1, 0.1, 0.0005)))
  found = open_folder(str(folder))
  assert set(found.families) == {"cube_one", "angle"}
  reasons = {
    "broken.stl": "cannot be read|no faces",
    "empty.obj": "cannot be read|no faces",
    "flat.stl": "it is flat",
    "nan.obj": "no numbers",
    "millimetres.obj": "50 m long.*scale=0.001.*scale=fit",
    "mite.obj": "only 0.004 m long",
    "sheet.obj": "only 0.0005 m thin",
  }
  assert set(found.skipped) == set(reasons)
  for name, reason in reasons.items():
    with pytest.raises(AssertionError, match=reason):
      raise AssertionError(found.skipped[name])
  (record,) = [r for r in caplog.records if "skipped" in r.getMessage()]
  assert "7 of 9 meshes" in record.getMessage()
  assert "mite.obj: it is only" in record.getMessage()


def test_a_surface_without_an_inside_is_refused(tmp_path):
  angle = np.linspace(0, 2 * np.pi, 25)[:-1]
  wide = np.array([[-0.01], [0.01]])
  radius = 0.04 + wide * np.cos(angle / 2)
  band = np.stack(
    [radius * np.cos(angle), radius * np.sin(angle), wide * np.sin(angle / 2)], axis=-1
  )
  # Half a turn on the way round: a Moebius strip.
  band = np.concatenate([band, band[::-1, :1]], axis=1)
  a, b, c, d = band[0, :-1], band[1, :-1], band[1, 1:], band[0, 1:]
  triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
  (tmp_path / "strip.stl").write_bytes(stl(triangles))
  with pytest.raises(MeshError, match="strip.stl: its surface is an open sheet"):
    open_folder(str(tmp_path))


@pytest.mark.parametrize(
  ("query", "expected"), [("scale=fit", 0.05), ("scale=0.001", 0.04)]
)
def test_units_are_given_or_fitted(tmp_path, query, expected):
  (tmp_path / "cube.obj").write_text(cube_obj(side=40.0))
  (part,) = open_folder(f"{tmp_path}?{query}").parts["cube"]
  assert np.ptp(part.mesh.vertices, axis=0) == pytest.approx(expected, rel=1e-5)


def test_fitted_things_are_no_longer_than_the_bin_takes(tmp_path):
  turn = np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
  outline = np.array([(0, 0), (90, 0), (90, 2), (0, 2)]) @ turn[:2, :2]
  (tmp_path / "rod.stl").write_bytes(prism_stl(outline, 2.0))
  (part,) = open_folder(f"{tmp_path}?scale=fit").parts["rod"]
  assert part.mesh.volume == pytest.approx(0.2 * (0.2 / 45) ** 2, rel=1e-4)


def test_mass_is_density_times_volume(folder):
  found = open_folder(f"{folder}?density=400")
  things = [found.instance(family, 3) for family in found.families]
  assert {thing.density for thing in things} == {400.0}
  built = scene.build_scene(units.sample_unit(0), things, 64)
  for index, thing in enumerate(things):
    mass = built.model.body(f"object{index}").mass[0]
    assert mass == pytest.approx(shapes.mass(thing), rel=1e-4)
    # Objects are about their centre of mass.
    assert np.abs(built.model.body(f"object{index}").ipos).max() < 1e-6
  assert shapes.mass(things[0]) == pytest.approx(400 * CUBE**3, rel=1e-4)
  drawn = open_folder(f"{folder}?density=100:200").sample(np.random.default_rng(0), 20)
  assert all(100 <= thing.density <= 200 for thing in drawn)


def test_mujoco_has_every_corner_where_the_part_says(folder):
  found = open_folder(str(folder))
  parts = [
    dataclasses.replace(
      part, position=(0.01, -0.02, 0.03), quaternion=(0.8, 0.36, 0.48, 0.0)
    )
    for family in found.families
    for part in found.parts[family]
  ]
  thing = dataclasses.replace(found.instance("angle", 0), parts=tuple(parts))
  spec = mujoco.MjSpec()
  build.add_objects(spec, [thing])
  model = spec.compile()
  data = mujoco.MjData(model)
  data.qpos[:7] = (0.1, 0.2, 0.3, 0.5, 0.5, -0.5, 0.5)
  mujoco.mj_forward(model, data)
  body = data.xmat[1].reshape(3, 3)
  assert model.ngeom == len(parts) + len(thing.skins) and len(parts) > 2
  for geom, part in enumerate(parts):
    mesh = model.geom_dataid[geom]
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    turn = data.geom_xmat[geom].reshape(3, 3)
    seen = model.mesh_vert[first : first + count] @ turn.T + data.geom_xpos[geom]
    said = shapes.part_points(part) @ body.T + data.xpos[1]
    assert len(seen) == len(said)
    gap = np.linalg.norm(seen[:, None] - said[None], axis=-1).min(axis=1)
    assert gap.max() < 1e-6


@pytest.mark.parametrize(
  ("query", "text"),
  [
    ("?size=fit", "'size=fit' is no option; expected scale=fit"),
    ("?scale=big", "scale=big: expected a positive number or fit"),
    ("?scale=-1", "scale=-1"),
    ("?density=9:3", "density=9:3: expected a number or a range"),
  ],
)
def test_options_that_there_are_not_are_refused(folder, query, text):
  with pytest.raises(MeshError, match=text.replace("?", r"\?")):
    open_folder(f"{folder}{query}")


def test_folders_without_a_mesh_are_refused(tmp_path):
  with pytest.raises(MeshError, match="there is no folder"):
    objects.choose(f"{tmp_path}/nowhere")
  with pytest.raises(MeshError, match="no mesh in .*expected files of .*.obj"):
    open_folder(str(tmp_path))
  (tmp_path / "mite.obj").write_text(cube_obj(side=0.001))
  with pytest.raises(MeshError, match="(?s)none of 1 meshes.*mite.obj: it is only"):
    open_folder(str(tmp_path))


@pytest.mark.parametrize("library", ["trimesh", "coacd"])
def test_a_missing_library_is_named(folder, library, monkeypatch):
  real = builtins.__import__

  def without(name, *args, **kwargs):
    if name.split(".")[0] == library:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real(name, *args, **kwargs)

  monkeypatch.setattr(builtins, "__import__", without)
  words = rf"needs {library}.*pip install 'hand_eye\["
  with pytest.raises(MissingLibraryError, match=words) as caught:
    open_folder(str(folder))
  # As a worker process hands it back.
  again = pickle.loads(pickle.dumps(caught.value))
  assert type(again) is MissingLibraryError and str(again) == str(caught.value)


def run_task(one: rollout.SceneTask) -> tuple[Attempt, ...]:
  return rollout.run_scene(one, RandomPolicy()).attempts


def task(folder, seed: int) -> rollout.SceneTask:
  return rollout.SceneTask(
    unit=units.sample_unit(1),
    scene_seed=seed,
    num_attempts=1,
    num_steps=(2,),
    num_objects=4,
    objects=str(folder),
    frame_size=48,
  )


def assert_same(one: Attempt, other: Attempt) -> None:
  np.testing.assert_array_equal(one.images, other.images)
  np.testing.assert_array_equal(one.poses, other.poses)
  assert one.objects == other.objects


def test_attempts_are_made_with_meshes(folder):
  (attempt,) = run_task(task(folder, 1))
  assert {name.rsplit("-")[0] for name in attempt.objects} <= {"cube_one", "angle"}
  objects.choose.cache_clear()  # and read from the files again
  assert_same(attempt, *run_task(task(folder, 1)))


@pytest.mark.slow
def test_attempts_with_meshes_do_not_depend_on_the_number_of_workers(folder):
  tasks = [task(folder, seed) for seed in (1, 2)]
  # Both workers find an empty cache and fill it at once.
  there = dict(fleet.map_unordered(run_task, tasks, num_workers=2))
  for index, one in enumerate(tasks):
    assert_same(*run_task(one), *there[index])


def grasp_known_cube(thing: objects.ObjectSpec, seed: int) -> grasp_env.Outcome:
  env = grasp_env.GraspEnv(units.sample_unit(seed), [thing], 72)
  rng = np.random.default_rng(seed)
  env.fill(rng)
  env.begin(rng)
  low, high = env.unit.workspace()
  x, y = np.clip(env.object_positions()[0, :2], low[:2], high[:2])
  turn = np.empty(9)
  mujoco.mju_quat2Mat(turn, env.scene.bodies[0].quaternion(env.data))
  # Along whichever of the cube's axes lies in the table's plane.
  level = turn.reshape(3, 3)[:, np.abs(turn[6:]).argmin()]
  yaw = (np.arctan2(level[1], level[0]) + np.pi / 4) % (np.pi / 2) - np.pi / 4
  pose = np.array([x, y, env.unit.table_height + 0.08, yaw])
  env.approach(pose)
  pose[2] = env.unit.table_height
  env.controller.move_to(pose)
  outcome = env.grasp(rng)
  env.close()
  return outcome


def test_who_knows_where_a_mesh_lies_can_grasp_it(folder):
  thing = open_folder(str(folder)).instance("cube_one", 0)
  outcomes = [grasp_known_cube(thing, seed) for seed in range(3)]
  held = [outcome for outcome in outcomes if outcome.simulator_truth]
  assert len(held) >= 2
  assert all(o.success and o.grasped == "cube_one-000000" for o in held)


PLUS = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)]
CORNER = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
PLATE = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
DIAGONAL = [(0, 0, 0), (1, 1, 0)]


@pytest.mark.parametrize("places", [PLUS, CORNER, PLATE, DIAGONAL])
@pytest.mark.parametrize("kind", ["obj", "stl"])
def test_blocks_that_touch_are_all_there(tmp_path, places, kind):
  boxes = [(np.array(p) * 0.02, np.array(p) * 0.02 + 0.02) for p in places]
  if kind == "stl":
    (tmp_path / "blocks.stl").write_bytes(boxes_stl(*boxes))
  else:
    text = [box_obj(*box, first=8 * i + 1) for i, box in enumerate(boxes)]
    (tmp_path / "blocks.obj").write_text("g all\n" + "".join(text))
  thing = open_folder(f"{tmp_path}?density=1000").instance("blocks", 0)
  assert shapes.mass(thing) == pytest.approx(len(places) * 0.008, rel=1e-5)
  volumes = [shapes.part_volume(part) for part in thing.parts]
  np.testing.assert_allclose(volumes, [8e-6] * len(places), rtol=1e-5)


def test_mass_and_inertia_are_those_of_the_files_surface(tmp_path):
  (tmp_path / "angle.stl").write_bytes(angle_stl())
  thing = open_folder(f"{tmp_path}?density=1000").instance("angle", 0)
  built = scene.build_scene(units.sample_unit(0), [thing], 64)
  body = built.model.body("object0")
  assert body.mass[0] == pytest.approx(1000 * ANGLE_VOLUME, rel=1e-6)
  bars = [((0.01, 0.05), (0.02, 0.1)), ((0.04, 0.01), (0.04, 0.02))]
  about_z = sum(
    20 * x * y * ((x * x + y * y) / 12 + ((middle - ANGLE_MIDDLE[:2]) ** 2).sum())
    for middle, (x, y) in bars
  )
  assert body.inertia[0] == pytest.approx(about_z, rel=1e-5)


@pytest.mark.parametrize(
  ("name", "edit"),
  [
    ("a material a side", lambda n, line: f"usemtl m{n // 2}\n{line}"),
    ("a group a half", lambda n, line: f"g {'ab'[n >= 6]}\n{line}"),
    ("double-sided", lambda n, line: f"{line}\nf {' '.join(line.split()[:0:-1])}"),
    ("doubled", lambda n, line: f"{line}\n{line}"),
  ],
)
def test_groups_materials_and_doubled_faces_are_no_bodies(tmp_path, name, edit):
  lines = cube_obj().splitlines()
  faces = [edit(n, line) for n, line in enumerate(lines[8:])]
  (tmp_path / "cube.obj").write_text("\n".join([*lines[:8], *faces]))
  found = open_folder(str(tmp_path))
  assert found.things["cube"].solid.volume == pytest.approx(CUBE**3, rel=1e-5), name
  assert len(found.parts["cube"]) == 1


def test_a_closed_cavity_weighs_nothing():
  outer, inner = (
    boxes_stl(((0,) * 3, (0.05,) * 3)),
    boxes_stl(((0.001,) * 3, (0.049,) * 3)),
  )
  points = [triangles_of(outer), triangles_of(inner)[:, ::-1]]
  (body,), notes = closed(np.concatenate(points))
  assert surfaces.moments([body]).volume == pytest.approx(0.05**3 - 0.048**3, rel=1e-5)
  assert notes == ["a cavity"]


def triangles_of(content: bytes) -> np.ndarray:
  kind = [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")]
  return np.frombuffer(content[84:], kind)["v"].astype(float)


def closed(triangles: np.ndarray):
  faces = np.arange(3 * len(triangles)).reshape(-1, 3)
  return surfaces.closed_bodies(triangles.reshape(-1, 3), faces)


def test_what_overlapping_bodies_share_counts_once():
  content = boxes_stl(((0,) * 3, (1,) * 3), ((0.5, 0.25, 0.125), (1.5, 1.25, 1.125)))
  bodies, _ = closed(triangles_of(content))
  found = surfaces.moments(bodies)
  assert found.volume == pytest.approx(2 - 0.5 * 0.75 * 0.875, rel=5e-3)
  np.testing.assert_allclose(found.centre, (0.75, 0.625, 0.5625), atol=5e-3)


def test_an_open_sheet_is_refused_and_what_to_do_is_said(tmp_path):
  (tmp_path / "tray.obj").write_text("\n".join(cube_obj().splitlines()[:-2]))
  with pytest.raises(MeshError, match=r"open sheet.* 20 % of it.*solidify.*open=fill"):
    open_folder(str(tmp_path))


def test_what_coacd_cannot_do_is_a_reason_that_is_remembered(
  folder, own_cache, monkeypatch
):
  monkeypatch.setattr(pieces, "TIME_LIMIT", 0.01)
  for words in ("longer than 0.01 s: simplify it", "remembered in .*txt"):
    found = open_folder(str(folder))
    assert found.families == ("cube_one",)
    assert re.search(words, found.skipped["more/angle.stl"])


def test_a_process_of_coacd_that_dies_is_a_reason(folder, monkeypatch):
  monkeypatch.setattr(pieces.sys, "executable", "/bin/false")
  found = open_folder(str(folder))
  assert "CoACD ended with status 1" in found.skipped["more/angle.stl"]


def test_decomposing_shows_progress(folder, capsys):
  open_folder(str(folder))
  assert "objects: 2/2 more/angle.stl: decomposing 20 faces" in capsys.readouterr().err
  open_folder(str(folder))
  assert capsys.readouterr().err == ""


def test_stems_that_repeat_are_named_by_their_path(tmp_path):
  for name in ("MUG", "SHOE", "Жук"):
    (tmp_path / name / "meshes").mkdir(parents=True)
    (tmp_path / name / "meshes" / "model.obj").write_text(cube_obj())
  (tmp_path / "MUG" / "meshes" / "model.obj").write_text("# nothing\n")
  (tmp_path / "кубик.obj").write_text(cube_obj())
  found = open_folder(str(tmp_path))
  assert found.families == ("shoe_meshes_model", "жук_meshes_model", "кубик")


@pytest.mark.parametrize(
  "name",
  [
    "mug_collision_0.obj",
    "mug_vhacd.obj",
    "mug.coacd.3.stl",
    "collision/mug.obj",
    "mug_coll.obj",
  ],
)
def test_collision_pieces_belong_to_the_mesh_beside_them(tmp_path, name):
  (tmp_path / "mug.obj").write_text(cube_obj())
  path = tmp_path / name
  path.parent.mkdir(exist_ok=True)
  halves = [((0.3,) * 3, (0.34, 0.34, 0.31)), ((0.3, 0.3, 0.31), (0.34,) * 3)]
  if path.suffix == ".stl":
    path.write_bytes(boxes_stl(*halves))
  else:
    text = [box_obj(*half, first=8 * i + 1) for i, half in enumerate(halves)]
    path.write_text("".join(text))
  found = open_folder(str(tmp_path))
  assert found.families == ("mug",)
  assert len(found.parts["mug"]) == 2
  assert found.things["mug"].solid.volume == pytest.approx(CUBE**3, rel=1e-5)


def test_collision_pieces_of_another_frame_are_refused(tmp_path):
  (tmp_path / "mug.obj").write_text(cube_obj())
  (tmp_path / "mug_collision.obj").write_text(cube_obj(at=0.0))
  with pytest.raises(MeshError, match=r"span \(0 0 0\) to .*same frame and units"):
    open_folder(str(tmp_path))


def test_pieces_without_a_mesh_are_one_object(tmp_path):
  for i in range(3):
    low = (0.02 * i, 0, 0)
    (tmp_path / f"bar_vhacd_{i}.obj").write_text(
      box_obj(low, (0.02 * i + 0.02, 0.02, 0.02))
    )
  found = open_folder(str(tmp_path))
  assert found.families == ("bar_vhacd_0",)
  assert found.things["bar_vhacd_0"].solid.volume == pytest.approx(3 * 8e-6, rel=1e-5)


def test_files_that_are_no_meshes_say_what_they_are(tmp_path, caplog):
  (tmp_path / "cube.obj").write_text(cube_obj())
  (tmp_path / "chair.fbx").write_bytes(b"x")
  (tmp_path / "big.stl").write_bytes(angle_stl()[:-25])
  (tmp_path / "pointer.obj").write_text(
    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
  )
  found = open_folder(str(tmp_path))
  assert found.unread == {".fbx": 1} and "1 .fbx in" in caplog.text
  assert "promises 20 triangles, 1084 bytes; it has 1059" in found.skipped["big.stl"]
  assert "Git LFS pointer" in found.skipped["pointer.obj"]


def test_linked_folders_are_followed_once(tmp_path):
  inside, outside = tmp_path / "set", tmp_path / "elsewhere"
  inside.mkdir()
  outside.mkdir()
  (outside / "cube.obj").write_text(cube_obj())
  (inside / "link").symlink_to(outside)
  (outside / "back").symlink_to(inside)
  assert open_folder(str(inside)).families == ("cube",)


def test_what_is_held_out_is_compared_by_geometry(tmp_path):
  for name in ("train", "held_out", "other"):
    (tmp_path / name).mkdir()
  (tmp_path / "train" / "bottle.obj").write_text(cube_obj())
  (tmp_path / "held_out" / "model.stl").write_bytes(boxes_stl(((0,) * 3, (40,) * 3)))
  (tmp_path / "other" / "bottle.obj").write_text(cube_obj(side=0.05))
  training = open_folder(str(tmp_path / "train"))
  assert training.shared(open_folder(f"{tmp_path}/held_out?scale=0.001")) == [
    "bottle (there model)"
  ]
  assert training.shared(open_folder(f"{tmp_path}/other")) == []
  assert training.shared(objects.choose("held_out")) == []  # which has a bottle, too


def test_one_mesh_of_each_format(tmp_path):
  box = trimesh.creation.box((0.05, 0.04, 0.03))
  kinds = ["glb", "gltf", "obj", "off", "ply", "stl"]
  if importlib.util.find_spec("collada"):
    kinds.append("dae")
  for kind in kinds:
    (tmp_path / kind).mkdir()
    box.export(str(tmp_path / kind / f"in_{kind}.{kind}"))
  found = open_folder(str(tmp_path))
  assert sorted(found.families) == sorted(f"in_{kind}" for kind in kinds)
  for thing in found.things.values():
    assert thing.solid.volume == pytest.approx(6e-5, rel=1e-5)


def test_likely_units_are_told(tmp_path):
  (tmp_path / "cube.obj").write_text(cube_obj(side=80.0))
  with pytest.raises(MeshError, match=r"80 m long.*it would be 8 cm in millimetres"):
    open_folder(str(tmp_path))


def quadrants(size: int) -> np.ndarray:
  """Red and green above blue and yellow."""
  image = np.zeros((size, size, 3), np.uint8)
  half = size // 2
  image[:half, :half], image[:half, half:] = (255, 0, 0), (0, 255, 0)
  image[half:, :half], image[half:, half:] = (0, 0, 255), (255, 255, 0)
  return image


def seen_from_above(thing: objects.ObjectSpec) -> np.ndarray:
  spec = mujoco.MjSpec()
  spec.visual.headlight.ambient = (1, 1, 1)
  spec.worldbody.add_camera(name="above", pos=(0, 0, 0.5), fovy=12)
  build.add_objects(spec, [thing])
  model = spec.compile()
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  renderer = rendering.Renderer(model)
  try:
    return renderer.render(data, "above", 64)
  finally:
    renderer.close()


@pytest.mark.parametrize("kind", ["obj", "glb", "ply"])
def test_textures_and_colours_are_seen(tmp_path, kind):
  box = trimesh.creation.box((0.06, 0.06, 0.02))
  if kind == "ply":
    top = box.vertices[:, :2] > 0
    colours = np.where(top[:, :1], (255, 0, 0), (0, 0, 255))
    box.visual.vertex_colors = np.c_[colours, np.full(8, 255)]
  else:
    uv = box.vertices[:, :2] / 0.06 + 0.5
    image = PIL.Image.fromarray(quadrants(64))
    box.visual = trimesh.visual.TextureVisuals(uv=uv, image=image)
  box.export(str(tmp_path / f"box.{kind}"))
  thing = open_folder(str(tmp_path)).instance("box", 0)
  image = seen_from_above(thing).astype(int)
  found = [image[y, x] for y, x in ((20, 20), (20, 44), (44, 20), (44, 44))]
  brightest = [tuple(int(c) for c in pixel > 0.6 * pixel.max()) for pixel in found]
  if kind == "ply":
    assert brightest[0] == (0, 0, 1) and brightest[3] == (1, 0, 0)
  else:
    assert brightest == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)]


def test_units_that_a_file_declares_are_taken(tmp_path):
  pytest.importorskip("collada")
  path = tmp_path / "box.dae"
  trimesh.creation.box((5, 4, 3)).export(str(path))
  unit = '<unit name="centimeter" meter="0.01"/><up_axis>'
  path.write_text(path.read_text().replace("<up_axis>", unit))
  thing = open_folder(str(tmp_path)).things["box"]
  assert thing.solid.volume == pytest.approx(6e-5, rel=1e-5)
  assert thing.notes == ("declares units of 0.01 m",)
