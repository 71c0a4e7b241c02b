r"""Trains the predictor g(I0, It, v) on collected attempts (Sections 4.1 and 4.2).

  python -m experiments.train --config=experiments/configs/demo.py \
    --data=runs/demo/data/train/1.0.0 --held_out=runs/demo/data/held_out/1.0.0 \
    --workdir=runs/demo/train

--data=DIR1:0.5,DIR2:0.5 mixes datasets by weight, --only=round=0,1 filters attempts,
--split=unit:0.2 holds out units of the same data instead of --held_out.

Writes checkpoints/, metrics.jsonl, config.json and held_out_predictions.npz into the
work folder. The same command continues a run that was interrupted, to the same weights
as an uninterrupted one. The same seed gives the same weights, bit for bit on a CPU.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from data_pipeline import source, splits
from experiments import _data, _edge, _fit, _train_config


def train(
  config: Mapping[str, Any],
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  workdir: str | Path,
  *,
  options: _data.DataOptions = _data.EVERYTHING,
  loading: _fit.Loading = _fit.ONE_THREAD,
) -> dict[str, Any]:
  """Trains to the end of the config's phases, or continues to there.

  Everything that can be checked is checked before anything is written or compiled.

  Args:
    config: sections `network` and `train`, see experiments/configs.
    data: dataset folders to learn from, each with ':weight' or none.
    held_out: dataset folders to evaluate on; no unit may be in both.
    workdir: where checkpoints and metrics go.
    options: which of the attempts to use, and how far to trust them.
    loading: with how many threads and processes batches are made.

  Returns:
    The final held-out row of metrics.jsonl: that of the best checkpoint, with
    intervals.

  Raises:
    UserError, DatasetError, LoaderError, CheckpointError: an input cannot be used.
    TrainingError: the loss or the gradient is not finite.
  """
  network = _train_config.build_network(config["network"])
  settings = _train_config.build_train(config["train"])
  if jax.process_count() > 1:
    raise _edge.UserError(
      f"{jax.process_count()} processes were joined, but training runs on one host so"
      " far: every host would train on the same samples"
    )
  devices = len(jax.devices())
  for name in ("batch_size", "eval_batch_size"):
    if getattr(settings, name) % devices:
      raise _edge.UserError(
        f"config.train.{name} is {getattr(settings, name)}, expected a multiple of the"
        f" {devices} devices"
      )
  folders, mixture = _data.parse_mixture(data)
  train_set, held_out_set = open_data(folders, held_out, network.frame_size, options)
  workdir = Path(workdir)
  identity = {
    "network": dataclasses.asdict(network),
    "train": dataclasses.asdict(settings),
    "data": {
      "train": train_set.fingerprint,
      "held_out": held_out_set.fingerprint,
      **({"mixture": mixture} if mixture else {}),
    },
  }
  check_same_run(workdir, identity)
  loading = dataclasses.replace(loading, mixture=mixture)
  fit = _fit.Fit(network, settings, train_set, held_out_set, loading)
  _edge.prepare_workdir(workdir)
  _edge.write_atomically(
    workdir / "config.json",
    _edge.to_json({**identity, "versions": _edge.versions()}, indent=2) + "\n",
  )
  return fit.run(workdir, identity)


def open_data(
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  frame_size: int,
  options: _data.DataOptions = _data.EVERYTHING,
) -> tuple[source.Dataset, source.Dataset]:
  """Opens and checks both sides. Raises an error that names what to mend."""
  train = _data.open_folders(data, "data", frame_size, options)
  train = _data.parse_filter(options.only).apply(train)
  if options.split:
    if held_out:
      raise _edge.UserError("--held_out and --split exclude each other; give one")
    # Its own seed, so that runs with several seeds hold out the same.
    train, held = splits.split(train, *_data.parse_split(options.split), seed=0)
  else:
    held = _data.open_folders(held_out, "held_out", frame_size, options)
  successes = int(train.attempts.success.sum())
  if successes in (0, len(train)):
    raise _edge.UserError(
      f"--data: {successes} of {len(train)} attempts succeeded; there is nothing to"
      " tell apart. Collect more attempts"
    )
  shared = sorted(set(train.attempts.unit) & set(held.attempts.unit))
  if shared and not options.split:
    raise _edge.UserError(
      f"--held_out shares {len(shared)} units with --data ({shared[0]}, for one): a"
      " network knows a robot, and its bin, again. Hold out other units, as"
      " python -m experiments.collect --name=held_out does"
    )
  return train, held


def check_same_run(workdir: Path, identity: Mapping[str, Any]) -> None:
  """Raises UserError if the work folder holds a run of another config or dataset."""
  path = workdir / "config.json"
  if not path.is_file() or not any((workdir / "checkpoints").glob("[0-9]*")):
    return
  before = json.loads(path.read_text(encoding="utf-8"))
  now = json.loads(_edge.to_json(identity))
  for section, fields in now.items():
    for name, value in fields.items():
      found = before.get(section, {}).get(name)
      if found != value:
        raise _edge.UserError(
          f"--workdir={workdir} holds a run whose {section}.{name} is {found}, not"
          f" {value}; choose another --workdir, or the config and data of that run"
        )


def define_flags() -> None:
  _edge.define_config()
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
    _data.VERIFY,
    "What is read before training: the index, every record, or every byte too; auto"
    " reads the records of datasets up to 2 GiB.",
  )
  flags.DEFINE_integer("loader_threads", 1, "Threads that make batches.")
  flags.DEFINE_integer("loader_workers", 0, "Processes that make batches; 0: threads.")
  flags.DEFINE_string("workdir", "", "Folder for checkpoints and metrics.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.workdir:
    raise _edge.UserError("--workdir is needed: a folder for checkpoints and metrics")
  row = train(
    args.config,
    args.data,
    args.held_out,
    args.workdir,
    options=_data.DataOptions(
      only=tuple(args.only),
      split=args.split,
      on_bad_record=args.on_bad_record,
      verify=args.verify,
    ),
    loading=_fit.Loading(
      num_threads=args.loader_threads, num_workers=args.loader_workers
    ),
  )
  print(_fit.describe(row), flush=True)
  print(f"Checkpoints: {Path(args.workdir) / 'checkpoints'}")


if __name__ == "__main__":
  _edge.run(main, define_flags)
