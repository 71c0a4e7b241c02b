r"""Trains the open-loop baseline: the servo's network on patches (Section 6).

  python -m experiments.train_open_loop --config=experiments/configs/demo.py \
    --data=runs/demo/data/round_00/1.0.0 --held_out=runs/demo/data/held_out/1.0.0 \
    --workdir=runs/demo/open_loop

Attempts, optimizer, number of steps, flags and files in the work folder are those of
experiments.train. The config's section `patches` says how patches are cut and which
preset scores them. An attempt gives one sample, the pregrasp image around the place
where its gripper closed, so the phases of the curriculum do not differ.

The same command continues a run that was interrupted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import cli, train
from experiments.fitting import loop, patch_inputs, train_config


def train_open_loop(
  config: Mapping[str, Any],
  data: Sequence[str | Path],
  held_out: Sequence[str | Path],
  workdir: str | Path,
  **options: Any,
) -> loop.Trained:
  """Trains to the end of the config's phases, or continues to there.

  Args:
    config: sections `network`, `train` and `patches`, see experiments/configs.
    data, held_out, workdir, **options: see train.train.

  Returns:
    The metrics, the best weights and their folder.

  Raises:
    UserError and what train.train raises; also for attempts of units whose calibration
      is not known.
  """
  settings = cli.build(patch_inputs.PatchConfig, config.get("patches", {}), "patches")
  section = network_section(config["network"], settings.preset)
  network = train_config.build_network(section)
  mirrored = {"mirror_probability": settings.mirror_probability}
  return train.train(
    {
      **config,
      "network": section,
      "train": {**dict(config["train"].items()), **mirrored},
    },
    data,
    held_out,
    workdir,
    inputs=patch_inputs.input_spec_of(settings, network.crop_size),
    **options,
  )


def network_section(section: Mapping[str, Any], preset: str) -> dict[str, Any]:
  """The section `network` of the open loop's network.

  Args:
    section: that of the servo's network, whose frames there are to cut patches from.
    preset: of `PatchConfig`.
  """
  made = dict(section.items())
  if preset:
    made["frame_size"] = train_config.build_network(section).frame_size
    made["preset"] = preset
  return made


def main(_: Sequence[str]) -> None:
  train.run(train_open_loop)


if __name__ == "__main__":
  cli.run(main, train.define_flags)
