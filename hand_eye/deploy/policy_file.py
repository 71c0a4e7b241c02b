"""The container of an exported policy: a zip archive whose every byte is checked.

  manifest.json   format, network, servo, limits, versions, checksums of everything
  weights.npz     what `network.Predictor.prepare` made of the weights, by path
  whole.bin       the decision function, from `jax.export`, for cpu, cuda and tpu
  begin.bin encode.bin propose.bin score.bin update.bin finish.bin
                  its parts, for deadlines and engines: those of `servo.Servo`
  golden.npz      an input and the answer to it, checked when the file is loaded

JAX promises that releases up to six months newer can read the functions. After that, a
file is exported again from itself, which needs its weights alone. Nothing is pickled,
and reading executes nothing.
"""

import hashlib
import io
import json
import math
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from hand_eye import constraints

# 1: the whole decision alone. 2: with its parts, constraints and limits of a step.
# 3: other parts, the same with and without an engine.
FORMAT = 3
SAME_WEIGHTS = 2  # since this format; such a file can be exported again from itself
PLATFORMS = ("cpu", "cuda", "tpu")
WHOLE = "whole"
PARTS = ("begin", "encode", "propose", "score", "update", "finish")
_LARGEST = 2**31  # bytes of a member: the paper's network is 5 MB


class PolicyFileError(Exception):
  """A policy file is missing, damaged, or not for this program or machine."""


def seal(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> dict[str, Any]:
  """Returns the manifest with checksums: of the members, and of itself without them."""
  checksums = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
  return {**manifest, "sha256": {**checksums, "manifest.json": _digest(manifest)}}


def read(
  path: pathlib.Path, oldest: int = FORMAT
) -> tuple[dict[str, Any], dict[str, bytes]]:
  """Reads and checks a file; returns its manifest and its members by name.

  Args:
    path: of the file.
    oldest: format that will do.

  Raises:
    PolicyFileError: if it is missing, damaged, of another format, or has limits that
      are not finite and positive.
  """
  members = _read_members(path)
  manifest = _read_manifest(path, members, oldest)
  problem = limits_problem(manifest)
  if problem:
    raise PolicyFileError(f"{path} has no usable limits: {problem}. Export it again.")
  return manifest, members


def limits_problem(manifest: Mapping[str, Any]) -> str:
  """Returns what is wrong with the limits of a manifest, '' if nothing is."""
  servo = manifest.get("servo", {})
  for name in ("max_step", "max_turn"):
    value = servo.get(name, 1.0)
    if not (isinstance(value, int | float) and 0 < value < math.inf):
      return f"{name} is {value!r}, expected a finite number > 0"
  workspace = manifest.get("workspace")
  if workspace is not None:
    problem = workspace_problem(workspace.get("low"), workspace.get("high"))
    if problem:
      return problem
  try:
    constraints.from_json(manifest.get("constraints"))
  except ValueError as error:
    return str(error)
  return ""


def workspace_problem(low: Any, high: Any) -> str:
  """Returns what is wrong with the ends of a workspace, '' if nothing is."""
  try:
    ends = np.asarray([low, high], np.float64)
  except (TypeError, ValueError):
    ends = np.zeros(0)
  if ends.shape != (2, 4):
    return f"the workspace from {low!r} to {high!r} is not two poses of four numbers"
  if not (np.all(np.isfinite(ends)) and np.all(ends[0] < ends[1])):
    return (
      f"the workspace from {ends[0].tolist()} to {ends[1].tolist()} is empty or not"
      " finite: each low must be below its high"
    )
  return ""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
  """Returns the arrays of nested dicts by their path, names joined by slashes.

  An empty dict is an empty array whose path ends in a slash.
  """
  flat = {} if tree else {prefix: np.zeros(0, np.float32)}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{name}/"))
    else:
      flat[f"{prefix}{name}"] = np.asarray(value)
  return flat


def unflatten(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Undoes `flatten`."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    *parents, name = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    if name:
      node[name] = value
  return tree


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
  """Reads the bytes of an .npz member."""
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    return dict(arrays)


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Like `np.savez`, but the same bytes for the same arrays: no times in it."""
  members = {}
  for name, array in arrays.items():
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
    members[f"{name}.npy"] = buffer.getvalue()
  return archive(members)


def archive(members: Mapping[str, bytes]) -> bytes:
  """The bytes of a zip archive of members by name."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as file:
    for name, data in members.items():
      file.writestr(zipfile.ZipInfo(name), data)
  return buffer.getvalue()


def again(path: str | pathlib.Path) -> str:
  """The command that exports a policy file again, from the weights in it."""
  return f"python -m experiments.export_policy --checkpoint={path} --out={path}"


def first_line(error: Exception) -> str:
  """Of an error of some library, for a message of ours."""
  lines = str(error).splitlines()
  return lines[0] if lines else type(error).__name__


def _digest(manifest: Mapping[str, Any]) -> str:
  plain = {name: value for name, value in manifest.items() if name != "sha256"}
  return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _read_members(path: pathlib.Path) -> dict[str, bytes]:
  try:
    with zipfile.ZipFile(path) as file:
      for info in file.infolist():
        if info.file_size > _LARGEST:
          raise zipfile.BadZipFile(f"{info.filename} says it has {info.file_size} B")
      return {name: file.read(name) for name in file.namelist()}
  except FileNotFoundError:
    raise PolicyFileError(
      f"no policy file at {path}: export one, or correct the path."
    ) from None
  except OSError as error:
    raise PolicyFileError(f"cannot read {path}: {error.strerror or error}.") from error
  except Exception as error:  # zipfile and zlib have many words for damaged.
    raise PolicyFileError(
      f"{path} is damaged or no policy file ({first_line(error)}): copy it again."
    ) from error


def _read_manifest(
  path: pathlib.Path, members: Mapping[str, bytes], oldest: int
) -> dict[str, Any]:
  try:
    manifest = json.loads(members["manifest.json"])
    found, checksums = manifest["format"], manifest.get("sha256")
  except (KeyError, TypeError, ValueError) as error:
    raise PolicyFileError(
      f"{path} is damaged or no policy file: it has no manifest."
    ) from error
  if found not in range(oldest, FORMAT + 1):
    advice = "export the policy again with this version, or use the one that wrote it."
    if found in range(FORMAT):
      source = f"itself: {again(path)}" if found >= SAME_WEIGHTS else "its checkpoint"
      advice = f"it is older than this program; export it again from {source}."
    raise PolicyFileError(
      f"{path} has format {found!r}, this program reads {FORMAT}: {advice}"
    )
  if not isinstance(checksums, dict):
    raise PolicyFileError(f"{path} is damaged: its manifest has no checksums.")
  for name, checksum in checksums.items():
    if name == "manifest.json":
      found = _digest(manifest)
    else:
      found = hashlib.sha256(members.get(name, b"")).hexdigest()
    if found != checksum:
      raise PolicyFileError(
        f"{path} is damaged: {name} does not match its checksum. Copy it again."
      )
  return manifest
