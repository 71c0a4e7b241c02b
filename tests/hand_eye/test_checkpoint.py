"""A checkpoint gives back what was saved, and says what differs where it cannot."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import checkpoint, network, training

TINY = network.preset("small", channels=4, image_convs=1, command_convs=1)


@functools.cache
def _state(config=TINY, optimizer="adamw"):
  """A state of the right shapes, of noise: nothing here computes with it."""
  optimizer = training.make_optimizer(training.OptimizerConfig(name=optimizer))
  rng = np.random.default_rng(0)
  params, batch_stats, average, average_stats = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(leaf.dtype)),
    2 * jax.eval_shape(network.build_predictor(config).init, jax.random.key(0)),
  )
  return training.TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(params),
    ema_params=average,
    ema_batch_stats=average_stats,
  )


def _zeros():
  return jax.tree.map(lambda leaf: leaf * 0, _state())


def _at(state, step):
  return state.replace(step=state.step + step)


def test_state_and_data_state_come_back(tmp_path):
  state = _at(_state(), 7)
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(state, data_state=b"\x00position\xff")
    restored = checkpoints.restore(_zeros())
  assert restored.step == 7
  assert restored.data_state == b"\x00position\xff"
  jax.tree.map(np.testing.assert_array_equal, restored.state, state)
  assert jax.tree.structure(restored.state) == jax.tree.structure(state)


def test_best_and_last_are_kept(tmp_path):
  state = _state()
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    for step, score in ((1, 0.5), (2, 0.9), (3, float("nan")), (4, 0.6), (5, None)):
      checkpoints.save(_at(state, step), score=score, data_state={"position": step})
      checkpoints.wait()
    assert checkpoints.latest_step == 5
    assert checkpoints.restore(state).data_state == {"position": 5}
  assert checkpoint.load_policy(tmp_path).step == 2
  assert checkpoint.load_policy(tmp_path, step="last").step == 5
  with pytest.raises(checkpoint.CheckpointError, match=r"step 4.*there are: \[2, 5\]"):
    checkpoint.load_policy(tmp_path, step=4)


def test_policy_has_the_averaged_weights(tmp_path):
  state = _state()
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(state)
  policy = checkpoint.load_policy(tmp_path)
  assert policy.config == TINY
  jax.tree.map(np.testing.assert_array_equal, policy.params, state.ema_params)
  jax.tree.map(np.testing.assert_array_equal, policy.batch_stats, state.ema_batch_stats)


@pytest.mark.parametrize("item", ["policy", "state"])
def test_a_damaged_checkpoint_is_refused(tmp_path, item):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_state())
  files = [path for path in (tmp_path / "0" / item).rglob("*") if path.is_file()]
  largest = max(files, key=lambda path: path.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(data)
  with pytest.raises(checkpoint.CheckpointError, match="damaged|cannot read"):
    with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
      checkpoints.restore(_zeros())
  if item == "policy":
    with pytest.raises(checkpoint.CheckpointError, match="damaged|cannot read"):
      checkpoint.load_policy(tmp_path)


def test_checkpoint_explains_itself(tmp_path):
  with checkpoint.Checkpointer(
    tmp_path, TINY, experiment={"dataset": "train"}
  ) as checkpoints:
    checkpoints.save(_state(), score=0.75)
  info = checkpoint.describe(tmp_path)
  assert info["network"]["channels"] == 4
  assert info["experiment"] == {"dataset": "train"}
  assert info["inputs"]["images"] == ["uint8", ["B", 64, 64, 6]]
  assert info["score"] == 0.75
  assert info["shapes"]["policy"]["params/logit/kernel"] == ["float32", [64, 1]]
  json.dumps(info)


def test_other_network_is_named_by_its_field(tmp_path):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_state())
  other = network.preset("small", channels=8, image_convs=1, command_convs=1)
  with checkpoint.Checkpointer(tmp_path, other) as checkpoints:
    with pytest.raises(
      checkpoint.CheckpointError, match="channels is 4 in it, expected 8"
    ):
      checkpoints.restore(_state(other))


def test_other_optimizer_is_named_by_its_field(tmp_path):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_state())
    with pytest.raises(checkpoint.CheckpointError, match="optimizer: opt_state"):
      checkpoints.restore(_state(optimizer="sgd"))


def test_missing_and_empty_directories_are_told_apart(tmp_path):
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint directory at"):
    checkpoint.load_policy(tmp_path / "absent")
  with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
    checkpoint.load_policy(tmp_path)
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    assert checkpoints.latest_step is None
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
      checkpoints.restore(_state())


def test_unwritable_directory_is_one_clear_error(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(checkpoint.CheckpointError, match="cannot write checkpoints to"):
    checkpoint.Checkpointer(tmp_path / "file" / "run", TINY)


def test_damaged_checkpoint_is_one_clear_error(tmp_path):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_state())
  (tmp_path / "0" / "info" / "metadata").write_text("{")
  with pytest.raises(checkpoint.CheckpointError, match="cannot read checkpoint"):
    checkpoint.load_policy(tmp_path)
