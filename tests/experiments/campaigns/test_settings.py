"""What decides a campaign is checked before anything runs."""

import pytest
from ml_collections import ConfigDict

from experiments import cli
from experiments.campaigns import rounds, settings
from experiments.configs import demo


def test_a_round_overrides_the_training_of_the_config():
  config = demo.get_config()
  config.campaign.rounds.r1.train.optimizer.learning_rate = 5e-4
  made = settings.build(config)
  train = settings.training(config, made.rounds[1])["train"]
  assert train.optimizer.learning_rate == 5e-4
  assert train.optimizer.clip_norm == config.train.optimizer.clip_norm
  assert train.phases == config.campaign.rounds.r1.train.phases
  assert train.eval_every == config.train.eval_every  # None keeps it
  first = settings.training(config, made.rounds[0])["train"]
  assert first.optimizer.learning_rate == config.train.optimizer.learning_rate


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("random_share", 1.5, "random_share is 1.5, expected 0 to 1"),
    ("num_steps", (1,), "num_steps"),
    ("num_objects", (6, 2), "num_objects"),
    ("weights", (1.0,), "weights is"),
    ("train_on", (7,), "train_on is"),
    ("units_at_once", (6, 99), "num_units"),
    ("objects", "nothing_of_that_name", "nothing_of_that_name"),
  ],
)
def test_a_wrong_field_is_named(field, value, words):
  config = demo.get_config()
  config.campaign.rounds.r1[field] = value
  with pytest.raises(cli.UserError, match=words):
    settings.build(config)


def test_the_first_round_is_random():
  config = demo.get_config()
  config.campaign.rounds.r0.random_share = 0.5
  with pytest.raises(cli.UserError, match="no network yet"):
    settings.build(config)


def test_rounds_are_numbered_without_a_gap():
  config = demo.get_config()
  config.campaign.rounds = ConfigDict({"r0": config.campaign.rounds.r0, "r7": {}})
  with pytest.raises(cli.UserError, match="expected r0 to r1"):
    settings.build(config)


def _plan(**fields):
  config = demo.get_config()
  config.campaign.rounds.r1.update(fields)
  made = settings.build(config)
  return made.rounds[1], made, rounds.plan_shards(made.rounds[1], made.collect, 72)


def test_a_round_has_exactly_its_attempts_and_its_share_of_random_ones():
  _, _, shards = _plan(num_attempts=1001, random_share=0.3)
  assert sum(shard.num_attempts for shard in shards) == 1001
  assert sum(shard.num_attempts for shard in shards if shard.is_random) == 300
  assert [shard.number for shard in shards] == list(range(len(shards)))
  seeds = [scene.scene_seed for shard in shards for scene in shard.scenes]
  assert len(set(seeds)) == len(seeds)
  # Random shards need no network, so they come first.
  assert [shard.is_random for shard in shards] == sorted(
    (shard.is_random for shard in shards), reverse=True
  )


def test_robots_drop_out_and_come_back_and_bins_differ():
  round_, made, shards = _plan(
    num_attempts=2000, units_at_once=(6, 10), shifts=8, num_objects=(4, 9)
  )
  crews = rounds.shifts(round_, made.collect)
  names = [{unit.name for unit in crew} for crew in crews]
  assert len(names) == 8 and all(6 <= len(crew) <= 10 for crew in names)
  away = names[0] - names[1]
  assert away and any(away & crew for crew in names[2:])
  assert len(set.union(*names)) > 10
  counts = {scene.num_objects for shard in shards for scene in shard.scenes}
  assert counts == set(range(4, 10))


def test_a_plan_is_the_same_every_time():
  first, second = _plan(num_attempts=300, shifts=3), _plan(num_attempts=300, shifts=3)
  assert first[2] == second[2]
