"""The quickstart runs, at a size of seconds."""

import pytest

from examples import quickstart
from experiments import cli


@pytest.mark.slow
def test_the_quickstart_goes_the_whole_way(tmp_path, capsys):
  config = quickstart.small_config()
  config.network.channels = 8
  config.collect.update({"num_attempts": 24, "num_held_out": 8, "num_workers": 1})
  config.train.update({"phases": ((4, 0.01), (4, 1.0)), "batch_size": 8})
  config.train.update({"eval_batch_size": 8, "eval_every": 4, "log_every": 2})
  config.train.optimizer.warmup_steps = 2
  bins = {"repetitions": 1, "num_attempts": 1, "num_objects": 4}
  config.evaluate.update({"num_workers": 1, "num_videos": 0, "num_steps": 3})
  config.evaluate.with_replacement.update(bins)
  config.evaluate.without_replacement.update(bins)
  attempt = quickstart.quickstart(tmp_path, config)
  assert len(attempt.images) <= 3 and attempt.evidence[0]["p_best"] > 0
  printed = capsys.readouterr().out
  assert "held-out AUC" in printed and "| servo" in printed
  assert len(cli.read_jsonl(tmp_path / "evaluate" / "rows.jsonl")) == 4
