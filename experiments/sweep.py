r"""Measures policies under many conditions: a moved camera, worn fingers, ...

  python -m experiments.sweep --checkpoint=runs/demo/train/round_01/checkpoints \
    --workdir=runs/demo/sweep --policies=servo,open_loop,hand_designed \
    --conditions=camera_shift=0.05,camera_shift=0.10,push=0.3

Every policy is measured in the bins of both protocols, under every condition and under
none. A condition is NAME=AMOUNT, see `evaluation.conditions`. Calibrated policies keep
the calibration from before the camera was moved. Networks trained on more or less data
are policies servo@LABEL, see --checkpoints.

The same command resumes at the trial where it stopped; a trial whose worker died is
retried. It uses all cores, or with --ray_address those of a cluster.
Writes rows.jsonl (a row an attempt, with its seed, configuration and versions),
rows.csv for pandas, and sweep.json: rates by policy, protocol and condition.
"""

import csv
import functools
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from envs import fleet, protocols
from experiments import cli, evaluate, statistics
from experiments.evaluation import cluster, trials
from experiments.evaluation import conditions as conditions_lib
from experiments.evaluation import policies as policies_lib
from experiments.fitting import train_config


def sweep(
  config: Mapping[str, Any],
  networks: policies_lib.Networks,
  workdir: str | Path,
  runner: trials.Runner = fleet.map_unordered,
  *,
  stop_when_decided: bool = False,
) -> list[dict[str, Any]]:
  """Sweeps, or continues a sweep.

  Args:
    config: sections `network`, `servo`, `evaluate` and `sweep`.
    networks: of the learned policies.
    workdir: where the results go.
    runner: of the trials: `fleet.map_unordered`, or that of a cluster.
    stop_when_decided: of two policies, make no more bins under a condition than it
      takes to tell which is better.

  Returns:
    The cells of sweep.json, see `summarise`.

  Raises:
    UserError, CheckpointError: an input cannot be used.
  """
  settings = evaluate.build_config({**config["evaluate"], **_replaced(config["sweep"])})
  parsed = [conditions_lib.parse(text) for text in config["sweep"]["conditions"]]
  # Each once: push=0.3 and push=0.30 are the same trials.
  if stop_when_decided:
    evaluate.check_two(settings)
  conditions = {str(one): one for one in (conditions_lib.NOTHING, *parsed)}.values()
  frame_size = train_config.build_network(config["network"]).frame_size
  specs = [policies_lib.choose(name, config, networks) for name in settings.policies]
  planned = [
    evaluate.plan(settings, specs, condition, frame_size) for condition in conditions
  ]
  workdir = cli.prepare_workdir(workdir)
  facts = evaluate.identity(settings, specs, frame_size)
  with cli.locked(workdir), trials.compiled_once():
    cli.check_same(workdir / "config.json", facts, "a sweep", growing=("policies",))
    run = functools.partial(
      trials.run,
      path=workdir / "rows.jsonl",
      num_workers=settings.num_workers,
      label="sweep",
      runner=runner,
    )
    rows = (
      evaluate.until_decided(planned, run)
      if stop_when_decided
      else run(list(itertools.chain.from_iterable(planned)))
    )
  cells = summarise(rows)
  cli.write_atomically(workdir / "rows.csv", as_csv(rows))
  content = {"cells": cells, "config": facts, "versions": cli.versions()}
  cli.write_json(workdir / "sweep.json", content)
  return cells


def _replaced(section: Mapping[str, Any]) -> dict[str, Any]:
  """What the section `sweep` puts in the place of fields of `evaluate`."""
  return {name: value for name, value in section.items() if name != "conditions"}


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """One entry for each policy, protocol and condition, in the order of the rows.

  Returns:
    {policy, protocol, condition, name, amount} and a success rate with its 95 %
    interval over robots.
  """
  cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
  for row in rows:
    key = (row["policy"], row["protocol"], row["condition"])
    cells.setdefault(key, []).append(row)
  table = []
  for (policy, protocol, text), own in cells.items():
    condition = conditions_lib.parse(text)
    table.append(
      {
        "policy": policy,
        "protocol": protocol,
        "condition": text,
        "name": condition.name,
        "amount": condition.amount,
        **statistics.over_robots(own),
      }
    )
  return table


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a table: lists as text with ; between, nested fields as a.b."""
  flat = [_flat(row) for row in rows]
  names = list(dict.fromkeys(name for row in flat for name in row))
  stream = io.StringIO()
  writer = csv.DictWriter(stream, names, lineterminator="\n")
  writer.writeheader()
  writer.writerows(flat)
  return stream.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for name, value in row.items():
    if isinstance(value, Mapping):
      found |= {f"{name}.{field}": entry for field, entry in _flat(value).items()}
    elif isinstance(value, list):
      found[name] = ";".join(map(str, value))
    else:
      found[name] = value
  return found


def describe(cells: Sequence[Mapping[str, Any]]) -> str:
  """Success by condition, a column a policy, for the terminal."""
  policies = list(dict.fromkeys(cell["policy"] for cell in cells))
  parts = []
  for protocol in protocols.NAMES:
    found = {
      (cell["condition"], cell["policy"]): _cell(cell)
      for cell in cells
      if cell["protocol"] == protocol
    }
    rows = [
      [
        text or "without conditions",
        *(found.get((text, name), "") for name in policies),
      ]
      for text in dict.fromkeys(text for text, _ in found)
    ]
    if rows:
      header = [f"success {protocol.replace('_', ' ')}", *policies]
      parts.append(cli.table(header, rows, range(1, len(header))))
  return "\n\n".join(parts)


def _cell(cell: Mapping[str, Any]) -> str:
  low, high = 100 * cell["low"], 100 * cell["high"]
  return f"{100 * cell['rate']:.1f} % ({low:.0f} to {high:.0f})"


def define_flags() -> None:
  evaluate.define_shared_flags()
  flags.DEFINE_list("conditions", [], "Instead of the config's: push=0.3,wear=2")
  flags.DEFINE_string(
    "ray_address",
    "",
    "Of a Ray cluster, or 'local'; default: processes of this machine.",
  )


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  networks = policies_lib.networks_from_flags()
  config = evaluate.config_from_flags(networks, "sweep")
  if args.conditions:
    config.sweep.conditions = tuple(args.conditions)
  address = args.ray_address
  runner = cluster.runner(address) if address else fleet.map_unordered
  cells = sweep(
    config, networks, args.workdir, runner, stop_when_decided=args.stop_when_decided
  )
  print(describe(cells))
  print(f"Rows: {args.workdir}/rows.jsonl, and as a table rows.csv")


if __name__ == "__main__":
  cli.run(main, define_flags)
