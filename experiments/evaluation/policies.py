"""Policies by name, as they travel to worker processes.

All programs take their policies from here; `policy_names` lists the names. A policy of
your own needs no change here: `--policies=random,package.module:factory` calls the
factory without arguments, once for each cell, in every worker. It returns
`policy(observation, key) -> decision`, and should cache slow parts, such as a loaded
network (functools.cache).
"""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from envs import baselines
from envs.attempt import NeedsEnv, Policy
from experiments import cli
from experiments.control import exported
from experiments.evaluation import policy_names
from experiments.fitting import train_config
from hand_eye import architectures, checkpoint, factories
from hand_eye import network as network_lib
from hand_eye import servo as servo_lib
from hand_eye.deploy import runtime


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
    name: see `policy_names`.
    version: of the network, or of the file of one's own policy; else ''.
    checkpoints: folder of the network's checkpoints, or an exported file; '' for
      policies without a network.
    step: which checkpoint.
    servo: fields of ServoConfig, as (name, value) pairs.
    noise: probability, metres and radians of `baselines.Exploring`; () for none.
    decider: name of the actor of a Ray cluster that decides in its place; '' for none.
  """

  name: str
  version: str = ""
  checkpoints: str = ""
  step: int = 0
  servo: tuple[tuple[str, Any], ...] = ()
  noise: tuple[float, ...] = ()
  decider: str = ""

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
  flags.DEFINE_string(
    "exported", str(exported.SHIPPED), "A policy file, for the policy `exported`."
  )
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


def for_exported(
  config: ConfigDict, names: Sequence[str], networks: Networks
) -> ConfigDict:
  """The config with the network of the exported policy, if that is the only network.

  So a policy file needs no --config: its cameras make the frames that it wants.

  Raises:
    PolicyFileError: the file cannot be read.
  """
  kinds = {policy_names.parse(name).kind for name in names}
  if "exported" not in kinds or kinds & {policy_names.SERVO, "open_loop"}:
    return config
  network = dict(runtime.read_manifest(networks.exported)["network"])
  made = config.copy_and_resolve_references()
  preset = network.pop("name", network.get("architecture"))
  made.network = ConfigDict({"preset": preset, **network})
  return made


def choose(name: str, config: Mapping[str, Any], networks: Networks) -> PolicySpec:
  """The policy of a name.

  Args:
    name: see `policy_names`.
    config: its sections `network` and `servo` are for the learned policies.
    networks: of those.

  Raises:
    UserError, CheckpointError: there is none of that name, or no network for it.
  """
  parsed = policy_names.parse(name)
  if parsed.is_own:
    return PolicySpec(name, version=_source_version(name))
  if parsed.kind == "exported":
    return _exported_spec(networks.exported, config)
  if parsed.kind not in (policy_names.SERVO, "open_loop"):
    return PolicySpec(name)
  expected = train_config.build_network(config["network"])
  if parsed.kind == "open_loop":
    return _learned_spec(
      name,
      networks.open_loop,
      {},
      expected,
      flag="open_loop",
      purpose=checkpoint.OPEN_LOOP,
    )
  label = parsed.network
  if label and label not in networks.labelled:
    known = ", ".join(sorted(networks.labelled)) or "none"
    raise cli.UserError(
      f"policy {name!r}: no network has that label; --checkpoints has: {known}"
    )
  folder = networks.labelled[label] if label else networks.servo
  settings = dict(config["servo"].items())
  if parsed.variant:
    settings |= parsed.fields
  flag = "checkpoints" if label else "checkpoint"
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
    flag: that named the folder, for messages.

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
  if flag in ("checkpoints", "open_loop"):
    # Labelled networks and the open loop's may differ, but get the same frames.
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
    architectures.build_for_control(weights.config),
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
  fields = policy_names.parse(spec.name).fields
  return open_loop_policy.make_open_loop(spec.checkpoints, spec.step, **fields)


def _hand_designed(spec: PolicySpec, noisy: bool) -> Policy:
  fields = policy_names.parse(spec.name).fields
  return baselines.HandDesignedPolicy(noisy, **fields)


def _factory(name: str) -> Callable[[], Policy]:
  """The factory that module:factory names. Raises UserError if it is not there."""
  try:
    return factories.load(name)
  except ValueError as error:
    raise cli.UserError(f"policy {error}") from error


def _source_version(name: str) -> str:
  """Twelve digits of the file that a policy of one's own is in."""
  factory = _factory(name)
  try:
    source = inspect.getsourcefile(inspect.unwrap(factory))
  except TypeError:
    source = None
  if source is None:
    return ""
  return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]


# What makes each kind of `policy_names`.
POLICIES: dict[str, Callable[[PolicySpec], Policy]] = {
  "random": lambda spec: baselines.RandomPolicy(),
  "open_loop": _make_open_loop,
  "hand_designed": lambda spec: _hand_designed(spec, noisy=False),
  "hand_designed_noisy": lambda spec: _hand_designed(spec, noisy=True),
  "servo": _make_servo,
  "exported": _make_exported,
  "oracle": lambda spec: baselines.OraclePolicy(),
}


def make_policy(spec: PolicySpec) -> Policy:
  """The policy itself.

  A policy that decides from a single observation is made once per process, because
  loading and compiling take long. One that remembers its cell or its frames is made for
  every cell; so is a policy of your own.

  Raises:
    UserError: there is none of that name.
  """
  if policy_names.parse(spec.name).is_own:
    return _make(spec)
  made = _cached(spec)
  remembers = isinstance(made, NeedsEnv | runtime.LoadedPolicy)
  return _make(spec) if remembers else made


@functools.lru_cache(maxsize=8)
def _cached(spec: PolicySpec) -> Policy:
  return _make(spec)


def _make(spec: PolicySpec) -> Policy:
  name = policy_names.parse(spec.name)
  if spec.decider:
    from experiments.evaluation import deciders

    policy: Policy = deciders.Remote(spec)
  else:
    policy = _factory(name.kind)() if name.is_own else POLICIES[name.kind](spec)
  return baselines.Exploring(policy, *spec.noise) if spec.noise else policy
