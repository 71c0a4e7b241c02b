"""A dataset of attempts that were made elsewhere: by a robot, by another program."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipeline import finish, writer
from data_pipeline import plan as plan_lib
from data_pipeline.schema import AttemptRecord, RecordError

# What stands in fields that say where an attempt came from, if they are missing.
_DEFAULTS: Mapping[str, Any] = {
  "policy": "unknown",
  "policy_version": "",
  "round": 0,
  "software": json.dumps({}),
}


def write_dataset(
  root: str | Path,
  name: str,
  attempts: Iterable[Mapping[str, Any]],
  *,
  num_shards: int = 1,
  config: Mapping[str, Any] | None = None,
) -> Path:
  """Writes attempts as a dataset that training, TFDS and every program here read.

  Args:
    root: the folder of datasets.
    name: of the dataset: lower-case letters, digits and underscores.
    attempts: fields of `AttemptRecord`, one attempt at a time in memory. Those that
      only a simulator knows may be missing, and policy, policy_version, round,
      software, attempt_seed (then its number) and attempt_id, too.
    num_shards: files; attempts take turns.
    config: recorded with the dataset, as JSON.

  Returns:
    The dataset's folder, finished.

  Raises:
    RecordError: an attempt breaks the schema; nothing is left of the dataset then.
    DatasetError: there is such a dataset already, there are fewer attempts than
      shards, or the folder cannot be written.
  """
  remaining = iter(attempts)
  first = next(remaining, None)
  if first is None:
    raise plan_lib.DatasetError(f"dataset {name!r}: no attempts, expected at least one")
  if "pregrasp_image" not in first:
    raise RecordError("the first attempt has no pregrasp_image")
  frame_size = len(first["pregrasp_image"])
  plan = plan_lib.Plan(name, num_shards, frame_size, dict(config or {}))
  directory = plan_lib.begin(root, plan)
  if len(writer.pending_shards(directory)) < num_shards:
    raise plan_lib.DatasetError(
      f"{directory} holds attempts already; choose another name or folder"
    )
  with contextlib.ExitStack() as stack:
    shards = [
      stack.enter_context(writer.ShardWriter(directory, shard))
      for shard in range(num_shards)
    ]
    shards[0].write(_named(first, 0))
    for number, attempt in enumerate(remaining, 1):
      shards[number % num_shards].write(_named(attempt, number))
  finish.finalize(directory)
  return directory


def _named(attempt: Mapping[str, Any], number: int) -> AttemptRecord:
  unit = attempt.get("unit", "unit")
  named = {"attempt_seed": number, "attempt_id": f"{unit}-{number:06d}"}
  return {**_DEFAULTS, **named, **attempt}  # type: ignore[typeddict-item]
