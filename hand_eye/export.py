"""Writes a trained policy into one file, that `runtime.load_policy` runs.

The file is self-contained: weights, the compiled-anywhere decision function, limits,
and an input with its answer. `runtime` says what is in it.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from hand_eye import checkpoint, commands, network, runtime, servo
from hand_eye.runtime import LoadedPolicy, PolicyFileError, load_policy, read_manifest

__all__ = [
  "LoadedPolicy",
  "PolicyFileError",
  "load_policy",
  "read_manifest",
  "write_policy",
]

EXPIRY = (
  "decision.bin is promised readable by releases of JAX up to six months newer than the"
  " one that wrote it. After that, export again from the checkpoint."
)


def write_policy(
  path: str | pathlib.Path,
  weights: checkpoint.PolicyWeights,
  config: servo.ServoConfig | None = None,
  *,
  workspace: commands.Workspace | None = None,
  platforms: tuple[str, ...] = runtime.PLATFORMS,
  about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Exports a policy, tests the file, and puts it at `path` when it is whole.

  Args:
    path: of the file; replaced if there.
    weights: from `checkpoint.load_policy`.
    config: thresholds and sizes of the search.
    workspace: poses that this policy may ever send the gripper to. If absent, each
      observation must bring its own.
    platforms: devices to export for, of cpu, cuda and tpu.
    about: JSON-able words on where the weights come from, kept in the manifest.

  Returns:
    The manifest.

  Raises:
    PolicyFileError: if `path` cannot be written, or the file fails its self-test.
    ValueError: for a workspace that is empty or not finite.
  """
  config = config or servo.ServoConfig()
  path = pathlib.Path(path)
  limits = _limits(workspace)
  predictor = network.build_predictor(weights.config)
  array_fn = jax.jit(servo.make_array_fn(predictor, config))
  tree = {"params": weights.params, "batch_stats": weights.batch_stats}
  inputs = _golden_inputs(weights.config)
  arguments = [inputs[name] for name in runtime.INPUTS]

  with _no_source_locations():
    exported = jax_export.export(array_fn, platforms=platforms)(tree, *arguments)
  answer = jax.device_get(array_fn(tree, *arguments))
  golden = {f"input/{name}": value for name, value in inputs.items()}
  golden |= {f"output/{name}": np.asarray(value) for name, value in answer.items()}
  members = {
    "weights.npz": _npz(runtime.flatten(tree)),
    "decision.bin": bytes(exported.serialize()),
    "golden.npz": _npz(golden),
  }
  manifest = {
    "format": runtime.FORMAT,
    "network": dataclasses.asdict(weights.config),
    "servo": dataclasses.asdict(config),
    "workspace": limits,
    "platforms": list(platforms),
    "inputs": {
      name: [str(value.dtype), list(value.shape)] for name, value in inputs.items()
    },
    "step": weights.step,
    "about": dict(about or {}),
    "software": checkpoint.software_versions(),
    "expiry": EXPIRY,
    "sha256": {
      name: hashlib.sha256(data).hexdigest() for name, data in members.items()
    },
  }
  text = json.dumps(manifest, indent=2).encode()
  data = _zip({"manifest.json": text, **members})

  unfinished = path.with_name(f"{path.name}.tmp-{os.getpid()}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_bytes(data)
    runtime.load_policy(unfinished)
    unfinished.replace(path)
  except OSError as error:
    raise PolicyFileError(f"cannot write {path}: {error.strerror or error}.") from error
  finally:
    with contextlib.suppress(OSError):
      unfinished.unlink()
  return manifest


@contextlib.contextmanager
def _no_source_locations() -> Iterator[None]:
  """Keeps file names of this machine, and with them chance, out of what is exported."""
  before = jax.config.jax_traceback_in_locations_limit
  jax.config.update("jax_traceback_in_locations_limit", 0)
  try:
    yield
  finally:
    jax.config.update("jax_traceback_in_locations_limit", before)


def _limits(workspace: commands.Workspace | None) -> dict[str, list[float]] | None:
  if workspace is None:
    return None
  low, high = (
    np.asarray(end, np.float32).tolist() for end in (workspace.low, workspace.high)
  )
  if not all(a < b and np.isfinite(b - a) for a, b in zip(low, high, strict=True)):
    raise ValueError(
      f"the workspace from {low} to {high} is empty or not finite: each low must be"
      " below its high."
    )
  return {"low": low, "high": high}


def _golden_inputs(config: network.NetworkConfig) -> dict[str, np.ndarray]:
  """An input of noise, in a workspace of its own."""
  rng = np.random.default_rng(0)
  shape = (config.frame_size, config.frame_size, 3)
  return {
    "pregrasp_image": rng.integers(0, 256, shape, dtype=np.uint8),
    "image": rng.integers(0, 256, shape, dtype=np.uint8),
    "pose": np.array([0.5, 0.0, 0.1, 0.0], np.float32),
    "table_height": np.asarray(0.0, np.float32),
    "low": np.array([0.3, -0.2, 0.0, -np.pi], np.float32),
    "high": np.array([0.7, 0.2, 0.3, np.pi], np.float32),
    "is_last": np.asarray(False),
    "key": np.array([0, 1], np.uint32),
  }


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Like `np.savez`, but the same bytes for the same arrays: no times in it."""
  members = {}
  for name, array in arrays.items():
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
    members[f"{name}.npy"] = buffer.getvalue()
  return _zip(members)


def _zip(members: Mapping[str, bytes]) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    for name, data in members.items():
      archive.writestr(zipfile.ZipInfo(name), data)
  return buffer.getvalue()
