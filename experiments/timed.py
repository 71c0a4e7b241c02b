r"""Everything in so many seconds: what to run first on a new machine.

  python -m experiments.timed --seconds=540 --workdir=runs/timed

Looks at the machine, collects, trains, exports, evaluates with and without replacement,
benchmarks control and training, and reports, each for a share of the time. It first
measures how long an attempt, compiling and a step take, and sizes the rest by that.
What is not done when its time is up is stopped, and said to be. With an accelerator it
trains the paper's network (levine2016), on CPUs the demo's; --config chooses another.

WORKDIR/results/ holds all that is small: results.json, results.md, policy.hep, the
report. Data and checkpoints stay beside it. After an interruption, the same command
goes on with what is missing, in the seconds that are left. docs/timed.md says more, and
what to bring to a machine without a network.
"""

import time

_BEGIN = time.monotonic()  # the time counts from here, imports included

if __name__ == "__main__":
  from experiments.timing import needs

  needs.check()  # before anything imports what may be missing

# ruff: noqa: E402
import signal
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import cli
from experiments.timing import machine as machine_lib
from experiments.timing import program

LEAST_SECONDS = 60.0


def choose_config(machine: machine_lib.Machine) -> tuple[ConfigDict, tuple[str, ...]]:
  """The config, and the flags that give it; without --config, the machine decides."""
  flag = flags.FLAGS["config"]
  if not flag.using_default_value or not machine.has_accelerator:
    return flags.FLAGS.config, tuple(cli.config_arguments())
  path = cli.CONFIGS / "levine2016.py"
  config, changed = cli.load_config(path), config_flags.get_override_values(flag)
  config.update_from_flattened_dict(changed)
  given = [f"--config.{name}={value}" for name, value in changed.items()]
  return config, (f"--config={path}", *given)


def define_flags() -> None:
  cli.define_config()
  flags.DEFINE_string("workdir", "runs/timed", "Folder for everything.")
  flags.DEFINE_string("out", "", "Folder for what is small; '': results/ in it.")
  flags.DEFINE_float("seconds", 540.0, "For everything.", lower_bound=LEAST_SECONDS)
  flags.DEFINE_string(
    "require_platform",
    "",
    "Stop unless JAX uses this: gpu, tpu, cpu; any for no matter.",
  )


def main(_: Sequence[str]) -> None:
  args = flags.FLAGS
  # As Ctrl-C: the program that is running ends, too.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  workdir = cli.prepare_workdir(args.workdir)
  out = cli.prepare_workdir(args.out or workdir / "results", flag="out")
  with cli.locked(workdir):
    required = args.require_platform or args.config.get("require_platform", "")
    machine = program.look(workdir, required, args.seconds)
    print(machine.describe(), flush=True)
    run = program.Run(
      *choose_config(machine), required, workdir, machine, out, args.seconds, _BEGIN
    )
    found = run.run()
  for line in found["not_done"]:
    print(f"not done: {line}")
  print(f"{found['spent']:.0f} of {found['seconds']:.0f} s. Results: {out}")


if __name__ == "__main__":
  cli.run(main, define_flags)
