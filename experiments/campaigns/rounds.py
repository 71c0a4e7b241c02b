"""The bins of a round: which robots, objects and policies make its attempts."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from envs import rollout, units
from experiments.campaigns.settings import Round
from experiments.collect import CollectConfig
from experiments.evaluation.seeds import Purpose, scene_seed


@dataclasses.dataclass(frozen=True)
class Shard:
  """The bins of one file, all attempted by the same policy.

  Attributes:
    number: of the file.
    is_random: whether random commands make the attempts, or the latest network.
    scenes: its bins.
  """

  number: int
  is_random: bool
  scenes: tuple[rollout.SceneTask, ...]

  @property
  def num_attempts(self) -> int:
    return sum(scene.num_attempts for scene in self.scenes)


def plan_shards(round_: Round, settings: CollectConfig, frame_size: int) -> list[Shard]:
  """The files of a round, those of random attempts first: they need no network.

  Everything is drawn from the seed of the config and the number of the round.
  """
  shards: list[Shard] = []
  num_scenes = 0
  for is_random, count in (
    (True, round_.num_random),
    (False, round_.num_attempts - round_.num_random),
  ):
    scenes = _scenes(round_, settings, frame_size, count, num_scenes)
    num_scenes += len(scenes)
    for begin in range(0, len(scenes), settings.scenes_per_shard):
      part = tuple(scenes[begin : begin + settings.scenes_per_shard])
      shards.append(Shard(len(shards), is_random, part))
  return shards


def _scenes(
  round_: Round,
  settings: CollectConfig,
  frame_size: int,
  num_attempts: int,
  first: int,
) -> list[rollout.SceneTask]:
  """Bins for so many attempts, numbered from `first`."""
  scenes: list[rollout.SceneTask] = []
  crews = shifts(round_, settings)
  total = -(-num_attempts // settings.attempts_per_scene)
  for i in range(total):
    index = first + i
    rng = np.random.default_rng([settings.seed, round_.number, _BIN, index])
    crew = crews[i * len(crews) // total]
    scenes.append(
      rollout.SceneTask(
        unit=crew[i % len(crew)],
        scene_seed=scene_seed(Purpose.TRAIN, settings.seed, round_.number, index),
        num_attempts=min(
          settings.attempts_per_scene, num_attempts - i * settings.attempts_per_scene
        ),
        num_steps=round_.num_steps,
        num_objects=int(rng.integers(round_.num_objects[0], round_.num_objects[1] + 1)),
        objects=round_.objects or settings.objects,
        frame_size=frame_size,
      )
    )
  return scenes


# Keep the draws of bins and of shifts apart.
_BIN, _SHIFT = 1, 2


def shifts(round_: Round, settings: CollectConfig) -> Sequence[Sequence[units.Unit]]:
  """The robots of each shift, of which some drop out and come back in another."""
  fleet = units.fleet_units(settings.num_units, "training", arm=settings.arm)
  crews = []
  for shift in range(round_.shifts):
    rng = np.random.default_rng([settings.seed, round_.number, _SHIFT, shift])
    least, most = round_.units_at_once
    count = int(rng.integers(least, most + 1))
    chosen = np.sort(rng.choice(len(fleet), size=count, replace=False))
    crews.append([fleet[i] for i in chosen])
  return crews
