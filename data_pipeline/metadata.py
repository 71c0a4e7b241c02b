"""The files that make a folder of shards a TFDS dataset, written without TensorFlow."""

import json
import shutil
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds

from data_pipeline import files, records
from data_pipeline import plan as plan_lib

FEATURES_FILE, INFO_FILE = "features.json", "dataset_info.json"

_STAGING = ".tmp-tfds-"


def write(directory: Path, manifest: plan_lib.Manifest) -> None:
  """Writes features.json and dataset_info.json.

  A shard in quarantine is described as an empty one: TFDS does not open it.

  Args:
    directory: the dataset's folder; no other process may do the same meanwhile.
    manifest: what the dataset consists of.

  Raises:
    OSError: the folder cannot be written.
  """
  plan = manifest.plan
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity(
      name=plan.name,
      version=tfds.core.Version(plan.version),
      data_dir=str(directory),
      module_name="",
    ),
    features=records.features(plan.frame_size),
    description="Grasp attempts, one RLDS episode an attempt.",
  )
  info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
  split = tfds.core.SplitInfo(
    name=plan_lib.SPLIT,
    shard_lengths=shard_lengths(manifest),
    num_bytes=manifest.num_bytes,
    filename_template=tfds.core.ShardedFileTemplate(
      data_dir=directory,
      dataset_name=plan.name,
      split=plan_lib.SPLIT,
      filetype_suffix="array_record",
    ),
  )
  info.set_splits(tfds.core.splits.SplitDict([split]))
  for leftover in directory.glob(f"{_STAGING}*"):
    shutil.rmtree(leftover, ignore_errors=True)
  # TFDS writes in place; each file is moved only when it is whole.
  with tempfile.TemporaryDirectory(prefix=_STAGING, dir=directory) as staging:
    info.write_to_directory(staging)
    for path in sorted(Path(staging).iterdir()):
      files.write_whole(directory / path.name, path.read_bytes())


def shard_lengths(manifest: plan_lib.Manifest) -> list[int]:
  """Returns the attempts of each planned shard; 0 of one in quarantine."""
  plan = manifest.plan
  lengths = {shard.file: shard.num_attempts for shard in manifest.shards}
  return [lengths.get(plan.shard_file(i), 0) for i in range(plan.num_shards)]


def read_shard_lengths(directory: Path) -> list[int]:
  """Returns the number of attempts of each shard in the TFDS metadata.

  Raises:
    OSError: dataset_info.json is missing.
    ValueError, KeyError, TypeError: it is damaged.
  """
  content = json.loads((directory / INFO_FILE).read_bytes())
  (lengths,) = (
    split["shardLengths"]
    for split in content["splits"]
    if split["name"] == plan_lib.SPLIT
  )
  return [int(length) for length in lengths]
