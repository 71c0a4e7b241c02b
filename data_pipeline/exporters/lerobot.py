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

LeRobot 0.6.1 reads, edits and trains on it, see
tests/data_pipeline/test_lerobot_itself.py.
"""

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
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
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
  """Writes a dataset in LeRobot's layout; it gets its name when it is complete.

  Args:
    dataset: what to write. Attempts that are broken, a single image too, are left out
      and logged where it says so (`on_bad_record`).
    out: a folder that does not exist.
    fps: steps a second to be claimed.
    advance: called after each batch with its number of attempts.

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
  stats = _new_stats()
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
      values = numbers | {
        PREGRASP: np.repeat(record["pregrasp_image"][None], len(record["images"]), 0),
        IMAGE: record["images"],
      }
      for name, one in values.items():
        stats[name].add(one)
      rows.append(_episode_row(record, values, num_frames))
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
  record: dict[str, Any], values: dict[str, np.ndarray], first: int
) -> dict[str, Any]:
  row: dict[str, Any] = {
    "episode_index": int(values["episode_index"][0]),
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
  # LeRobot makes the statistics of a part from those of its episodes.
  for name, stats in _new_stats().items():
    stats.add(values[name])
    row |= {f"stats/{name}/{key}": value for key, value in stats.result().items()}
  return row


def _new_stats() -> dict[str, "_Numbers | _Pixels"]:
  images: dict[str, _Numbers | _Pixels] = {PREGRASP: _Pixels(), IMAGE: _Pixels()}
  return images | {name: _Numbers() for name in _NUMBERS}


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


class _Numbers:
  """Statistics of rows of numbers that come in parts."""

  def __init__(self) -> None:
    self._parts: list[np.ndarray] = []

  def add(self, values: np.ndarray) -> None:
    """Takes rows [N] or [N, D]."""
    self._parts.append(values.reshape(len(values), -1))

  def result(self) -> dict[str, Any]:
    rows = np.concatenate(self._parts).astype(np.float64)
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    found = {
      "min": rows.min(axis=0),
      "max": rows.max(axis=0),
      "mean": rows.mean(axis=0),
      "std": rows.std(axis=0),
      **dict(zip(QUANTILES, quantiles, strict=True)),
    }
    return {key: value.tolist() for key, value in found.items()} | {
      "count": [len(rows)]
    }


class _Pixels:
  """Statistics of the channels of images, 0 to 1, each [3, 1, 1] as LeRobot has it.

  Of every _EVERY-th pixel, exactly: a channel has 256 levels.
  """

  def __init__(self) -> None:
    self._levels = np.zeros((3, 256), np.int64)
    self._images = 0

  def add(self, images: np.ndarray) -> None:
    """Takes images uint8[N, H, W, 3]."""
    self._images += len(images)
    for channel in range(3):
      pixels = images[:, ::_EVERY, ::_EVERY, channel].reshape(-1)
      self._levels[channel] += np.bincount(pixels, minlength=256)

  def result(self) -> dict[str, Any]:
    counts, level = self._levels, np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ level / total
    variance = counts @ level**2 / total - mean**2
    below = np.cumsum(counts, axis=1) / total[:, None]  # [3, 256]
    present = counts > 0
    found = {
      "min": level[present.argmax(axis=1)],
      "max": level[255 - present[:, ::-1].argmax(axis=1)],
      "mean": mean,
      "std": np.sqrt(np.maximum(variance, 0)),
      **{
        name: level[(below < share).sum(axis=1).clip(max=255)]
        for name, share in QUANTILES.items()
      },
    }
    return {key: value.reshape(3, 1, 1).tolist() for key, value in found.items()} | {
      "count": [self._images]
    }


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
