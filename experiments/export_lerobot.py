r"""Writes a dataset in LeRobot's layout v3.0, for its visualizer and its policies.

  python -m experiments.export_lerobot --data=runs/demo/data/train --out=runs/lerobot

Needs pyarrow (pip install 'hand_eye[lerobot]'), and neither LeRobot nor PyTorch.
JPEG images are copied unchanged.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from absl import flags

from data_pipeline import source
from experiments import cli
from experiments.datasets import counts


def export(
  data: str | Path,
  out: str | Path,
  *,
  fps: int = 1,
  on_bad_record: Literal["fail", "skip"] = "fail",
) -> Path:
  """Exports a dataset; returns the new folder.

  Args:
    data: `<root>/<name>/<version>`, or `<root>/<name>` if it has one version.
    out: a folder that does not exist.
    fps: steps a second to declare; our steps have no fixed duration.
    on_bad_record: whether a broken record is an error, or is left out.

  Raises:
    UserError, DatasetError: an input cannot be used.
  """
  if importlib.util.find_spec("pyarrow") is None:
    raise cli.UserError(
      "pyarrow is needed to write Parquet files: pip install 'hand_eye[lerobot]'"
    )
  from data_pipeline.exporters import lerobot

  if not str(out):
    raise cli.UserError("--out is needed: a folder that does not exist yet")
  # Every record is read first: what is broken is left out here, not found midway.
  dataset = source.open_dataset(
    counts.find(data), on_bad_record=on_bad_record, verify="records"
  )
  with cli.progress(len(dataset), "export", "attempts") as bar:
    return lerobot.export(dataset, out, fps=fps, advance=bar.update)


def define_flags() -> None:
  flags.DEFINE_string("data", "", "Dataset: <workdir>/<name>, or its version's folder.")
  flags.DEFINE_string("out", "", "Folder to write, which must not exist.")
  flags.DEFINE_integer("fps", 1, "Steps a second to be claimed.", lower_bound=1)
  flags.DEFINE_enum(
    "on_bad_record",
    "fail",
    ["fail", "skip"],
    "Stop at a broken record, or leave it out.",
  )


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  out = export(args.data, args.out, fps=args.fps, on_bad_record=args.on_bad_record)
  print(f"LeRobot dataset: {out}")


if __name__ == "__main__":
  cli.run(main, define_flags)
