r"""The network that looks where the command leads, in the demo's cell.

  python -m experiments.demo --config=experiments/configs/glimpse.py \
    --workdir=runs/glimpse

Hardware: two CPU cores.

No curriculum: once the network knows where commands lead, far ones teach as well as
near ones. The first steps learn that alone, from the measured poses.
"""

from ml_collections import ConfigDict

from experiments.configs import demo


def get_config() -> ConfigDict:
  config = demo.get_config()
  config.network.preset = "glimpse"
  config.train.phases = ((4000, 1.0),)
  config.train.auxiliary_steps = 400
  config.train.eval_every = 400
  config.servo.initial_std = (0.06, 0.07, 0.8)
  return config
