"""Checks a whole dataset: every byte, every record, every pixel, and all labels."""

import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import attempts as attempts_lib
from data_pipeline import index as index_lib
from data_pipeline import metadata, records
from data_pipeline import plan as plan_lib
from data_pipeline import shards as shards_lib


@dataclasses.dataclass(frozen=True)
class Problem:
  """Something that is broken.

  Attributes:
    file: where, within the dataset's folder.
    record: its number in the file; None where it is not one record.
    reason: what was found and what was expected.
    shard: number of the shard to make again; None if finishing the dataset again
      repairs it.
  """

  file: str
  record: int | None
  reason: str
  shard: int | None

  def __str__(self) -> str:
    where = self.file if self.record is None else f"{self.file}, record {self.record}"
    return f"{where}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Report:
  """What a check found.

  Attributes:
    num_shards: as planned.
    pending: shards that are not finished, those in quarantine among them.
    num_attempts: records that were read and are sound.
    problems: everything else, in the order of shards and records.
  """

  num_shards: int
  pending: tuple[int, ...]
  num_attempts: int
  problems: tuple[Problem, ...]

  @property
  def broken_shards(self) -> tuple[int, ...]:
    """Shards to make again."""
    return tuple(sorted({p.shard for p in self.problems if p.shard is not None}))


@dataclasses.dataclass
class _Found:
  """What one shard gave: sound records, by row, and problems."""

  shard: int
  problems: list[Problem] = dataclasses.field(default_factory=list)
  rows: list[int] = dataclasses.field(default_factory=list)
  identities: list[bytes] = dataclasses.field(default_factory=list)
  table: attempts_lib.Attempts | None = None


def check_dataset(
  directory: str | Path,
  *,
  num_threads: int = 1,
  on_shard: Callable[[], object] = lambda: None,
) -> Report:
  """Reads everything of a dataset; of an unfinished one, what is finished.

  Checked are sizes and checksums of shards; that every record decodes, its images
  too; all fields (numbers finite, commands of unit length, the last one null); that
  the rewards are those of the label; that no attempt, by (unit, scene_seed,
  attempt_seed) or by attempt_id, occurs twice; that indices, manifest and TFDS metadata
  agree with the records.

  Args:
    directory: `<root>/<name>/<version>`.
    num_threads: shards that are checked at once.
    on_shard: called after each shard.

  Raises:
    DatasetError: there is no dataset, or its plan or manifest cannot be read.
  """
  directory = Path(directory)
  plan = plan_lib.read_plan(directory)
  finished = plan_lib.is_declared_finished(directory)
  manifest = plan_lib.read_manifest(directory) if finished else None

  def check(shard: int) -> _Found | None:
    found = _check_shard(directory, plan, manifest, shard)
    on_shard()
    return found

  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    results = list(pool.map(check, range(plan.num_shards)))
  found = [result for result in results if result is not None]
  problems = [problem for result in found for problem in result.problems]
  problems += _duplicates(plan, found)
  if manifest is not None:
    problems += _dataset_problems(directory, manifest, found)
  return Report(
    num_shards=plan.num_shards,
    pending=tuple(i for i, result in enumerate(results) if result is None),
    num_attempts=sum(len(result.rows) for result in found),
    problems=tuple(problems),
  )


_UNDECLARED = {
  False: "its entry in shards/ and the manifest say different things of it; run the "
  "collection again to declare what its entry says",
  True: "was made again, but the manifest lacks it; run the collection again to "
  "declare it",
}


def _check_shard(
  directory: Path, plan: plan_lib.Plan, manifest: plan_lib.Manifest | None, shard: int
) -> _Found | None:
  """Returns what a shard has, None if it was not made yet or is in quarantine."""
  name = plan.shard_file(shard)
  found = _Found(shard)

  def report(reason: str, record: int | None = None, file: str = name) -> None:
    # Paths in reasons are for those who read one line; here the file is named.
    reason = reason.replace(f"shard {directory / name} ", "")
    found.problems.append(Problem(file, record, reason, shard))

  declared = {s.file: s for s in manifest.shards}.get(name) if manifest else None
  try:
    entry = plan_lib.read_shard(directory, shard)
  except plan_lib.DatasetError as error:
    report(str(error), file=f"shards/{plan_lib.shard_entry(directory, shard).name}")
    return found
  if entry is None and declared is None:
    return None
  if entry is None:
    report("is in the manifest, but its entry in shards/ is missing")
  elif manifest is not None and entry != declared:
    # Where the file fits its entry nothing is lost: finishing again declares it.
    found.problems.append(Problem(name, None, _UNDECLARED[declared is None], None))
  entry = entry or declared
  assert entry is not None
  path = directory / name
  if problem := shards_lib.size_problem(path, entry):
    report(problem)
    return found
  if problem := shards_lib.checksum_problem(path, entry):
    report(problem)
  if problem := shards_lib.count_problem(path, entry):
    report(problem)
    return found
  fields = []
  for row, record in shards_lib.scan(
    path, lambda row, reason: report(reason, row), lambda data: _parse(data, plan)
  ):
    found.rows.append(row)
    found.identities.append(_digest(record["attempt_id"]))
    fields.append(record)
  found.table = attempts_lib.tabulate(fields)
  if entry.index is not None and len(fields) == entry.num_attempts:
    _check_index(directory, shard, entry.index, found)
  return found


def _parse(data: bytes, plan: plan_lib.Plan) -> dict[str, Any]:
  record = records.check(data)
  size = record["pregrasp_image"].shape[0]
  if size != plan.frame_size:
    raise records.RecordError(f"images of {size} pixels, expected {plan.frame_size}")
  # Without the images, so that a shard takes little memory.
  return {name: record[name] for name in (*attempts_lib.FIELDS, "attempt_id")}


def _check_index(
  directory: Path, shard: int, index: plan_lib.Index, found: _Found
) -> None:
  path = plan_lib.shard_index(directory, shard)
  file = f"shards/{path.name}"
  try:
    table = index_lib.read(path, index)
  except plan_lib.DatasetError as error:
    found.problems.append(Problem(file, None, str(error), None))
    return
  assert found.table is not None
  if not attempts_lib.equal(table, found.table):
    reason = "says other things than the records"
    found.problems.append(Problem(file, None, reason, found.shard))


def _duplicates(plan: plan_lib.Plan, found: list[_Found]) -> list[Problem]:
  """Reports each attempt that was there before, in an earlier shard or record."""
  found = [result for result in found if result.table is not None]
  if not found:
    return []
  table = attempts_lib.join([r.table for r in found if r.table is not None])
  shard = np.repeat([r.shard for r in found], [len(r.rows) for r in found])
  row = np.array([row for result in found for row in result.rows], np.int64)
  identities = [identity for result in found for identity in result.identities]
  _, group = np.unique(
    np.frombuffer(b"".join(identities), np.int64), return_inverse=True
  )
  problems: dict[int, Problem] = {}
  for what, (again, first) in (
    ("(unit, scene_seed, attempt_seed)", attempts_lib.duplicates(table)),
    ("attempt_id", attempts_lib.repeated([group])),
  ):
    for i, before in zip(again, first, strict=True):
      reason = (
        f"has the same {what} as record {row[before]} of "
        f"{plan.shard_file(int(shard[before]))}, expected each attempt once"
      )
      number = int(shard[i])
      problems.setdefault(
        int(i), Problem(plan.shard_file(number), int(row[i]), reason, number)
      )
  return [problems[i] for i in sorted(problems)]


def _dataset_problems(
  directory: Path, manifest: plan_lib.Manifest, found: list[_Found]
) -> list[Problem]:
  """Problems of files that describe all shards; finishing again repairs them."""
  problems = []
  for name in (metadata.FEATURES_FILE, metadata.INFO_FILE):
    if not (directory / name).is_file():
      problems.append(Problem(name, None, "is missing: TFDS cannot read this", None))
  if (directory / metadata.INFO_FILE).is_file():
    problems += _length_problems(directory, manifest)
  said = plan_lib.declared_num_attempts(directory)
  if said != manifest.num_attempts:
    reason = (
      f"says {said} attempts, expected {manifest.num_attempts}, as its shards have"
    )
    problems.append(Problem(plan_lib.MANIFEST_FILE, None, reason, None))
  if manifest.index is not None:
    path = plan_lib.dataset_index(directory)
    try:
      table = index_lib.read(path, manifest.index)
    except plan_lib.DatasetError as error:
      problems.append(Problem(path.name, None, str(error), None))
    else:
      problems += _index_problems(path.name, table, manifest, found)
  return problems


def _length_problems(directory: Path, manifest: plan_lib.Manifest) -> list[Problem]:
  expected = metadata.shard_lengths(manifest)
  try:
    lengths = metadata.read_shard_lengths(directory)
  except (ValueError, KeyError, TypeError) as error:
    reason = f"is not what TFDS reads ({error!r})"
  else:
    if lengths == expected:
      return []
    reason = f"gives shards of {lengths} attempts, expected {expected}"
  return [Problem(metadata.INFO_FILE, None, reason, None)]


def _index_problems(
  name: str,
  table: attempts_lib.Attempts,
  manifest: plan_lib.Manifest,
  found: list[_Found],
) -> list[Problem]:
  """Holds the index against the records of the shards that are wholly sound."""
  if len(table) != manifest.num_attempts:
    reason = f"has {len(table)} attempts, expected {manifest.num_attempts}"
    return [Problem(name, None, reason, None)]
  tables = {manifest.plan.shard_file(one.shard): one.table for one in found}
  begin, problems = 0, []
  for shard in manifest.shards:
    rows = np.arange(begin, begin + shard.num_attempts)
    begin += shard.num_attempts
    records_table = tables.get(shard.file)
    if records_table is None or len(records_table) != shard.num_attempts:
      continue
    if not attempts_lib.equal(table.take(rows), records_table):
      reason = f"says other things than the records of {shard.file}"
      problems.append(Problem(name, None, reason, None))
  return problems


def _digest(text: str) -> bytes:
  return hashlib.blake2b(text.encode(), digest_size=8).digest()
