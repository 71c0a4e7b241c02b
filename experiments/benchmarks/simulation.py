r"""How fast the cell makes attempts, against bare physics and bare rendering.

  python -m experiments.benchmarks.simulation --workdir=runs/benchmarks

For attempts of 3 and of 10 steps: attempts a second on one core, split into physics,
rendering, encoding and the rest. The floor is measured in the same run: every control
period and every image is repeated with nothing around it. Then attempts a second with
1, 2, ... processes, and what that means for the paper's 800,000 attempts. Prints tables
and which targets are met, and writes simulation.json to the work folder.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from absl import flags

from data_pipeline import records
from envs import fleet, objects, rendering, rollout, units
from envs.baselines import RandomPolicy
from envs.cameras import OVER_SHOULDER
from envs.control import CONTROL_SUBSTEPS
from envs.grasp_env import GraspEnv
from experiments import cli
from experiments.benchmarks import harness
from experiments.datasets import attempt_records

PAPER_ATTEMPTS = 800_000
PAPER_CORES = 16
NUM_STEPS = (3, 10)
NUM_OBJECTS = 6
ATTEMPTS_PER_SCENE = 8
# Targets of one process on one core.
MOST_OVERHEAD = 0.15  # over bare physics and bare rendering
LEAST_RATE = {3: 3.0, 10: 1.2}  # attempts a second, by T


@dataclasses.dataclass
class Times:
  """Seconds, summed over attempts."""

  whole: float = 0.0  # without what the measurement itself took
  rendering: float = 0.0
  encoding: float = 0.0
  bare_physics: float = 0.0
  bare_rendering: float = 0.0
  measuring: float = 0.0


class TimedEnv(GraspEnv):
  """Measures its images, and makes each step of physics and each image again, bare."""

  def __init__(self, *arguments: Any, times: Times):
    super().__init__(*arguments)
    self._times = times
    self._beside = mujoco.MjData(self.scene.model)
    self._bare = _BareRenderer(self.scene.model)
    self.controller.on_control_step = self._step_again

  def image(self, size: int = 0) -> np.ndarray:
    start = time.perf_counter()
    image = super().image(size)
    end = time.perf_counter()
    self._bare.draw(self.data, len(image))
    last = time.perf_counter()
    self._times.rendering += end - start
    self._times.bare_rendering += last - end
    self._times.measuring += last - end
    return image

  def close(self) -> None:
    super().close()
    self._bare.close()

  def _step_again(self) -> None:
    begin = time.perf_counter()
    # All of it: a state alone would wake what sleeps.
    mujoco.mj_copyData(self._beside, self.scene.model, self.data)
    start = time.perf_counter()
    mujoco.mj_step(self.scene.model, self._beside, nstep=CONTROL_SUBSTEPS)
    end = time.perf_counter()
    self._times.bare_physics += end - start
    self._times.measuring += end - begin


class _BareRenderer(rendering.Renderer):
  """The calls of MuJoCo without which there is no image."""

  def __init__(self, model: mujoco.MjModel):
    super().__init__(model)
    self._camera.fixedcamid = model.camera(OVER_SHOULDER).id

  def draw(self, data: mujoco.MjData, size: int) -> None:
    image = np.empty((size, size, 3), np.uint8)
    rect = mujoco.MjrRect(0, 0, size, size)
    mujoco.mjv_updateScene(
      self._model, data, self._option, None, self._camera,
      mujoco.mjtCatBit.mjCAT_ALL, self._scene,
    )  # fmt: skip
    mujoco.mjr_render(rect, self._scene, self._context)
    mujoco.mjr_readPixels(image, None, rect, self._context)


def measure(
  num_steps: int, frame_size: int, num_scenes: int, selection: str
) -> tuple[int, Times]:
  """Makes attempts of one length in this process; returns their number and times.

  Args:
    num_steps: T.
    frame_size: pixels.
    num_scenes: of ATTEMPTS_PER_SCENE attempts, each of another unit.
    selection: of objects.
  """
  times = Times()
  attempts = 0
  for number in range(num_scenes):
    rng = np.random.default_rng([num_steps, number])
    start, measured = time.perf_counter(), times.measuring
    env = TimedEnv(
      units.sample_unit(number % units.NUM_TRAINING_UNITS),
      objects.sample_objects(rng, NUM_OBJECTS, selection),
      frame_size,
      times=times,
    )
    env.fill(rng)
    for attempt_number in range(ATTEMPTS_PER_SCENE):
      attempt = rollout.run_attempt(
        env,
        RandomPolicy(),
        rng,
        num_steps=num_steps,
        scene_seed=number,
        number=attempt_number,
      )
      before = time.perf_counter()
      records.encode(attempt_records.simulated(attempt, policy="random"))
      times.encoding += time.perf_counter() - before
      attempts += 1
    times.whole += time.perf_counter() - start - (times.measuring - measured)
    env.close()
  return attempts, times


def row(num_steps: int, attempts: int, times: Times) -> dict[str, float]:
  """What the times say of one attempt, in ms, and the ratio to the floor."""
  each = {
    field.name: 1e3 * getattr(times, field.name) / attempts
    for field in dataclasses.fields(times)
  }
  floor = each["bare_physics"] + each["bare_rendering"]
  return {
    "num_steps": num_steps,
    "attempts": attempts,
    "attempts_per_second": 1e3 / each["whole"],
    "whole_ms": each["whole"],
    "physics_ms": each["bare_physics"],
    "rendering_ms": each["rendering"],
    "encoding_ms": each["encoding"],
    "rest_ms": each["whole"]
    - sum(each[name] for name in ("bare_physics", "rendering", "encoding")),
    "floor_ms": floor,
    "overhead": each["whole"] / floor - 1.0,
  }


def checks(rows: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
  """Every target with what `row` found: [{claim, found, holds}]."""
  found = []
  for each in rows:
    steps, overhead = int(each["num_steps"]), each["overhead"]
    rate, least = each["attempts_per_second"], LEAST_RATE.get(steps)
    found.append(
      {
        "claim": f"T = {steps}: less than {MOST_OVERHEAD:.0%} over the floor",
        "found": f"{overhead:.1%}",
        "holds": overhead < MOST_OVERHEAD,
      }
    )
    if least is not None:
      found.append(
        {
          "claim": f"T = {steps}: at least {least} attempts a second",
          "found": f"{rate:.2f}",
          "holds": rate >= least,
        }
      )
  return found


def make_scene(task: rollout.SceneTask) -> int:
  """Attempts of a scene, encoded; runs in a worker process."""
  result = rollout.run_scene(task, RandomPolicy())
  for attempt in result.attempts:
    records.encode(attempt_records.simulated(attempt, policy="random"))
  return len(result.attempts)


def throughput(
  num_workers: int, num_steps: int, frame_size: int, num_scenes: int, selection: str
) -> float:
  """Attempts a second of some processes together, once all of them have begun."""
  tasks = [
    rollout.SceneTask(
      unit=units.sample_unit(number % units.NUM_TRAINING_UNITS),
      scene_seed=number,
      num_attempts=ATTEMPTS_PER_SCENE,
      num_steps=(num_steps,),
      num_objects=NUM_OBJECTS,
      objects=selection,
      frame_size=frame_size,
    )
    # Each worker's first scene is not counted: it includes the start of the process.
    for number in range(num_workers * (num_scenes + 1))
  ]
  done: list[tuple[float, int]] = []
  results = fleet.map_unordered(make_scene, tasks, num_workers=num_workers)
  for _, attempts in results:
    done.append((time.perf_counter(), attempts))
  first, counted = done[num_workers - 1], done[num_workers:]
  return sum(attempts for _, attempts in counted) / (counted[-1][0] - first[0])


def benchmark(
  workdir: str | Path, *, frame_size: int, num_scenes: int, selection: str
) -> dict[str, Any]:
  """Runs the whole benchmark; returns and writes what simulation.json holds.

  Raises:
    ObjectsError, MeshError: the selection names no objects.
  """
  objects.choose(selection)  # says what is wrong with it, before anything is measured
  workdir = cli.prepare_workdir(workdir)
  rendering.choose_backend()
  cores = fleet.num_cores()
  counts = sorted({min(2**power, cores) for power in range(8)} | {cores})
  rows, scaling = [], []
  with cli.progress(len(NUM_STEPS) + len(counts), "simulation", "parts") as bar:
    measure(NUM_STEPS[0], frame_size, 1, selection)  # warms caches up
    for num_steps in NUM_STEPS:
      rows.append(
        row(num_steps, *measure(num_steps, frame_size, num_scenes, selection))
      )
      bar.update(1)
    for workers in counts:
      rate = throughput(workers, NUM_STEPS[0], frame_size, num_scenes, selection)
      scaling.append({"workers": workers, "attempts_per_second": rate})
      bar.update(1)
  per_core = scaling[-1]["attempts_per_second"] / scaling[-1]["workers"]
  slower = rows[-1]["attempts_per_second"] / rows[0]["attempts_per_second"]
  return harness.write(
    workdir,
    "simulation",
    {
      "frame_size": frame_size,
      "objects": selection,
      "cores": cores,
      "one_process": rows,
      "checks": checks(rows),
      "scaling": scaling,
      # All cores busy; T = 10 from the ratio that one process showed.
      "hours_for_800000_attempts_on_16_cores": {
        str(NUM_STEPS[0]): _hours(per_core),
        str(NUM_STEPS[-1]): _hours(per_core * slower),
      },
    },
  )


def _hours(attempts_per_core_second: float) -> float:
  return PAPER_ATTEMPTS / (attempts_per_core_second * PAPER_CORES) / 3600


def describe(result: dict[str, Any]) -> str:
  """The tables for the terminal."""
  names = ("physics", "rendering", "encoding", "rest", "whole", "floor")
  one = result["scaling"][0]["attempts_per_second"]
  parts = [
    cli.table(
      ("T", "attempts/s", *names, "over the floor"),
      [
        (
          str(each["num_steps"]),
          f"{each['attempts_per_second']:.2f}",
          *(f"{each[name + '_ms']:.1f}" for name in names),
          f"{100 * each['overhead']:.1f} %",
        )
        for each in result["one_process"]
      ],
      range(9),
    ),
    "\n".join(
      f"{'held' if check['holds'] else 'MISSED':>6}  {check['claim']}: {check['found']}"
      for check in result["checks"]
    ),
    cli.table(
      ("processes", "attempts/s", "times one"),
      [
        (str(each["workers"]), f"{rate:.2f}", f"{rate / one:.2f}")
        for each in result["scaling"]
        for rate in [each["attempts_per_second"]]
      ],
      range(3),
    ),
    "\n".join(
      f"800,000 attempts of T = {steps} on 16 such cores: {value:.1f} hours"
      for steps, value in result["hours_for_800000_attempts_on_16_cores"].items()
    ),
  ]
  return (
    f"{result['frame_size']} pixels, {NUM_OBJECTS} objects of {result['objects']!r},"
    " one process, ms an attempt:\n\n" + "\n\n".join(parts)
  )


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for simulation.json.")
  flags.DEFINE_integer("frame_size", 512, "Pixels of the images.", lower_bound=16)
  flags.DEFINE_integer(
    "num_scenes", 6, f"Scenes of {ATTEMPTS_PER_SCENE} attempts a part.", lower_bound=1
  )
  flags.DEFINE_string("objects", "training:rigid", "Objects: a selection.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  result = benchmark(
    args.workdir,
    frame_size=args.frame_size,
    num_scenes=args.num_scenes,
    selection=args.objects,
  )
  print(describe(result))


if __name__ == "__main__":
  cli.run(main, define_flags)
