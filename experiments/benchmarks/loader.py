r"""How fast batches come, against the bare decoding of the same images and two peers.

  python -m experiments.benchmarks.loader --workdir=runs/benchmarks

Random 472 crops of 512 x 512 frames, as the paper trains. In one run: samples a second
of our loader; the floor, which decodes the same JPEG images and does nothing else; a
PyTorch DataLoader that decodes with Pillow; and one that reads through TFDS with its
own decoding. All of these run on the same single core, if the system can pin them.
Then, on all cores, our loader with more threads and with more processes, the time to
the first batch, and the peak of memory with a dataset ten times as large. The peers
need `pip install torch`; without it they are left out, with a message. Collects its own
attempts unless --data names a dataset. Writes loader.json.
"""

import contextlib
import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from PIL import Image

from data_pipeline import attempts, records, samples, source
from data_pipeline import loader as loader_lib
from envs import fleet
from experiments import cli
from experiments.benchmarks import harness

BATCH_SIZE = 64
CROPS = {512: 472, 72: 64}  # of the presets
LARGER = 10  # times the dataset, for memory


def loader_config(
  crop_size: int, num_threads: int = 1, num_workers: int = 0
) -> loader_lib.LoaderConfig:
  return loader_lib.LoaderConfig(
    batch_size=BATCH_SIZE,
    crop_size=crop_size,
    num_threads=num_threads,
    num_workers=num_workers,
  )


@contextlib.contextmanager
def one_core() -> Iterator[bool]:
  """Keeps all threads of this process, and those to come, on one core.

  Gives whether it could: only Linux lets a process choose.
  """
  tasks = Path("/proc/self/task")
  if not (hasattr(os, "sched_setaffinity") and tasks.is_dir()):
    yield False
    return

  def keep(cores: set[int]) -> None:
    for thread in tasks.iterdir():
      with contextlib.suppress(ProcessLookupError):  # It has ended meanwhile.
        os.sched_setaffinity(int(thread.name), cores)

  cores = os.sched_getaffinity(0)
  keep({min(cores)})
  try:
    yield True
  finally:
    keep(cores)


def rate(items: Iterable[Any], per_item: int, seconds: float) -> float:
  """Samples a second of an endless iterator, after its first item."""
  iterator = iter(items)
  next(iterator)
  count, start = 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    next(iterator)
    count += per_item
  return count / (time.perf_counter() - start)


def bare_decode(dataset: source.Dataset, seconds: float) -> float:
  """The floor: samples a second when two JPEG images are all there is to a sample."""
  table = samples.samples_of(dataset.attempts)
  order = np.random.default_rng(0).permutation(len(table))
  encoded = []
  for number in order[: 4 * BATCH_SIZE]:
    images = records.jpegs(dataset[table.attempt[number]])
    encoded.append((images[0], images[table.step[number]]))

  def decode() -> Iterable[None]:
    while True:
      for pregrasp, image in encoded:
        records.from_jpeg(pregrasp)
        records.from_jpeg(image)
        yield None

  return rate(decode(), 1, seconds)


def ours(
  dataset: source.Dataset,
  crop_size: int,
  seconds: float,
  num_threads: int = 1,
  num_workers: int = 0,
) -> float:
  """Samples a second of the loader, in batches, decoding every image each time."""
  config = loader_config(crop_size, num_threads, num_workers)
  loader = loader_lib.make_loader(dataset, config)
  try:
    for _ in range(num_workers):  # So that every worker has begun.
      next(loader)
    return rate(loader, BATCH_SIZE, seconds)
  finally:
    loader.close()


class PillowSamples:
  """A map-style PyTorch dataset as one would write it: parse, decode, crop."""

  def __init__(self, dataset: source.Dataset, crop_size: int):
    self.dataset, self.crop_size = dataset, crop_size
    self.table = samples.samples_of(dataset.attempts)

  def __len__(self) -> int:
    return len(self.table)

  def images(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    encoded = records.jpegs(self.dataset[self.table.attempt[number]])
    first, now = (
      np.asarray(Image.open(io.BytesIO(encoded[i])))
      for i in (0, int(self.table.step[number]))
    )
    return first, now

  def __getitem__(self, number: int) -> dict[str, np.ndarray]:
    first, now = self.images(number)
    free = len(first) - self.crop_size
    row, column = np.random.randint(free + 1, size=2)
    box = np.s_[row : row + self.crop_size, column : column + self.crop_size]
    return {
      "pregrasp_image": first[box],
      "image": now[box],
      "command": self.table.command[number],
      "success": self.table.success[number],
    }


class TfdsSamples(PillowSamples):
  """The same with attempts read and images decoded by TFDS."""

  def __init__(self, dataset: source.Dataset, directory: Path, crop_size: int):
    super().__init__(dataset, crop_size)
    self.attempts = tfds.builder_from_directory(str(directory)).as_data_source("train")

  def images(self, number: int) -> tuple[np.ndarray, np.ndarray]:
    attempt = self.attempts[int(self.table.attempt[number])]
    step = attempt["steps"][int(self.table.step[number]) - 1]
    return attempt["pregrasp_image"], step["observation"]["image"]


def peer(dataset: PillowSamples, seconds: float) -> float:
  """Samples a second of a PyTorch DataLoader that works in this process."""
  import torch
  from torch.utils import data

  torch.set_num_threads(1)
  loader = data.DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)

  def forever() -> Iterable[Any]:
    while True:
      yield from loader

  return rate(forever(), BATCH_SIZE, seconds)


def in_fresh_process(directory: Path, **options: float) -> dict[str, float]:
  """What `child` or `working_child` measures in a process that only loads.

  Args:
    directory: of the dataset.
    **options: flags of this program: `times`, or `num_workers` and `seconds`.
  """
  given = [f"--{name}={value}" for name, value in options.items()]
  done = subprocess.run(
    [sys.executable, "-m", __spec__.name, "--child", f"--data={directory}", *given],
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise cli.UserError(f"a measuring process failed: {done.stderr.strip()[-500:]}")
  return json.loads(done.stdout.splitlines()[-1])


def child(directory: Path, times: int) -> dict[str, float]:
  """Time to the first batch and peak memory; `times` copies are merged."""
  start = time.perf_counter()
  dataset = source.merge([_copy(directory, number) for number in range(times)])
  opened = time.perf_counter()
  loader = loader_lib.make_loader(dataset, loader_config(CROPS[dataset.frame_size]))
  next(loader)
  first = time.perf_counter()
  for _ in range(max(8, len(dataset) * 3 // (times * BATCH_SIZE))):
    next(loader)
  loader.close()
  return {
    "attempts": len(dataset),
    "open_seconds": opened - start,
    "first_batch_seconds": first - start,
    "peak_mib": peak_mib(),
  }


def _copy(directory: Path, number: int) -> source.Dataset:
  """The dataset opened again, its attempts relabelled with other units."""
  dataset = source.open_dataset(directory)
  unit = dataset.attempts.unit
  names = [f"{name}, copy {number}" for name in unit.names]
  dataset.attempts = dataclasses.replace(
    dataset.attempts, unit=attempts.Texts(unit.codes, names)
  )
  return dataset


def working_child(
  directory: Path, num_workers: int, seconds: float
) -> dict[str, float]:
  """Samples a second with some processes, which Grain starts from a program."""
  dataset = source.open_dataset(directory)
  crop_size = CROPS[dataset.frame_size]
  return {"rate": ours(dataset, crop_size, seconds, num_workers=num_workers)}


def peak_mib() -> float:
  """The most memory that this process has had in use, MiB."""
  status = Path("/proc/self/status")
  if status.is_file():
    # Not ru_maxrss, which a new process inherits from the one that started it.
    for line in status.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) / 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak / 2**20 if sys.platform == "darwin" else peak / 1024  # Bytes, KiB.


def own_dataset(workdir: Path, num_attempts: int) -> Path:
  """Random attempts of 512 x 512 frames, T = 3, collected once."""
  # Here, so that a process that only loads does not have MuJoCo in its memory.
  from experiments import collect

  config = cli.load_config(cli.CONFIGS / "levine2016.py")
  config.collect.update(
    num_attempts=num_attempts, num_steps=(3,), num_objects=6, objects="training:rigid",
    attempts_per_scene=4, scenes_per_shard=4,
  )  # fmt: skip
  return collect.collect(config, workdir / "loader_data", "train")


def benchmark(
  directory: str | Path, workdir: str | Path, *, seconds: float
) -> dict[str, Any]:
  """Runs the whole benchmark; returns and writes what loader.json holds."""
  workdir = cli.prepare_workdir(workdir)
  directory = Path(directory)
  dataset = source.open_dataset(directory)
  if dataset.frame_size not in CROPS:
    raise cli.UserError(
      f"{directory} has frames of {dataset.frame_size} pixels, expected one of"
      f" {sorted(CROPS)}, the sizes of the presets"
    )
  crop_size = CROPS[dataset.frame_size]
  measures: dict[str, Callable[[], float]] = {
    "bare decode": lambda: bare_decode(dataset, seconds),
    "hand_eye": lambda: ours(dataset, crop_size, seconds),
  }
  try:
    import torch  # noqa: F401

    measures["torch, Pillow"] = lambda: peer(PillowSamples(dataset, crop_size), seconds)
    measures["torch, TFDS"] = lambda: peer(
      TfdsSamples(dataset, directory, crop_size), seconds
    )
  except ImportError:
    pass
  cores = fleet.num_cores()
  threads, workers = sorted({1, 2, cores}), sorted({1, cores})
  with one_core() as is_pinned:
    rates = harness.in_turns(measures, 3, "loader, one core")
  by_threads = {str(n): ours(dataset, crop_size, seconds, n) for n in threads}
  by_workers = {"0": by_threads["1"]} | {
    str(n): in_fresh_process(directory, num_workers=n, seconds=seconds)["rate"]
    for n in workers
  }
  medians = {name: float(np.median(values)) for name, values in rates.items()}
  result = {
    "dataset": {"attempts": len(dataset), "frame_size": dataset.frame_size},
    "crop_size": crop_size,
    "samples_per_second_one_core": medians,
    "hand_eye_over": {
      name: medians["hand_eye"] / value
      for name, value in medians.items()
      if name != "hand_eye"
    },
    "peers_measured": "torch, Pillow" in medians,
    "kept_on_one_core": is_pinned,
    "samples_per_second_by_threads": by_threads,
    "samples_per_second_by_workers": by_workers,
    "fresh_process": [in_fresh_process(directory, times=n) for n in (1, LARGER)],
  }
  return harness.write(workdir, "loader", result)


def describe(result: dict[str, Any]) -> str:
  """The tables for the terminal."""
  lines = [f"{'one core':<16}{'samples/s':>10}   hand_eye is"]
  for name, value in result["samples_per_second_one_core"].items():
    over = result["hand_eye_over"].get(name)
    lines.append(f"{name:<16}{value:>10.1f}" + (f"   {over:.2f} times" if over else ""))
  if not result["peers_measured"]:
    lines.append("The peers were left out: torch is not installed.")
  if not result["kept_on_one_core"]:
    lines.append(
      "This system cannot pin threads to one core: they may have used others."
    )
  lines.append("")
  for kind in ("threads", "workers"):
    lines.extend(
      f"hand_eye with {count} {kind}: {value:.1f} samples/s"
      for count, value in result[f"samples_per_second_by_{kind}"].items()
    )
  lines.extend(
    f"{each['attempts']:.0f} attempts: opened in {each['open_seconds']:.2f} s, first"
    f" batch after {each['first_batch_seconds']:.2f} s, peak {each['peak_mib']:.0f} MiB"
    for each in result["fresh_process"]
  )
  return "\n".join(lines)


def define_flags() -> None:
  flags.DEFINE_string("workdir", "", "Folder for loader.json and the attempts.")
  flags.DEFINE_string("data", "", "A dataset; '' collects one.")
  flags.DEFINE_integer("num_attempts", 256, "Of the dataset to collect.", lower_bound=8)
  flags.DEFINE_float("seconds", 8.0, "Of each measurement.", lower_bound=0.1)
  flags.DEFINE_bool("child", False, "Used by the benchmark itself.")
  flags.DEFINE_integer("times", 1, "Used by the benchmark itself.")
  flags.DEFINE_integer("num_workers", 0, "Used by the benchmark itself.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if args.child:
    data = Path(args.data)
    found = (
      working_child(data, args.num_workers, args.seconds)
      if args.num_workers
      else child(data, args.times)
    )
    print(json.dumps(found))
    return
  workdir = cli.prepare_workdir(args.workdir)
  data = args.data or own_dataset(workdir, args.num_attempts)
  print(describe(benchmark(data, workdir, seconds=args.seconds)))


if __name__ == "__main__":
  cli.run(main, define_flags)
