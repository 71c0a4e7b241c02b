r"""Trains the predictor g(I0, It, v) on collected attempts (Sections 4.1 and 4.2).

  python -m experiments.train --config=experiments/configs/demo.py \
    --data=runs/demo/data/train/1.0.0 --held_out=runs/demo/data/held_out/1.0.0 \
    --workdir=runs/demo/train

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

from data_pipeline import source
from experiments import _edge, _fit, _train_config


def train(
  config: Mapping[str, Any],
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  workdir: str | Path,
) -> dict[str, Any]:
  """Trains to the end of the config's phases, or continues to there.

  Everything that can be checked is checked before anything is written or compiled.

  Args:
    config: sections `network` and `train`, see experiments/configs.
    data: dataset folders to learn from.
    held_out: dataset folders to evaluate on; no scene may be in both.
    workdir: where checkpoints and metrics go.

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
  train_set, held_out_set = open_data(data, held_out, network.frame_size)
  workdir = Path(workdir)
  identity = {
    "network": dataclasses.asdict(network),
    "train": dataclasses.asdict(settings),
    "data": {"train": train_set.fingerprint, "held_out": held_out_set.fingerprint},
  }
  check_same_run(workdir, identity)
  fit = _fit.Fit(network, settings, train_set, held_out_set)
  _edge.prepare_workdir(workdir)
  _edge.write_atomically(
    workdir / "config.json",
    _edge.to_json({**identity, "versions": _edge.versions()}, indent=2) + "\n",
  )
  return fit.run(workdir, identity)


def open_data(
  data: Sequence[str | Path], held_out: Sequence[str | Path], frame_size: int
) -> tuple[source.Dataset, source.Dataset]:
  """Opens and checks both sides. Raises an error that names what to mend."""
  opened = []
  for flag, folders in (("data", data), ("held_out", held_out)):
    if not folders:
      raise _edge.UserError(f"--{flag} is needed: one or more folders of datasets")
    datasets = []
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
      raise _edge.UserError(f"--{flag} names a folder twice: {list(map(str, folders))}")
    for folder in folders:
      path = _edge.require_folder(folder, flag, "python -m experiments.collect")
      datasets.append(source.open_dataset(path))
      if datasets[-1].frame_size != frame_size:
        raise _edge.UserError(
          f"--{flag}={path} has frames of {datasets[-1].frame_size} pixels, but"
          f" config.network expects {frame_size}; use the config that collected it"
        )
    opened.append(source.merge(datasets))
  train, held = opened
  successes = int(train.attempts.success.sum())
  if successes in (0, len(train)):
    raise _edge.UserError(
      f"--data: {successes} of {len(train)} attempts succeeded; there is nothing to"
      " tell apart. Collect more attempts"
    )
  shared = sorted(set(train.attempts.unit) & set(held.attempts.unit))
  if shared:
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
  flags.DEFINE_list("data", [], "Dataset folders to learn from, comma-separated.")
  flags.DEFINE_list("held_out", [], "Dataset folders to evaluate on.")
  flags.DEFINE_string("workdir", "", "Folder for checkpoints and metrics.")


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.workdir:
    raise _edge.UserError("--workdir is needed: a folder for checkpoints and metrics")
  row = train(args.config, args.data, args.held_out, args.workdir)
  print(_fit.describe(row), flush=True)
  print(f"Checkpoints: {Path(args.workdir) / 'checkpoints'}")


if __name__ == "__main__":
  _edge.run(main, define_flags)
