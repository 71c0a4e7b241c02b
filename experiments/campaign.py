r"""A fleet that collects, learns, and collects better (Section 5.2).

  python -m experiments.campaign --config=experiments/configs/demo.py \
    --workdir=runs/campaign

Round 0 is made of random attempts. After each round the network is trained on all
attempts so far, and the next round is collected with it. Then the last network is
evaluated, exported and reported on. The section `campaign` of the config defines the
rounds: docs/campaign.md.

The same command continues where it was interrupted, with no attempt lost or made twice
and no update skipped. SIGTERM and Ctrl-C end it with status 75; training saves first.

campaign.html in the work folder shows the progress, and so does

  python -m experiments.campaign --workdir=runs/campaign --show
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from absl import flags

from envs import fleet
from experiments import cli, evaluate, export_policy, report
from experiments.campaigns import alarms, monitor, settings, view
from experiments.campaigns import loop as loop_lib
from experiments.campaigns import schedule as schedule_lib
from experiments.campaigns.layout import Layout, write_plan
from experiments.campaigns.state import Reader
from experiments.evaluation import cluster, deciders, policies, scores
from experiments.fitting import devices, loop
from experiments.fitting import stopping as stopping_lib


def campaign(
  config: Mapping[str, Any],
  workdir: str | Path,
  *,
  schedule: str = "",
  cpu_devices: int = 0,
  ray_address: str = "",
  decide: str = "auto",
  config_arguments: Sequence[str] = (),
) -> dict[str, float]:
  """Runs a campaign, or goes on with it; returns the seconds of its stages.

  Args:
    config: every section of a file in experiments/configs.
    workdir: gets data/, train/, evaluate/, policy.hep, campaign.html and report.html.
    schedule: instead of the config's, see `campaigns.settings.SCHEDULES`.
    cpu_devices: that `divide_cpu` made; 0 for the config's.
    ray_address: of a cluster whose nodes collect and evaluate; '' for this machine.
    decide: where the network decides while a cluster collects, see `deciders.start`.
    config_arguments: flags that give this config, for the commands that are recorded.

  Raises:
    What the stages raise; `Stopped` if a signal came.
  """
  made = settings.build(config)
  layout = Layout(cli.prepare_workdir(workdir))
  plan = share(config, made, schedule, cpu_devices)
  runner, decider = fleet.map_unordered, ""
  if ray_address and jax.process_index() == 0:
    runner = cluster.runner(ray_address)
    decider = deciders.start(decide)
  loop_of_rounds = loop_lib.Loop(config, made, layout, plan, runner, tell, decider)
  if jax.process_index():  # Of several that train together, the first does the rest.
    with stopping():
      loop_of_rounds.run()
    return {}
  seconds: dict[str, float] = {}

  def stage(name: str, function: Callable[[], Any]) -> Any:
    print(f"\n{name}", flush=True)
    begin = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - begin
    return result

  with stopping(), cli.locked(layout.workdir):
    write_plan(layout, config, made)
    with monitor.Monitor(layout, made.refresh, tell):
      row = stage("campaign", loop_of_rounds.run)
    print(f"\n{view.table(Reader(layout.workdir).read())}", flush=True)
    checkpoints = layout.checkpoints(made.rounds[-1])
    summary = stage(
      "evaluate", lambda: _evaluate(config, checkpoints, layout.workdir, runner)
    )
    given = [*config_arguments, f"--checkpoint={checkpoints}"]
    folder = layout.workdir / "evaluate"
    cli.record_command(folder, "experiments.evaluate", [*given, f"--workdir={folder}"])
    policy = stage("export", lambda: _export(config, checkpoints, layout.workdir))
    cli.record_command(
      layout.workdir, "experiments.export_policy", [*given, f"--out={policy}"]
    )
    cli.write_json(
      layout.workdir / "demo.json", {"seconds": seconds, "versions": cli.versions()}
    )
    page = stage("report", lambda: _report(layout.workdir))
  print(f"\nHeld-out prediction\n{loop.describe(row)}")
  print(f"\nHeld-out objects and units\n{scores.describe(summary)}")
  times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
  print(f"\n{times}\nReport: {page}", flush=True)
  return seconds


def share(
  config: Mapping[str, Any],
  made: settings.CampaignConfig,
  schedule: str,
  cpu_devices: int,
) -> schedule_lib.Schedule:
  """How the machine is shared between collecting and training."""
  return schedule_lib.choose(
    schedule or made.schedule,
    cores=fleet.num_cores(),
    has_accelerator=schedule_lib.has_accelerator(),
    batch_sizes=(config["train"]["batch_size"], config["train"]["eval_batch_size"]),
    cpu_devices=cpu_devices or made.cpu_devices,
    num_workers=made.collect.num_workers,
  )


def divide_cpu(config: Mapping[str, Any], schedule: str, cpu_devices: int = 0) -> None:
  """Gives training its devices; must come before anything asks JAX for them."""
  made = settings.build(config)
  devices.divide_cpu(share(config, made, schedule, cpu_devices).cpu_devices)


def show(workdir: str | Path) -> None:
  """Prints how far the campaign of a folder is."""
  state = Reader(workdir).read()
  found = alarms.find(state)
  print(view.table(state))
  print(f"\n{view.line(state, [])}")
  for alarm in found:
    print(f"alarm: {alarm.text}")


def tell(line: str) -> None:
  print(line, flush=True)


def _evaluate(
  config: Mapping[str, Any], checkpoints: Path, workdir: Path, runner: Any
) -> dict[str, Any]:

  networks = policies.Networks(servo=str(checkpoints))
  return evaluate.evaluate(config, networks, workdir / "evaluate", runner=runner)


def _export(config: Mapping[str, Any], checkpoints: Path, workdir: Path) -> Path:

  return export_policy.export(config, checkpoints, workdir / "policy.hep")


def _report(workdir: Path) -> Path:

  return report.write_report(workdir)


@contextmanager
def stopping() -> Iterator[None]:
  """SIGTERM raises Stopped in the main thread; training has a handler of its own."""

  def stop(number: int, _: FrameType | None) -> None:
    name = signal.Signals(number).name
    raise stopping_lib.Stopped(f"stopped by {name}; the same command continues")

  before = signal.signal(signal.SIGTERM, stop)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


def define_flags(workdir: str = "") -> None:
  cli.define_config()
  flags.DEFINE_string("workdir", workdir, "Folder for everything the campaign makes.")
  flags.DEFINE_bool("show", False, "Print how far the campaign is, and end.")
  flags.DEFINE_enum(
    "schedule",
    "",
    ["", "auto", "turns", "together"],
    "Collect and train in turns, or together; instead of the config's.",
  )
  flags.DEFINE_string(
    "ray_address",
    "",
    "Ray cluster that collects and evaluates: 'auto', 'ray://head:10001', 'local'.",
  )
  flags.DEFINE_enum(
    "decide",
    "auto",
    ["auto", "together", "apart"],
    "Where the network decides for the collectors of a cluster: in one process, which"
    " takes an accelerator if there is one, or in each of them. auto: together where"
    " the cluster has an accelerator.",
  )
  devices.define_flags("as many as cores train")


def main(_: Sequence[str]) -> bool:

  args = flags.FLAGS
  if args.show:
    show(args.workdir)
    return False
  divide_cpu(args.config, args.schedule, args.cpu_devices)
  devices.join(args.distributed, args.coordinator, args.num_processes, args.process_id)
  devices.check_platform(
    args.require_platform or args.config.get("require_platform", "")
  )
  devices.keep_compiled(args.compilation_cache, args.workdir)
  try:
    campaign(
      args.config,
      args.workdir,
      schedule=args.schedule,
      cpu_devices=args.cpu_devices,
      ray_address=args.ray_address,
      decide=args.decide,
      config_arguments=cli.config_arguments(),
    )
  except stopping_lib.Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    sys.exit(stopping_lib.STOPPED)
  return True


if __name__ == "__main__":
  cli.run(main, define_flags)
