"""A campaign whose processes are killed: it goes on, and nothing is lost or doubled."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import source
from experiments import campaign, cli
from experiments.campaigns.state import Reader
from experiments.fitting import stopping

_ROOT = Path(campaign.__file__).parents[1]
_ATTEMPTS = (40, 30, 30)

# A campaign of seconds; three rounds, in turns.
_CONFIG = f"""
from ml_collections import ConfigDict
from experiments.configs import demo

def get_config():
  config = demo.get_config()
  config.network.channels = 8
  config.collect.update(num_held_out=8, num_units=4, num_held_out_units=2)
  config.collect.update(attempts_per_scene=2, scenes_per_shard=2, num_workers=2)
  config.train.update(batch_size=8, eval_batch_size=8, eval_every=8, log_every=2)
  config.train.update(save_every=4)
  config.train.optimizer.warmup_steps = 2
  config.campaign.rounds = ConfigDict(
    {{
      f"r{{i}}": demo.campaign_round(
        num_attempts=count,
        num_steps=(2, 3),
        phases=((8, 0.2), (8, 1.0)),
        random_share=1.0 if i == 0 else 0.2,
        noise_probability=0.5,
        num_objects=(2, 4),
        units_at_once=(2, 3),
        shifts=2,
        warm_start=i > 0,
      )
      for i, count in enumerate({_ATTEMPTS})
    }}
  )
  config.evaluate.update(policies=("servo",), num_videos=0, num_units=2)
  config.evaluate.with_replacement.update(repetitions=1, num_attempts=2)
  config.evaluate.without_replacement.repetitions = 0
  return config
"""


def _start(workdir, *more):
  config = workdir.parent / "tiny.py"
  config.write_text(_CONFIG)
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "experiments.campaign", f"--workdir={workdir}"),
      *(f"--config={config}", *more),
    ],
    cwd=_ROOT,
    env={**os.environ, "PYTHONPATH": str(_ROOT), "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def _check_whole(workdir):
  """Counts are exact, no attempt is there twice, every update was made once."""
  datasets = [
    source.open_dataset(workdir / "data" / f"round_{i:02d}" / "1.0.0", verify="records")
    for i in range(len(_ATTEMPTS))
  ]
  assert [len(dataset) for dataset in datasets] == list(_ATTEMPTS)
  merged = source.merge(datasets)  # refuses an attempt that is there twice
  ids = [merged.decoded(i, images=False)["attempt_id"] for i in range(len(merged))]
  assert len(set(ids)) == sum(_ATTEMPTS)
  for i, dataset in enumerate(datasets):
    row = json.loads((workdir / f"train/round_{i:02d}/update.json").read_text())
    assert row["row"]["step"] in (8, 16)
    policies = list(dataset.attempts.policy)
    assert policies.count("random") == round((1.0, 0.2, 0.2)[i] * _ATTEMPTS[i])
    assert set(policies) <= {"random", "servo+noise"}
  state = Reader(workdir).read()
  assert [r.total.attempts for r in state.rounds] == list(_ATTEMPTS)
  assert all(r.update.is_done and r.update.step == 16 for r in state.rounds)
  return merged


@pytest.mark.slow
def test_a_campaign_killed_at_random_moments_is_the_one_that_was_not(tmp_path):
  begin = time.monotonic()
  straight = _start(tmp_path / "straight")
  out, errors = straight.communicate(timeout=600)
  assert straight.returncode == 0, errors
  took = time.monotonic() - begin
  expected = _check_whole(tmp_path / "straight")
  assert "round  " in out
  workdir, rng = tmp_path / "killed", random.Random(0)
  kills = 0
  for number in range(20):
    process = _start(workdir)
    time.sleep(rng.uniform(0.1, 0.5) * took)
    if process.poll() is not None:
      break
    # Now and then the machine asks first.
    kind = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
    if kind == signal.SIGTERM:
      process.terminate()
      _, errors = process.communicate(timeout=60)
      assert process.returncode in (stopping.STOPPED, -signal.SIGTERM), errors
    else:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
    kills += 1
  last = _start(workdir)
  _, errors = last.communicate(timeout=600)
  assert last.returncode == 0, errors
  assert kills >= 5
  found = _check_whole(workdir)
  # One device or two, killed or not: the same attempts by the same networks.
  assert found.fingerprint == expected.fingerprint


@pytest.mark.slow
def test_collecting_while_training_records_the_networks_that_were_used(tmp_path):
  process = _start(tmp_path / "run", "--schedule=together")
  _, errors = process.communicate(timeout=600)
  assert process.returncode == 0, errors
  merged = _check_whole(tmp_path / "run")
  versions = {
    version
    for version, policy in zip(
      merged.attempts.policy_version, merged.attempts.policy, strict=True
    )
    if policy != "random"
  }
  assert versions and all(version.startswith("round_0") for version in versions)
  # The networks of a round that was still training were kept.
  kept = list((tmp_path / "run" / "networks").glob("round_*"))
  done = {f"round_{i:02d}" for i in range(len(_ATTEMPTS))}
  assert {path.name.partition("-")[0] for path in kept} <= done


def test_a_folder_without_a_campaign_is_named(tmp_path):
  with pytest.raises(cli.UserError, match="holds no campaign"):
    campaign.show(tmp_path)


@pytest.mark.slow
def test_a_node_of_a_cluster_is_killed_while_it_collects(tmp_path):
  """A real Ray runtime of two nodes on this machine, of which one goes away."""
  ray = pytest.importorskip("ray")
  cluster_utils = pytest.importorskip("ray.cluster_utils")
  small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
  cluster = cluster_utils.Cluster(
    initialize_head=True, head_node_args={"num_cpus": 1, **small}
  )
  try:
    other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    process = _start(
      tmp_path / "run",
      f"--ray_address={cluster.address}",
      "--decide=together",
      "--schedule=turns",
    )
    # Both nodes work on shards of round 1, which the network makes.
    directory = tmp_path / "run" / "data" / "round_01" / "1.0.0"
    deadline = time.monotonic() + 400
    while len(list(directory.glob(".tmp-*"))) < 2 and process.poll() is None:
      assert time.monotonic() < deadline
      time.sleep(0.02)
    cluster.remove_node(other, allow_graceful=False)
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert "a worker died" in errors
    _check_whole(tmp_path / "run")
  finally:
    ray.shutdown()
    cluster.shutdown()
