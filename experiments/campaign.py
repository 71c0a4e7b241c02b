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
from typing import Any

from absl import flags

from experiments import cli


def campaign(
  config: Mapping[str, Any],
  workdir: str | Path,
  *,
  schedule: str = "",
  ray_address: str = "",
) -> dict[str, float]:
  """Runs a campaign, or goes on with it; returns the seconds of its stages.

  Args:
    config: every section of a file in experiments/configs.
    workdir: gets data/, train/, evaluate/, policy.hep, campaign.html and report.html.
    schedule: instead of the config's, see `campaigns.settings.SCHEDULES`.
    ray_address: of a cluster whose nodes collect and evaluate; '' for this machine.

  Raises:
    What the stages raise; `Stopped` if a signal came.
  """
  from envs import fleet
  from experiments.campaigns import loop as loop_lib
  from experiments.campaigns import schedule as schedule_lib
  from experiments.campaigns import settings
  from experiments.campaigns.layout import Layout
  from experiments.evaluation import cluster, policies
  from experiments.fitting import devices

  made = settings.build(config)
  layout = Layout(cli.prepare_workdir(workdir))
  sizes = (config["train"]["batch_size"], config["train"]["eval_batch_size"])
  plan = schedule_lib.choose(
    schedule or made.schedule,
    cores=fleet.num_cores(),
    has_accelerator=has_accelerator(),
    batch_sizes=sizes,
    cpu_devices=made.cpu_devices,
    num_workers=made.collect.num_workers,
  )
  devices.divide_cpu(plan.cpu_devices)
  runner = cluster.runner(ray_address) if ray_address else fleet.map_unordered
  seconds: dict[str, float] = {}

  def stage(name: str, function: Callable[[], Any]) -> Any:
    print(f"\n{name}", flush=True)
    begin = time.perf_counter()
    result = function()
    seconds[name] = time.perf_counter() - begin
    return result

  with stopping():
    runs = loop_lib.Loop(config, made, layout, plan, runner, tell)
    row = stage("collect and learn", runs.run)
    networks = policies.Networks(servo=str(layout.checkpoints(made.rounds[-1])))
    summary = stage(
      "evaluate", lambda: _evaluate(config, networks, layout.workdir, runner)
    )
    stage("export", lambda: _export(config, networks.servo, layout.workdir))
    cli.write_atomically(
      layout.workdir / "demo.json",
      cli.to_json({"seconds": seconds, "versions": cli.versions()}, indent=2) + "\n",
    )
    page = stage("report", lambda: _report(layout.workdir))

  from experiments.evaluation import scores
  from experiments.fitting import loop

  print(f"\nHeld-out prediction\n{loop.describe(row)}")
  print(f"\nHeld-out objects and units\n{scores.describe(summary)}")
  times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
  print(f"\n{times}\nReport: {page}", flush=True)
  return seconds


def tell(line: str) -> None:
  print(line, flush=True)


def has_accelerator() -> bool:
  """Whether JAX would train on something else than CPUs; does not start it."""
  import jax

  if (jax.config.jax_platforms or "").split(",")[0] == "cpu":
    return False
  names = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*")
  return any(path for name in names for path in Path("/dev").glob(name))


def _evaluate(
  config: Mapping[str, Any], networks: Any, workdir: Path, runner: Any
) -> dict[str, Any]:
  from experiments import evaluate

  return evaluate.evaluate(config, networks, workdir / "evaluate", runner=runner)


def _export(config: Mapping[str, Any], checkpoints: str, workdir: Path) -> Path:
  from experiments import export_policy

  return export_policy.export(config, Path(checkpoints), workdir / "policy.hep")


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


def main(_: Sequence[str]) -> None:
  from experiments.fitting import stopping as stopping_lib

  args = flags.FLAGS
  try:
    campaign(
      args.config, args.workdir, schedule=args.schedule, ray_address=args.ray_address
    )
  except stopping_lib.Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    sys.exit(stopping_lib.STOPPED)


if __name__ == "__main__":
  cli.run(main, define_flags)
