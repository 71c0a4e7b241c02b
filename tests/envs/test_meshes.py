"""Folders of a person's own meshes."""

import builtins
import dataclasses
import pickle

import mujoco
import numpy as np
import pytest
from scipy.spatial import Delaunay

from envs import fleet, grasp_env, objects, rollout, scene, units
from envs.attempt import Attempt
from envs.baselines import RandomPolicy
from envs.objects import build, pieces, shapes
from envs.objects.meshes import MeshError, open_folder
from envs.objects.pieces import MissingLibraryError

pytest.importorskip("trimesh")
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
  assert 2 <= len(parts) <= pieces.MOST_PIECES
  assert sum(p.mesh.volume for p in parts) == pytest.approx(ANGLE_VOLUME, rel=0.1)
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
  (tmp_path / "no_lid.obj").write_text("\n".join(lines[:-2]))
  (tmp_path / "inside_out.obj").write_text(
    "\n".join(
      "f " + " ".join(line.split()[:0:-1]) if line.startswith("f") else line
      for line in lines
    )
  )
  found = open_folder(str(tmp_path))
  assert not found.skipped
  for (part,) in found.parts.values():
    assert part.mesh.volume == pytest.approx(CUBE**3, rel=1e-5)


def test_round_pieces_have_few_corners():
  rng = np.random.default_rng(0)
  ball = rng.normal(size=(3000, 3))
  ball *= 0.03 / np.linalg.norm(ball, axis=1, keepdims=True)
  mesh = pieces.hull(ball)
  assert len(mesh.vertices) <= pieces.MOST_CORNERS
  assert mesh.volume > 0.88 * 4 / 3 * np.pi * 0.03**3


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
    "flat.stl": "no volume",
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
  with pytest.raises(MeshError, match="strip.stl: its surface does not close"):
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
  assert model.ngeom == len(parts) > 2
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
    ("?size=fit", "'size' is no option; expected scale=fit"),
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
  with pytest.raises(MeshError, match="no .obj or .stl file"):
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
