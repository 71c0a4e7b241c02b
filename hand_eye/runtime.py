"""Loads an exported policy. Needs jax, NumPy and flatbuffers, and none of our training.

A policy file is a zip archive, written by `export.write_policy`:

  manifest.json   format, network, servo, workspace, versions, checksums of the rest
  weights.npz     parameters and batch statistics by path, float32
  decision.bin    the decision function, from `jax.export`, for cpu, cuda and tpu
  golden.npz      an input and the answer to it, checked when the file is loaded

`decision.bin` is promised readable by later releases of JAX for six months; then export
again from the checkpoint. Nothing in the file is pickled. It is no safety-rated
function: the controller keeps its own limits.
"""

import functools
import hashlib
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from hand_eye import decision

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")

# Of the decision function after the weights, in this order.
INPUTS = (
  "pregrasp_image",
  "image",
  "pose",
  "table_height",
  "low",
  "high",
  "is_last",
  "key",
)

# Devices round differently. What the network says of the same commands agrees to this;
# later iterations of CEM may then go other ways, so they are not compared.
GOLDEN_TOLERANCE = 5e-3


class PolicyFileError(Exception):
  """A policy file is missing, damaged, or not for this program or machine."""


class LoadedPolicy:
  """An exported policy: `policy(observation, key) -> decision.Decision`.

  Made by `load_policy`, compiled and tested.

  Attributes:
    manifest: what the file says about itself.
  """

  def __init__(
    self, manifest: dict[str, Any], weights: Mapping[str, Any], function: Any
  ):
    self.manifest = manifest
    self._call = functools.partial(jax.jit(function), jax.device_put(weights))
    limits = manifest["workspace"]
    self._bounds = None
    if limits is not None:
      low, high = (np.asarray(limits[end], np.float32) for end in ("low", "high"))
      self._bounds = (low, high)

  def __call__(
    self, observation: decision.Observation, key: np.ndarray
  ) -> decision.Decision:
    """Makes one decision, see `decision.answer`."""
    return decision.answer(
      self._call,
      observation,
      key,
      frame_size=self.manifest["network"]["frame_size"],
      bounds=self._bounds,
    )

  def self_test(self, golden: Mapping[str, np.ndarray]) -> float:
    """Returns how far the golden input's probabilities are from the golden answer."""
    made = self._call(*(golden[f"input/{name}"] for name in INPUTS))
    count = self.manifest["servo"]["num_samples"]  # The first iteration.
    gaps = [
      np.abs(np.asarray(made[name]) - golden[f"output/{name}"]).reshape(-1)[:count]
      for name in ("p_null", "probabilities")
    ]
    return float(np.max(np.concatenate(gaps)))


def load_policy(path: str | pathlib.Path) -> LoadedPolicy:
  """Reads a policy file, compiles it for the default device and tests it.

  Raises:
    PolicyFileError: if it is missing, damaged, of another format, not for this device,
      or gives another answer than when it was written.
  """
  path = pathlib.Path(path)
  members = _read_members(path)
  manifest = _read_manifest(path, members)
  backend = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
  if backend not in manifest["platforms"]:
    raise PolicyFileError(
      f"{path} is for {', '.join(manifest['platforms'])}, and JAX runs on {backend}"
      " here. Set JAX_PLATFORMS, or export it for this device."
    )
  try:
    weights = unflatten(_read_arrays(members["weights.npz"]))
    golden = _read_arrays(members["golden.npz"])
    exported = jax_export.deserialize(bytearray(members["decision.bin"]))
    policy = LoadedPolicy(manifest, weights, exported.call)
    gap = policy.self_test(golden)
  except Exception as error:  # Whatever the libraries below make of such a file.
    raise PolicyFileError(
      f"{path} cannot be run by jax {jax.__version__} ({_first_line(error)}); it was"
      f" written with {manifest['software'].get('jax', 'an unknown version')}. Export"
      " it again from its checkpoint."
    ) from error
  if not gap <= GOLDEN_TOLERANCE:
    raise PolicyFileError(
      f"{path} fails its self-test: probabilities are {gap:.2g} off the golden answer,"
      f" expected at most {GOLDEN_TOLERANCE:g}. Do not use it on this device."
    )
  return policy


def read_manifest(path: str | pathlib.Path) -> dict[str, Any]:
  """Returns what a policy file says about itself, after checking its checksums.

  Raises:
    PolicyFileError: if it is missing, damaged or of another format.
  """
  path = pathlib.Path(path)
  return _read_manifest(path, _read_members(path))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
  """Returns the arrays of nested dicts by their path, names joined by slashes."""
  flat = {}
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
    node[name] = value
  return tree


def _read_members(path: pathlib.Path) -> dict[str, bytes]:
  try:
    with zipfile.ZipFile(path) as archive:
      return {name: archive.read(name) for name in archive.namelist()}
  except FileNotFoundError:
    raise PolicyFileError(
      f"no policy file at {path}: export one, or correct the path."
    ) from None
  except OSError as error:
    raise PolicyFileError(f"cannot read {path}: {error.strerror or error}.") from error
  except Exception as error:  # zipfile and zlib have many words for damaged.
    raise PolicyFileError(
      f"{path} is damaged or no policy file ({_first_line(error)}): copy it again."
    ) from error


def _read_manifest(path: pathlib.Path, members: Mapping[str, bytes]) -> dict[str, Any]:
  try:
    manifest = json.loads(members["manifest.json"])
    found, checksums = manifest["format"], manifest.get("sha256")
  except (KeyError, TypeError, ValueError) as error:
    raise PolicyFileError(
      f"{path} is damaged or no policy file: it has no manifest."
    ) from error
  if found != FORMAT:
    raise PolicyFileError(
      f"{path} has format {found!r}, this program reads {FORMAT}: export the policy"
      " again with this version, or use the version that wrote it."
    )
  if not isinstance(checksums, dict):
    raise PolicyFileError(f"{path} is damaged: its manifest has no checksums.")
  for name, checksum in checksums.items():
    if hashlib.sha256(members.get(name, b"")).hexdigest() != checksum:
      raise PolicyFileError(
        f"{path} is damaged: {name} does not match its checksum. Copy it again."
      )
  return manifest


def _read_arrays(data: bytes) -> dict[str, np.ndarray]:
  with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
    return dict(arrays)


def _first_line(error: Exception) -> str:
  lines = str(error).splitlines()
  return lines[0] if lines else type(error).__name__
