r"""Pictures of the cells: robots, grippers, objects, depth.

  python -m experiments.gallery --workdir=runs/gallery
  python -m experiments.gallery --workdir=runs/gallery --objects=hammer,bottle

Writes units.png (Figure 6: every robot's camera, one joint configuration), grippers.png
(Figure 7: wear, close up), objects_*.png (instances of every family and their
properties), depth.png (the input of the hand-designed baseline).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import mujoco
import numpy as np
from absl import flags

from envs import cameras, gripper, objects, rendering, units
from envs.arm import BUILT_IN
from envs.depth import SHINY
from envs.grasp_env import HOME_JOINTS, GraspEnv
from envs.objects.catalogue import Families
from envs.objects.shapes import bounds
from experiments import cli
from experiments.pictures import video
from experiments.pictures.sheets import Tile, write_sheet

GROUPS = ("training", "held_out")
INSTANCES = 4  # of a family
FROM_FOLDER = 40  # draws, where a folder of meshes is shown
NUM_OBJECTS = 10  # in a bin
_COLUMNS = 5
_STANDS = (*units.BIN_CENTRE, 0.0)  # of the gripper that is portrayed, m
_FAR = 0.42  # m, from there


def gallery(
  workdir: str | Path,
  *,
  selection: str = "",
  arm: str = BUILT_IN,
  num_units: int = units.NUM_TRAINING_UNITS,
  size: int = 200,
  say: Callable[[str], None] = print,
) -> list[Path]:
  """Draws all pictures; returns their files.

  Args:
    selection: of objects, as `envs.objects.choose` takes it; '' is both groups, each in
      a picture and in the bins of its own robots.
    arm: of all robots, see `envs.units.Unit`.
    num_units: training robots; a third as many held-out ones are shown beside them.
    size: of one image, pixels.
    say: called with one line per file.

  Raises:
    UserError, ObjectsError, MeshError, MenagerieError: an argument that cannot be
      drawn.
  """
  if num_units < 1 or not 64 <= size <= 1024:
    raise cli.UserError(
      f"--num_units={num_units} --size={size}: expected at least 1 unit, and 64 to 1024"
      " pixels"
    )
  for one in (selection,) if selection else GROUPS:
    objects.choose(one)  # raises before anything is drawn
  folder = cli.prepare_workdir(workdir)
  robots = [
    *units.fleet_units(num_units, "training", arm=arm),
    *units.fleet_units(-(-num_units // 3), "held_out", arm=arm),
  ]
  written = []

  def write(name: str, tiles: Sequence[Tile], columns: int, what: str) -> None:
    write_sheet(folder / name, tiles, columns)
    written.append(folder / name)
    say(f"{folder / name}: {what}")

  with cli.progress(len(robots), "units", "units") as bar:
    views = []
    for robot in robots:
      chosen = selection or robot.family
      views.append(video.unit_tile(robot, chosen, NUM_OBJECTS, size))
      bar.update(1)
  write("units.png", views, _COLUMNS, f"what the cameras of {len(robots)} robots see")
  portraits = [gripper_tile(robot, size) for robot in robots]
  write("grippers.png", portraits, _COLUMNS, f"the grippers of {len(robots)} robots")
  for one in (selection,) if selection else GROUPS:
    tiles = object_tiles(one, size)
    name = re.sub(r"[^A-Za-z0-9]+", "_", Path(one).name).strip("_")[:60]
    write(f"objects_{name}.png", tiles, 2 * INSTANCES, f"{len(tiles)} objects of {one}")
  tiles = [t for robot in robots[:3] for t in depth_tiles(robot, selection, size)]
  write("depth.png", tiles, 3, "colour, depth, and what a depth sensor would measure")
  return written


def gripper_tile(unit: units.Unit, size: int) -> Tile:
  """The fingers from close by, upright, over a light ground (Figure 7)."""
  spec = mujoco.MjSpec()
  spec.compiler.degree = False
  frame = spec.visual.global_
  frame.offwidth = frame.offheight = size
  spec.visual.quality.offsamples = 4
  # Twice as bright as the cell, or worn black fingers are all one black.
  lamp = spec.visual.headlight
  lamp.ambient, lamp.diffuse, lamp.specular = (1.0,) * 3, (1.6,) * 3, (0.0,) * 3
  x, y, floor = _STANDS
  ground = (0.42, 0.43, 0.44, 1.0)
  spec.worldbody.add_geom(
    type=mujoco.mjtGeom.mjGEOM_BOX, size=(2.0, 2.0, 0.01), rgba=ground
  )
  spec.worldbody.add_geom(
    type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.01, 2.0, 2.0), pos=(2.0, 0, 0), rgba=ground
  )
  top = floor + 0.015 + gripper.TOOL_LENGTH
  flange = spec.worldbody.add_body(pos=(x, y, top), quat=(0, 1, 0, 0))
  gripper.add_gripper(spec, flange, unit.fingers)
  middle = floor + 0.05
  # From behind, so that the left finger is on the left.
  eye = units.Camera(
    (x - _FAR, y, middle + 0.07), (x, y, middle), 0.0, float(np.deg2rad(13))
  )
  cameras.add_camera(spec, eye)
  model = spec.compile()
  data = mujoco.MjData(model)
  mujoco.mj_forward(model, data)
  renderer = rendering.Renderer(model)
  try:
    image = renderer.render(data, cameras.OVER_SHOULDER, size)
  finally:
    renderer.close()
  lines = [unit.name]
  for side, finger in zip(("left", "right"), unit.fingers, strict=True):
    pad, tip = 1e3 * finger.pad_loss, 1e3 * finger.tip_loss
    bend = round(np.rad2deg(finger.bend))
    lines.append(f"{side}: pad -{pad:.1f} mm, tip -{tip:.1f} mm,")
    lines.append(f"bent {bend}°, friction {finger.friction:.1f}")
  return Tile(image, tuple(lines))


def objects_shown(selection: str) -> list[list[objects.ObjectSpec]]:
  """The first INSTANCES of every family of a selection.

  Of a folder of meshes, which may hold thousands, some that are drawn from it.
  """
  chosen = objects.choose(selection)
  if isinstance(chosen, Families):  # not by name: a mesh may be called as a family
    return [
      [objects.sample_object(family, i) for i in range(INSTANCES)]
      for family in chosen.families
    ]
  by_family: dict[str, list[objects.ObjectSpec]] = {}
  for thing in chosen.sample(np.random.default_rng(0), FROM_FOLDER):
    by_family.setdefault(thing.family, []).append(thing)
  return [by_family[family][:INSTANCES] for family in sorted(by_family)]


def object_tiles(selection: str, size: int) -> list[Tile]:
  """`objects_shown` of a selection, each lying alone in a bin."""
  batches = objects_shown(selection)
  tiles = []
  with cli.progress(len(batches), f"objects of {selection}", "families") as bar:
    for batch in batches:
      tiles += portraits(batch, size)
      bar.update(1)
  return tiles


def portraits(things: list[objects.ObjectSpec], size: int) -> list[Tile]:
  """Each thing as it comes to lie in the middle of the bin, the others elsewhere."""
  unit = dataclasses.replace(
    units.sample_unit(0), bin_texture=units.Texture(), bin_colour=(0.78, 0.8, 0.8)
  )
  # Close enough that 20 cm fill the image, from where the robots' cameras are.
  near = dataclasses.replace(
    unit.camera,
    target=(*units.BIN_CENTRE, 0.01),
    fovy=float(np.deg2rad(10.5)),
    roll=0.0,
  )
  env = GraspEnv(dataclasses.replace(unit, camera=near), things, size)
  tiles = []
  try:
    env.controller.teleport(HOME_JOINTS)
    env.take_away(range(len(things)))
    for thing, body in zip(things, env.scene.bodies, strict=True):
      shelf = body.position(env.data)
      low, high = bounds(thing)
      lying = np.array([*units.BIN_CENTRE, unit.table_height + 0.01 - low[2]])
      lying[:2] -= (low + high)[:2] / 2
      body.place(env.data, lying, np.array([1.0, 0.0, 0.0, 0.0]))
      env.controller.wait(1.0)
      words = ", ".join(objects.properties(thing))
      tiles.append(Tile(env.image(), (thing.name, words)))
      body.place(env.data, shelf, np.array([1.0, 0.0, 0.0, 0.0]))
  finally:
    env.close()
  return tiles


def depth_tiles(unit: units.Unit, selection: str, size: int) -> list[Tile]:
  """One bin three times: colour, true depth, noisy depth."""
  rng = np.random.default_rng([unit.seed, 7])
  drawn = objects.sample_objects(rng, 8 * NUM_OBJECTS, selection or unit.family)
  # Some that such a sensor sees badly, if there are any, among some that it sees.
  hard = [thing for thing in drawn if thing.opacity < 1.0 or thing.shine >= SHINY]
  easy = [thing for thing in drawn if thing not in hard]
  things = [*hard[: NUM_OBJECTS // 2], *easy, *hard[NUM_OBJECTS // 2 :]][:NUM_OBJECTS]
  env = GraspEnv(unit, things, size)
  try:
    env.fill(rng)
    image = env.begin(rng)
    truth, measured = env.depth(), env.depth(noise_rng=rng)
  finally:
    env.close()
  nearest, farthest = float(truth.min()), float(truth.max())
  span = f"{nearest:.2f} m (yellow) to {farthest:.2f} m"
  lost = float(np.mean(measured == 0))
  return [
    Tile(image, (unit.name, "colour")),
    Tile(_coloured(truth, nearest, farthest), ("depth", span)),
    Tile(
      _coloured(measured, nearest, farthest),
      ("as measured", f"black, {100 * lost:.0f} %: nothing"),
    ),
  ]


def _coloured(depth: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
  share = np.clip((farthest - depth) / (farthest - nearest), 0.0, 1.0)
  colours = matplotlib.colormaps["viridis"](share, bytes=True)[..., :3]
  return np.where(depth[..., None] > 0, colours, 0).astype(np.uint8)


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for the pictures.")
  flags.DEFINE_string(
    "objects", "", "Objects to show: a group, families, a folder of meshes. '': all."
  )
  flags.DEFINE_string("arm", BUILT_IN, "'built_in', or 'menagerie:kuka_iiwa_14'.")
  flags.DEFINE_integer("num_units", units.NUM_TRAINING_UNITS, "Training robots.")
  flags.DEFINE_integer("size", 200, "Of one image, pixels.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  gallery(
    args.workdir,
    selection=args.objects,
    arm=args.arm,
    num_units=args.num_units,
    size=args.size,
  )


if __name__ == "__main__":
  cli.run(main, define_flags)
