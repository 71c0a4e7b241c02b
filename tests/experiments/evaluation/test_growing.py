"""Evaluations that stop early: decided, or out of time."""

from envs import protocols
from experiments import cli, evaluate
from experiments.evaluation import conditions, policies, trials


def plan(condition):
  config = cli.load_config(cli.DEFAULT_CONFIG)
  config.evaluate.policies = ("random", "oracle")
  config.evaluate.with_replacement.repetitions = 40
  settings = evaluate.build_config(config.evaluate)
  specs = [
    policies.choose(name, config, policies.Networks()) for name in settings.policies
  ]
  return evaluate.plan(settings, specs, condition, 72)


def test_a_condition_stops_when_it_is_decided_and_others_go_on():
  """The oracle is ahead in every bin, or nobody ever is."""
  plans = [plan(conditions.NOTHING), plan(conditions.parse("push=0.3"))]

  def run(trials):
    return [
      {
        "protocol": trial.protocol,
        "condition": trial.condition,
        "policy": trial.policy.name,
        "repetition": trial.first + i,
        "success": trial.policy.name == "oracle" and not trial.condition,
      }
      for trial in trials
      for i in range(len(trial.scenes))
    ]

  rows = evaluate.until_decided(plans, run)
  counts = [
    sum(row["condition"] == part[0].condition for row in rows) for part in plans
  ]
  assert counts[0] == 2 * 8  # bins of the first part: decided
  assert counts[1] == sum(len(trial.scenes) for trial in plans[1])


def test_bins_that_were_given_up_are_left_out_and_made_later(tmp_path, make_row):
  path, planned, asked = tmp_path / "rows.jsonl", plan(conditions.NOTHING)[:4], []

  def runner(function, tasks, **_):
    for index, trial in enumerate(tasks[:2]):
      asked.append(trial.key)
      yield index, [make_row(trial.policy.name, True, trial=trial.key)]

  assert len(trials.run(planned, path, runner=runner)) == 2
  assert len(trials.run(planned, path, runner=runner)) == 4
  assert asked == [trial.key for trial in planned]
  assert [row["trial"] for row in cli.read_jsonl(path)] == asked


def test_each_part_has_more_bins_of_all_policies_and_the_last_has_all():
  trials = plan(conditions.NOTHING)
  parts = evaluate.growing(trials)
  assert parts[-1] == trials
  for part, larger in zip(parts, parts[1:], strict=False):
    assert set(t.key for t in part) < set(t.key for t in larger)
  for part in parts:
    by_policy = [
      {(t.protocol, t.first) for t in part if t.policy.name == name}
      for name in ("random", "oracle")
    ]
    assert by_policy[0] == by_policy[1]
  assert {t.protocol for t in parts[0]} == {protocols.NAMES[0]}
