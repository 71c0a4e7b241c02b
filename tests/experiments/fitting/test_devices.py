"""Many devices and many processes train as one does; a trace appears."""

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from jax.experimental.compilation_cache import compilation_cache

from experiments import cli, train
from experiments.configs import demo, levine2016
from experiments.fitting import devices as devices_lib
from experiments.fitting import train_config
from hand_eye import checkpoint
from tests.data_pipeline import synthetic

_NETWORK = {
  "preset": "small", "channels": 4, "image_convs": 1, "command_convs": 1,
  "dense_units": (8,),
}  # fmt: skip

_CONFIG = """
from ml_collections import ConfigDict
from experiments.configs import demo

def get_config():
  train = demo.train()
  train.update(phases=((20, 1.0),), batch_size=16, eval_batch_size=40, log_every=1,
               eval_every=10)
  train.jitter.update(brightness=0.1, contrast=0.1, saturation=0.1)
  train.optimizer.update(name="sgd", learning_rate=0.01, warmup_steps=2)
  return ConfigDict({{"network": {network!r}, "train": train}})
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A folder with a config and two datasets."""
  root = tmp_path_factory.mktemp("devices")
  (root / "config.py").write_text(textwrap.dedent(_CONFIG.format(network=_NETWORK)))
  for name, unit in (("train", 0), ("held_out", 4)):
    synthetic.write_synthetic_dataset(
      root, name, num_attempts=48, first_unit=unit, seed=unit
    )
  return root


def start(root, workdir, *flags, devices=1, **variables):
  """Starts the program on forced CPU devices."""
  command = [
    sys.executable, "-m", "experiments.train", f"--config={root / 'config.py'}",
    f"--data={root / 'train/1.0.0'}", f"--held_out={root / 'held_out/1.0.0'}",
    f"--workdir={workdir}", *flags,
  ]  # fmt: skip
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": os.getcwd(),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    **variables,
  }
  return subprocess.Popen(
    command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )


def finish(*processes):
  for process in processes:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
  return out


def curves(workdir):
  rows = cli.read_jsonl(workdir / "metrics.jsonl")
  return {
    split: np.array([row["loss"] for row in rows if row["split"] == split])
    for split in ("train", "held_out")
  }


def assert_alike(one, other):
  """Loss curves and final weights agree to what float32 sums in other orders allow."""
  for split, losses in curves(one).items():
    np.testing.assert_allclose(losses, curves(other)[split], rtol=2e-4)
  weights = [
    checkpoint.load_policy(workdir / "checkpoints", step="last")
    for workdir in (one, other)
  ]
  assert weights[0].step == weights[1].step == 20
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
    weights[0].params,
    weights[1].params,
  )
  paths = [workdir / "held_out_predictions.npz" for workdir in (one, other)]
  with np.load(paths[0]) as mine, np.load(paths[1]) as theirs:
    for name in mine:
      np.testing.assert_allclose(mine[name], theirs[name], atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def one_device(root):
  finish(start(root, root / "one"))
  return root / "one"


@pytest.mark.slow
def test_the_loss_curve_on_eight_devices_is_that_on_one(root, one_device):
  finish(start(root, root / "eight", devices=8))
  assert len(curves(one_device)["train"]) == 20
  assert_alike(root / "eight", one_device)


@pytest.mark.slow
def test_two_processes_equal_one(root, one_device):
  """Random crops and colours included; the last held-out batch is not full."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  variables = {
    "JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"
  }  # fmt: skip
  finish(
    *(
      start(
        root, root / "two", "--distributed", devices=2, **variables,
        JAX_PROCESS_ID=str(i),
      )
      for i in range(2)
    )
  )  # fmt: skip
  assert_alike(root / "two", one_device)
  # Another number of processes and devices continues it: here, only evaluates it.
  out = finish(start(root, root / "two", "--profile"))
  assert "Best checkpoint: step" in out


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_devices(root, one_device):
  process = start(root, root / "moved", devices=8)
  metrics = root / "moved" / "metrics.jsonl"
  while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
    time.sleep(0.01)
  process.terminate()
  _, error = process.communicate(timeout=300)
  assert process.returncode == 75, error[-3000:]
  finish(start(root, root / "moved", devices=1))
  assert_alike(root / "moved", one_device)


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_a_batch_that_does_not_divide_is_refused_before_anything_else(
  tmp_path, monkeypatch, name
):
  monkeypatch.setattr(jax, "devices", lambda: [None] * 8)
  config = demo.get_config()
  config.train.update(batch_size=16, eval_batch_size=16)
  config.train[name] = 12
  with pytest.raises(
    cli.UserError, match=f"config.train.{name} is 12, expected a multiple of the 8"
  ):
    train.train(config, ["nowhere"], ["nowhere"], tmp_path / "none")
  assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ((False, "host:1", 0, -1), "belong together"),
    ((True, "", 2, 1), "belong together"),
    ((False, "host:1", 2, 2), "--process_id is 2, expected 0 to 1"),
  ],
)
def test_flags_of_processes_that_contradict_each_other_are_named(arguments, words):
  with pytest.raises(cli.UserError, match=words):
    devices_lib.join(*arguments)


@pytest.mark.parametrize(
  ("variables", "words"),
  [
    ({"NUM_PROCESSES": "2"}, "belong together"),
    ({"NUM_PROCESSES": "2", "PROCESS_ID": "2"}, "--process_id is 2, expected 0 to 1"),
    ({"NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two', expected a whole number"),
  ],
)
def test_processes_that_the_environment_names_wrongly_are_refused(
  monkeypatch, variables, words
):
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
  for name, value in variables.items():
    monkeypatch.setenv(f"JAX_{name}", value)
  with pytest.raises(cli.UserError, match=words):
    devices_lib.join(True, "", 0, -1)
  devices_lib.join(False, "", 0, -1)  # Without the flag they are nobody's business.


def test_where_no_cluster_announces_itself_the_error_says_what_to_set(monkeypatch):
  def find_none(*_):
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", find_none)
  with pytest.raises(cli.UserError, match="finds no cluster .*JAX_COORDINATOR_ADD"):
    devices_lib.join(True, "", 0, -1)


def test_one_process_joins_nobody():
  devices_lib.join(False, "", 0, -1)
  assert jax.process_count() == 1


def test_what_was_compiled_is_kept_in_a_folder(tmp_path, monkeypatch):
  keys = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
  before = {key: getattr(jax.config, key) for key in keys}
  try:
    devices_lib.keep_compiled("auto", tmp_path)  # On CPUs it is not worth its risk.
    assert jax.config.jax_compilation_cache_dir == before[keys[0]]
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    devices_lib.keep_compiled("auto", tmp_path)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    devices_lib.keep_compiled(str(tmp_path / "elsewhere"), tmp_path)
    jax.config.update(keys[1], 0.0)
    compilation_cache.reset_cache()
    jax.jit(lambda x: x * 3 + len(keys))(1.0).block_until_ready()
    assert list((tmp_path / "elsewhere").iterdir())
  finally:
    for key, value in before.items():
      jax.config.update(key, value)
    compilation_cache.reset_cache()


def test_a_trace_is_written_of_a_few_steps(tmp_path):
  double = jax.jit(lambda x: 2 * x)
  with devices_lib.Trace(tmp_path / "profile", begin=3) as trace:
    for step in range(4, 30):
      trace.before(step)
      double(1.0).block_until_ready()
  assert list((tmp_path / "profile").rglob("*.xplane.pb"))
  with devices_lib.Trace(None, begin=0) as trace:
    for step in range(1, 30):
      trace.before(step)


_LAUNCH = Path(train.__file__).parent / "launch"


@pytest.mark.parametrize("name", ["tpu_jobset.yaml", "gpu_jobset.yaml"])
def test_manifests_give_flags_and_fields_that_there_are(name):
  text = (_LAUNCH / name).read_text()
  job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  given = dict(re.findall(r"--([\w.]+)=?(\S*)", container["args"][0]))
  known = set()
  for module in (train, devices_lib):
    known |= set(
      re.findall(r'DEFINE_\w+\(\s*"(\w+)"', Path(module.__file__).read_text())
    )
  assert {"data", "workdir", "distributed"} <= known
  config = levine2016.get_config()
  for flag, value in given.items():
    if flag.startswith("config."):
      section, field = flag.split(".")[1:]
      config[section][field] = int(value) if value.isdigit() else value
    else:
      assert flag in known | {"config"}, flag
  network = train_config.build_network(config.network)
  settings = train_config.build_train(config.train)
  assert network.dtype == "bfloat16"
  limits = container["resources"]["limits"]
  devices = job["parallelism"] * int(next(iter(limits.values())))
  assert settings.batch_size % devices == settings.eval_batch_size % devices == 0
  assert "distributed" in given and job["parallelism"] == job["completions"]
  if "env" in container:
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert set(variables) == set(devices_lib.VARIABLES)
    assert int(variables["JAX_NUM_PROCESSES"]) == job["completions"]
    port = int(variables["JAX_COORDINATOR_ADDRESS"].rpartition(":")[2])
    assert container["ports"] == [{"containerPort": port}]
  volumes = {volume["name"] for volume in pod["volumes"]}
  assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_as_many_devices_as_cores_are_idle(tmp_path, monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  monkeypatch.setattr(devices_lib, "idle_cores", lambda: 6)

  def chosen(name, asked=0, alone=True):
    sizes = [64, 96]
    return devices_lib.choose_cpu_devices(tmp_path / name, sizes, asked, alone)

  assert chosen("new") == 4  # the most that both batches divide over
  assert chosen("asked", asked=2) == 2
  assert chosen("joined", alone=False) == 1
  monkeypatch.setattr(devices_lib, "idle_cores", lambda: 0)
  assert chosen("busy") == 1
  # Whoever goes on keeps the number, or the weights would be others.
  (tmp_path / "begun").mkdir()
  devices_lib.remember_devices(tmp_path / "begun")
  monkeypatch.setattr(devices_lib, "idle_cores", lambda: 6)
  assert chosen("begun") == len(jax.devices()) and chosen("new") == 4
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
  monkeypatch.setattr(devices_lib, "idle_cores", lambda: 6)
  assert chosen("divided already") == 1


@pytest.mark.parametrize(
  ("shares", "idle"),
  [((1.0, 1.0), 2), ((0.9, 0.9), 2), ((0.5, 0.5), 1), ((0.0, 0.1), 0), ((1.0, 0.1), 1)],
)
def test_a_core_that_others_use_is_not_idle(monkeypatch, shares, idle):
  looks = [
    {f"cpu{core}": (0, 0) for core in range(2)},
    {f"cpu{core}": (round(100 * share), 100) for core, share in enumerate(shares)},
  ]
  monkeypatch.setattr(devices_lib, "idle_ticks", lambda: looks.pop(0))
  assert devices_lib.idle_cores(0.0) == idle


@pytest.mark.parametrize("required", ["", "any", "cpu", "gpu,cpu"])
def test_a_platform_that_is_there_is_accepted(required):
  devices_lib.check_platform(required)


def test_a_platform_that_is_not_there_stops_a_run_and_says_what_to_install():
  with pytest.raises(cli.UserError, match=r"found \d+ x cpu.*cuda13.*cuda12.*=any"):
    devices_lib.check_platform("gpu")
  with pytest.raises(cli.UserError, match=r"hand_eye\[tpu\]"):
    devices_lib.check_platform("tpu,gpu")
  with pytest.raises(cli.UserError, match="'cuda' is none of gpu, tpu, cpu, any"):
    devices_lib.check_platform("cuda")


def test_the_config_for_accelerators_does_not_fall_back_to_a_cpu():
  with pytest.raises(cli.UserError, match="gpu,tpu"):
    devices_lib.check_platform(levine2016.get_config().require_platform)
