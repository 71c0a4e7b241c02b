"""The stages of a run that fits a time: which program, with which sizes.

Each is a function of what is known so far and of the seconds that it may take. It
returns the command line, without `python -m`; what the user chose stays, and sizes are
added to it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from experiments.evaluation import policy_names, trials
from experiments.timing import rates
from experiments.timing.known import Known

# Of the first steps, which tell how fast the others will be.
FIRST_STEPS, LOG_FIRST = 24, 4
EVALUATIONS = 4  # of the network while it learns
MOST_HELD_OUT = 160  # attempts
LEAST_STEPS = 10  # of a training that is worth its start
# Seconds of a shard: what a collection that ends on time may lose, for each core.
SHARD_SECONDS = 2.0
# Larger images are decoded by processes, smaller ones kept in memory.
LARGE_FRAME = 256
CAREFUL = 0.85  # of its time is what a stage plans to use
WORKER_MEMORY = 2 * 2**30  # bytes that a process which decides takes on an accelerator
_NO_RATE = "nothing came of the stages before, so nothing tells how long it takes"


class LeftOutError(Exception):
  """A stage that cannot be run; the message says why."""


def held_out(known: Known, seconds: float) -> list[str]:
  collect = known.config.collect
  count = min(collect.num_held_out, MOST_HELD_OUT)
  # Looking at the machine took two such starts, or more.
  useful = CAREFUL * seconds - known.seconds["look"] / 2
  return _collect(known, "held_out", useful, num_held_out=count)


def collect(known: Known, seconds: float) -> list[str]:
  """As many attempts as fit; the clock has the last word."""
  found = rates.collecting(known.data / "held_out")
  if found is None:
    raise LeftOutError(
      "no attempt was made before, so nothing tells how long one takes"
    )
  useful = max(1.0, CAREFUL * seconds - known.overhead("held_out"))
  most = math.ceil(1.2 * useful * known.machine.cores / found.seconds)
  section = known.config.collect
  scene = found.seconds * _per_scene(known)
  return _collect(
    known,
    "train",
    useful,
    num_attempts=min(section.num_attempts, most),
    scenes_per_shard=max(
      1, min(section.scenes_per_shard, round(SHARD_SECONDS / scene))
    ),
  )


def first_steps(known: Known, seconds: float) -> list[str]:
  """A few steps: how long compiling takes, and a step."""
  del seconds
  return _train(known, "first_steps", FIRST_STEPS, FIRST_STEPS, LOG_FIRST)


def train(known: Known, seconds: float) -> list[str]:
  """As many steps as fit, so that the learning rate ends where it should."""
  found = rates.training(known.workdir / "first_steps")
  if found is None:
    raise LeftOutError(_NO_RATE)
  section = known.config.train
  step = section.batch_size / found.samples_per_second
  fixed = known.seconds.get("first_steps", 0.0) - found.steps * step
  # Forward alone, about a third of a step.
  evaluating = found.held_out_samples / (2 * found.samples_per_second)
  useful = CAREFUL * seconds - fixed - (EVALUATIONS - 1) * evaluating
  wanted = sum(steps for steps, _ in section.phases)
  steps = min(wanted, int(useful / step))
  if steps < LEAST_STEPS:
    raise LeftOutError(
      f"a step takes {step:.2f} s and starting {fixed:.0f} s: too long for the"
      f" {seconds:.0f} s of training"
    )
  log_every = max(1, min(section.log_every, steps // 40))
  return _train(known, "train", steps, math.ceil(steps / EVALUATIONS), log_every)


def export(known: Known, seconds: float) -> list[str]:
  del seconds
  _check_trained(known)
  return [
    "experiments.export_policy",
    *known.arguments,
    *known.dtype,
    f"--checkpoint={known.checkpoints}",
    f"--out={known.workdir / 'policy.hep'}",
  ]


def evaluate(known: Known, seconds: float) -> list[str]:
  """Bins of both protocols, as many as fit; without a network, the baselines."""
  section = known.config.evaluate
  names = {name: policy_names.parse(name) for name in section.policies}
  policies = [
    name
    for name, parsed in names.items()
    if parsed.kind != "open_loop" and (known.is_trained or not parsed.is_servo)
  ]
  found = rates.collecting(known.data / "train")
  found = found or rates.collecting(known.data / "held_out")
  if found is None:
    raise LeftOutError(_NO_RATE)
  lengths = known.config.collect.num_steps
  # A policy decides longer than random motions, and its bins may be fuller.
  attempt = 1.5 * found.seconds * section.num_steps * len(lengths) / sum(lengths)
  useful = max(1.0, CAREFUL * seconds - known.overhead("held_out"))
  # Of all workers for each policy; of one process, which makes several bins together.
  whole = useful * known.machine.cores / (attempt * len(policies))
  single = useful / (2 * attempt)
  with_, without = section.with_replacement, section.without_replacement
  each = _between(1, single / trials.SIDE_BY_SIDE, min(with_.num_attempts, 4))
  bins = _between(1, whole / 2 / each, with_.repetitions * with_.num_attempts // each)
  longest = _between(10, 10 * (single // 10), without.num_attempts)
  emptied = _between(1, single / longest, without.repetitions)
  workers = known.machine.cores
  if known.machine.device_memory:
    workers = _between(1, known.machine.device_memory / WORKER_MEMORY, workers)
  network = [f"--checkpoint={known.checkpoints}"] if known.is_trained else []
  return [
    "experiments.evaluate",
    *known.arguments,
    *known.dtype,
    *network,
    f"--policies={','.join(policies)}",
    f"--workdir={known.workdir / 'evaluate'}",
    f"--seconds={useful:.1f}",
    f"--config.evaluate.with_replacement.repetitions={bins}",
    f"--config.evaluate.with_replacement.num_attempts={each}",
    f"--config.evaluate.without_replacement.repetitions={emptied}",
    f"--config.evaluate.without_replacement.num_attempts={longest}",
    "--config.evaluate.num_videos=0",
    f"--config.evaluate.num_workers={workers}",
  ]


def control(known: Known, seconds: float) -> list[str]:
  """A decision for one robot and for 14."""
  del seconds
  return [
    "experiments.benchmarks.control",
    f"--workdir={known.workdir / 'benchmarks'}",
    f"--presets={known.benchmarked}",
    "--robots=14",
    f"--rounds={50 if known.machine.has_accelerator else 5}",
    "--notile_images",
    "--nopeers",
  ]


def training(known: Known, seconds: float) -> list[str]:
  """Steps on a batch that lies on the device, and PyTorch's where it is installed."""
  del seconds
  return [
    "experiments.benchmarks.training",
    f"--workdir={known.workdir / 'benchmarks'}",
    f"--presets={known.benchmarked}",
    f"--dtypes={'bfloat16' if known.dtype else known.network.dtype}",
    "--nolayers",
    "--rounds=1",
    "--seconds=1",
  ]


def report(known: Known, seconds: float) -> list[str]:
  del seconds
  return ["experiments.report", f"--workdir={known.workdir}"]


class Stage(NamedTuple):
  """share: of the time that it and later stages have; command: see above."""

  share: float
  command: Callable[[Known, float], list[str]]


STAGES: dict[str, Stage] = {
  "held_out": Stage(0.12, held_out),
  "collect": Stage(0.20, collect),
  "first_steps": Stage(0.12, first_steps),
  "train": Stage(0.20, train),
  "export": Stage(0.07, export),
  "evaluate": Stage(0.14, evaluate),
  "control": Stage(0.07, control),
  "training": Stage(0.12, training),
  "report": Stage(0.06, report),
}


def _collect(known: Known, name: str, seconds: float, **sizes: int) -> list[str]:
  sizes = {"scenes_per_shard": 1, "attempts_per_scene": _per_scene(known), **sizes}
  return [
    "experiments.collect",
    *known.arguments,
    f"--workdir={known.data}",
    f"--name={name}",
    f"--seconds={max(1.0, seconds):.1f}",
    *(f"--config.collect.{field}={value}" for field, value in sizes.items()),
  ]


def _per_scene(known: Known) -> int:
  return min(known.config.collect.attempts_per_scene, 8)


def _train(
  known: Known, name: str, steps: int, eval_every: int, log_every: int
) -> list[str]:
  section, machine = known.config.train, known.machine
  planned = sum(count for count, _ in section.phases)
  phases = tuple(
    (max(1, round(count * steps / planned)), longest)
    for count, longest in section.phases
  )
  if name == "first_steps":
    phases = ((steps, section.phases[-1][1]),)
  large = known.network.frame_size >= LARGE_FRAME and machine.has_accelerator
  sizes = {
    "phases": phases,
    "auxiliary_steps": min(section.auxiliary_steps, steps // 5),
    "eval_every": eval_every,
    "log_every": log_every,
    "save_every": 0,
    # Averages over a tenth of the run at most.
    "ema_decay": min(section.ema_decay, 1 - 10 / steps),
    "cache_bytes": min(section.cache_bytes, machine.memory // 4),
    "optimizer.warmup_steps": min(section.optimizer.warmup_steps, steps // 10),
    "optimizer.decay_steps": sum(count for count, _ in phases),
  }
  return [
    "experiments.train",
    *known.arguments,
    *known.dtype,
    f"--data={known.data / 'train' / '1.0.0'}",
    f"--held_out={known.data / 'held_out' / '1.0.0'}",
    f"--workdir={known.workdir / name}",
    f"--compilation_cache={known.workdir / 'compiled'}",
    *([f"--require_platform={known.required}"] if known.required else []),
    *([f"--loader_workers={max(1, machine.cores - 1)}"] if large else []),
    *(f"--config.train.{field}={value}" for field, value in sizes.items()),
  ]


def _between(least: int, value: float, most: int) -> int:
  """`value` as a whole number within limits, of which the upper one counts more."""
  return min(max(least, int(value)), most)


def _check_trained(known: Known) -> None:
  if not known.is_trained:
    raise LeftOutError("there are no weights")
