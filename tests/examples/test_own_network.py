"""A network from outside the library trains, is found again, servos and exports."""

import types

import numpy as np
import pytest

from experiments import cli, train
from experiments.configs import demo
from experiments.evaluation import policies
from experiments.fitting import train_config
from hand_eye import architectures, checkpoint
from hand_eye.algorithm1 import ServoConfig
from hand_eye.decision import Cause
from hand_eye.deploy import export, runtime
from hand_eye.observations import Seen
from tests.data_pipeline import synthetic

NAME = "examples.own_network:architecture"


@pytest.fixture(scope="module")
def config():
  made = demo.get_config()
  made.network.preset = NAME
  made.train.update({"phases": ((2, 1.0),), "batch_size": 8, "eval_batch_size": 8})
  made.train.update({"eval_every": 2, "log_every": 2})
  made.train.optimizer.update({"name": "lion", "warmup_steps": 1})
  made.servo.update({"num_samples": 8, "num_elites": 3})
  return made


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory, compiled_once):
  root = tmp_path_factory.mktemp("own")
  data = synthetic.write_synthetic_dataset(root, "train", num_attempts=8, seed=0)
  held = synthetic.write_synthetic_dataset(
    root, "held_out", num_attempts=8, first_unit=4, seed=1
  )
  return train.train(config, [data], [held], root / "train")


def test_it_trains_and_its_checkpoint_says_which_network_it_is(trained):
  assert trained.weights.step == 2 and np.isfinite(trained.metrics["auc"])
  loaded = checkpoint.load_policy(trained.checkpoints)
  assert loaded.config == architectures.configure(NAME)
  assert checkpoint.describe(trained.checkpoints)["network"]["architecture"] == NAME


def test_it_servos_and_exports(trained, config, tmp_path):
  networks = policies.Networks(servo=str(trained.checkpoints))
  servo = policies.make_policy(policies.choose("servo", config, networks))
  out, settings = tmp_path / "policy.hep", ServoConfig(**config.servo)
  export.write_policy(out, trained.weights, settings, platforms=("cpu",))
  exported = runtime.load_policy(out, deadlines=False)
  images = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), dtype=np.uint8)
  low, high = np.float32([[0.4, -0.2, 0.0, -3.0], [0.7, 0.2, 0.3, 3.0]])
  seen = Seen(*images, (low + high) / 2, 1, 4, 0.0, workspace=(low, high))
  one, other = (policy(seen, np.zeros(2, np.uint32)) for policy in (servo, exported))
  assert one.cause == Cause.NONE and one.action == other.action
  np.testing.assert_allclose(
    one.evidence["probabilities"], other.evidence["probabilities"], atol=1e-5
  )
  with pytest.raises(runtime.PolicyFileError, match=f"that of .* is {NAME}"):
    runtime.load_policy(out, engine="openvino_float32")


def test_fields_of_its_own_are_those_of_its_dataclass():
  made = train_config.build_network({"preset": NAME, "channels": 3, "units": None})
  assert (made.channels, made.units) == (3, 64)
  small = {"preset": "small", "architecture": NAME}
  assert train_config.build_network(small) == architectures.configure(NAME)


@pytest.mark.parametrize(
  ("section", "message"),
  [
    ({"preset": f"{NAME}_"}, "no attribute 'architecture_'.*module:factory"),
    ({"preset": NAME, "stem_pool": 2}, "unexpected keyword argument 'stem_pool'"),
    ({"preset": "own:small", "architecture": "x:y"}, "No module named 'x'"),
    ({"preset": "json:loads"}, "missing 1 required positional argument"),
    ({"preset": "time:time"}, "expected an Architecture"),
  ],
)
def test_what_is_no_network_is_one_clear_error(section, message):
  with pytest.raises(cli.UserError, match=f"config.network: .*{message}"):
    train_config.build_network(section)


def test_a_configuration_without_sizes_is_refused(monkeypatch):
  found = architectures.Architecture(types.SimpleNamespace, build=lambda config: None)
  monkeypatch.setitem(architectures.ARCHITECTURES, "sizeless", found)
  with pytest.raises(ValueError, match="has no frame_size and no crop_size"):
    architectures.configure("sizeless")
