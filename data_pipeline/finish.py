"""Declares a dataset finished, and moves shards that broke since out of its way."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from data_pipeline import attempts as attempts_lib
from data_pipeline import files, metadata, shards, writer
from data_pipeline import index as index_lib
from data_pipeline import plan as plan_lib

_QUARANTINE = "quarantine"


def finalize(directory: str | Path, *, partly: bool = False) -> plan_lib.Manifest:
  """Turns finished shards into a finished dataset that TFDS reads.

  Writes features.json, dataset_info.json and index.npz, then manifest.json. Calling
  it again changes nothing; several processes may call it at once.

  Args:
    directory: the folder that `plan.begin` returned.
    partly: whether the shards that there are will do, where some are missing. The
      collection may make the others later, and finish the dataset again.

  Returns:
    What the dataset consists of.

  Raises:
    DatasetError: shards are missing (or all of them, if `partly`), an attempt is there
      twice, or the folder cannot be written.
  """
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)
  pending = writer.pending_shards(directory)
  if pending and not (partly and len(pending) < plan.num_shards):
    raise plan_lib.DatasetError(
      f"{len(pending)} of {plan.num_shards} shards of {directory} are missing: "
      f"{pending[:10]}{' ...' if len(pending) > 10 else ''}; run the collection again "
      "to make them"
    )
  return _finish(directory, plan, sorted(set(range(plan.num_shards)) - set(pending)))


def quarantine(
  directory: str | Path, broken: Iterable[int]
) -> plan_lib.Manifest | None:
  """Moves shards into the folder `quarantine` and declares the rest the dataset.

  Until the collection has made them again the dataset opens without them, with a
  warning; TFDS sees empty shards in their places.

  Args:
    directory: `<root>/<name>/<version>`.
    broken: numbers of shards; none to repair only what is not a shard (the index).

  Returns:
    What the dataset consists of now; None if it was not finished before.

  Raises:
    DatasetError: the folder cannot be written.
  """
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)
  for shard in sorted(set(broken)):
    # The entry first: from here on the shard counts as missing, even after a crash.
    for path in (
      plan_lib.shard_entry(directory, shard),
      plan_lib.shard_index(directory, shard),
      directory / plan.shard_file(shard),
    ):
      try:
        _move_away(path, directory / _QUARANTINE)
      except OSError as error:
        raise plan_lib.DatasetError(
          f"cannot move {path} into quarantine: {error}; fix that and check again"
        ) from error
  if not plan_lib.is_declared_finished(directory):
    return None
  pending = set(writer.pending_shards(directory))
  return _finish(
    directory, plan, [i for i in range(plan.num_shards) if i not in pending]
  )


def _move_away(path: Path, folder: Path) -> None:
  if not path.exists():
    return
  folder.mkdir(exist_ok=True)
  target, count = folder / path.name, 0
  while target.exists():  # From an earlier quarantine of the same shard.
    count += 1
    target = folder / f"{path.name}.{count}"
  os.replace(path, target)


def _finish(
  directory: Path, plan: plan_lib.Plan, present: Sequence[int]
) -> plan_lib.Manifest:
  missing = sorted(set(range(plan.num_shards)) - set(present))
  try:
    with files.locked(directory / plan_lib.PLAN_FILE):
      # Small files are written with the lock held only, so that all are of the dead.
      for folder in (directory, plan_lib.shard_entry(directory, 0).parent):
        files.remove_temporaries(folder)
      entries, tables = [], [attempts_lib.tabulate([])]
      for shard in present:
        entry, table = _indexed(directory, plan, shard)
        entries.append(entry)
        tables.append(table)
      table = attempts_lib.join(tables)
      _refuse_repeated(directory, entries, table)
      manifest = plan_lib.Manifest(
        plan,
        shards=tuple(entries),
        quarantined=tuple(plan.shard_file(shard) for shard in missing),
        index=index_lib.write(plan_lib.dataset_index(directory), table),
      )
      metadata.write(directory, manifest)
      plan_lib.write_manifest(directory, manifest)
  except OSError as error:
    raise plan_lib.DatasetError(
      f"cannot finish the dataset in {directory}: {error}; fix that and run "
      "the collection again: finished shards are kept"
    ) from error
  return manifest


def _refuse_repeated(
  directory: Path,
  entries: Sequence[plan_lib.Shard],
  table: attempts_lib.Attempts,
) -> None:
  again, first = attempts_lib.duplicates(table)
  if len(again):
    ends = np.cumsum([entry.num_attempts for entry in entries])
    later, earlier = np.searchsorted(ends, [again[0], first[0]], "right")
    raise plan_lib.DatasetError(
      f"{len(again)} attempts of {directory} are there twice, as the same unit, seeds "
      f"and policy tell: the first of them in {entries[later].file} and before in "
      f"{entries[earlier].file}; move the repeated ones away with python -m "
      f"experiments.check_data --data={directory} --quarantine"
    )


def _indexed(
  directory: Path, plan: plan_lib.Plan, shard: int
) -> tuple[plan_lib.Shard, attempts_lib.Attempts]:
  """Returns the entry and the table of a finished shard; makes a missing index.

  Raises:
    DatasetError: the index has to be made and a record is broken.
  """
  entry = plan_lib.read_shard(directory, shard)
  assert entry is not None, "the caller has seen that the shard is finished"
  path = plan_lib.shard_index(directory, shard)
  if entry.index is not None:
    try:
      return entry, index_lib.read(path, entry.index)
    except plan_lib.DatasetError as error:
      logging.warning("%s; it is made again", error)

  shard_path = directory / entry.file

  def report(row: int, reason: str) -> None:
    raise plan_lib.DatasetError(
      f"record {row} of {shard_path} is broken: {reason}; move the shard "
      f"away with python -m experiments.check_data --data={directory} --quarantine"
    )

  found = shards.scan(shard_path, report, shards.without_images)
  table = attempts_lib.tabulate([record for _, record in found])
  index = index_lib.write(path, table)
  entry = plan_lib.Shard(
    entry.file, entry.num_attempts, entry.num_bytes, entry.sha256, index
  )
  plan_lib.write_shard(directory, shard, entry)
  return entry, table
