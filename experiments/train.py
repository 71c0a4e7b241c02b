r"""Trains the predictor g(I0, It, v) on collected attempts (Sections 4.1 and 4.2).

  python -m experiments.train --config=experiments/configs/demo.py \
    --data=runs/demo/data/round_00/1.0.0 --held_out=runs/demo/data/held_out/1.0.0 \
    --workdir=runs/demo/train

--data=DIR1:0.5,DIR2:0.5 mixes datasets by weight, --only=round=0,1 filters attempts,
--split=unit:0.2 holds out units of the same data instead of --held_out.

--init_from=DIR starts with the averaged weights of another run: fine-tuning on other
data, or the next round of a campaign.

Writes checkpoints/, metrics.jsonl, config.json, held_out_predictions.npz, held_out.json
(figures by unit, family and step), reliability.png and most_wrong.png into the work
folder; with --profile also profile/. --log_to=tensorboard,wandb,mlflow shows the same
figures there (docs/sharing.md).

The same command continues a run that was interrupted, to the same weights as an
uninterrupted one. The same seed gives the same weights, bit for bit on a CPU. SIGTERM
and SIGINT save after the step and end with status 75; a second one ends at once.

It trains on all devices of this process, or with --distributed or --coordinator on
those of several processes (docs/scaling.md). Every process needs the same command,
files and --workdir; the first one writes the figures. Batches, with their crops and
colours, do not depend on the number of processes or devices.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from data_pipeline import source, splits
from envs import fleet
from experiments import cli
from experiments.datasets import options as options_lib
from experiments.fitting import curriculum, input_spec, loop, stopping, train_config
from experiments.fitting import devices as devices_lib
from hand_eye import checkpoint, platforms
from hand_eye import network as network_lib


def train(
  config: Mapping[str, Any],
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  workdir: str | Path,
  *,
  options: options_lib.DataOptions = options_lib.EVERYTHING,
  loading: curriculum.Loading = curriculum.ONE_THREAD,
  init_from: str | Path = "",
  log_options: loop.LoggingOptions = loop.METRICS_ONLY,
  inputs: input_spec.InputSpec = input_spec.WHOLE_IMAGES,
  on_batch: Callable[..., Any] = loop.unchanged,
) -> loop.Trained:
  """Trains to the end of the config's phases, or continues to there.

  It checks all inputs before it writes or compiles anything.

  Args:
    config: sections `network` and `train`, see experiments/configs.
    data: dataset folders to learn from, each with ':weight' or none.
    held_out: dataset folders to evaluate on; no unit may be in both.
    workdir: where checkpoints and metrics go.
    options: which of the attempts to use, and how far to trust them.
    loading: with how many threads and processes batches are made.
    init_from: checkpoints to take the first weights from; '' draws them.
    log_options: what to write in addition to metrics.
    inputs: what the network sees of the attempts.
    on_batch: called with each step's batch before the step takes it, to watch it or to
      change it, see `loop.Fit.run`.

  Returns:
    The final held-out metrics, the weights of the best checkpoint, and their folder.

  Raises:
    UserError, DatasetError, LoaderError, CheckpointError: an input cannot be used.
    TrainingError: the loss or the gradient is not finite.
    Stopped: a signal came; the run was saved.
  """
  network = train_config.build_network(config["network"])
  settings = train_config.build_train(config["train"])
  devices = len(jax.devices())
  for name in ("batch_size", "eval_batch_size"):
    if getattr(settings, name) % devices:
      raise cli.UserError(
        f"config.train.{name} is {getattr(settings, name)}, expected a multiple of the"
        f" {devices} devices that it is split over"
      )
  folders, mixture = options_lib.parse_mixture(data)
  train_set, held_out_set = open_data(folders, held_out, network.frame_size, options)
  train_set = inputs.samples(train_set, is_training=True)
  held_out_set = inputs.samples(held_out_set, is_training=False)
  workdir = Path(workdir)
  identity = {
    "inputs": inputs.identity,
    "network": dataclasses.asdict(network),
    "train": dataclasses.asdict(settings),
    "data": {
      "train": train_set.fingerprint,
      "held_out": held_out_set.fingerprint,
      **({"mixture": mixture} if mixture else {}),
    },
  }
  start = None
  if init_from:
    start, identity["init"] = first_weights(
      init_from, network, workdir, purpose=inputs.purpose
    )
  loading = dataclasses.replace(
    loading,
    mixture=mixture,
    host_index=jax.process_index(),
    host_count=jax.process_count(),
  )
  check_same_run(workdir, identity)
  fit = loop.Fit(
    network, settings, train_set, held_out_set, loading, log_options, inputs
  )
  cli.prepare_workdir(workdir)
  if jax.process_index():  # Of several, the first one holds the folder.
    return fit.run(workdir, identity, start, on_batch)
  with cli.locked(workdir):
    cli.write_json(workdir / "config.json", {**identity, "versions": cli.versions()})
    devices_lib.remember_devices(workdir)
    return fit.run(workdir, identity, start, on_batch)


def open_data(
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  frame_size: int,
  options: options_lib.DataOptions = options_lib.EVERYTHING,
) -> tuple[source.Dataset, source.Dataset]:
  """Opens and checks both sides. Raises an error that says what to fix."""
  train = options_lib.open_folders(data, "data", frame_size, options)
  train = options_lib.parse_filter(options.only).apply(train)
  if options.split:
    if held_out:
      raise cli.UserError("--held_out and --split exclude each other; give one")
    # Its own seed, so that runs with several seeds hold out the same.
    train, held = splits.split(train, *options_lib.parse_split(options.split), seed=0)
  else:
    held = options_lib.open_folders(held_out, "held_out", frame_size, options)
  successes = int(train.attempts.success.sum())
  if successes in (0, len(train)):
    raise cli.UserError(
      f"--data: {successes} of {len(train)} attempts succeeded; there is nothing to"
      " tell apart. Collect more attempts"
    )
  shared = sorted(set(train.attempts.unit) & set(held.attempts.unit))
  if shared and not options.split:
    raise cli.UserError(
      f"--held_out shares {len(shared)} units with --data ({shared[0]}, for one): a"
      " network knows a robot, and its bin, again. Hold out other units, as"
      " python -m experiments.collect --name=held_out does"
    )
  return train, held


def first_weights(
  init_from: str | Path,
  network: network_lib.NetworkConfig,
  workdir: Path,
  *,
  purpose: str = checkpoint.SERVO,
) -> tuple[checkpoint.PolicyWeights | None, dict[str, Any]]:
  """The weights that a run starts with, and what config.json says of them.

  A run that has checkpoints of its own goes on from those: None, and what it says.

  Args:
    init_from: the checkpoints of a run, or its work folder. The best ones are taken.
    network: that the weights must be of.
    workdir: of the run that starts.
    purpose: what the network is for.

  Raises:
    UserError, CheckpointError: there are none, or they are of another network.
  """
  if _has_checkpoints(workdir):
    before = _run_before(workdir).get("init", {})
    return None, {**before, "from": str(init_from)}
  folder = Path(init_from)
  if (folder / "checkpoints").is_dir():
    folder = folder / "checkpoints"
  weights = checkpoint.load_policy(folder, step="best", purpose=purpose)
  train_config.check_network(weights.config, network, f"--init_from={init_from}")
  return weights, {"from": str(init_from), "step": weights.step}


def check_same_run(workdir: Path, identity: Mapping[str, Any]) -> None:
  """Raises UserError if the work folder holds a run of another config or dataset.

  What a run was is asked of its checkpoints: config.json may be lost, or another's.
  """
  if not _has_checkpoints(workdir):
    return
  before = _run_before(workdir)
  now = {"init": {}, **json.loads(cli.to_json(identity))}
  for section, fields in now.items():
    earlier = before.get(section, {})
    for name in {**fields, **earlier}:
      value, found = fields.get(name), earlier.get(name)
      if found != value:
        raise cli.UserError(
          f"--workdir={workdir} holds a run whose {section}.{name} is {found}, not"
          f" {value}; choose another --workdir, or the config and data of that run"
        )


def _has_checkpoints(workdir: Path) -> bool:
  return any((workdir / "checkpoints").glob("[0-9]*"))


def _run_before(workdir: Path) -> dict[str, Any]:
  found = checkpoint.describe(workdir / "checkpoints")["experiment"]
  return json.loads(cli.to_json(found))


def define_flags() -> None:
  cli.define_config()
  flags.DEFINE_list(
    "data",
    [],
    "Dataset folders to learn from, comma-separated; DIR:WEIGHT gives each its share of"
    " the batches.",
  )
  flags.DEFINE_list("held_out", [], "Dataset folders to evaluate on.")
  flags.DEFINE_string("split", "", "Hold out a part of --data instead: unit:0.2.")
  flags.DEFINE_multi_string(
    "only", [], "Learn from these attempts only: unit=A,B, family=, round= or policy=."
  )
  flags.DEFINE_enum(
    "on_bad_record", "fail", ["fail", "skip"], "Stop at a broken record, or do without."
  )
  flags.DEFINE_enum(
    "verify",
    "auto",
    options_lib.VERIFY,
    "What is read before training: the index, every record, or every byte too; auto"
    " reads the records of datasets up to 2 GiB.",
  )
  flags.DEFINE_integer("loader_threads", 1, "Threads that make batches.")
  flags.DEFINE_integer("loader_workers", 0, "Processes that make batches; 0: threads.")
  flags.DEFINE_string(
    "init_from", "", "Checkpoints (or work folder) of a run to take first weights from."
  )
  flags.DEFINE_list(
    "log_to",
    [],
    "Trackers that get the metrics too: tensorboard, wandb, mlflow, comma-separated.",
  )
  flags.DEFINE_bool("profile", False, "Write a profiler's trace of ten steps.")
  devices_lib.define_flags()
  flags.DEFINE_string("workdir", "", "Folder for checkpoints and metrics.")


def main(_: Sequence[str]) -> None:
  run(train)


def run(train_fn: Callable[..., loop.Trained]) -> None:
  """Calls `train`, or what takes the same arguments, with those of the flags."""
  args = flags.FLAGS
  if not args.workdir:
    raise cli.UserError("--workdir is needed: a folder for checkpoints and metrics")
  section = args.config["train"]
  cpu_devices = devices_lib.choose_cpu_devices(
    args.workdir,
    [section["batch_size"], section["eval_batch_size"]],
    args.cpu_devices,
    alone=not args.distributed and not args.coordinator,
  )
  devices_lib.divide_cpu(cpu_devices)
  devices_lib.join(
    args.distributed, args.coordinator, args.num_processes, args.process_id
  )
  platforms.check()
  devices_lib.check_platform(
    args.require_platform or args.config.get("require_platform", "")
  )
  devices_lib.keep_compiled(args.compilation_cache, args.workdir)
  if jax.default_backend() == "cpu" and jax.process_index() == 0:
    print(
      f"Trains on {len(jax.devices())} CPU devices, of {fleet.num_cores()} cores;"
      " --cpu_devices sets another number.",
      flush=True,
    )
  try:
    trained = _train_with(train_fn, args)
  except stopping.Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    sys.exit(stopping.STOPPED)
  if jax.process_index() == 0:
    print(loop.describe(trained.metrics), flush=True)
    print(f"Checkpoints: {trained.checkpoints}")


def _train_with(
  train_fn: Callable[..., loop.Trained], args: flags.FlagValues
) -> loop.Trained:
  return train_fn(
    args.config,
    args.data,
    args.held_out,
    args.workdir,
    options=options_lib.DataOptions(
      only=tuple(args.only),
      split=args.split,
      on_bad_record=args.on_bad_record,
      verify=args.verify,
    ),
    loading=curriculum.Loading(
      num_threads=args.loader_threads, num_workers=args.loader_workers
    ),
    init_from=args.init_from,
    log_options=loop.LoggingOptions(tuple(args.log_to), profile=args.profile),
  )


if __name__ == "__main__":
  cli.run(main, define_flags)
