"""What a dataset holds, counted."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipeline import plan as plan_lib
from data_pipeline import samples, source
from envs import success
from experiments import cli, statistics
from experiments.datasets import options
from experiments.datasets.distances import RANGES
from experiments.statistics import Rate

# Attempts that are decoded to see what is unknown of them, spread over the dataset.
_LOOKED_AT = 500


@dataclasses.dataclass(frozen=True)
class Family:
  """A family of objects.

  Attributes:
    name: of the family.
    present: attempts with at least one in the bin, and their successes.
    objects: of the family in the bins of all attempts.
    grasped: how often one of them was held at the end.
  """

  name: str
  present: Rate
  objects: int
  grasped: int


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How labels agree.

  Attributes:
    both, reading_only, drop_test_only, neither: attempts by what the two detectors of
      Section 5.2 said.
    truth: what the detectors are held against; '' if nothing is known.
    compared: attempts of which it is known.
    detectors: each of them against it: says_success, precision, recall, agreement.
  """

  both: int
  reading_only: int
  drop_test_only: int
  neither: int
  truth: str
  compared: int
  detectors: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Description:
  """What a dataset holds.

  Attributes:
    directory: of the dataset.
    dataset: opened.
    samples: (attempt, step) with their commands.
    size_bytes: of its shards.
    broken: a line for each part and image that was left out.
    unknown: fields of the records that mean nothing in this dataset.
    partly_unknown: fields that mean nothing in some of its records.
    tables: success by unit, round, T and policy.
    families: of the objects; empty where they are unknown.
    agreement: of the labels.
    reaches: success of samples by the length of their command p_T - p_t.
  """

  directory: Path
  dataset: source.Dataset
  samples: samples.Samples
  size_bytes: int
  broken: tuple[str, ...]
  unknown: frozenset[str]
  partly_unknown: frozenset[str]
  total: Rate
  tables: dict[str, dict[str, Rate]]
  families: list[Family]
  agreement: Agreement
  reaches: dict[str, Rate]

  @property
  def name(self) -> str:
    return self.directory.parent.name


def find(data: str | Path) -> Path:
  """The dataset behind --data: its folder, or the one above with a single version.

  Raises:
    UserError: there is none, or there are several.
  """
  folder = cli.require_folder(data, "data", "experiments.collect")
  if (folder / plan_lib.PLAN_FILE).exists():
    return folder
  found = sorted(path.parent for path in folder.glob(f"*/{plan_lib.PLAN_FILE}"))
  if len(found) == 1:
    return found[0]
  inside = [path.name for path in found] or sorted(p.name for p in folder.iterdir())
  raise cli.UserError(
    f"--data={folder} is not the folder of a dataset; expected <name>/<version>, found"
    f" {', '.join(inside[:8]) or 'nothing'} in it"
  )


def read(directory: Path, *, on_bad_record: Literal["fail", "skip"]) -> Description:
  """Opens a dataset and counts.

  To leave broken records out all are read first; otherwise a large dataset is counted
  by its index, as in training.

  Raises:
    DatasetError: see source.open_dataset.
  """
  verify = "records" if on_bad_record == "skip" else options.level(directory, "auto")
  dataset = source.open_dataset(directory, on_bad_record=on_bad_record, verify=verify)
  table = dataset.attempts
  looked_at, broken = _look_at(dataset)
  unknown, partly_unknown = _unknown(looked_at)
  taken = samples.samples_of(table)
  return Description(
    directory=directory,
    dataset=dataset,
    samples=taken,
    size_bytes=plan_lib.read_manifest(directory).num_bytes,
    broken=(*dataset.broken, *broken),
    unknown=unknown,
    partly_unknown=partly_unknown,
    total=_rate(table.success),
    tables={
      name: statistics.rates_by(values, table.success)
      for name, values in (
        ("unit", np.asarray(table.unit)),
        ("round", table.round),
        ("T", table.num_steps),
        ("policy", _policies(table)),
      )
    },
    families=[] if "objects" in unknown else _families(table, unknown),
    agreement=_agreement(table, unknown, looked_at),
    reaches={
      one.label: _rate(taken.within(one.low, one.high).success) for one in RANGES
    },
  )


def decode_some(
  dataset: source.Dataset, indices: Iterable[int], *, images: bool
) -> tuple[list[dict[str, Any]], list[str]]:
  """Decodes attempts; a broken one is an error, or is left out and named in a line.

  Raises:
    DatasetError: one is broken and the dataset's `on_bad_record` is 'fail'.
  """
  found, broken = [], []
  for index in indices:
    try:
      found.append(dataset.decoded(int(index), images=images))
    except plan_lib.DatasetError as error:
      if dataset.on_bad_record == "fail":
        raise
      broken.append(str(error))
  return found, broken


def _look_at(dataset: source.Dataset) -> tuple[list[dict[str, Any]], list[str]]:
  """Attempts without images, spread evenly, with the JSON of `software` read.

  And a line for each that broke since the dataset was opened.
  """
  count = min(len(dataset), _LOOKED_AT)
  found = []
  indices = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
  decoded, broken = decode_some(dataset, indices, images=False)
  for record in decoded:
    try:
      origin = json.loads(record["software"])
    except ValueError:
      origin = {}
    found.append(record | {"origin": origin if isinstance(origin, dict) else {}})
  return found, broken


def _unknown(
  looked_at: Sequence[dict[str, Any]],
) -> tuple[frozenset[str], frozenset[str]]:
  """Fields of which all, and of which some attempts say that they mean nothing.

  Records say so of what only a simulator knows, importers of what their source does
  not know.
  """
  named = [
    frozenset((*record["origin"].get("unknown", []), *record.get("unknown", [])))
    for record in looked_at
  ]
  if not named:
    return frozenset(), frozenset()
  everywhere = frozenset.intersection(*named)
  return everywhere, frozenset.union(*named) - everywhere


def _policies(table: source.Attempts) -> np.ndarray:
  """str[A]: the policy, with its version where it has one."""
  pairs = zip(table.policy, table.policy_version, strict=True)
  return np.array([" ".join(filter(None, pair)) for pair in pairs], np.str_)


def _rate(labels: np.ndarray) -> Rate:
  return statistics.rate(int(labels.sum()), len(labels))


def _families(table: source.Attempts, unknown: frozenset[str]) -> list[Family]:
  grasped = np.asarray(table.grasped)
  codes = table.families.codes
  found = []
  for code, name in enumerate(table.families.names):
    present = table.families.contains([name])
    found.append(
      Family(
        name=name,
        present=_rate(table.success[present]),
        objects=int(np.sum(codes == code)),
        grasped=0 if "grasped" in unknown else int(np.sum(grasped == name)),
      )
    )
  return sorted((f for f in found if f.objects), key=lambda family: family.name)


def _agreement(
  table: source.Attempts,
  unknown: frozenset[str],
  looked_at: Sequence[dict[str, Any]],
) -> Agreement:
  reading = np.array(
    [success.reading_says_grasped(float(value)) for value in table.gripper_reading],
    bool,
  )
  drop_test = table.drop_test
  said = {"gripper reading": reading, "drop test": drop_test, "label": table.success}
  compared, truth, name = table.simulator_truth, table.simulator_truth, ""
  if "simulator_truth" not in unknown:
    name = "the simulator's truth"
  else:
    # The label that the data came with, as far as it was looked at.
    kept = [r for r in looked_at if r["origin"].get("recorded_success") is not None]
    if kept:
      name = "the label that the data came with"
      said = {"label": np.array([r["success"] for r in kept], bool)}
      truth = np.array([r["origin"]["recorded_success"] > 0.5 for r in kept], bool)
    compared = truth
  return Agreement(
    both=int(np.sum(reading & drop_test)),
    reading_only=int(np.sum(reading & ~drop_test)),
    drop_test_only=int(np.sum(~reading & drop_test)),
    neither=int(np.sum(~reading & ~drop_test)),
    truth=name,
    compared=len(compared) if name else 0,
    detectors={
      detector: {"says_success": int(one.sum()), **statistics.agreement(one, truth)}
      for detector, one in said.items()
      if name
    },
  )
