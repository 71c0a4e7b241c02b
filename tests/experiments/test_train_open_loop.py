"""Open-loop training: patches of pregrasp images, the same loop, other checkpoints."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from data_pipeline import finish, source, writer
from data_pipeline import plan as plan_lib
from envs import units
from envs.baselines import patches
from experiments import cli, export_policy, train
from experiments.configs import demo
from experiments.evaluation import open_loop_policy
from experiments.evaluation import policies as policies_lib
from experiments.fitting import loop, patch_inputs, train_config
from experiments.train_open_loop import network_section, train_open_loop
from hand_eye import checkpoint
from tests.data_pipeline import synthetic

NETWORK = {
  "preset": "small",
  "channels": 8,
  "image_convs": 1,
  "command_convs": 1,
  "dense_units": (16,),
}
SIZE = 64


def config(**changes):
  section = dict(
    demo.train().items(),
    phases=((4, 0.01), (4, 1.0)),
    batch_size=16,
    eval_batch_size=16,
    log_every=2,
    eval_every=4,
  )
  section["optimizer"] = dict(section["optimizer"].items(), warmup_steps=2)
  section.update(changes)
  return {"network": NETWORK, "train": section, "patches": demo.patches()}


def write(root, name, count, unit_names, seed):
  """A dataset whose pregrasp images tell the label where the gripper will close."""
  directory = plan_lib.begin(root, plan_lib.Plan(name, 2, 72, config={"seed": seed}))
  rng = np.random.default_rng(seed)
  for shard in range(2):
    with writer.ShardWriter(directory, shard) as shard_writer:
      for i in range(shard, count, 2):
        unit = unit_names[i % len(unit_names)]
        attempt = synthetic.synthetic_attempt(
          rng, success=i % 4 < 2, unit=unit, attempt_id=f"{name}-{i:06d}"
        )
        attempt["pregrasp_image"][:] = 200 if attempt["success"] else 60
        shard_writer.write(attempt)
  finish.finalize(directory)
  return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory, compiled_once):
  root = tmp_path_factory.mktemp("data")
  return (
    write(root, "train", 48, ["training-00", "training-01", "training-02"], 0),
    write(root, "held_out", 24, ["held_out-00", "held_out-01"], 1),
  )


def run(data, workdir, on_batch=loop.unchanged, **changes):
  """The final row of metrics.jsonl."""
  settings = config(**changes)
  made = train_open_loop(settings, [data[0]], [data[1]], workdir, on_batch=on_batch)
  return made.metrics


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, run(data, workdir)


@pytest.fixture(scope="module")
def servo(data, tmp_path_factory):
  """The work folder of a servo's network."""
  workdir = tmp_path_factory.mktemp("servo")
  train.train(config(), [data[0]], [data[1]], workdir)
  return workdir


def test_patches_are_cut_from_the_frames_of_the_servos_network():
  section = ConfigDict({"preset": "glimpse128"})
  made = train_config.build_network(network_section(section, "small"))
  assert (made.architecture, made.crop_size, made.frame_size) == ("figure4", 64, 144)
  assert network_section(section, "") == {"preset": "glimpse128"}


def test_a_sample_is_the_patch_where_the_gripper_closed(data):
  dataset = source.open_dataset(data[0])
  made = patch_inputs.grasps(dataset, patch_size=SIZE, half_turn=True, is_training=True)
  assert len(made) == 2 * len(dataset)
  assert np.all(made.attempts.num_steps == 1)
  frames = patch_inputs.PatchFrames(made, 2**30, square=patches.SQUARE)
  for index in (0, 7):
    record = dataset.decoded(index, images=True)
    unit = units.named_unit(record["unit"])
    expected = patches.cut_patches(
      record["pregrasp_image"],
      unit.camera,
      unit.table_height,
      record["poses"][-1:, [0, 1, 3]],
      SIZE,
      patches.SQUARE,
    )[0]
    for _ in range(2):  # once cut, once kept
      pair = frames.pair(index, 1)
      np.testing.assert_array_equal(pair[0], expected)
      np.testing.assert_array_equal(pair[1], expected)
    turned = frames.pair(index + len(dataset), 1)[0].astype(int)
    assert np.abs(turned[::-1, ::-1] - expected).max() <= 1


def test_held_out_attempts_come_once(data, finished):
  with np.load(finished[0] / "held_out_predictions.npz") as arrays:
    assert sorted(arrays["attempt"].tolist()) == list(range(24))
    assert np.all(arrays["distance"] == 0)
  assert finished[1]["samples"] == finished[1]["samples_zero"] == 24


def test_an_interrupted_run_ends_with_the_same_bits(data, finished, tmp_path):
  def die(step, batch, on_device):
    if step == 7:  # after the checkpoint of step 4
      raise KeyboardInterrupt
    return on_device

  with pytest.raises(KeyboardInterrupt):
    run(data, tmp_path, on_batch=die)
  run(data, tmp_path)
  policies = [
    checkpoint.load_policy(
      workdir / "checkpoints", step="last", purpose=checkpoint.OPEN_LOOP
    )
    for workdir in (tmp_path, finished[0])
  ]
  assert policies[0].step == 8
  for mine, theirs in zip(*(jax.tree.leaves(p.params) for p in policies), strict=True):
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
def test_over_several_starts_the_best_checkpoint_is_kept(data, tmp_path):
  """What is learned after step 4 is wrong, so that the first evaluation is the best."""

  def train_until(end, workdir):
    def on_batch(step, batch, on_device):
      if step == end:
        raise KeyboardInterrupt
      return mislabelled(on_device) if step > 4 else on_device

    fast = {"name": "adamw", "learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 0.0}
    return run(data, workdir, on_batch, optimizer=fast, ema_decay=0.0)

  once = train_until(0, tmp_path / "once")
  for end in (5, 7):
    with pytest.raises(KeyboardInterrupt):
      train_until(end, tmp_path / "often")
  often = train_until(0, tmp_path / "often")
  for name in ("once", "often"):
    kept = (tmp_path / name / "checkpoints").iterdir()
    assert sorted(int(path.name) for path in kept) == [4, 8]
  assert once["step"] == often["step"] == 4
  assert {**once, "seconds": 0} == {**often, "seconds": 0}


@jax.jit
def mislabelled(batch):
  return batch.replace(success=1.0 - batch.success)


def test_neither_network_is_taken_for_the_other(data, finished, servo, tmp_path):
  open_loop = finished[0]
  with pytest.raises(cli.UserError, match="purpose is servo, not open_loop"):
    run(data, servo)
  with pytest.raises(cli.UserError, match="purpose is open_loop, not servo"):
    train.train(config(), [data[0]], [data[1]], open_loop)
  with pytest.raises(checkpoint.CheckpointError, match="expected one for 'open_loop'"):
    open_loop_policy.make_open_loop(servo / "checkpoints", 8)
  words = "trained for 'open_loop', expected one for 'servo'"
  whole = {**demo.get_config(), **config()}
  with pytest.raises(checkpoint.CheckpointError, match=words):
    networks = policies_lib.Networks(servo=str(open_loop / "checkpoints"))
    policies_lib.choose("servo", whole, networks)
  with pytest.raises(checkpoint.CheckpointError, match=words):
    export_policy.export(whole, open_loop / "checkpoints", tmp_path / "policy.hep")
  with pytest.raises(checkpoint.CheckpointError, match=words):
    train.train(config(), [data[0]], [data[1]], tmp_path / "warm", init_from=open_loop)
  assert not (tmp_path / "warm").exists()


def test_other_patches_are_another_run(data, finished):
  changed = {**config(), "patches": {**demo.patches(), "side": 0.2}}
  with pytest.raises(cli.UserError, match="inputs.side is 0.16, not 0.2"):
    train_open_loop(changed, [data[0]], [data[1]], finished[0])


def test_the_policy_scores_as_the_network_does(data, finished):
  workdir = finished[0]
  policy = open_loop_policy.make_open_loop(workdir / "checkpoints", finished[1]["step"])
  held_out = patch_inputs.grasps(
    source.open_dataset(data[1]), patch_size=SIZE, half_turn=True, is_training=False
  )
  frames = patch_inputs.PatchFrames(held_out, 0, square=patches.SQUARE)
  cut = np.stack([frames.pair(i, 1)[0] for i in range(24)])
  with np.load(workdir / "held_out_predictions.npz") as arrays:
    np.testing.assert_allclose(
      policy._score(cut, np.zeros((24, 3))),
      arrays["probability"][np.argsort(arrays["attempt"])],
      atol=1e-4,
    )


def test_attempts_without_a_calibration_are_refused(tmp_path, data):
  unknown = synthetic.write_synthetic_dataset(tmp_path, num_attempts=8)
  with pytest.raises(cli.UserError, match="no calibration is known.*'unit-0'"):
    train_open_loop(config(), [unknown], [data[1]], tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["training-3", "training", "unit-03", "training-0x1"])
def test_only_a_units_own_name_names_it(name):
  with pytest.raises(ValueError, match="expected a family"):
    units.named_unit(name)
  assert units.named_unit("held_out-1003") == units.sample_unit(1003, "held_out")


@pytest.mark.slow
def test_a_rule_of_pregrasp_images_is_learned(data, tmp_path):
  row = run(data, tmp_path, phases=((60, 1.0),), eval_every=30)
  assert row["auc"] > 0.95
