r"""The demo's cell with more of everything: what two CPU cores learn in about an hour.

  python -m experiments.demo --config=experiments/configs/two_cores.py \
    --workdir=runs/two_cores

2.4 times the demo's attempts and 3.6 times its training steps, with the same network;
all robots and objects that are held out there are held out here.

Hardware: two CPU cores.
"""

from ml_collections import ConfigDict

from experiments.configs import demo


def get_config() -> ConfigDict:
  config = demo.get_config()
  config.collect.num_attempts = 24_576
  config.train.phases = ((1_500, 0.01), (4_500, 0.13), (1_500, 1.0))
  config.train.eval_every = 500
  return config
