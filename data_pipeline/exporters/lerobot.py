"""Attempts in LeRobot's dataset layout, version 3.0.

<out>/
  meta/info.json                              what there is, and the features
  meta/stats.json                             of each feature, for normalization
  meta/tasks.parquet                          the one task
  meta/episodes/chunk-000/file-000.parquet    a row an attempt
  data/chunk-000/file-000.parquet, ...        a row a step, images within

The images stay the JPEG files that they are, in Parquet (LeRobot's dtype `image`):
a video would compress them again, and its frames are a step apart, not a moment.

LeRobot wants a time for every frame. Steps have none: step t is given the time t - 1
over `fps`, which only counts steps.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from data_pipeline import plan as plan_lib
from data_pipeline import records, source

VERSION = "v3.0"
TASK = "grasp any object in the bin and lift it"
PREGRASP, IMAGE = "observation.images.pregrasp", "observation.images.camera"

_FILES_PER_CHUNK = 1000
_FILE_MB = 100
_VIDEO_MB = 200  # Named although there is no video.
_EPISODES_AT_ONCE = 32
_EVERY = 4  # Of so many pixels, down and across, one enters the statistics.

_DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"

# Features of a step that are numbers: dtype, and the names of their entries.
_NUMBERS: dict[str, tuple[str, tuple[str, ...] | None]] = {
  "observation.state": ("float32", ("x", "y", "z", "yaw")),
  "action": ("float32", ("dx", "dy", "dz", "sin_dyaw", "cos_dyaw")),
  "next.reward": ("float32", None),
  "next.done": ("bool", None),
  "next.success": ("bool", None),
  "timestamp": ("float32", None),
  "frame_index": ("int64", None),
  "episode_index": ("int64", None),
  "index": ("int64", None),
  "task_index": ("int64", None),
}

_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export(
  dataset: source.Dataset,
  out: str | Path,
  *,
  fps: int = 1,
  advance: Callable[[int], None] = lambda _: None,
) -> Path:
  """Writes a dataset in LeRobot's layout; it appears under its name when it is whole.

  Args:
    dataset: what to write. Attempts that are broken, a single image too, are left out
      and logged where it says so (`on_bad_record`).
    out: a folder that does not exist.
    fps: steps a second to be claimed.
    advance: told after each batch how many attempts it had.

  Returns:
    The folder.

  Raises:
    DatasetError: the folder exists or cannot be written, a record is broken (names
      file and record), or all are.
  """
  out = Path(out)
  if out.exists():
    raise plan_lib.DatasetError(f"{out} exists; name a folder that does not")
  if fps < 1:
    raise plan_lib.DatasetError(f"fps is {fps}, expected at least 1")
  staging = out.with_name(f".tmp-{out.name}-{os.getpid()}")
  try:
    staging.mkdir(parents=True)
    _write(dataset, staging, fps, advance)
    os.replace(staging, out)
  except OSError as error:
    raise plan_lib.DatasetError(f"cannot write {out}: {error}") from error
  finally:
    shutil.rmtree(staging, ignore_errors=True)
  return out


def _write(
  dataset: source.Dataset, folder: Path, fps: int, advance: Callable[[int], None]
) -> None:
  stats = {name: _Stats() for name in (PREGRASP, IMAGE, *_NUMBERS)}
  files, episodes = _DataFiles(folder), _Episodes(folder)
  num_episodes = num_frames = 0
  for begin in range(0, len(dataset), _EPISODES_AT_ONCE):
    attempts = range(begin, min(begin + _EPISODES_AT_ONCE, len(dataset)))
    tables, rows = [], []
    for attempt in attempts:
      try:
        record = dataset.decoded(attempt, images=True)
      except plan_lib.DatasetError as error:
        if dataset.on_bad_record == "fail":
          raise
        logging.warning("left out: %s", error)
        continue
      numbers = _numbers(record, num_episodes, num_frames, fps)
      tables.append(_table(numbers, records.jpegs(dataset[attempt])))
      for name, values in numbers.items():
        stats[name].add(values)
      stats[PREGRASP].add(_some_pixels(record["pregrasp_image"]))
      stats[IMAGE].add(_some_pixels(record["images"]))
      rows.append(_episode_row(record, numbers, num_frames))
      num_episodes += 1
      num_frames += len(record["poses"])
    if rows:
      place = files.write(pa.concat_tables(tables))
      episodes.write([row | place for row in rows])
    advance(len(attempts))
  if not num_episodes:
    raise plan_lib.DatasetError(
      f"all of {len(dataset)} attempts are broken, expected at least one to export"
    )
  files.close()
  episodes.close()
  _write_tasks(folder)
  all_stats = {name: one.result() for name, one in stats.items()}
  for name in (PREGRASP, IMAGE):
    all_stats[name] = {
      key: value if key == "count" else [[[channel]] for channel in value]
      for key, value in all_stats[name].items()
    }  # Of channels from 0 to 1, [3, 1, 1] as LeRobot has them.
  _write_json(folder / "meta/stats.json", all_stats)
  info = _info(dataset.frame_size, num_episodes, num_frames, fps)
  _write_json(folder / "meta/info.json", info)


def _numbers(
  record: dict[str, Any], episode: int, first: int, fps: int
) -> dict[str, np.ndarray]:
  """The features of the T steps of an attempt, [T] or [T, D]."""
  num_steps = len(record["poses"])
  frame = np.arange(num_steps)
  last = frame == num_steps - 1
  values = {
    "observation.state": record["poses"],
    "action": record["commands"],
    "next.reward": last * float(record["success"]),
    "next.done": last,
    "next.success": last & record["success"],
    "timestamp": frame / fps,
    "frame_index": frame,
    "episode_index": np.full(num_steps, episode),
    "index": first + frame,
    "task_index": np.zeros(num_steps),
  }
  return {name: values[name].astype(dtype) for name, (dtype, _) in _NUMBERS.items()}


def _table(numbers: dict[str, np.ndarray], jpegs: list[bytes]) -> pa.Table:
  """Rows of steps. Each has the pregrasp image too, so that it stands by itself."""

  def images(encoded: list[bytes]) -> pa.Array:
    return pa.array([{"bytes": one, "path": None} for one in encoded], _IMAGE_TYPE)

  pregrasp, *steps = jpegs
  columns = {PREGRASP: images([pregrasp] * len(steps)), IMAGE: images(steps)}
  for name, values in numbers.items():
    flat = pa.array(values.reshape(-1))
    width = values.shape[1] if values.ndim == 2 else 0
    columns[name] = pa.FixedSizeListArray.from_arrays(flat, width) if width else flat
  return pa.table(columns)


def _episode_row(
  record: dict[str, Any], numbers: dict[str, np.ndarray], first: int
) -> dict[str, Any]:
  row: dict[str, Any] = {
    "episode_index": int(numbers["episode_index"][0]),
    "tasks": [TASK],
    "length": len(record["poses"]),
    "dataset_from_index": first,
    "dataset_to_index": first + len(record["poses"]),
    "meta/episodes/chunk_index": 0,
    "meta/episodes/file_index": 0,
  }
  # What LeRobot has no name for, for those who want to choose attempts by it.
  row |= {
    name: record[name]
    for name in ("attempt_id", "unit", "policy", "round", "success", "grasped")
  }
  for name, values in numbers.items():
    stats = _Stats()
    stats.add(values)
    row |= {f"stats/{name}/{key}": value for key, value in stats.result().items()}
  return row


class _DataFiles:
  """Files of steps; the next is begun where one has grown large enough."""

  def __init__(self, folder: Path):
    self._folder = folder
    self._number = 0
    self._bytes = 0
    self._writer: pq.ParquetWriter | None = None

  def write(self, table: pa.Table) -> dict[str, int]:
    """Writes rows; returns the columns that say where they are."""
    if self._bytes and self._bytes + table.nbytes > _FILE_MB * 2**20:
      self.close()
      self._number, self._bytes = self._number + 1, 0
    chunk, file = divmod(self._number, _FILES_PER_CHUNK)
    if self._writer is None:
      path = self._folder / _DATA_PATH.format(chunk_index=chunk, file_index=file)
      path.parent.mkdir(parents=True, exist_ok=True)
      self._writer = pq.ParquetWriter(path, table.schema, compression="snappy")
    self._writer.write_table(table)
    self._bytes += table.nbytes
    return {"data/chunk_index": chunk, "data/file_index": file}

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()
      self._writer = None


class _Episodes:
  """The file of attempts."""

  def __init__(self, folder: Path):
    self._path = folder / _EPISODES_PATH
    self._path.parent.mkdir(parents=True)
    self._writer: pq.ParquetWriter | None = None

  def write(self, rows: list[dict[str, Any]]) -> None:
    if self._writer is None:
      schema = pa.Table.from_pylist(rows).schema
      self._writer = pq.ParquetWriter(self._path, schema, compression="snappy")
    self._writer.write_table(pa.Table.from_pylist(rows, self._writer.schema))

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


@dataclasses.dataclass
class _Stats:
  """Minimum, maximum, mean and deviation of rows that come in parts."""

  count: int = 0
  total: Any = 0.0
  squares: Any = 0.0
  low: Any = np.inf
  high: Any = -np.inf

  def add(self, values: np.ndarray) -> None:
    """Takes rows [N] or [N, D]."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    self.count += len(rows)
    self.total = self.total + rows.sum(axis=0)
    self.squares = self.squares + np.square(rows).sum(axis=0)
    self.low = np.minimum(self.low, rows.min(axis=0))
    self.high = np.maximum(self.high, rows.max(axis=0))

  def result(self) -> dict[str, Any]:
    mean = self.total / self.count
    variance = np.maximum(self.squares / self.count - np.square(mean), 0)
    return {
      "min": self.low.tolist(),
      "max": self.high.tolist(),
      "mean": mean.tolist(),
      "std": np.sqrt(variance).tolist(),
      "count": [self.count],
    }


def _some_pixels(images: np.ndarray) -> np.ndarray:
  """Some pixels of images [..., H, W, 3], [N, 3] from 0 to 1."""
  return images[..., ::_EVERY, ::_EVERY, :].reshape(-1, 3) / 255


def _write_tasks(folder: Path) -> None:
  table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [TASK]})
  # LeRobot looks tasks up by a pandas index, which Parquet keeps in its metadata.
  columns = [
    {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype,
     "metadata": None}
    for name, kind, dtype in (
      ("task_index", "int64", "int64"), ("task", "unicode", "object")
    )
  ]  # fmt: skip
  pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
  table = table.replace_schema_metadata({"pandas": json.dumps(pandas)})
  pq.write_table(table, folder / "meta/tasks.parquet")


def _info(size: int, num_episodes: int, num_frames: int, fps: int) -> dict[str, Any]:
  image = {
    "dtype": "image",
    "shape": [size, size, 3],
    "names": ["height", "width", "channels"],
  }
  numbers = {
    name: {
      "dtype": dtype,
      "shape": [len(names) if names else 1],
      "names": list(names) if names else None,
    }
    for name, (dtype, names) in _NUMBERS.items()
  }
  return {
    "codebase_version": VERSION,
    "robot_type": "hand_eye",
    "total_episodes": num_episodes,
    "total_frames": num_frames,
    "total_tasks": 1,
    "chunks_size": _FILES_PER_CHUNK,
    "data_files_size_in_mb": _FILE_MB,
    "video_files_size_in_mb": _VIDEO_MB,
    "fps": fps,
    "splits": {"train": f"0:{num_episodes}"},
    "data_path": _DATA_PATH,
    "video_path": None,
    "features": {PREGRASP: image, IMAGE: image, **numbers},
  }


def _write_json(path: Path, content: Any) -> None:
  path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
