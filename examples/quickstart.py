"""Collect, train, evaluate, and watch one servoed attempt, all from Python.

  python -m examples.quickstart          # 10 minutes on two cores, less on more

In a notebook, call `quickstart` or run its lines one by one. Every program is also a
function, which takes a config and returns what it made. Such a short training achieves
little; experiments/configs/demo.py trains longer.
"""

from pathlib import Path

from envs import rollout
from envs.attempt import Attempt
from experiments import cli, collect, evaluate, train, watch
from experiments.evaluation import policies, scores


def small_config():
  """The demo's configuration, with fewer attempts and steps."""
  config = cli.load_config(cli.DEFAULT_CONFIG)
  config.collect.update({"num_attempts": 1024, "num_held_out": 128})
  config.train.update({"phases": ((100, 0.01), (200, 0.13)), "eval_every": 100})
  config.evaluate.update({"policies": ("random", "servo"), "num_videos": 1})
  config.evaluate.with_replacement.repetitions = 8
  config.evaluate.without_replacement.repetitions = 2
  return config


def quickstart(workdir: str | Path, config=None) -> Attempt:
  """Goes the whole way; the same call continues where it was interrupted."""
  workdir, config = Path(workdir), config or small_config()

  # 1. Simulated robots make random attempts and label them themselves.
  data = collect.collect(config, workdir / "data", "train")
  held_out = collect.collect(config, workdir / "data", "held_out")

  # 2. The network learns to predict success from images and a command.
  trained = train.train(config, [data], [held_out], workdir / "train")
  print(f"held-out AUC {trained.metrics['auc']:.2f} at step {trained.weights.step}")

  # 3. A servo with that network grasps unseen objects with unseen robots.
  networks = policies.Networks(servo=str(trained.checkpoints))
  summary = evaluate.evaluate(config, networks, workdir / "evaluate")
  print(scores.describe(summary))

  # 4. One attempt, decision by decision. Any policy is called like this one.
  servo = policies.make_policy(policies.choose("servo", config, networks))
  scene = watch.plan_scene(config, num_attempts=1, seed=1)
  (attempt,) = rollout.run_scene(scene, servo).attempts
  print(watch.describe(1, attempt))
  return attempt


if __name__ == "__main__":
  quickstart("runs/quickstart")
