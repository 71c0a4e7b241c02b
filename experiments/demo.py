r"""The main job: from simulated robots to a servoing policy and a report.

  python -m experiments.demo --workdir=runs/demo

A small campaign (`experiments.campaign`): a round of random attempts, training, rounds
with the trained network, then evaluation, export and a report. The same command
continues where it was interrupted.
"""

from experiments import campaign, cli


def define_flags() -> None:
  campaign.define_flags("runs/demo")


if __name__ == "__main__":
  cli.run(campaign.main, define_flags)
