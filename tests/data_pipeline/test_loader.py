"""Batches: the right samples, each once, the same again, from any place on."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import batches as batches_lib
from data_pipeline import frames as frames_lib
from data_pipeline import loader as loader_lib
from data_pipeline import plan as plan_lib
from data_pipeline import records, samples, shards, source, transforms
from data_pipeline.loader import LoaderConfig, LoaderError, make_loader
from tests.data_pipeline import synthetic

_CONFIG = LoaderConfig(
  batch_size=16,
  crop_size=64,
  mirror_probability=0.5,
  jitter=transforms.ColourJitter(0.1, 0.1, 0.1),
)
_PLAIN = LoaderConfig(batch_size=16, crop_size=64)


def _take(loader, count):
  return [next(loader) for _ in range(count)]


def _assert_equal(found, expected):
  assert len(found) == len(expected)
  for one, other in zip(found, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def _keys(batches):
  """(attempt, step) of every sample."""
  return [
    pair
    for batch in batches
    for pair in zip(batch["attempt"].tolist(), batch["step"].tolist(), strict=True)
  ]


def _frame(dataset, attempt, step):
  record = records.decode(dataset[attempt], images=True)
  return record["pregrasp_image"], record["images"][step - 1]


def test_a_batch_has_the_shapes_and_dtypes_it_promises(dataset):
  batch = next(make_loader(dataset, _CONFIG))
  assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
    "pregrasp_image": ("uint8", (16, 64, 64, 3)),
    "image": ("uint8", (16, 64, 64, 3)),
    "command": ("float32", (16, 5)),
    "success": ("float32", (16,)),
    "pose": ("float32", (16, 4)),
    "crop_offset": ("float32", (16, 2)),
    "step": ("int32", (16,)),
    "num_steps": ("int32", (16,)),
    "distance": ("float32", (16,)),
    "attempt": ("int64", (16,)),
    "replaced": ("bool", (16,)),
  }


def test_evaluation_sees_every_sample_once_in_order_in_the_centre(dataset):
  loader = make_loader(dataset, loader_lib.evaluation_config(50, 64))
  batches = list(loader)
  assert [len(batch["step"]) for batch in batches] == [50, 22]
  assert loader.num_batches == 2 and loader.num_samples == 72
  expected = [(attempt, step) for attempt in range(24) for step in (1, 2, 3)]
  assert _keys(batches) == expected
  pregrasp, image = _frame(dataset, 5, 2)
  np.testing.assert_array_equal(batches[0]["image"][16], image[4:68, 4:68])
  np.testing.assert_array_equal(batches[0]["pregrasp_image"][16], pregrasp[4:68, 4:68])


def test_numbers_of_a_sample_belong_to_its_attempt(dataset):
  expected = samples.samples_of(dataset.attempts)
  for batch in _take(make_loader(dataset, _PLAIN), 4):
    rows = batch["attempt"] * 3 + batch["step"] - 1
    for name in ("command", "success", "num_steps", "distance"):
      np.testing.assert_array_equal(batch[name], getattr(expected, name)[rows])


def test_both_images_share_one_random_crop(dataset):
  offsets = set()
  for batch in _take(make_loader(dataset, _PLAIN), 3):
    for i in range(16):
      pair = _frame(dataset, batch["attempt"][i], batch["step"][i])
      found = [
        (row, column)
        for row in range(9)
        for column in range(9)
        if all(
          np.array_equal(batch[name][i], image[row : row + 64, column : column + 64])
          for name, image in zip(("pregrasp_image", "image"), pair, strict=True)
        )
      ]
      assert len(found) == 1
      offsets.update(found)
      np.testing.assert_array_equal(batch["crop_offset"][i] + 4, found[0])
  assert len(offsets) > 20


def test_a_mirrored_sample_mirrors_images_and_command(dataset):
  plain = next(make_loader(dataset, _PLAIN))
  config = dataclasses.replace(_PLAIN, mirror_probability=1.0)
  mirrored = next(make_loader(dataset, config))
  for name in ("pregrasp_image", "image"):
    np.testing.assert_array_equal(mirrored[name], plain[name][:, :, ::-1])
  np.testing.assert_array_equal(
    mirrored["command"], plain["command"] * np.float32([1, -1, 1, -1, 1])
  )
  np.testing.assert_array_equal(
    mirrored["pose"], plain["pose"] * np.float32([1, -1, 1, -1])
  )
  np.testing.assert_array_equal(
    mirrored["crop_offset"], plain["crop_offset"] * np.float32([1, -1])
  )
  np.testing.assert_array_equal(mirrored["success"], plain["success"])


def test_mirroring_a_batch_leaves_the_samples_of_later_batches_alone(dataset):
  config = dataclasses.replace(_PLAIN, mirror_probability=1.0, batch_size=72)
  expected = samples.samples_of(dataset.attempts).command
  for batch in _take(make_loader(dataset, config), 3):
    rows = batch["attempt"] * 3 + batch["step"] - 1
    np.testing.assert_array_equal(
      transforms.mirror_command(batch["command"]), expected[rows]
    )


def test_an_epoch_has_every_sample_once_and_the_next_another_order(dataset):
  config = dataclasses.replace(_PLAIN, batch_size=24)
  batches = _take(make_loader(dataset, config), 6)
  first, second = _keys(batches[:3]), _keys(batches[3:])
  assert len(set(first)) == 72 and set(first) == set(second)
  assert first != second and first != sorted(first)


def test_one_seed_gives_the_same_batches_and_another_seed_others(dataset):
  batches = _take(make_loader(dataset, _CONFIG), 5)
  _assert_equal(_take(make_loader(dataset, _CONFIG), 5), batches)
  other = dataclasses.replace(_CONFIG, seed=1)
  assert _keys(_take(make_loader(dataset, other), 5)) != _keys(batches)


def test_cached_frames_and_threads_change_nothing(dataset):
  batches = _take(make_loader(dataset, _CONFIG), 5)
  frames = frames_lib.load_frames(dataset, cache_bytes=2**30)
  assert isinstance(frames, frames_lib.CachedFrames)
  _assert_equal(_take(make_loader(dataset, _CONFIG, frames), 5), batches)
  threaded = dataclasses.replace(_CONFIG, num_threads=3, prefetch=7)
  _assert_equal(_take(make_loader(dataset, threaded), 5), batches)


def test_frames_are_cached_up_to_the_budget_only(dataset):
  needed = 24 * 4 * 72 * 72 * 3
  assert frames_lib.frames_size(dataset) == needed
  assert isinstance(
    frames_lib.load_frames(dataset, needed - 1), frames_lib.DecodedFrames
  )
  assert isinstance(frames_lib.load_frames(dataset, needed), frames_lib.CachedFrames)


@pytest.mark.parametrize("place", [0, 1, 7])
def test_a_resumed_loader_sees_the_very_same_batches(dataset, place):
  loader = make_loader(dataset, _CONFIG)
  _take(loader, place)
  state = loader.get_state()
  expected = _take(loader, 6)
  resumed = make_loader(dataset, dataclasses.replace(_CONFIG, num_threads=2))
  _take(resumed, 3)  # Wherever it was before.
  resumed.set_state(state)
  assert resumed.get_state() == state
  _assert_equal(_take(resumed, 6), expected)


def test_a_closed_loader_goes_on(dataset):
  expected = _take(make_loader(dataset, _CONFIG), 4)
  loader = make_loader(dataset, _CONFIG)
  found = _take(loader, 2)
  loader.close()
  _assert_equal(found + _take(loader, 2), expected)


def test_a_finite_loader_ends_and_can_resume_at_its_end(dataset):
  loader = make_loader(dataset, dataclasses.replace(_PLAIN, num_epochs=2))
  assert loader.num_batches == 9
  assert len(list(loader)) == 9
  again = make_loader(dataset, dataclasses.replace(_PLAIN, num_epochs=2))
  again.set_state(loader.get_state())
  assert list(again) == []


def test_the_state_of_another_run_is_refused(dataset):
  loader = make_loader(dataset, _CONFIG)
  other = make_loader(dataset, dataclasses.replace(_CONFIG, seed=5))
  with pytest.raises(LoaderError, match="another dataset or loader configuration"):
    loader.set_state(other.get_state())
  other = make_loader(dataset.select(np.arange(20)), _CONFIG)
  with pytest.raises(LoaderError, match="another dataset or loader configuration"):
    loader.set_state(other.get_state())
  with pytest.raises(LoaderError, match="expected what get_state returned"):
    loader.set_state(b"{}")


def test_hosts_have_disjoint_samples_and_together_all(dataset):
  parts = []
  for host in range(3):
    config = dataclasses.replace(
      _PLAIN, num_epochs=1, drop_remainder=False, host_index=host, host_count=3
    )
    parts.append(_keys(make_loader(dataset, config)))
  assert [len(part) for part in parts] == [24, 24, 24]
  assert len(set().union(*parts)) == 72


def _of_hosts(dataset, config, count):
  """The loaders of several hosts that make `config`'s batches together."""
  size = config.batch_size // count
  return [
    make_loader(
      dataset,
      dataclasses.replace(config, batch_size=size, host_index=host, host_count=count),
    )
    for host in range(count)
  ]


def _joined(loaders, count):
  return [
    {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    for parts in zip(*(_take(loader, count) for loader in loaders), strict=True)
  ]


@pytest.mark.parametrize("count", [2, 5])
def test_batches_of_hosts_joined_are_those_of_one(dataset, count):
  """Crops, mirrors and colours included; over the ends of epochs, too."""
  config = dataclasses.replace(_CONFIG, batch_size=20)  # 72 samples: no multiple
  expected = _take(make_loader(dataset, config), 9)
  _assert_equal(_joined(_of_hosts(dataset, config, count), 9), expected)


def test_a_state_is_one_of_any_host_and_of_any_number_of_them(dataset):
  config = dataclasses.replace(_CONFIG, batch_size=20)
  loaders = _of_hosts(dataset, config, 2)
  _joined(loaders, 5)
  state = loaders[0].get_state()
  assert loaders[1].get_state() == state
  single = make_loader(dataset, config)
  single.set_state(state)
  five = _of_hosts(dataset, config, 5)
  for loader in five:
    loader.set_state(state)
  expected = _joined(loaders, 3)
  _assert_equal(_take(single, 3), expected)
  _assert_equal(_joined(five, 3), expected)
  with pytest.raises(LoaderError, match="another dataset or loader configuration"):
    _of_hosts(dataset, dataclasses.replace(config, batch_size=40), 2)[0].set_state(
      state
    )


def test_hosts_have_equally_many_batches_where_the_remainder_is_dropped(dataset):
  odd = dataset.select(np.arange(23))  # 69 samples: 17 batches of 4, and one sample
  config = dataclasses.replace(_PLAIN, batch_size=4, num_epochs=1)
  for count in (2, 4):
    found = [loader.num_batches for loader in _of_hosts(odd, config, count)]
    assert found == [17] * count


def test_phases_of_a_curriculum_share_frames(dataset):
  frames = frames_lib.load_frames(dataset, cache_bytes=2**30)
  base = dataclasses.replace(_PLAIN, num_epochs=1, drop_remainder=False)
  zero = dataclasses.replace(base, max_distance=0.01)
  far = dataclasses.replace(base, min_distance=0.01)
  batches = list(make_loader(dataset, zero, frames))
  assert sum(len(batch["step"]) for batch in batches) == 24
  for batch in batches:
    np.testing.assert_array_equal(batch["step"], batch["num_steps"])
    np.testing.assert_array_equal(
      batch["command"], [[0, 0, 0, 0, 1]] * len(batch["step"])
    )
  batches = list(make_loader(dataset, far, frames))
  assert sum(len(batch["step"]) for batch in batches) == 48
  assert min(batch["distance"].min() for batch in batches) >= 0.01


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"crop_size": 73}, "crop_size is 73, expected at most 72"),
    ({"min_distance": 9.0}, "0 samples of 24 attempts .* expected at least one"),
    ({"batch_size": 100, "num_epochs": 1}, "72 samples do not fill a batch of 100"),
  ],
)
def test_what_cannot_be_loaded_is_refused(dataset, change, message):
  with pytest.raises(LoaderError, match=message):
    make_loader(dataset, dataclasses.replace(_CONFIG, **change))


@pytest.mark.parametrize(
  "change",
  [
    {"batch_size": 0},
    {"crop_size": 0},
    {"num_epochs": 0},
    {"host_index": 1},
    {"host_index": -1},
    {"mirror_probability": 1.1},
    {"prefetch": 0},
  ],
)
def test_an_impossible_configuration_is_refused(change):
  with pytest.raises(LoaderError, match=f"{next(iter(change))} is .*, expected"):
    dataclasses.replace(_CONFIG, **change)


def test_frames_of_another_dataset_or_for_workers_are_refused(dataset):
  frames = frames_lib.CachedFrames(dataset.select(np.arange(3)))
  with pytest.raises(LoaderError, match="load the frames of this dataset"):
    make_loader(dataset, _CONFIG, frames)
  frames = frames_lib.CachedFrames(dataset)
  with pytest.raises(LoaderError, match="expected 0 with cached frames"):
    make_loader(dataset, dataclasses.replace(_CONFIG, num_workers=1), frames)


def test_a_record_that_broke_since_is_reported_not_returned(breakable):
  dataset = source.open_dataset(breakable)
  for path in breakable.glob("*.array_record-*"):
    path.write_bytes(bytes(path.stat().st_size))
  with pytest.raises(Exception, match=r"record \d+ of .* is broken.*check_data"):
    next(make_loader(dataset, _CONFIG))


@pytest.fixture
def broken_later(breakable):
  """A dataset with one flipped byte, which opening by its index does not see."""
  path = breakable / "train-train.array_record-00001-of-00002"
  data = bytearray(path.read_bytes())
  data[20_000] ^= 1
  path.write_bytes(data)
  (bad,) = set(range(24)) - set(
    row
    for number, shard in enumerate(sorted(breakable.glob("*.array_record-*")))
    for row, _ in shards.scan(shard, lambda *_: None, lambda _: {})
    for row in [row + 12 * number]
  )
  return breakable, bad


@pytest.mark.parametrize("cached", [False, True])
def test_a_broken_sample_is_replaced_counted_and_logged(
  broken_later, dataset, caplog, cached
):
  directory, bad = broken_later
  opened = source.open_dataset(directory, on_bad_record="skip")
  assert len(opened) == 24 and opened.broken == ()
  frames = frames_lib.load_frames(opened, cache_bytes=2**30 if cached else 0)
  config = dataclasses.replace(_CONFIG, batch_size=24)
  batches_lib._warn_once.cache_clear()
  found = _take(make_loader(opened, config, frames), 6)
  expected = _take(make_loader(dataset, config), 6)
  assert sum(batch["replaced"].sum() for batch in found) == 6  # 3 steps, 2 epochs
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one["replaced"], other["attempt"] == bad)
    assert bad not in one["attempt"]
    sound = ~one["replaced"]
    for name in other.keys() - {"replaced"}:
      np.testing.assert_array_equal(one[name][sound], other[name][sound])
    for i in np.flatnonzero(one["replaced"]):
      record = records.decode(opened[one["attempt"][i]], images=False)
      assert one["success"][i] == record["success"]
  assert sum("takes its place" in line for line in caplog.messages) == 1
  _assert_equal(_take(make_loader(opened, config), 6), found)


def test_a_broken_attempt_in_memory_does_not_grow_with_every_try(broken_later):
  """An exception that is raised again keeps every frame that it went through."""
  directory, bad = broken_later
  opened = source.open_dataset(directory, on_bad_record="skip")
  frames = frames_lib.CachedFrames(opened)
  depths = []
  for _ in range(3):
    with pytest.raises(plan_lib.DatasetError, match=rf"record {bad - 12} of") as caught:
      frames.pair(bad, 1)
    depths.append(len(caught.traceback))
  assert depths[0] == depths[2]


def test_without_skipping_a_broken_sample_stops_the_loader(broken_later):
  opened = source.open_dataset(broken_later[0])
  with pytest.raises(plan_lib.DatasetError, match="on_bad_record=skip"):
    list(make_loader(opened, loader_lib.evaluation_config(24, 64)))
  with pytest.raises(plan_lib.DatasetError, match=r"record \d+ of"):
    frames_lib.CachedFrames(opened)


def test_nothing_but_broken_samples_stops_the_loader(breakable):
  opened = source.open_dataset(breakable, on_bad_record="skip")
  for path in breakable.glob("*.array_record-*"):
    path.write_bytes(bytes(path.stat().st_size))
  with pytest.raises(plan_lib.DatasetError, match="20 samples after each other"):
    next(make_loader(opened, _CONFIG))


_MEMORY = """
import sys
from data_pipeline import loader, source
dataset = source.open_dataset(sys.argv[1])
batches = loader.make_loader(dataset, loader.LoaderConfig(batch_size=32, crop_size=24))
for _ in range(200):
  next(batches)
# Not ru_maxrss, which a new process inherits from the one that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
def test_memory_stays_flat_with_ten_times_the_attempts(tmp_path):
  peaks = []
  for count in (400, 4000):
    directory = synthetic.write_synthetic_dataset(
      tmp_path, f"of_{count}", num_attempts=count, num_shards=count // 50, frame_size=32
    )
    done = subprocess.run(
      [sys.executable, "-c", _MEMORY, str(directory)],
      env={**os.environ, "PYTHONPATH": str(Path(loader_lib.__file__).parents[1])},
      capture_output=True,
      check=True,
      text=True,
    )
    peaks.append(int(done.stdout) * 1024)
  # 3,600 attempts more, of 4 frames each: their pixels would be 44 MB.
  assert peaks[1] - peaks[0] < 10 * 2**20, peaks


_WORKERS = """
import dataclasses, sys
import numpy as np
from absl import flags
from data_pipeline import loader, source

def main():
  flags.FLAGS.mark_as_parsed()
  dataset = source.open_dataset(sys.argv[1])
  config = loader.LoaderConfig(batch_size=16, crop_size=64, mirror_probability=0.5)
  single = loader.make_loader(dataset, config)
  for steps in range(int(sys.argv[2])):
    next(single)
  state = single.get_state()
  expected = [next(single) for _ in range(7)]
  for workers in (1, 2):
    resumed = loader.make_loader(
      dataset, dataclasses.replace(config, num_workers=workers)
    )
    resumed.set_state(state)
    for batch in expected:
      found = next(resumed)
      for name in batch:
        np.testing.assert_array_equal(batch[name], found[name])
    resumed.close()

if __name__ == "__main__":
  main()
"""


@pytest.mark.parametrize(
  "place", [5, *(pytest.param(p, marks=pytest.mark.slow) for p in (0, 1, 23))]
)
def test_workers_resume_where_one_process_stopped(finished, tmp_path, place):
  # A program of its own: workers import the program that started them.
  program = tmp_path / "program.py"
  program.write_text(_WORKERS)
  root = str(Path(loader_lib.__file__).parents[1])
  subprocess.run(
    [sys.executable, str(program), str(finished), str(place)],
    env={**os.environ, "PYTHONPATH": root},
    check=True,
    timeout=240,
  )


def test_a_synthetic_attempt_shows_its_label(rng):
  for success in (True, False):
    attempt = synthetic.synthetic_attempt(rng, success=success)
    centre = attempt["images"][-1, 24:-24, 24:-24].mean()
    assert (centre > 128) == success
