"""The data options of the training programs: folders, shares, filters, splits."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import plan as plan_lib
from data_pipeline import source, splits
from experiments import cli

# `--verify=auto` reads every record of datasets up to this size: a few seconds.
_SMALL = 2 * 2**30

VERIFY = ("auto", "index", "records", "checksums")

_FILTERS = {
  "unit": "units",
  "family": "families",
  "round": "rounds",
  "policy": "policies",
}


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """Which attempts to use, and how thoroughly to check them.

  Attributes:
    only: filters on what is learned from, 'unit=a,b', 'family=box', 'round=0,1' or
      'policy=random'; all must hold.
    split: 'unit:0.2' holds out a fifth of the units of the training data, instead of
      other folders; 'family', 'scene' and 'attempt' do so for those.
    on_bad_record: 'fail' or 'skip', see data_pipeline.source.
    verify: how much is checked before training, see data_pipeline.source; 'auto'
      is 'records' for datasets up to 2 GiB and 'index' for larger ones.
  """

  only: tuple[str, ...] = ()
  split: str = ""
  on_bad_record: source.OnBadRecord = "fail"
  verify: str = "auto"


EVERYTHING = DataOptions()


def parse_mixture(
  entries: Sequence[str | Path], flag: str = "data"
) -> tuple[list[str], tuple[float, ...]]:
  """Splits 'DIR1:0.5,DIR2:0.5' into folders and the share of each in the batches.

  Returns:
    The folders, and one weight for each; no weights where none is given, and then
    every sample comes equally often.

  Raises:
    UserError: some folders have a weight and others none, or one is not above 0.
  """
  folders, weights = [], []
  for entry in map(str, entries):
    folder, colon, text = entry.rpartition(":")
    try:
      weight = float(text) if colon else None
    except ValueError:
      weight = None  # A folder with a colon in its name.
    folders.append(entry if weight is None else folder)
    if weight is not None:
      if not 0 < weight < math.inf:
        raise cli.UserError(f"--{flag}={entry}: the weight is {text}, expected > 0")
      weights.append(weight)
  if weights and len(weights) < len(folders):
    raise cli.UserError(
      f"--{flag} gives {len(weights)} of {len(folders)} folders a weight; expected one"
      f" for each, as in --{flag}=DIR1:0.5,DIR2:0.5, or none"
    )
  return folders, tuple(weights)


def parse_filter(entries: Sequence[str]) -> splits.Filter:
  """Reads filters as 'unit=a,b'. Raises UserError naming one that is no filter."""
  fields: dict[str, tuple] = {}
  for entry in entries:
    name, equals, text = entry.partition("=")
    values: tuple = tuple(value.strip() for value in text.split(",") if value.strip())
    if name not in _FILTERS or not values:
      raise cli.UserError(
        f"--only={entry}: expected NAME=VALUE,VALUE with a name of"
        f" {', '.join(_FILTERS)}, as in --only=round=0,1"
      )
    if name == "round":
      if not all(value.isdigit() for value in values):
        raise cli.UserError(f"--only={entry}: expected whole numbers of rounds")
      values = tuple(map(int, values))
    if _FILTERS[name] in fields:
      raise cli.UserError(f"--only={name}=... is given twice; join them with commas")
    fields[_FILTERS[name]] = values
  return splits.Filter(**fields)


def parse_split(text: str) -> tuple[str, float]:
  """Reads 'unit:0.2'. Raises UserError if it is not that."""
  by, _, share = text.partition(":")
  try:
    value = float(share)
  except ValueError:
    value = math.nan
  if by not in splits.SPLITS or not 0 < value < 1:
    raise cli.UserError(
      f"--split={text}: expected one of {', '.join(splits.SPLITS)} and the share to"
      " hold out, as in --split=unit:0.2"
    )
  return by, value


def open_folders(
  folders: Sequence[str | Path], flag: str, frame_size: int, options: DataOptions
) -> source.Dataset:
  """Opens the datasets behind a flag and joins them, in the order given.

  Raises:
    UserError, DatasetError: a folder is missing, given twice, broken or of frames of
      another size.
  """
  if not folders:
    raise cli.UserError(f"--{flag} is needed: one or more folders of datasets")
  if len({Path(folder).resolve() for folder in folders}) < len(folders):
    raise cli.UserError(f"--{flag} names a folder twice: {list(map(str, folders))}")
  datasets = []
  for folder in folders:
    path = cli.require_folder(folder, flag, "python -m experiments.collect")
    datasets.append(
      source.open_dataset(
        path, on_bad_record=options.on_bad_record, verify=level(path, options.verify)
      )
    )
    if datasets[-1].frame_size != frame_size:
      raise cli.UserError(
        f"--{flag}={path} has frames of {datasets[-1].frame_size} pixels, but"
        f" config.network expects {frame_size}; use the config that collected it"
      )
  return source.merge(datasets)


def level(path: Path, verify: str) -> source.Verify:
  """The verification level of a dataset. Raises UserError if it is none of VERIFY."""
  if verify not in VERIFY:
    raise cli.UserError(f"--verify={verify}: expected one of {', '.join(VERIFY)}")
  if verify == "auto":
    small = plan_lib.read_manifest(path).num_bytes <= _SMALL
    return "records" if small else "index"
  return verify  # type: ignore[return-value]
