r"""How fast attempts are made in a full bin, compared with another build.

  git worktree add ../before COMMIT
  python -m experiments.benchmarks.full_bin --workdir=runs/benchmarks \
    --against=../before

A bin of 12 objects of the training families that both builds have, T = 3, images of 72
pixels, the random policy, a process a core: attempts a second of all of them together.
Both builds make the same number of scenes with the same seeds, in turns, so that a busy
machine slows both equally. Prints a table and writes full_bin.json to the work folder.
"""

import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import fleet, objects, rendering
from experiments import cli
from experiments.benchmarks import harness

NUM_OBJECTS = 12
NUM_STEPS = 3
FRAME_SIZE = 72  # pixels
ATTEMPTS_PER_SCENE = 8
# All training families of bd477c6: with `training`, builds that know more families
# would fill other bins.
FAMILIES = (
  "box,capsule,crate,cylinder,dumbbell,ellipsoid,foam_block,l_piece,marker,mug,notepad,"
  "ring,soft_ball,sponge,stapler,toy_block,tumbler,weight"
)
LEAST_RATIO = 2.0  # to the build bd477c6
# Run in the folder of a build, so it may only use what all builds have.
_SCENES = """
import sys, time
from envs import rendering
rendering.choose_backend()
from envs import rollout, units
from envs.baselines import RandomPolicy
selection, *numbers = sys.argv[1:]
objects, steps, size, attempts, first, count = map(int, numbers)
made = 0
for seed in range(first - 1, first + count):
  if seed == first:  # the scene before it is not counted: it warms caches up
    made, start = 0, time.perf_counter()
  task = rollout.SceneTask(
    units.sample_unit(seed % 14), seed, attempts, (steps,), objects, selection, size)
  made += len(rollout.run_scene(task, RandomPolicy()).attempts)
print(made, time.perf_counter() - start)
"""


def rate(build: Path, workers: int, num_scenes: int, selection: str) -> float:
  """Attempts a second of some processes together.

  Args:
    build: the root of a checkout.
    num_scenes: of each process.

  Raises:
    UserError: the build cannot make them.
  """
  sizes = (NUM_OBJECTS, NUM_STEPS, FRAME_SIZE, ATTEMPTS_PER_SCENE)
  processes = [
    subprocess.Popen(
      [
        *(sys.executable, "-c", _SCENES, selection),
        *map(str, (*sizes, 1 + worker * (num_scenes + 1), num_scenes)),
      ],
      cwd=build,
      env=dict(os.environ, PYTHONPATH=str(build.resolve())),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for worker in range(workers)
  ]
  total = 0.0
  for process in processes:
    output, error = process.communicate()
    if process.returncode:
      last = (error.strip().splitlines() or ["it said nothing"])[-1]
      raise cli.UserError(f"{build}: no attempts could be made there: {last}")
    attempts, seconds = output.split()
    total += int(attempts) / float(seconds)
  return total


def benchmark(
  workdir: str | Path,
  *,
  against: str | Path = "",
  num_scenes: int,
  rounds: int,
  selection: str,
) -> dict[str, Any]:
  """Runs the benchmark; returns and writes what full_bin.json holds.

  Raises:
    ObjectsError, MeshError: the selection names no objects.
    UserError: `against` is not a checkout that can make attempts.
  """
  objects.choose(selection)
  if against and not (Path(against) / "envs" / "rollout.py").is_file():
    raise cli.UserError(
      f"--against={against}: no envs/rollout.py there; expected a checkout of another"
      " build: git worktree add ../before COMMIT"
    )
  workdir = cli.prepare_workdir(workdir)
  rendering.choose_backend()
  workers = fleet.num_cores()
  builds = {"this build": Path(__file__).parents[2]}
  if against:
    builds["the other"] = Path(against)
  rates = harness.in_turns(
    {
      name: functools.partial(rate, build, workers, num_scenes, selection)
      for name, build in builds.items()
    },
    rounds,
    "full bin",
  )
  middle = {name: statistics.median(found) for name, found in rates.items()}
  return harness.write(
    workdir,
    "full_bin",
    {
      "objects": selection,
      "workers": workers,
      "attempts_each": num_scenes * ATTEMPTS_PER_SCENE * workers * rounds,
      "rates": rates,
      "attempts_per_second": middle,
      "ratio": middle["this build"] / middle["the other"] if against else None,
    },
  )


def describe(result: dict[str, Any]) -> str:
  """The table for the terminal."""
  rows = [
    (name, f"{value:.2f}", *(f"{min(found):.2f} to {max(found):.2f}",))
    for name, value in result["attempts_per_second"].items()
    for found in [result["rates"][name]]
  ]
  lines = [
    f"{NUM_OBJECTS} objects of {result['objects']}, T = {NUM_STEPS},"
    f" {FRAME_SIZE} pixels, {result['workers']} processes,"
    f" {result['attempts_each']} attempts of each build:\n",
    cli.table(("build", "attempts/s", "of all rounds"), rows, range(1, 3)),
  ]
  if result["ratio"] is not None:
    held = "held" if result["ratio"] >= LEAST_RATIO else "MISSED"
    lines.append(
      f"\n{held}: {result['ratio']:.2f} times the other build's attempts a second,"
      f" expected {LEAST_RATIO:.0f} times those of bd477c6"
    )
  return "\n".join(lines)


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for full_bin.json.")
  flags.DEFINE_string("against", "", "Checkout of another build to compare with.")
  flags.DEFINE_integer(
    "num_scenes", 6, f"Scenes of {ATTEMPTS_PER_SCENE} attempts a process and round.",
    lower_bound=1,
  )  # fmt: skip
  flags.DEFINE_integer("rounds", 3, "Times that each build is measured.", lower_bound=1)
  flags.DEFINE_string("objects", FAMILIES, "Objects: a selection.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  result = benchmark(
    args.workdir,
    against=args.against,
    num_scenes=args.num_scenes,
    rounds=args.rounds,
    selection=args.objects,
  )
  print(describe(result))


if __name__ == "__main__":
  cli.run(main, define_flags)
