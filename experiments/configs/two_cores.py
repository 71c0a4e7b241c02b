r"""A campaign that fits an evening on two CPU cores: the whole cell, all families.

  python -m experiments.campaign --config=experiments/configs/two_cores.py \
    --workdir=runs/two_cores

Random attempts with simple objects first, then three rounds by the latest network with
6 to 12 objects of all training families, T growing from 3 to 10 as in Section 5.2.
Frames have 144 pixels: in a full bin drawing is the smaller part of an attempt. The
shipped policy was made by this.

Hardware: two CPU cores, about two hours. hand_eye/pretrained/README.md has the results.
"""

from ml_collections import ConfigDict

from experiments.configs import demo


def get_config() -> ConfigDict:
  config = demo.get_config()
  config.network.preset = "glimpse128"
  collect = config.collect
  collect.num_attempts = 8_192
  # Many robots, of which 10 to 14 work at a time.
  collect.num_units = 56
  collect.num_held_out_units = 8
  collect.num_objects = 12
  collect.objects = "training"
  collect.held_out_objects = "held_out"
  collect.attempts_per_scene = 8
  collect.scenes_per_shard = 4
  train = config.train
  train.phases = ((4_000, 1.0),)
  train.auxiliary_steps = 300
  train.eval_every = 500
  train.cache_bytes = 9 * 2**30
  config.campaign.rounds = rounds()
  config.evaluate = evaluate()
  return config


def evaluate() -> ConfigDict:
  """The paper's setting (Section 6), with four times its attempts, on 20 robots."""
  made = demo.evaluate()
  made.update(
    policies=(
      "random",
      "hand_designed_noisy",
      "hand_designed_noisy:calibration_error",
      "servo",
    ),
    with_replacement={"repetitions": 100, "num_attempts": 4, "num_objects": 12},
    without_replacement={"repetitions": 16, "num_attempts": 30, "num_objects": 20},
    num_units=20,
    objects="held_out",
    num_steps=10,
  )
  return made


def rounds() -> ConfigDict:
  full = {"num_objects": (6, 12), "units_at_once": (10, 14), "shifts": 4}
  by_network = {"random_share": 0.1, "noise_probability": 0.25, **full}
  return ConfigDict(
    {
      # Where commands lead is learned as well from simple things, and they fall fast.
      "r0": demo.campaign_round(
        num_attempts=8_192,
        num_steps=(2, 3),
        random_share=1.0,
        warm_start=False,
        objects=demo.SIMPLE,
        shifts=4,
        phases=((2_000, 1.0),),
      ),
      "r1": demo.campaign_round(
        num_attempts=3_072, num_steps=(3, 5), phases=((2_000, 1.0),), **by_network
      ),
      "r2": demo.campaign_round(
        num_attempts=4_096, num_steps=(4, 7), phases=((2_500, 1.0),), **by_network
      ),
      "r3": demo.campaign_round(
        num_attempts=6_144, num_steps=(4, 7, 10), phases=((6_000, 1.0),), **by_network
      ),
    }
  )
