r"""Exports a trained policy as one file that a control process can load.

  python -m experiments.export_policy --config=experiments/configs/demo.py \
    --checkpoint=runs/demo/train/round_01/checkpoints --out=runs/demo/policy.hep

The file holds weights, the decision functions for cpu, cuda and tpu, the limits, and an
input with its answer. Before the file gets its name, it is loaded and must give that
answer. Limits hold inside the functions: the workspace, the longest motion and turn of
a decision (--config.servo.max_step, --config.servo.max_turn), and your own (--grasp_in,
--keep_out, --yaw_range). docs/exported_policy.md says what else it promises. To change
limits, run the command again with others. For a newer JAX, a policy file is exported
again from itself: --checkpoint=policy.hep --out=policy.hep.

--format=onnx writes a folder instead, for other languages (docs/onnx.md): the network's
two halves as ONNX files, and a manifest. --checkpoint may be a policy file here, too:

  python -m experiments.export_policy --format=onnx --checkpoint=policy.hep \
    --out=policy_onnx
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import units
from experiments import cli
from experiments.control import constraint_flags
from experiments.fitting import train_config
from hand_eye import checkpoint, commands, servo
from hand_eye.constraints import Constraints
from hand_eye.deploy import export as export_lib
from hand_eye.deploy import onnx_policy


def export(
  config: Mapping[str, Any],
  source: str | Path,
  out: str | Path,
  *,
  step: int | str = "best",
  constraints: Constraints | None = None,
) -> Path:
  """Writes a policy to the file `out`, tests the file, returns its path.

  Args:
    config: sections `network` (the checkpoint must be of it), `servo`. The
      workspaces of all units bound every command.
    source: `checkpoints` of a run of experiments.train, or a policy file; of a file its
      own settings and limits hold, and `config` and `step` are not read.
    out: the file; replaced only by a whole one that passed its self-test.
    step: of the checkpoint, or `best` or `last`.
    constraints: your own limits, which hold wherever the file is used.

  Raises:
    UserError, CheckpointError, PolicyFileError: an input cannot be used.
  """
  out = Path(out)
  if out.is_dir():
    raise cli.UserError(f"--out={out} is a folder; expected the name of a file")
  parts, about = _parts(config, source, step, constraints)
  cli.prepare_workdir(out.absolute().parent, flag="out")
  export_lib.write_policy(
    out,
    parts.weights,
    parts.config,
    workspace=parts.workspace,
    constraints=parts.constraints,
    about=about,
  )
  return out


def export_onnx(
  config: Mapping[str, Any],
  source: str | Path,
  out: str | Path,
  *,
  step: int | str = "best",
  constraints: Constraints | None = None,
) -> Path:
  """Writes a policy as ONNX files to the folder `out`, tests them, returns its path.

  Args:
    config, source, step, constraints: as for `export`.
    out: the folder; files of an earlier export are replaced.

  Raises:
    UserError, CheckpointError, PolicyFileError, OnnxError: something to be corrected.
  """
  out = Path(out)
  if out.exists() and not out.is_dir():
    raise cli.UserError(f"--out={out} is a file; expected the name of a folder")
  parts, about = _parts(config, source, step, constraints)
  cli.prepare_workdir(out.absolute(), flag="out")
  onnx_policy.write(
    out,
    parts.weights,
    parts.config,
    workspace=parts.workspace or _fleet(),
    constraints=parts.constraints,
    about=about,
  )
  return out


def _parts(
  config: Mapping[str, Any],
  source: str | Path,
  step: int | str,
  constraints: Constraints | None,
) -> tuple[export_lib.PolicyParts, dict[str, Any]]:
  """What is exported, and words on where it comes from."""
  if Path(source).is_file():
    parts = export_lib.parts_of(source)
    if constraints not in (None, Constraints(), parts.constraints):
      raise cli.UserError(
        f"--checkpoint={source} is a policy file with limits of its own: leave out"
        " --grasp_in, --keep_out and --yaw_range, or export from checkpoints"
      )
    return parts, {"policy_file": Path(source).name, **cli.versions()}
  folder = cli.require_folder(source, "checkpoint", "python -m experiments.train")
  network = train_config.build_network(config["network"])
  settings = cli.build(servo.ServoConfig, config["servo"], "servo")
  weights = checkpoint.load_policy(folder, step=step)
  train_config.check_network(weights.config, network, f"--checkpoint={folder}")
  parts = export_lib.PolicyParts(
    weights, settings, _fleet(), constraints or Constraints()
  )
  return parts, {"checkpoint": f"{folder.name}/{weights.step}", **cli.versions()}


def _fleet() -> commands.Workspace:
  low, high = units.fleet_workspace()
  return commands.Workspace(low=low, high=high)


def define_flags() -> None:
  cli.define_config()
  flags.DEFINE_enum(
    "format", "hep", ["hep", "onnx"], "One file for JAX, or ONNX files in a folder."
  )
  flags.DEFINE_string(
    "checkpoint", "", "Folder of checkpoints of a training run, or a policy file."
  )
  flags.DEFINE_string("out", "", "The file to write, such as policy.hep.")
  flags.DEFINE_string("step", "best", "Which checkpoint: best, last, or its step.")
  constraint_flags.define_flags()


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  if not args.out:
    raise cli.UserError("--out is needed: the file to write, such as policy.hep")
  step = int(args.step) if args.step.isdigit() else args.step
  if isinstance(step, str) and step not in ("best", "last"):
    raise cli.UserError(f"--step={step}: expected best, last or a number")
  if args.format == "onnx":
    folder = export_onnx(
      args.config,
      args.checkpoint,
      args.out,
      step=step,
      constraints=constraint_flags.from_flags(),
    )
    gap = json.loads((folder / "manifest.json").read_text())["largest_gap"]
    print(
      f"ONNX files: {folder}/encode.onnx, score.onnx, manifest.json. onnxruntime gives"
      f" JAX's probabilities to {gap:.1g}."
    )
    return
  path = export(
    args.config,
    args.checkpoint,
    args.out,
    step=step,
    constraints=constraint_flags.from_flags(),
  )
  manifest = export_lib.read_manifest(path)
  print(
    f"Policy: {path} ({path.stat().st_size / 1e6:.2f} MB, step {manifest['step']}, for"
    f" {', '.join(manifest['platforms'])}). Loaded back: the self-test passed."
  )


if __name__ == "__main__":
  cli.run(main, define_flags)
