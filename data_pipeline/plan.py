"""What a dataset will be, and where its files lie.

<root>/<name>/<version>/
  plan.json              written first: what is collected, in how many shards
  <name>-train.array_record-00000-of-00012
  shards/00000.index.npz the table of its attempts, see index.py
  shards/00000.json      written last for each shard: it is finished
  features.json          TFDS: the schema
  dataset_info.json      TFDS: the split and its shard lengths
  index.npz              the table of all attempts
  manifest.json          written last of all: the dataset is finished
  quarantine/            shards that a check found broken, see finish.py
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline import files, records
from data_pipeline.schema import READ_VERSIONS

# Every dataset has this one split; held-out data is a dataset of its own.
SPLIT = "train"

PLAN_FILE = "plan.json"
MANIFEST_FILE = "manifest.json"


class DatasetError(RuntimeError):
  """A dataset is missing, broken, unfinished, or not the one that was asked for."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a dataset will be; fixed before the first attempt is made.

  Attributes:
    name: lower-case identifier, as TFDS wants it.
    num_shards: how many files the attempts are spread over.
    frame_size: height and width of every image, pixels.
    config: what decides the attempts (units, seeds, policy, versions, ...), as
      JSON. A collection can be resumed with an equal config only.
    version: three numbers with dots between them, as TFDS wants it.
    schema_version: of the records, see records.SCHEMA_VERSION.
  """

  name: str
  num_shards: int
  frame_size: int
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  version: str = "1.0.0"
  schema_version: int = records.SCHEMA_VERSION

  def __post_init__(self) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
      raise DatasetError(
        f"a dataset cannot have the name {self.name!r}: expected lower-case letters, "
        "digits and underscores, a letter first"
      )
    if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
      raise DatasetError(
        f"dataset {self.name!r} has version {self.version!r}, expected three numbers "
        "as in '1.0.0'"
      )
    if self.num_shards < 1 or self.frame_size < 1:
      raise DatasetError(
        f"dataset {self.name!r} has num_shards={self.num_shards} and "
        f"frame_size={self.frame_size}, expected both to be at least 1"
      )

  def shard_file(self, shard: int) -> str:
    """Returns the file name of shard 0..num_shards-1, as TFDS expects it."""
    return f"{self.name}-{SPLIT}.array_record-{shard:05d}-of-{self.num_shards:05d}"

  def to_json(self) -> dict[str, Any]:
    """Returns the plan as plain JSON values."""
    # There and back, so that tuples and lists compare equal.
    return json.loads(json.dumps(dataclasses.asdict(self), sort_keys=True))


@dataclasses.dataclass(frozen=True)
class Index:
  """The size of an index file, and its sha256, hexadecimal."""

  num_bytes: int
  sha256: str


@dataclasses.dataclass(frozen=True)
class Shard:
  """One finished file of attempts.

  Attributes:
    file: name within the dataset's folder.
    num_attempts: records in the file.
    num_bytes: size of the file.
    sha256: of the file, hexadecimal.
    index: of its table of attempts; None where an older program wrote the shard.
  """

  file: str
  num_attempts: int
  num_bytes: int
  sha256: str
  index: Index | None = None


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a finished dataset consists of.

  Attributes:
    plan: what was to be collected.
    shards: what there is, in order, without those in quarantine.
    quarantined: file names of the shards that are missing: a check moved them away, or
      there was no time to make them.
    index: of the table of all attempts; None where an older program finished it.
  """

  plan: Plan
  shards: tuple[Shard, ...]
  quarantined: tuple[str, ...] = ()
  index: Index | None = None

  @property
  def num_attempts(self) -> int:
    return sum(shard.num_attempts for shard in self.shards)

  @property
  def num_bytes(self) -> int:
    return sum(shard.num_bytes for shard in self.shards)


def begin(root: str | Path, plan: Plan) -> Path:
  """Makes the folder of a dataset, or finds it again to go on with it.

  Args:
    root: the folder that holds datasets.
    plan: what is to be collected.

  Returns:
    `<root>/<name>/<version>`, with the plan in it.

  Raises:
    DatasetError: the folder holds a dataset with another plan, or cannot be
      written.
  """
  directory = Path(root) / plan.name / plan.version
  path = directory / PLAN_FILE
  if path.exists():
    _check_same(path, _read_json(path), plan.to_json())
    return directory
  try:
    shard_entry(directory, 0).parent.mkdir(parents=True, exist_ok=True)
    files.write_first(path, _json_bytes(plan.to_json()))
  except OSError as error:
    raise DatasetError(
      f"cannot make the dataset folder {directory}: {error.strerror}; choose a "
      "folder that can be written"
    ) from error
  # Another process may have begun it meanwhile.
  _check_same(path, _read_json(path), plan.to_json())
  return directory


def read_plan(directory: str | Path) -> Plan:
  """Reads the plan of a dataset that was begun.

  Raises:
    DatasetError: there is none, or it is of another schema version.
  """
  path = Path(directory) / PLAN_FILE
  if not path.exists():
    raise DatasetError(
      f"no dataset was begun in {directory}: {PLAN_FILE} is missing; expected the "
      "folder <name>/<version> of a dataset"
    )
  return _to_plan(path, _read_json(path))


def read_manifest(directory: str | Path) -> Manifest:
  """Reads what a finished dataset consists of.

  Raises:
    DatasetError: the dataset is missing, not finished, or of another schema
      version.
  """
  directory = Path(directory)
  path = directory / MANIFEST_FILE
  if path.exists():
    content = _read_json(path)
    try:
      return Manifest(
        plan=_to_plan(path, content["plan"]),
        shards=tuple(_to_shard(shard) for shard in content["shards"]),
        quarantined=tuple(content.get("quarantined", ())),
        index=Index(**content["index"]) if content.get("index") else None,
      )
    except (KeyError, TypeError, AttributeError) as error:
      raise DatasetError(
        f"{path} is not a manifest of this program ({error}); collect the dataset "
        "again, which keeps its finished shards"
      ) from error
  if (directory / PLAN_FILE).exists():
    raise DatasetError(
      f"the dataset in {directory} is not finished: {MANIFEST_FILE} is missing; run "
      "its collection again with the same configuration to go on with it"
    )
  raise DatasetError(
    f"no dataset in {directory}: {MANIFEST_FILE} is missing; expected the folder "
    "<name>/<version> of a collected dataset"
  )


def declared_num_attempts(directory: Path) -> int | None:
  """Returns how many attempts the manifest says there are; nothing here relies on it.

  Raises:
    DatasetError: the manifest cannot be read.
  """
  return _read_json(directory / MANIFEST_FILE).get("num_attempts")


def is_declared_finished(directory: Path) -> bool:
  """Returns whether there is a manifest."""
  return (directory / MANIFEST_FILE).exists()


def write_manifest(directory: Path, manifest: Manifest) -> None:
  """Writes the manifest, which declares the dataset finished.

  Raises:
    OSError: the folder cannot be written.
  """
  content = {
    "num_attempts": manifest.num_attempts,
    "plan": manifest.plan.to_json(),
    "shards": [dataclasses.asdict(shard) for shard in manifest.shards],
    "quarantined": list(manifest.quarantined),
    "index": dataclasses.asdict(manifest.index) if manifest.index else None,
  }
  files.write_whole(directory / MANIFEST_FILE, _json_bytes(content))


def shard_entry(directory: Path, shard: int) -> Path:
  """Returns the file whose presence says that a shard is finished."""
  return directory / "shards" / f"{shard:05d}.json"


def shard_index(directory: Path, shard: int) -> Path:
  """Returns the file with the table of a shard's attempts."""
  return directory / "shards" / f"{shard:05d}.index.npz"


def dataset_index(directory: Path) -> Path:
  """Returns the file with the table of all attempts."""
  return directory / "index.npz"


def read_shard(directory: Path, shard: int) -> Shard | None:
  """Returns what is known of a shard, or None as long as it is not finished.

  Raises:
    DatasetError: its entry is damaged.
  """
  path = shard_entry(directory, shard)
  if not path.exists():
    return None
  try:
    return _to_shard(_read_json(path))
  except (KeyError, TypeError) as error:
    raise DatasetError(
      f"{path} is not the entry of a shard ({error}); remove the file and run the "
      "collection again, which makes that shard again"
    ) from error


def write_shard(directory: Path, shard: int, content: Shard) -> None:
  """Declares a shard finished.

  Raises:
    OSError: the folder cannot be written.
  """
  data = _json_bytes(dataclasses.asdict(content))
  files.write_whole(shard_entry(directory, shard), data)


def _to_shard(content: dict[str, Any]) -> Shard:
  index = content.pop("index", None)
  return Shard(**content, index=Index(**index) if index else None)


def _to_plan(path: Path, content: dict[str, Any]) -> Plan:
  found = content.get("schema_version")
  if found not in READ_VERSIONS:
    if isinstance(found, int) and found > records.SCHEMA_VERSION:
      remedy = "it was written by a newer version of the program: install that one"
    else:
      remedy = (
        "it was written by an older version of the program: read it with that one, or "
        "collect the dataset again"
      )
    raise DatasetError(
      f"{path} is of schema version {found}, this program reads versions "
      f"{' and '.join(map(str, READ_VERSIONS))}; {remedy}"
    )
  try:
    return Plan(**content)
  except TypeError as error:
    raise DatasetError(f"{path} is not a plan of this program: {error}") from error


def _check_same(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
  found, expected = _flatten(found), _flatten(expected)
  different = [
    f"{key} is {found.get(key)!r} there and {expected.get(key)!r} here"
    for key in sorted(found.keys() | expected.keys())
    if found.get(key) != expected.get(key)
  ]
  if different:
    raise DatasetError(
      f"{path} was begun with another configuration: {'; '.join(different)}; go on "
      "with the same configuration, or choose another folder"
    )


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    nested = isinstance(value, Mapping) and value
    flat |= _flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
  return flat


def _read_json(path: Path) -> dict[str, Any]:
  remedy = (
    "remove the file and run the collection again, which keeps the finished shards"
  )
  try:
    content = json.loads(path.read_bytes())
  except ValueError as error:
    raise DatasetError(f"{path} is not readable JSON ({error}); {remedy}") from error
  if not isinstance(content, dict):
    raise DatasetError(
      f"{path} holds {str(content)[:40]!r}, expected a JSON object; {remedy}"
    )
  return content


def _json_bytes(content: Any) -> bytes:
  return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
