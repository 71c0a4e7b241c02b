r"""The paper's configuration: 512 x 512 frames, crops of 472, 64 channels (Figure 4).

  python -m experiments.collect --config=experiments/configs/levine2016.py ...
  python -m experiments.train --config=experiments/configs/levine2016.py \
    --data=... --held_out=... --workdir=runs/levine2016/train

Hardware: made for accelerators; two CPU cores train 3.3 samples a second, so there it
serves checks of shapes and speed only. No run of this size has been made yet.

The paper collected 800,000 attempts with T from 2 to 10 on up to 14 robots and does not
name learning rate, batch or schedule. Those here follow later public code with this
network: momentum 0.9, L2 7e-5 and an average of the weights with decay 0.9999.
"""

from ml_collections import ConfigDict

from experiments.configs import demo


def get_config() -> ConfigDict:
  config = demo.get_config()
  config.require_platform = "gpu,tpu"  # on a CPU: --require_platform=any
  config.network.preset = "levine2016"
  config.patches.preset = "levine2016"
  config.collect.num_attempts = 800_000
  config.collect.num_held_out = 10_000
  config.collect.num_units = 14
  config.collect.num_held_out_units = 4
  config.collect.attempts_per_scene = 16
  config.collect.scenes_per_shard = 4  # 64 attempts of up to 10 images: about 20 MB
  config.collect.num_objects = 12
  config.collect.objects = "training"
  config.collect.held_out_objects = "held_out"
  config.collect.num_steps = tuple(range(2, 11))
  config.servo = ConfigDict({"close_ratio": 0.9, "raise_ratio": 0.5})
  # Section 6, with four bins of a hundred attempts in place of one.
  config.evaluate.with_replacement.update(
    {"repetitions": 4, "num_attempts": 100, "num_objects": 12}
  )
  config.evaluate.without_replacement.num_objects = 20
  config.evaluate.objects = "held_out"
  config.evaluate.num_steps = 10

  train = config.train
  train.phases = ((20_000, 0.01), (60_000, 0.13), (320_000, 1.0))
  train.batch_size = 64
  train.eval_batch_size = 64
  train.log_every = 100
  train.eval_every = 5_000
  train.save_every = 500
  train.ema_decay = 0.9999
  train.cache_bytes = 0
  train.optimizer.name = "sgd"
  train.optimizer.learning_rate = 1e-2
  train.optimizer.warmup_steps = 150  # fits the shortest update of a campaign
  train.optimizer.weight_decay = 7e-5
  return config
