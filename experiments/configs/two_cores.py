r"""The demo's cell with more of everything: what two CPU cores learn in about an hour.

  python -m experiments.demo --config=experiments/configs/two_cores.py \
    --workdir=runs/two_cores

2.4 times the demo's attempts and 3.6 times its training steps, with the same network;
all robots and objects that are held out there are held out here.

Hardware: two CPU cores. Collecting took 40 minutes and training 24 on cores that had
other work to do meanwhile; about half of that is to be expected without. Held-out AUC
0.810, and 61.5 % of 200 attempts (54.6 to 68.0) with the servo; README.md has the rest.
The policy is hand_eye/pretrained/two_cores.hep. For the open-loop baseline:

  python -m experiments.train_open_loop --config=experiments/configs/two_cores.py \
    --data=runs/two_cores/data/train/1.0.0 \
    --held_out=runs/two_cores/data/held_out/1.0.0 --workdir=runs/two_cores/open_loop \
    --config.train.phases="((2000, 1.0),)" --config.train.eval_every=400
"""

from ml_collections import ConfigDict

from experiments.configs import demo


def get_config() -> ConfigDict:
  config = demo.get_config()
  config.collect.num_attempts = 24_576
  config.train.phases = ((1_500, 0.01), (4_500, 0.13), (1_500, 1.0))
  config.train.eval_every = 500
  return config
