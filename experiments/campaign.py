r"""A fleet that collects, learns, and collects better (Section 5.2).

  python -m experiments.campaign --config=experiments/configs/demo.py \
    --workdir=runs/campaign

Round 0 is made of random attempts. After each round the network is trained on all
attempts so far, and the next round is collected with it. Then the last network is
evaluated, exported and reported on. What a round is, the section `campaign` of the
config says: docs/campaign.md.

The same command continues where it was interrupted, with no attempt lost or made twice
and no update skipped. SIGTERM and Ctrl-C end it with status 75; training saves first.

campaign.html in the work folder shows how it is going, and so does

  python -m experiments.campaign --workdir=runs/campaign --show
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import cli

if TYPE_CHECKING:
  from experiments.campaigns import schedule as schedule_lib
  from experiments.campaigns import settings as settings_lib


def campaign(
  config: Mapping[str, Any],
  workdir: str | Path,
  *,
  schedule: str = "",
  ray_address: str = "",
  config_arguments: Sequence[str] = (),
) -> dict[str, float]:
  """Runs a campaign, or goes on with it; returns the seconds of its stages.

  Args:
    config: every section of a file in experiments/configs.
    workdir: gets data/, train/, evaluate/, policy.hep, campaign.html and report.html.
    schedule: instead of the config's, see `campaigns.settings.SCHEDULES`.
    ray_address: of a cluster whose nodes collect and evaluate; '' for this machine.
    config_arguments: flags that give this config, for the commands that are recorded.

  Raises:
    What the stages raise; `Stopped` if a signal came.
  """
  from envs import fleet
  from experiments.campaigns import loop as loop_lib
  from experiments.campaigns import monitor, settings, view
  from experiments.campaigns.layout import Layout, write_plan
  from experiments.campaigns.state import Reader
  from experiments.evaluation import cluster, scores
  from experiments.fitting import loop

  made = settings.build(config)
  layout = Layout(cli.prepare_workdir(workdir))
  plan = share(config, made, schedule)
  runner = cluster.runner(ray_address) if ray_address else fleet.map_unordered
  write_plan(layout, config, made)
  seconds: dict[str, float] = {}

  def stage(name: str, function: Callable[[], Any]) -> Any:
    print(f"\n{name}", flush=True)
    begin = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - begin
    return result

  with stopping():
    with monitor.Monitor(layout, made.refresh, tell):
      row = stage(
        "campaign", loop_lib.Loop(config, made, layout, plan, runner, tell).run
      )
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
    cli.write_atomically(
      layout.workdir / "demo.json",
      cli.to_json({"seconds": seconds, "versions": cli.versions()}, indent=2) + "\n",
    )
    page = stage("report", lambda: _report(layout.workdir))
  print(f"\nHeld-out prediction\n{loop.describe(row)}")
  print(f"\nHeld-out objects and units\n{scores.describe(summary)}")
  times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
  print(f"\n{times}\nReport: {page}", flush=True)
  return seconds


def share(
  config: Mapping[str, Any], made: "settings_lib.CampaignConfig", schedule: str
) -> "schedule_lib.Schedule":
  """How the machine is shared between collecting and training."""
  from envs import fleet
  from experiments.campaigns import schedule as schedule_lib

  return schedule_lib.choose(
    schedule or made.schedule,
    cores=fleet.num_cores(),
    has_accelerator=schedule_lib.has_accelerator(),
    batch_sizes=(config["train"]["batch_size"], config["train"]["eval_batch_size"]),
    cpu_devices=made.cpu_devices,
    num_workers=made.collect.num_workers,
  )


def divide_cpu(config: Mapping[str, Any], schedule: str) -> None:
  """Gives training its devices; must come before anything asks JAX for them."""
  from experiments.campaigns import settings
  from experiments.fitting import devices

  devices.divide_cpu(share(config, settings.build(config), schedule).cpu_devices)


def show(workdir: str | Path) -> None:
  """Prints how far the campaign of a folder is."""
  from experiments.campaigns import alarms, view
  from experiments.campaigns.state import Reader

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
  from experiments import evaluate
  from experiments.evaluation import policies

  networks = policies.Networks(servo=str(checkpoints))
  return evaluate.evaluate(config, networks, workdir / "evaluate", runner=runner)


def _export(config: Mapping[str, Any], checkpoints: Path, workdir: Path) -> Path:
  from experiments import export_policy

  return export_policy.export(config, checkpoints, workdir / "policy.hep")


def _report(workdir: Path) -> Path:
  from experiments import report

  return report.write_report(workdir)


@contextmanager
def stopping() -> Iterator[None]:
  """SIGTERM raises Stopped in the main thread; training has a handler of its own."""
  from experiments.fitting import stopping as stopping_lib

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


def main(_: Sequence[str]) -> bool:
  from experiments.fitting import stopping as stopping_lib

  args = flags.FLAGS
  if args.show:
    show(args.workdir)
    return False
  divide_cpu(args.config, args.schedule)
  try:
    campaign(
      args.config,
      args.workdir,
      schedule=args.schedule,
      ray_address=args.ray_address,
      config_arguments=cli.config_arguments(),
    )
  except stopping_lib.Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    sys.exit(stopping_lib.STOPPED)
  return True


if __name__ == "__main__":
  cli.run(main, define_flags)
