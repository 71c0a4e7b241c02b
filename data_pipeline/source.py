"""Opens finished datasets: checks them, reads any attempt, merges them.

Opening trusts the index that was written with the data, so that a million attempts
are open in a second. Asked to verify, it reads every record, without decoding images,
so that a broken one is named at the start and not in the middle of a training run.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from absl import logging

from data_pipeline import attempts as attempts_lib
from data_pipeline import index as index_lib
from data_pipeline import plan as plan_lib
from data_pipeline import records as records_lib
from data_pipeline import shards as shards_lib

Attempts = attempts_lib.Attempts

# What to do about a broken record: stop, or do without it.
OnBadRecord = Literal["fail", "skip"]

# How much is looked at before anything is used, each level with those before it:
# sizes of shards and the index; every record; every byte.
Verify = Literal["index", "records", "checksums"]


class Dataset:
  """Attempts of one or more datasets, read in any order.

  Safe to use from several threads, and picklable for worker processes.

  Attributes:
    attempts: what is known of the attempts without their images.
    records: their serialized form.
    part: int32[A], which of the datasets that were merged each attempt is of.
    num_parts: how many were merged, those that were filtered away since included.
    frame_size: height and width of the images, pixels.
    broken: a line for each shard and record that was left out when opening.
    on_bad_record: what a loader does about a record that breaks later.
  """

  def __init__(
    self,
    records: shards_lib.Records,
    attempts: Attempts,
    *,
    frame_size: int,
    checksums: Sequence[str],
    part: np.ndarray | None = None,
    num_parts: int = 1,
    broken: Sequence[str] = (),
    on_bad_record: OnBadRecord = "fail",
  ):
    """Joins shards; `open_dataset` is the way to call it."""
    self._checksums = tuple(checksums)
    self.records = records
    self.attempts = attempts
    self.part = np.zeros(len(records), np.int32) if part is None else part
    self.num_parts = num_parts
    self.frame_size = frame_size
    self.broken = tuple(broken)
    self.on_bad_record = on_bad_record

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> bytes:
    """Returns the serialized attempt 0 <= index < len, see records.decode.

    Raises:
      IndexError: there is no such attempt.
      DatasetError: its record is broken.
    """
    return self.records[index]

  def __iter__(self) -> Iterator[bytes]:
    return (self[index] for index in range(len(self)))

  def decoded(self, index: int, *, images: bool) -> dict[str, Any]:
    """Returns the fields of the attempt 0 <= index < len, see records.decode.

    Raises:
      IndexError: there is no such attempt.
      DatasetError: its record or, if asked for, one of its images is broken; names
        file and record.
    """
    data = self[index]
    try:
      return records_lib.decode(data, images=images)
    except records_lib.RecordError as error:
      raise self.records.broken(index, error) from error

  @functools.cached_property
  def fingerprint(self) -> str:
    """What the attempts and their order are, as a checksum of 16 digits."""
    digest = hashlib.sha256(" ".join(self._checksums).encode())
    digest.update(np.ascontiguousarray(self.records.rows).tobytes())
    return digest.hexdigest()[:16]

  def select(self, indices: np.ndarray) -> "Dataset":
    """Returns the dataset of the attempts with the given indices, in that order."""
    indices = np.asarray(indices, np.int64)
    return Dataset(
      shards_lib.Records(self.records.paths, self.records.rows[indices]),
      self.attempts.take(indices),
      frame_size=self.frame_size,
      checksums=self._checksums,
      part=self.part[indices],
      num_parts=self.num_parts,
      broken=self.broken,
      on_bad_record=self.on_bad_record,
    )

  def with_table(self, attempts: Attempts, frame_size: int) -> "Dataset":
    """Returns the same records with another table, for those who make their own images.

    Args:
      attempts: a row for each record.
      frame_size: of the images that will be made of the records, pixels.
    """
    return Dataset(
      self.records,
      attempts,
      frame_size=frame_size,
      checksums=self._checksums,
      part=self.part,
      num_parts=self.num_parts,
      broken=self.broken,
      on_bad_record=self.on_bad_record,
    )


def open_dataset(
  directory: str | Path,
  *,
  on_bad_record: OnBadRecord = "fail",
  verify: Verify = "index",
) -> Dataset:
  """Opens a finished dataset.

  Args:
    directory: `<root>/<name>/<version>`.
    on_bad_record: whether a broken shard or record is an error, or is left out,
      logged and listed in `Dataset.broken`. What `verify` did not look for is met
      later: then a loader stops, or takes another sample in its place.
    verify: 'index' compares the sizes of shards and the checksum of the index, and
      reads no record; 'records' reads every record, whose own checksums find a
      flipped byte; 'checksums' compares those of whole shards as well.

  Returns:
    The dataset. A dataset without an index is always opened as if with 'records'.

  Raises:
    DatasetError: the dataset is missing, unfinished, broken or empty; names file
      and record.
  """
  _check_choice("on_bad_record", on_bad_record, OnBadRecord)
  _check_choice("verify", verify, Verify)
  directory = Path(directory)
  manifest = plan_lib.read_manifest(directory)
  if manifest.quarantined:
    logging.warning(
      "dataset %s lacks %d of its %d shards, which are in quarantine or were not made "
      "in time: %s; run its collection again to make them",
      directory,
      len(manifest.quarantined),
      manifest.plan.num_shards,
      ", ".join(manifest.quarantined[:10]),
    )
  broken: list[str] = []

  def report(problem: str) -> None:
    if on_bad_record == "fail":
      raise plan_lib.DatasetError(
        f"{problem}; find all that is broken with python -m experiments.check_data "
        f"--data={directory} (with --quarantine it is moved away, and the collection "
        "makes it again), or go on without it: --on_bad_record=skip"
      )
    logging.warning("left out: %s", problem)
    broken.append(problem)

  table = None if verify != "index" else _read_index(directory, manifest)
  if table is not None:
    rows, table = _trust(directory, manifest, table, report)
  else:
    rows, table = _scan(directory, manifest, verify, report)
  if not len(rows):
    raise plan_lib.DatasetError(
      f"the dataset in {directory} has no readable attempt; collect it again"
    )
  if broken:
    logging.warning("%s: %d things were left out", directory, len(broken))
  return Dataset(
    shards_lib.Records([directory / shard.file for shard in manifest.shards], rows),
    table,
    frame_size=manifest.plan.frame_size,
    checksums=[shard.sha256 for shard in manifest.shards],
    broken=broken,
    on_bad_record=on_bad_record,
  )


def merge(datasets: Sequence[Dataset]) -> Dataset:
  """Joins datasets, one after the other; `Dataset.part` tells them apart.

  Raises:
    DatasetError: there is none, their frames differ in size, or an attempt is in them
      twice.
  """
  if not datasets:
    raise plan_lib.DatasetError("no dataset to merge, expected at least one")
  sizes = sorted({dataset.frame_size for dataset in datasets})
  if len(sizes) > 1:
    raise plan_lib.DatasetError(
      f"the datasets have frames of {sizes} pixels, expected one size; merge datasets "
      "of one preset"
    )
  shards_before = np.cumsum([0] + [len(dataset.records.paths) for dataset in datasets])
  parts_before = np.cumsum([0] + [dataset.num_parts for dataset in datasets])
  rows = [
    dataset.records.rows + [before, 0]
    for dataset, before in zip(datasets, shards_before, strict=False)
  ]
  parts = [
    dataset.part + np.int32(before)
    for dataset, before in zip(datasets, parts_before, strict=False)
  ]
  attempts = attempts_lib.join([dataset.attempts for dataset in datasets])
  part = np.concatenate(parts)
  if len(datasets) > 1:  # Within one there are none: it could not be finished.
    _refuse_repeated(attempts, part)
  skips = any(dataset.on_bad_record == "skip" for dataset in datasets)
  return Dataset(
    shards_lib.Records(
      [path for dataset in datasets for path in dataset.records.paths],
      np.concatenate(rows),
    ),
    attempts,
    frame_size=sizes[0],
    checksums=[checksum for dataset in datasets for checksum in dataset._checksums],
    part=part,
    num_parts=int(parts_before[-1]),
    broken=[line for dataset in datasets for line in dataset.broken],
    on_bad_record="skip" if skips else "fail",
  )


def _refuse_repeated(attempts: Attempts, part: np.ndarray) -> None:
  again, first = attempts_lib.duplicates(attempts)
  if len(again):
    raise plan_lib.DatasetError(
      f"{len(again)} attempts of the datasets to merge are there twice, as the same "
      "unit, seeds and policy tell; the first of them is of dataset "
      f"{part[first[0]]} and again of dataset {part[again[0]]}, counted from 0. Name "
      "each dataset once, or collect with another seed or --round"
    )


def _check_choice(name: str, value: str, choices: object) -> None:
  if value not in get_args(choices):
    raise ValueError(f"{name} is {value!r}, expected one of {get_args(choices)}")


def _read_index(directory: Path, manifest: plan_lib.Manifest) -> Attempts | None:
  """Returns the table of all attempts, None if the records must be read instead."""
  if manifest.index is None:
    logging.info("%s has no index: every record is read", directory)
    return None
  try:
    table = index_lib.read(plan_lib.dataset_index(directory), manifest.index)
  except plan_lib.DatasetError as error:
    logging.warning(
      "%s; every record is read instead. Run the collection again, or python -m "
      "experiments.check_data --quarantine, to repair it",
      error,
    )
    return None
  if len(table) != manifest.num_attempts:
    logging.warning(
      "the index of %s has %d attempts, expected %d; every record is read instead",
      directory,
      len(table),
      manifest.num_attempts,
    )
    return None
  return table


def _trust(
  directory: Path,
  manifest: plan_lib.Manifest,
  table: Attempts,
  report: Callable[[str], None],
) -> tuple[np.ndarray, Attempts]:
  """Returns rows and table without those of shards that are missing or cut."""
  counts = np.array([shard.num_attempts for shard in manifest.shards], np.int64)
  number = np.repeat(np.arange(len(counts)), counts)
  row = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
  rows = np.stack([number, row], axis=1)
  bad = []
  for i, shard in enumerate(manifest.shards):
    if problem := shards_lib.size_problem(directory / shard.file, shard):
      report(problem)
      bad.append(i)
  if not bad:
    return rows, table
  kept = np.flatnonzero(~np.isin(number, bad))
  return rows[kept], table.take(kept)


def _scan(
  directory: Path,
  manifest: plan_lib.Manifest,
  verify: Verify,
  report: Callable[[str], None],
) -> tuple[np.ndarray, Attempts]:
  """Returns rows and table of the sound records, by reading all of them."""
  rows: list[tuple[int, int]] = []
  tables = [attempts_lib.tabulate([])]
  for number, shard in enumerate(manifest.shards):
    path = directory / shard.file
    problem = shards_lib.size_problem(path, shard)
    if not problem and verify == "checksums":
      problem = shards_lib.checksum_problem(path, shard)
    if problem := problem or shards_lib.count_problem(path, shard):
      report(problem)
      continue
    found = list(
      shards_lib.scan(
        path,
        lambda row, why, path=path: report(f"record {row} of {path} is broken: {why}"),  # type: ignore[misc]
        shards_lib.without_images,
      )
    )
    rows += [(number, row) for row, _ in found]
    # A shard at a time: what was decoded takes many times the room of the table.
    tables.append(attempts_lib.tabulate([content for _, content in found]))
  return np.array(rows, np.int64).reshape(-1, 2), attempts_lib.join(tables)
