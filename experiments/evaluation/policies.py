"""Policies by name, as they travel to worker processes.

Whoever adds one enters it in POLICIES; all programs take it from there. A name may go
on: `servo:no_raise` is a variant of the servo, `servo@1000` the servo with the network
of that label.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from envs import baselines
from envs.attempt import LooksFirst, Policy
from experiments import cli
from experiments.fitting import train_config
from hand_eye import checkpoint, inference, runtime
from hand_eye import network as network_lib
from hand_eye import servo as servo_lib

# What takes one thing from the servo (fields of ServoConfig), to see what it is for.
VARIANTS: dict[str, dict[str, Any]] = {
  "best_of_64": {"num_iterations": 1},  # no CEM: the best of one round of samples
  "best_of_192": {"num_iterations": 1, "num_samples": 192},  # and as many as CEM takes
  "no_raise": {"raise_ratio": 0.0},
  "no_early_close": {"close_ratio": float("inf")},  # closes at T only
}


@dataclasses.dataclass(frozen=True)
class Networks:
  """Folders of checkpoints, as python -m experiments.train writes them.

  Attributes:
    servo: of the servo's network, '' if there is none.
    open_loop: of the open-loop baseline's, '' if there is none.
    exported: not a folder but the file that export_policy writes.
    labelled: more networks of the servo, by label.
  """

  servo: str = ""
  open_loop: str = ""
  exported: str = ""
  labelled: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """What a worker needs to make a policy.

  Attributes:
    name: of POLICIES, with its variant and label.
    version: of the network, '' for policies without one.
    checkpoints: folder of the network's checkpoints, or an exported file; '' for
      policies without a network.
    step: which checkpoint.
    servo: fields of ServoConfig, as (name, value) pairs.
    noise: probability, metres and radians of `baselines.Exploring`; () for none.
  """

  name: str
  version: str = ""
  checkpoints: str = ""
  step: int = 0
  servo: tuple[tuple[str, Any], ...] = ()
  noise: tuple[float, ...] = ()

  @property
  def label(self) -> str:
    """The name under which its attempts are recorded."""
    return f"{self.name}+noise" if self.noise else self.name


RANDOM = PolicySpec("random")
ORACLE = PolicySpec("oracle")  # reads the simulator's state: a ceiling


def define_flags() -> None:
  """The networks that learned policies need, as flags."""
  flags.DEFINE_string("checkpoint", "", "Folder of checkpoints of the servo's network.")
  flags.DEFINE_string("open_loop", "", "The same of the open-loop baseline's network.")
  flags.DEFINE_string("exported", "", "A policy file, for the policy `exported`.")
  flags.DEFINE_list(
    "checkpoints", [], "More networks, LABEL=FOLDER each, for policies servo@LABEL."
  )


def networks_from_flags() -> Networks:
  """Raises UserError if an entry of --checkpoints is not LABEL=FOLDER."""
  args = flags.FLAGS
  labelled = {}
  for entry in args.checkpoints:
    label, equals, folder = entry.partition("=")
    if not (label and equals and folder):
      raise cli.UserError(f"--checkpoints={entry}: expected LABEL=FOLDER")
    labelled[label] = folder
  return Networks(args.checkpoint, args.open_loop, args.exported, labelled)


def base(name: str) -> str:
  """'servo' of 'servo:no_raise' and of 'servo@1000'.

  Raises:
    UserError: there is no such policy, or no such variant of it.
  """
  start, _, _ = name.partition("@")
  start, colon, variant = start.partition(":")
  if start not in POLICIES:
    raise cli.UserError(
      f"policy {name!r} is not known; expected one of {', '.join(POLICIES)}"
    )
  if colon and (start != "servo" or variant not in VARIANTS):
    raise cli.UserError(
      f"policy {name!r} is not known; variants are"
      f" {', '.join(f'servo:{known}' for known in VARIANTS)}"
    )
  if "@" in name and start != "servo":
    raise cli.UserError(f"policy {name!r}: only the servo takes a label (servo@LABEL)")
  return start


def file_name(name: str) -> str:
  """A policy's name as part of a file's: 'servo-no_raise'."""
  return name.replace(":", "-").replace("@", "-")


def choose(name: str, config: Mapping[str, Any], networks: Networks) -> PolicySpec:
  """The policy of a name.

  Args:
    name: of POLICIES, with a variant or label where wanted.
    config: its sections `network` and `servo` are for the learned policies.
    networks: where those find theirs.

  Raises:
    UserError, CheckpointError: there is none of that name, or no network for it.
  """
  start = base(name)
  if start == "exported":
    return _exported_spec(networks.exported, config)
  if start not in ("servo", "open_loop"):
    return PolicySpec(name)
  expected = train_config.build_network(config["network"])
  if start == "open_loop":
    return _learned_spec(
      name,
      networks.open_loop,
      {},
      expected,
      flag="open_loop",
      purpose=checkpoint.OPEN_LOOP,
    )
  rest, at, label = name.partition("@")
  if at and label not in networks.labelled:
    known = ", ".join(sorted(networks.labelled)) or "none"
    raise cli.UserError(
      f"policy {name!r}: no network has that label; --checkpoints has: {known}"
    )
  folder = networks.labelled[label] if at else networks.servo
  settings = {**dict(config["servo"].items()), **VARIANTS.get(rest[6:], {})}
  flag = "checkpoints" if at else "checkpoint"
  return _learned_spec(name, folder, settings, expected, flag=flag)


def servo_spec(
  checkpoints: str | Path,
  servo: Mapping[str, Any],
  expected: network_lib.NetworkConfig,
  *,
  flag: str,
) -> PolicySpec:
  """The learned servo with the best checkpoint of a folder.

  Args:
    checkpoints: folder that python -m experiments.train writes.
    servo: the config's section of that name.
    expected: the network that the checkpoint must be of.
    flag: by which the person gave the folder, for messages.

  Raises:
    UserError, CheckpointError: there is no such policy, or it is of another network.
  """
  return _learned_spec("servo", checkpoints, servo, expected, flag=flag)


def _learned_spec(
  name: str,
  checkpoints: str | Path,
  servo: Mapping[str, Any],
  expected: network_lib.NetworkConfig,
  *,
  flag: str,
  purpose: str = checkpoint.SERVO,
) -> PolicySpec:
  program = "train" if purpose == checkpoint.SERVO else "train_open_loop"
  path = cli.require_folder(checkpoints, flag, f"python -m experiments.{program}")
  if servo:
    cli.build(servo_lib.ServoConfig, servo, "servo")
  weights = checkpoint.load_policy(path, step="best", purpose=purpose)
  found = weights.config
  if flag == "checkpoints":
    # Labelled networks may be others, but are shown the same frames.
    found = dataclasses.replace(expected, frame_size=found.frame_size)
  train_config.check_network(found, expected, f"--{flag}={path}")
  return PolicySpec(
    name,
    version=f"step-{weights.step}-{_fingerprint(weights)}",
    checkpoints=str(path.resolve()),
    step=weights.step,
    servo=tuple(sorted(dict(servo.items()).items())),
  )


def _exported_spec(path: str, config: Mapping[str, Any]) -> PolicySpec:
  if not path:
    raise cli.UserError("--exported is needed: the file that export_policy writes")
  wanted = train_config.build_network(config["network"]).frame_size
  found = runtime.read_manifest(path)["network"]["frame_size"]
  if found != wanted:
    raise cli.UserError(
      f"--exported={path} wants frames of {found} pixels, the config's cameras make"
      f" {wanted}; choose the --config that it was trained with"
    )
  digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
  return PolicySpec("exported", digest, str(Path(path).resolve()))


def _fingerprint(weights: checkpoint.PolicyWeights) -> str:
  """Twelve hexadecimal digits that change with any weight."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves((weights.params, weights.batch_stats)):
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()[:12]


def _make_servo(spec: PolicySpec) -> Policy:
  cli.quieten_libraries()
  weights = checkpoint.load_policy(spec.checkpoints, step=spec.step)
  return servo_lib.ServoPolicy(
    inference.build_predictor(weights.config),
    weights.params,
    weights.batch_stats,
    config=cli.build(servo_lib.ServoConfig, dict(spec.servo), "servo"),
  )


def _make_exported(spec: PolicySpec) -> Policy:
  return _load_exported(spec.checkpoints).for_robot()


@functools.lru_cache(maxsize=2)
def _load_exported(path: str) -> runtime.LoadedPolicy:
  return runtime.load_policy(path, deadlines=False)


def _make_open_loop(spec: PolicySpec) -> Policy:
  from experiments.evaluation import open_loop_policy

  cli.quieten_libraries()
  return open_loop_policy.make_open_loop(spec.checkpoints, spec.step)


# What makes each policy, in the order in which programs list them.
POLICIES: dict[str, Callable[[PolicySpec], Policy]] = {
  "random": lambda spec: baselines.RandomPolicy(),
  "open_loop": _make_open_loop,
  "hand_designed": lambda spec: baselines.HandDesignedPolicy(),
  "hand_designed_noisy": lambda spec: baselines.HandDesignedPolicy(noisy=True),
  "servo": _make_servo,
  "exported": _make_exported,
  "oracle": lambda spec: baselines.OraclePolicy(),
}


def make_policy(spec: PolicySpec) -> Policy:
  """The policy itself.

  One that decides from a single observation is made once in a process, as loading and
  compiling take long. One that remembers what it saw, of its cell or of its frames, is
  made anew for every cell.

  Raises:
    UserError: POLICIES has none of that name.
  """
  made = _cached(spec)
  remembers = isinstance(made, LooksFirst | runtime.LoadedPolicy)
  return _make(spec) if remembers else made


@functools.lru_cache(maxsize=8)
def _cached(spec: PolicySpec) -> Policy:
  return _make(spec)


def _make(spec: PolicySpec) -> Policy:
  policy = POLICIES[base(spec.name)](spec)
  return baselines.Exploring(policy, *spec.noise) if spec.noise else policy
