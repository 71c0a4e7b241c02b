"""Runs save when told to stop; killed or stopped, they continue to the same bits."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest

from experiments import cli, train
from experiments.configs import demo
from experiments.fitting import loop, stopping, train_config
from hand_eye import checkpoint
from tests.data_pipeline import synthetic

NETWORK = {
  "preset": "small",
  "channels": 4,
  "image_convs": 0,
  "command_convs": 0,
  "dense_units": (8,),
}
STEPS = 10


def train_section(**changes):
  section = dict(
    demo.train().items(), phases=((4, 0.01), (6, 1.0)), batch_size=16,
    eval_batch_size=16, log_every=2, eval_every=4,
  )  # fmt: skip
  section["optimizer"] = dict(section["optimizer"].items(), warmup_steps=2)
  section["jitter"] = dict(section["jitter"].items())
  return {**section, **changes}


@pytest.fixture(scope="module")
def data(tmp_path_factory, compiled_once):
  root = tmp_path_factory.mktemp("data")
  return (
    synthetic.write_synthetic_dataset(root, "train", num_attempts=48, seed=0),
    synthetic.write_synthetic_dataset(
      root, "held_out", num_attempts=16, first_unit=4, seed=1
    ),
  )


def run(
  data, workdir, *, network=NETWORK, init_from="", on_batch=loop.unchanged, **changes
):
  """What was trained."""
  config = {"network": network, "train": train_section(**changes)}
  return train.train(
    config, [data[0]], [data[1]], workdir, init_from=init_from, on_batch=on_batch
  )


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  run(data, workdir)
  return workdir


def weights(workdir, step="last"):
  policy = checkpoint.load_policy(workdir / "checkpoints", step=step)
  return policy.step, jax.tree.leaves((policy.params, policy.batch_stats))


def assert_same_weights(one, other):
  assert weights(one)[0] == weights(other)[0]
  for mine, theirs in zip(weights(one)[1], weights(other)[1], strict=True):
    np.testing.assert_array_equal(mine, theirs)


def stop_at(step, sent=signal.SIGTERM):
  """An `on_batch` that signals this process as a run takes that step."""

  def on_batch(number, batch, on_device):
    if number == step:
      os.kill(os.getpid(), sent)
    return on_device

  return on_batch


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_run_continues_to_the_same_bits(
  data, uninterrupted, tmp_path, sent
):
  handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  # Neither logged nor evaluated, one step into the second phase.
  with pytest.raises(stopping.Stopped, match=f"{sent.name} and saved at step 5 of 10"):
    run(data, tmp_path, on_batch=stop_at(5, sent))
  assert weights(tmp_path)[0] == 5
  now = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  assert now == handlers
  run(data, tmp_path)
  assert_same_weights(tmp_path, uninterrupted)
  # Every step is in one row or another, none in two.
  rows = cli.read_jsonl(tmp_path / "metrics.jsonl")
  steps = [row["step"] for row in rows if row["split"] == "train"]
  assert steps == [2, 4, 5, 6, 8, 10]


@jax.jit
def mislabelled(batch):
  return batch.replace(success=1.0 - batch.success)


@pytest.mark.slow
@pytest.mark.parametrize("ends", [(6,), (5, 9)])
def test_over_several_starts_the_best_checkpoint_is_kept(data, tmp_path, ends):
  """What is learned after step 4 is wrong, so that the first evaluation is the best."""

  def train_until(end, workdir):
    def on_batch(step, batch, on_device):
      if step == end:
        os.kill(os.getpid(), signal.SIGTERM)
      return mislabelled(on_device) if step > 4 else on_device

    fast = {"name": "adamw", "learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 0.0}
    return run(data, workdir, on_batch=on_batch, optimizer=fast, ema_decay=0.0)

  once = train_until(0, tmp_path / "once")
  for end in ends:
    with pytest.raises(stopping.Stopped):
      train_until(end, tmp_path / "often")
  often = train_until(0, tmp_path / "often")
  for name in ("once", "often"):
    kept = (tmp_path / name / "checkpoints").iterdir()
    assert sorted(int(path.name) for path in kept) == [4, STEPS]
  assert once.weights.step == often.weights.step == 4
  assert {**once.metrics, "seconds": 0} == {**often.metrics, "seconds": 0}


def test_a_second_signal_acts_at_once():
  # A shell starts what runs in the background with SIGINT ignored.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt):
      with stopping.Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.agreed(is_meeting=False) == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)  # is interrupted
  finally:
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("save_every", "last"), [(0, 4), (3, 6)])
def test_checkpoints_between_evaluations(data, tmp_path, save_every, last):
  def die_at_the_eighth(step, batch, on_device):
    if step == 8:
      raise ConnectionResetError
    return on_device

  with pytest.raises(ConnectionResetError):
    run(data, tmp_path, save_every=save_every, on_batch=die_at_the_eighth)
  assert weights(tmp_path)[0] == last


def test_nonsense_names_step_attempts_and_the_last_good_checkpoint(data, tmp_path):
  batches = {}

  def spoil_the_seventh(step, batch, on_device):
    batches[step] = batch
    if step < 7:
      return on_device
    command = on_device.command
    return on_device.replace(command=command / (command - command))

  with pytest.raises(Exception, match="not finite at step 7 ") as caught:
    run(data, tmp_path, on_batch=spoil_the_seventh)
  message = cli.message_for_user(caught.value)
  assert f"last good checkpoint is {tmp_path / 'checkpoints' / '4'}" in message
  named = re.findall(r"train-(\d{6})", message)
  assert len(named) == 8
  assert {int(name) for name in named} <= set(batches[7]["attempt"].tolist())
  assert checkpoint.load_policy(tmp_path / "checkpoints", step="last").step == 4


def test_a_batch_that_was_not_placed_on_the_devices_is_an_error(data, tmp_path):
  """The guard is on: a step that waits for a forgotten copy does not pass unseen."""

  def fetch_to_the_host(step, batch, on_device):
    with jax.transfer_guard("allow"):
      return jax.tree.map(np.asarray, on_device)

  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    run(data, tmp_path, on_batch=fetch_to_the_host)


def test_a_warm_start_begins_with_the_best_weights_of_another_run(
  data, uninterrupted, tmp_path
):
  after = stop_at(1)  # a step of the warm-up, whose learning rate is 0
  with pytest.raises(stopping.Stopped):
    run(data, tmp_path / "warm", init_from=uninterrupted, on_batch=after)
  policy = checkpoint.load_policy(tmp_path / "warm" / "checkpoints")
  source = checkpoint.load_policy(uninterrupted / "checkpoints", step="best")
  assert policy.step == 1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    policy.params,
    source.params,
  )
  said = json.loads((tmp_path / "warm" / "config.json").read_text())
  assert said["init"] == {"from": str(uninterrupted), "step": source.step}

  # Not as a run of another origin, but although that run is gone.
  with pytest.raises(cli.UserError, match="init.from"):
    run(data, tmp_path / "warm")
  with pytest.raises(cli.UserError, match="init.from"):
    run(data, tmp_path / "warm", init_from=tmp_path / "elsewhere")
  moved = uninterrupted.rename(tmp_path / "gone")
  try:
    run(data, tmp_path / "warm", init_from=uninterrupted)
  finally:
    moved.rename(uninterrupted)
  assert weights(tmp_path / "warm")[0] == STEPS


def test_a_warm_start_from_another_network_names_the_field(
  data, uninterrupted, tmp_path
):
  other = {**NETWORK, "channels": 8}
  with pytest.raises(cli.UserError, match="init_from.*channels is 4 in it"):
    run(data, tmp_path, network=other, init_from=uninterrupted)
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint directory"):
    run(data, tmp_path, init_from=tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", "{", None])
def test_checkpoints_say_of_which_run_they_are(uninterrupted, tmp_path, content):
  workdir = tmp_path / "run"
  shutil.copytree(uninterrupted, workdir)
  identity = checkpoint.describe(workdir / "checkpoints")["experiment"]
  (workdir / "config.json").unlink()
  if content is not None:
    (workdir / "config.json").write_text(content)
  train.check_same_run(workdir, identity)
  changed = json.loads(json.dumps(identity))
  changed["train"]["optimizer"]["learning_rate"] = 0.5
  with pytest.raises(cli.UserError, match="train.optimizer is .*choose another"):
    train.check_same_run(workdir, changed)
  changed["train"] = {**identity["train"], "batch_norm": "per_device"}
  with pytest.raises(cli.UserError, match="train.batch_norm is global, not per_dev"):
    train.check_same_run(workdir, changed)


def test_two_runs_in_one_work_folder_are_one_clear_error(data, tmp_path):
  tmp_path.joinpath(".config.json.123.tmp").write_text("left by a killed run")

  def start_another(step, batch, on_device):
    with pytest.raises(cli.UserError, match="is being written by another run .process"):
      run(data, tmp_path)
    raise ConnectionResetError

  with pytest.raises(ConnectionResetError):
    run(data, tmp_path, on_batch=start_another)
  assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"batch_norm": "none"}, "batch_norm is 'none'"),
    ({"save_every": -1}, "save_every is -1"),
  ],
)
def test_wrong_fields_are_named(changes, words):
  with pytest.raises(cli.UserError, match=words):
    train_config.build_train(train_section(**changes))


def program(tmp_path, data, workdir, **network):
  """The command of a whole program, and its environment."""
  config = tmp_path / "config.py"
  config.write_text(
    textwrap.dedent(f"""
    from ml_collections import ConfigDict
    def get_config():
      return ConfigDict({{
        "network": {dict(NETWORK, **network)!r}, "train": {train_section()!r}
      }})
    """)
  )
  return [
    sys.executable, "-m", "experiments.train", f"--config={config}",
    f"--data={data[0]}", f"--held_out={data[1]}", f"--workdir={workdir}",
  ]  # fmt: skip


def environment(**changes):
  return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd(), **changes}


@pytest.mark.slow
def test_killed_at_random_steps_it_still_ends_with_the_same_bits(
  data, uninterrupted, tmp_path
):
  command = program(tmp_path, data, tmp_path / "run")
  rng = random.Random(time.time_ns())
  kills = 0
  for _ in range(30):
    process = subprocess.Popen(
      command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    # Until it trains, and then at some moment: within a step or a checkpoint.
    begin = time.monotonic()
    metrics = tmp_path / "run" / "metrics.jsonl"
    known = metrics.stat().st_size if metrics.exists() else 0
    while process.poll() is None and time.monotonic() - begin < 120:
      if metrics.exists() and metrics.stat().st_size > known:
        time.sleep(rng.uniform(0, 0.5))
        break
      time.sleep(0.01)
    if process.poll() is not None:
      assert process.returncode == 0, process.stderr.read().decode()
      break
    process.kill()
    process.wait()
    kills += 1
  assert process.returncode == 0 and kills
  assert_same_weights(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_the_program_ends_with_its_own_status_on_sigterm(data, uninterrupted, tmp_path):
  command = program(tmp_path, data, tmp_path / "run")
  process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE)
  metrics = tmp_path / "run" / "metrics.jsonl"
  while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
    time.sleep(0.01)
  process.terminate()
  message = process.communicate(timeout=120)[1].decode()
  assert process.returncode == stopping.STOPPED, message
  assert "stopped by SIGTERM and saved at step" in message
  assert subprocess.run(command, env=environment(), check=False).returncode == 0
  assert_same_weights(tmp_path / "run", uninterrupted)
