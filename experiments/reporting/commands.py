"""The commands that make the parts of a work folder, or made those that are there."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments import cli
from experiments.evaluation import policy_names
from experiments.fitting import train_config
from experiments.reporting import results
from experiments.reporting.evaluated import Evaluation, Sweep

# Stand where something is needed that the work folder does not have.
FOLDER, FILE = "FOLDER", "FILE"


def everything(workdir: Path) -> str:
  return f"make demo WORKDIR={workdir}"


def campaign(workdir: Path) -> str:
  return _program("campaign", f"--workdir={workdir}")


def collect(workdir: Path, name: str) -> str:
  return _program("collect", f"--workdir={workdir / 'data'}", f"--name={name}")


def train(workdir: Path) -> str:
  data = workdir / "data"
  return _program(
    "train",
    f"--data={data / 'train' / '1.0.0'}",
    f"--held_out={data / 'held_out' / '1.0.0'}",
    f"--workdir={workdir / 'train'}",
  )


def export(workdir: Path) -> str:
  return _program(
    "export_policy",
    f"--checkpoint={_servo(workdir)}",
    f"--out={workdir / 'policy.hep'}",
  )


def report(workdir: Path) -> str:
  return _program("report", f"--workdir={workdir}")


def evaluate(workdir: Path, found: Evaluation | None) -> str:
  """The evaluation that was found, with all of its policies, else the config's."""
  folder = f"--workdir={workdir / 'evaluate'}"
  if found is None:
    return _program("evaluate", f"--checkpoint={_servo(workdir)}", folder)
  config, overrides = _config(found, lambda base: _settings(found, base, {}))
  names = [*found.policies, *found.others]
  return _program(
    "evaluate", *config, *_networks(workdir, names), folder,
    f"--policies={','.join(names)}", *overrides,
  )  # fmt: skip


def sweep(workdir: Path, found: Sweep | None) -> str:
  """The sweep that was found, else the config's."""
  folder = f"--workdir={workdir / 'sweep'}"
  if found is None:
    return _program("sweep", f"--checkpoint={_servo(workdir)}", folder)
  config, overrides = _config(found, lambda base: _settings(found, base, base["sweep"]))
  return _program(
    "sweep", *config, *_networks(workdir, found.policies), folder,
    f"--policies={','.join(found.policies)}",
    f"--conditions={','.join(found.conditions)}", *overrides,
  )  # fmt: skip


def _program(name: str, *arguments: str) -> str:
  words = [f"python -m experiments.{name}", *map(shlex.quote, arguments)]
  line = " ".join(words)
  return line if len(line) <= 88 else " \\\n  ".join(words)


def _servo(workdir: Path) -> Path:
  return results.training_folder(workdir) / "checkpoints"


def _networks(workdir: Path, policies: Iterable[str]) -> list[str]:
  """The flags that name the networks of policies, see `policies.define_flags`."""

  def known(path: Path, otherwise: str = FOLDER) -> str:
    return str(path) if path.exists() else otherwise

  given: dict[str, None] = {}
  labels = []
  for name in policies:
    parsed = policy_names.read(name)
    kind = parsed.kind
    if parsed.network:
      labels.append(f"{parsed.network}={FOLDER}")
    elif kind == "servo":
      given[f"--checkpoint={known(_servo(workdir))}"] = None
    elif kind == "exported":
      given[f"--exported={known(workdir / 'policy.hep', FILE)}"] = None
    elif kind == "open_loop":
      given[f"--open_loop={known(workdir / 'open_loop' / 'checkpoints')}"] = None
  labelled = [f"--checkpoints={','.join(labels)}"] if labels else []
  return [*given, *labelled]


def _config(found: Evaluation | Sweep, overrides: Any) -> tuple[list[str], list[str]]:
  """The config file whose frames are as large and from which least differs.

  Returns (the flag that names it, none for the default; the overrides of its fields).
  """
  candidates = []
  for path in sorted(cli.CONFIGS.glob("[!_]*.py")):
    config = cli.load_config(path)
    frame_size = train_config.build_network(config["network"]).frame_size
    if frame_size == found.cell.get("frame_size"):
      candidates.append((path, overrides(json.loads(cli.to_json(config.to_dict())))))
  if not candidates:
    path = cli.DEFAULT_CONFIG
    base = json.loads(cli.to_json(cli.load_config(path).to_dict()))
    candidates = [(path, overrides(base))]
  path, chosen = min(candidates, key=lambda candidate: len(candidate[1]))
  if path == cli.DEFAULT_CONFIG:
    return [], chosen
  return [f"--config=experiments/configs/{path.name}"], chosen


def _settings(
  found: Evaluation | Sweep, base: Mapping[str, Any], replaced: Mapping[str, Any]
) -> list[str]:
  """Overrides of `evaluate`, of what stands in its place in `sweep`, and of `servo`."""
  flags = []
  for name, value in found.settings.items():
    section = "sweep" if name in replaced else "evaluate"
    flags += _overrides(f"{section}.{name}", value, base[section].get(name))
  servo = found.specs.get("servo", {}).get("servo", {})
  for name, value in servo.items():
    flags += _overrides(f"servo.{name}", value, base["servo"].get(name))
  return flags


def _overrides(name: str, value: Any, base: Any) -> list[str]:
  if value == base or value is None:
    return []
  if isinstance(value, Mapping):
    before = base if isinstance(base, Mapping) else {}
    return [
      flag
      for field, entry in value.items()
      for flag in _overrides(f"{name}.{field}", entry, before.get(field))
    ]
  text = f"({','.join(map(str, value))})" if isinstance(value, list) else str(value)
  return [f"--config.{name}={text}"]
