"""Writes a trained policy as one file, which `runtime.load_policy` runs.

The file is self-contained: weights, the decision functions for any device, limits, and
an input with its answer. `policy_file` says what is in it.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export as jax_export

from hand_eye import architectures, cem, checkpoint, commands, network, servo
from hand_eye import constraints as constraints_lib
from hand_eye.constraints import Constraints
from hand_eye.decision import Inputs
from hand_eye.deploy import policy_file, runtime
from hand_eye.deploy.runtime import (
  LoadedPolicy,
  PolicyFileError,
  load_policy,
  read_manifest,
)

__all__ = [
  "LoadedPolicy",
  "PolicyFileError",
  "PolicyParts",
  "load_policy",
  "parts_of",
  "read_manifest",
  "write_policy",
]

EXPIRY = (
  "The functions in this file are promised readable by releases of JAX up to six months"
  " newer than the one that wrote it. After that, export it again, from itself:"
  " python -m experiments.export_policy --checkpoint=FILE --out=FILE"
)


def write_policy(
  path: str | pathlib.Path,
  weights: checkpoint.PolicyWeights,
  config: servo.ServoConfig | None = None,
  *,
  workspace: commands.Workspace | None = None,
  constraints: Constraints | None = None,
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
    constraints: the user's own limits, which hold wherever the file is used.
    platforms: devices to export for, of cpu, cuda and tpu.
    about: JSON-able words on where the weights come from, kept in the manifest.

  Returns:
    The manifest.

  Raises:
    PolicyFileError: if `path` cannot be written, or the file fails its self-test.
    ValueError: for a workspace that is empty or not finite.
  """
  path = pathlib.Path(path)
  limits = _limits(workspace)
  unfinished = path.with_name(f"{path.name}.tmp-{os.getpid()}")
  try:
    # First, as exporting the full network takes its time.
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    manifest, members = _contents(
      weights,
      config or servo.ServoConfig(),
      limits,
      constraints_lib.ensure(constraints),
      platforms,
    )
    manifest |= {"about": dict(about or {})}
    # By way of JSON, so that the checksum is of what will be read.
    manifest = policy_file.seal(json.loads(json.dumps(manifest)), members)
    text = json.dumps(manifest, indent=2).encode()
    unfinished.write_bytes(policy_file.archive({"manifest.json": text, **members}))
    runtime.load_policy(unfinished)
    unfinished.replace(path)
  except OSError as error:
    raise PolicyFileError(f"cannot write {path}: {error.strerror or error}.") from error
  finally:
    with contextlib.suppress(OSError):
      unfinished.unlink()
  return manifest


class PolicyParts(NamedTuple):
  """What `write_policy` takes, as it is in a policy file."""

  weights: checkpoint.PolicyWeights
  config: servo.ServoConfig
  workspace: commands.Workspace | None
  constraints: Constraints


def parts_of(path: str | pathlib.Path) -> PolicyParts:
  """Reads the weights, settings and limits of a policy file, also of an older format.

  Raises:
    PolicyFileError: it is missing or damaged.
  """
  manifest, members = policy_file.read(pathlib.Path(path), policy_file.SAME_WEIGHTS)
  tree = policy_file.unflatten(policy_file.read_arrays(members["weights.npz"]))
  if "batch_stats" in tree["params"]:  # Earlier files have both one level down.
    tree = tree["params"]
  limits_of = manifest["workspace"]
  return PolicyParts(
    weights=checkpoint.PolicyWeights(
      architectures.configure(**manifest["network"]),
      tree["params"],
      tree["batch_stats"],
      manifest["step"],
    ),
    config=servo.ServoConfig(**manifest["servo"]),
    workspace=commands.Workspace(**limits_of) if limits_of else None,
    constraints=constraints_lib.from_json(manifest["constraints"]),
  )


def _contents(
  weights: checkpoint.PolicyWeights,
  config: servo.ServoConfig,
  limits: dict[str, list[float]] | None,
  constraints: Constraints,
  platforms: tuple[str, ...],
) -> tuple[dict[str, Any], dict[str, bytes]]:
  """The manifest and the members, as `policy_file` describes them."""
  predictor = architectures.build_for_control(weights.config)
  functions = array_functions(
    servo.Servo(
      predictor,
      config,
      workspace=None if limits is None else commands.Workspace(**_arrays(limits)),
      constraints=constraints,
    )
  )
  prepared = jax.jit(predictor.prepare)(weights.params, weights.batch_stats)
  params, batch_stats = jax.device_get(prepared)
  tree = {"params": params, "batch_stats": batch_stats}
  inputs = _golden_inputs(weights.config, limits)
  members = {"weights.npz": policy_file.npz(policy_file.flatten(tree))}
  for name, blob in _export(functions, tree, inputs, platforms).items():
    members[f"{name}.bin"] = blob
  answer = jax.device_get(jax.jit(functions[policy_file.WHOLE])(tree, *inputs))
  golden = {f"input/{name}": value for name, value in inputs._asdict().items()}
  golden |= {f"output/{name}": np.asarray(value) for name, value in answer.items()}
  members["golden.npz"] = policy_file.npz(golden)
  manifest = {
    "format": policy_file.FORMAT,
    "network": dataclasses.asdict(weights.config),
    "servo": dataclasses.asdict(config),
    "workspace": limits,
    "constraints": dataclasses.asdict(constraints),
    "platforms": list(platforms),
    "inputs": {
      name: [str(value.dtype), list(value.shape)]
      for name, value in inputs._asdict().items()
    },
    "step": weights.step,
    "software": checkpoint.software_versions(),
    "expiry": EXPIRY,
  }
  return manifest, members


def array_functions(made: servo.Servo) -> dict[str, Callable[..., Any]]:
  """A decision and its parts with arrays in and dicts of arrays out, as exported.

  Arguments are those of the methods of `servo.Servo`, with the fields of the inputs one
  by one at the end.
  """

  def flat(found: Any) -> dict[str, Any]:
    # Exported functions know no class; ours are mappings.
    return {
      name: flat(value) if isinstance(value, cem.Search) else value
      for name, value in found.items()
    }

  def whole(weights, *arrays):
    return flat(made.decide(weights, Inputs(*arrays)))

  def begin(*arrays):
    return flat(made.begin(Inputs(*arrays)))

  def propose(search, *arrays):
    return flat(made.propose(Inputs(*arrays), cem.Search(**search)))

  def update(search, motions, scores, *arrays):
    return flat(made.update(Inputs(*arrays), cem.Search(**search), motions, scores))

  def finish(search, null_score, *arrays):
    return flat(made.finish(Inputs(*arrays), cem.Search(**search), null_score))

  return {
    "whole": whole,
    "begin": begin,
    "encode": made.encode,
    "propose": propose,
    "score": made.score,
    "update": update,
    "finish": finish,
  }


def _export(
  functions: Mapping[str, Callable[..., Any]],
  tree: Mapping[str, Any],
  inputs: Inputs,
  platforms: tuple[str, ...],
) -> dict[str, bytes]:
  """The functions by name, as bytes for all platforms."""
  given = jax.eval_shape(functions["begin"], *inputs)
  search, to_encode = given["search"], (given["images"], given["null"])
  seen = jax.eval_shape(functions["encode"], tree, *to_encode)
  proposed = jax.eval_shape(functions["propose"], search, *inputs)
  scores = jax.ShapeDtypeStruct(proposed["motions"].shape[:1], np.float32)
  arguments = {
    "whole": (tree, *inputs),
    "begin": tuple(inputs),
    "encode": (tree, *to_encode),
    "propose": (search, *inputs),
    "score": (tree, seen["features"], proposed["commands"]),
    "update": (search, proposed["motions"], scores, *inputs),
    "finish": (search, seen["null_score"], *inputs),
  }
  with _no_source_locations():
    return {
      name: bytes(
        jax_export.export(jax.jit(functions[name]), platforms=platforms)(
          *given
        ).serialize()
      )
      for name, given in arguments.items()
    }


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
  problem = policy_file.workspace_problem(low, high)
  if problem:
    raise ValueError(problem)
  return {"low": low, "high": high}


def _arrays(limits: dict[str, list[float]]) -> dict[str, np.ndarray]:
  return {end: np.array(limits[end], np.float32) for end in ("low", "high")}


def _golden_inputs(
  config: network.NetworkConfig, limits: dict[str, list[float]] | None
) -> Inputs:
  """Images of noise, in the middle of the workspace."""
  rng = np.random.default_rng(0)
  shape = (config.frame_size, config.frame_size, 3)
  low = np.array([0.3, -0.2, 0.0, -np.pi], np.float32)
  high = np.array([0.7, 0.2, 0.3, np.pi], np.float32)
  if limits is not None:
    low, high = _arrays(limits).values()
  return Inputs(
    pregrasp_image=rng.integers(0, 256, shape, dtype=np.uint8),
    image=rng.integers(0, 256, shape, dtype=np.uint8),
    pose=(low + high) / 2,
    table_height=np.asarray(low[2]),
    low=low,
    high=high,
    is_last=np.asarray(False),
    key=np.array([0, 1], np.uint32),
    **Constraints().arrays(),
  )
