"""A checkpoint gives back what was saved, and says what differs where it cannot."""

import functools
import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hand_eye import checkpoint, network, optimizers, training

TINY = network.preset("small", channels=4, image_convs=1, command_convs=1)


@functools.cache
def _state(config=TINY, optimizer="adamw"):
  """A state of the right shapes, of noise: nothing here computes with it."""
  optimizer = optimizers.make_optimizer(optimizers.OptimizerConfig(name=optimizer))
  rng = np.random.default_rng(0)
  params, batch_stats, average, average_stats = jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape).astype(leaf.dtype)),
    2 * jax.eval_shape(network.build(config).init, jax.random.key(0)),
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


STARTS = [
  ([(1, 0.5), (2, 0.9)], [(4, 0.6)]),
  ([(1, 0.9), (2, 0.9)], [(3, None)], [(4, 0.7)]),  # of equals the later
]


@pytest.mark.parametrize("starts", STARTS)
def test_an_interrupted_run_keeps_what_an_uninterrupted_one_does(tmp_path, starts):
  for name, parts in (("once", [sum(starts, [])]), ("often", starts)):
    for part in parts:
      with checkpoint.Checkpointer(tmp_path / name, TINY) as checkpoints:
        for step, score in part:
          checkpoints.save(_at(_state(), step), score=score)
  once, often = (
    sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("once", "often")
  )
  assert once == often
  best = checkpoint.load_policy(tmp_path / "often").step
  assert best == checkpoint.load_policy(tmp_path / "once").step
  scores = dict(sum(starts, []))
  assert scores[best] == max(s for s in scores.values() if s and s == s)


def test_a_save_that_resuming_would_not_find_is_refused(tmp_path):
  state = _state()
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_at(state, 5), score=0.9)
    checkpoints.save(_at(state, 10), score=0.5)
    assert checkpoints.restore(state, step=5).step == 5
    for step in (6, 10):
      with pytest.raises(checkpoint.CheckpointError, match=f"step {step}: .*10 is the"):
        checkpoints.save(_at(state, step))
    checkpoints.save(_at(state, 11))
  assert checkpoint.load_policy(tmp_path, step="last").step == 11


def _empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def _without_weights(folder):
  shutil.rmtree(folder / "policy")


def _without_arrays(folder):
  for path in (folder / "state").glob("ocdbt*/d/*"):
    path.unlink()


@pytest.mark.parametrize("damage", [_empty, _without_weights, _without_arrays])
def test_a_newest_checkpoint_that_is_not_whole_is_passed_over(tmp_path, damage, caplog):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_at(_state(), 3), score=0.5)
    checkpoints.save(_at(_state(), 6), score=0.4)
  damage(tmp_path / "6")
  if damage != _without_arrays:  # A policy needs no state.
    assert checkpoint.load_policy(tmp_path, step="last").step == 3
    assert "6" in caplog.text
  for _ in range(2):
    with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
      assert checkpoints.restore(_zeros()).step == 3
  assert "Step 3 follows" in caplog.text
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.restore(_zeros())
    checkpoints.save(_at(_state(), 6), score=0.6)
  assert checkpoint.load_policy(tmp_path).step == 6
  assert (tmp_path / "6.unreadable").is_dir()


def test_a_stray_folder_blocks_no_export(tmp_path, caplog):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_at(_state(), 3), score=0.5)
  (tmp_path / "99").mkdir()
  assert checkpoint.load_policy(tmp_path).step == 3
  assert checkpoint.scores(tmp_path) == {3: 0.5}
  assert checkpoint.describe(tmp_path)["step"] == 3
  assert "99" in caplog.text


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


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_at(_state(), 1))
    checkpoints.wait()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(checkpoint.CheckpointError, match="no space left.* MB are nee"):
      checkpoints.save(_at(_state(), 2))
  assert checkpoint.load_policy(tmp_path).step == 1


def test_a_failed_write_is_told_after_what_failed_first(tmp_path):
  directory = tmp_path / "checkpoints"

  def save_and_raise(error):
    with checkpoint.Checkpointer(directory, TINY) as checkpoints:
      shutil.rmtree(directory)
      directory.write_text("no folder any more")
      with pytest.raises(checkpoint.CheckpointError, match="cannot write a checkpoint"):
        checkpoints.save(_state())
        checkpoints.wait()
      if error:
        raise error

  before = set(threading.enumerate())
  with pytest.raises(KeyboardInterrupt):
    save_and_raise(KeyboardInterrupt())
  for thread in set(threading.enumerate()) - before:
    if not thread.daemon:
      thread.join(5)  # or the process would wait for it at its end
      assert not thread.is_alive()


def test_what_a_killed_process_left_goes(tmp_path):
  (tmp_path / "5.orbax-checkpoint-tmp").mkdir()
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_at(_state(), 5))
  assert [path.name for path in tmp_path.iterdir()] == ["5"]


def test_damaged_checkpoint_is_one_clear_error(tmp_path):
  with checkpoint.Checkpointer(tmp_path, TINY) as checkpoints:
    checkpoints.save(_state())
  (tmp_path / "0" / "info" / "metadata").write_text("{")
  with pytest.raises(checkpoint.CheckpointError, match="cannot read checkpoint"):
    checkpoint.load_policy(tmp_path)
