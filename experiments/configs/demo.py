r"""The demo: the whole way, from simulated robots to a servoing policy, on two cores.

  python -m experiments.demo --workdir=runs/demo

or one stage of it, for example the training with a larger batch:

  python -m experiments.train --workdir=runs/demo/train \
    --data=runs/demo/data/round_00/1.0.0 --held_out=runs/demo/data/held_out/1.0.0 \
    --config.train.batch_size=128

A small campaign: 4,096 random attempts, then a round by the latest network. The
preset `glimpse` first learns from the measured poses where commands lead
(`auxiliary_steps`), then everything at once.

Hardware: two CPU cores, ten minutes. README.md has the table that it produced.
"""

from ml_collections import ConfigDict, config_dict

# Simple rigid things: what so short a training learns.
SIMPLE = "box,capsule,cylinder,dumbbell,ellipsoid,l_piece"
HELD_OUT = "bottle,hammer,prism_stack,t_piece"


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.network = network()
  config.collect = collect()
  config.campaign = campaign()
  config.train = train()
  config.patches = patches()
  config.servo = servo()
  config.evaluate = evaluate()
  config.sweep = sweep()
  return config


def network() -> ConfigDict:
  return ConfigDict(
    {
      "preset": "glimpse",
      # Replace a field of the preset; None keeps it.
      "channels": config_dict.placeholder(int),
      "image_convs": config_dict.placeholder(int),
      "dtype": config_dict.placeholder(str),
      "stem_form": config_dict.placeholder(str),
      "pregrasp": config_dict.placeholder(bool),
    }
  )


def collect() -> ConfigDict:
  return ConfigDict(
    {
      "num_attempts": 10240,
      "num_held_out": 512,
      "num_units": 14,
      "num_held_out_units": 4,
      # The objects are swapped out after this many attempts.
      "attempts_per_scene": 4,
      "scenes_per_shard": 16,
      # With these the random policy succeeds in 10 to 30 % (Section 5.2).
      "num_objects": 6,
      # 'training' and 'held_out' are all families, soft ones too.
      "objects": SIMPLE,
      "held_out_objects": HELD_OUT,
      "arm": "built_in",
      "num_steps": (2, 3),  # T of an attempt is one of these
      "seed": 0,
      "num_workers": 0,  # 0: one for each core
    }
  )


def campaign() -> ConfigDict:
  # Fields of experiments.campaigns.settings.CampaignConfig.
  return ConfigDict(
    {
      "schedule": "auto",
      "evaluate_updates": False,
      "cpu_devices": 0,  # 0: one for each core
      "refresh": 15.0,
      "rounds": {
        "r0": campaign_round(
          num_attempts=4096,
          num_steps=(2, 3),
          random_share=1.0,
          warm_start=False,
          phases=((1100, 1.0),),
        ),
        "r1": campaign_round(
          num_attempts=1536,
          num_steps=(3, 5),
          noise_probability=0.2,
          phases=((1200, 1.0),),
        ),
      },
    }
  )


def campaign_round(
  *,
  num_attempts: int,
  num_steps: tuple[int, ...],
  phases: tuple[tuple[int, float], ...],
  **fields: object,
) -> ConfigDict:
  """A round; `fields` are those of experiments.campaigns.settings.Round.

  Where it goes on with the weights of the last update, those know where commands lead.
  """
  return ConfigDict(
    {
      "num_attempts": num_attempts,
      "num_steps": num_steps,
      "random_share": 0.0,
      # Of the motions that the network chose, these are disturbed (m, rad).
      "noise_probability": 0.0,
      "noise_metres": 0.02,
      "noise_radians": 0.4,
      "num_objects": (6, 6),
      "objects": "",  # '': those of `collect`
      "units_at_once": (14, 14),
      "shifts": 1,
      "warm_start": True,
      "train_on": (),  # rounds; () for all so far
      "weights": (),  # share of the batches for each of them; () for none
      **fields,
      # What differs from `train`; None keeps that.
      "train": {
        "phases": phases,
        "auxiliary_steps": (
          0 if fields.get("warm_start", True) else config_dict.placeholder(int)
        ),
        "eval_every": config_dict.placeholder(int),
        "save_every": config_dict.placeholder(int),
        "optimizer": {
          "learning_rate": config_dict.placeholder(float),
          "warmup_steps": config_dict.placeholder(int),
        },
      },
    }
  )


def train() -> ConfigDict:
  return ConfigDict(
    {
      "seed": 0,
      # A curriculum, (steps, longest command in metres) each; one metre spans any bin.
      "phases": ((2100, 1.0),),
      # Of the first steps: where commands lead, learned from the measured poses alone.
      "auxiliary_steps": 250,
      "batch_size": 64,
      "eval_batch_size": 100,
      "log_every": 25,
      "eval_every": 200,
      "save_every": 0,  # checkpoints between evaluations
      # Statistics of the whole batch, on any number of devices.
      "batch_norm": "global",
      # Averages over about 200 steps: short enough to follow a short run.
      "ema_decay": 0.995,
      # Off: a mirrored image belongs to a mirrored command only where the camera looks
      # along the x axis, and the cell's cameras look across it, over one shoulder.
      "mirror_probability": 0.0,
      "jitter": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
      # Decoded frames are kept in memory where they fit into this.
      "cache_bytes": 2 * 2**30,
      "optimizer": {
        # The paper names none. Decays to zero over the whole run.
        "name": "adamw",
        "learning_rate": 2e-3,
        "warmup_steps": 100,
        "decay_steps": config_dict.placeholder(int),  # None: the whole run
        "weight_decay": 1e-4,
        "momentum": 0.9,
        "clip_norm": 1.0,
      },
    }
  )


def patches() -> ConfigDict:
  # Of the open-loop baseline: fields of experiments.fitting.patch_inputs.PatchConfig.
  return ConfigDict(
    {
      "preset": "small",
      "side": 0.16,  # m
      "height": 0.02,  # m, of their plane above the bin's floor
      "half_turn": True,
      "mirror_probability": 0.0,
    }
  )


def servo() -> ConfigDict:
  # Fields of hand_eye.servo.ServoConfig; those that are absent keep its defaults.
  return ConfigDict(
    {
      "close_ratio": 0.9,
      "raise_ratio": 0.5,
      "initial_std": (0.06, 0.07, 0.8),
    }
  )


def evaluate() -> ConfigDict:
  return ConfigDict(
    {
      # The hand-designed baseline has a calibrated depth camera with noise.
      "policies": ("random", "hand_designed_noisy", "servo"),
      # Of each policy, in the same bins from the same seeds. The paper: 1 bin of 100
      # attempts with, 4 of 30 without replacement.
      "with_replacement": {"repetitions": 50, "num_attempts": 4, "num_objects": 6},
      "without_replacement": {"repetitions": 4, "num_attempts": 30, "num_objects": 12},
      "num_units": 25,  # held-out units, with held-out objects; more say more
      "objects": HELD_OUT,
      "arm": "built_in",
      "num_steps": 5,  # T; the servo may close earlier
      "seed": 1,
      "num_workers": 0,  # 0: one for each core
      "num_videos": 2,  # of each kind: successes, corrections, failures
      "video_size": 320,  # pixels
    }
  )


def sweep() -> ConfigDict:
  return ConfigDict(
    {
      # In place of those of `evaluate`.
      "policies": ("random", "servo"),
      "with_replacement": {"repetitions": 32, "num_attempts": 4, "num_objects": 6},
      "without_replacement": {"repetitions": 0, "num_attempts": 30, "num_objects": 12},
      "conditions": (
        *(f"camera_shift={metres}" for metres in (0.05, 0.10, 0.15)),
        *(f"camera_turn={angle}" for angle in (0.087, 0.175, 0.262)),  # 5, 10, 15 deg
        "actuation_bias=0.01",
        "actuation_noise=3",
        *(f"wear={factor}" for factor in (2.0, 3.0, 4.0)),
        *(f"push={speed}" for speed in (0.2, 0.4)),
        *(f"light={factor}" for factor in (0.5, 1.5)),
        *(f"num_steps={count}" for count in (1, 2, 3, 4, 6, 8, 10)),
      ),
    }
  )
