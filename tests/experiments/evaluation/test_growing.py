"""An evaluation that stops when two policies' difference is decided."""

from envs import protocols
from experiments import cli, evaluate
from experiments.evaluation import conditions, policies


def test_each_part_has_more_bins_of_all_policies_and_the_last_has_all():
  config = cli.load_config(cli.DEFAULT_CONFIG)
  config.evaluate.policies = ("random", "oracle")
  config.evaluate.with_replacement.repetitions = 20
  settings = evaluate.build_config(config.evaluate)
  specs = [
    policies.choose(name, config, policies.Networks()) for name in settings.policies
  ]
  trials = evaluate.plan(settings, specs, conditions.NOTHING, 72)
  parts = evaluate.growing(trials)
  assert parts[-1] == trials
  for part, larger in zip(parts, parts[1:], strict=False):
    assert set(t.key for t in part) < set(t.key for t in larger)
  for part in parts:
    by_policy = [
      {(t.protocol, t.first) for t in part if t.policy.name == name}
      for name in settings.policies
    ]
    assert by_policy[0] == by_policy[1]
  assert {t.protocol for t in parts[0]} == {protocols.NAMES[0]}
