"""Mixtures: shares exact, every part complete, hosts apart, any place resumable."""

import dataclasses

import numpy as np
import pytest

from data_pipeline import loader as loader_lib
from data_pipeline import order, source
from data_pipeline.loader import LoaderConfig, LoaderError, make_loader
from tests.data_pipeline import synthetic


@pytest.mark.parametrize(
  ("weights", "whole"),
  [
    ((0.5, 0.5), (1, 1)),
    ((0.3, 0.7), (3, 7)),
    ((1 / 3, 2 / 3), (1, 2)),
    ((0.1, 0.2, 0.7), (1, 2, 7)),
    ((5,), (1,)),
  ],
)
def test_every_stretch_has_the_shares_that_were_asked_for(weights, whole):
  found = np.array(order.whole_weights(weights))
  np.testing.assert_array_equal(found * whole[0], np.array(whole) * found[0])
  turns = [order.turn(k, tuple(found)) for k in range(1000)]
  parts = np.array([part for part, _ in turns])
  for part, weight in enumerate(weights):
    share = weight / sum(weights)
    assert abs((parts == part).sum() - 1000 * share) <= len(weights)
    for begin in range(0, 1000, 100):
      count = (parts[begin : begin + 100] == part).sum()
      assert abs(count - 100 * share) <= len(weights)
    # Each part's own elements come in order, none twice, none left out.
    assert [n for p, n in turns if p == part] == list(range((parts == part).sum()))


def test_small_weights_count_and_too_small_ones_are_refused():
  assert order.whole_weights((1e-5, 2e-5)) == (1, 2)
  assert order.whole_weights((3e9, 1e9)) == (3, 1)
  with pytest.raises(LoaderError, match="weight 1e-05 beside 1.0, expected at least"):
    order.whole_weights((1.0, 1e-5))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
  """A large random and a small on-policy dataset: 90 and 30 samples."""
  root = tmp_path_factory.mktemp("data")
  return source.merge(
    [
      source.open_dataset(
        synthetic.write_synthetic_dataset(
          root, name, num_attempts=count, seed=count, frame_size=24
        )
      )
      for name, count in (("random", 30), ("servo", 10))
    ]
  )


_CONFIG = LoaderConfig(batch_size=20, crop_size=16, mixture=(0.5, 0.5), seed=2)


def _keys(batches):
  return [
    pair
    for batch in batches
    for pair in zip(batch["attempt"].tolist(), batch["step"].tolist(), strict=True)
  ]


def _take(loader, count):
  return [next(loader) for _ in range(count)]


def test_batches_have_half_of_each_dataset(mixed):
  for batch in _take(make_loader(mixed, _CONFIG), 12):
    assert (mixed.part[batch["attempt"]] == 1).sum() == 10
  config = dataclasses.replace(_CONFIG, mixture=(3.0, 1.0))
  for batch in _take(make_loader(mixed, config), 12):
    assert (mixed.part[batch["attempt"]] == 1).sum() == 5


def test_each_part_is_shuffled_and_complete_by_itself(mixed):
  keys = _keys(_take(make_loader(mixed, _CONFIG), 18))  # 180 of each part
  random = [key for key in keys if key[0] < 30]
  servo = [key for key in keys if key[0] >= 30]
  assert len(set(random[:90])) == 90 and set(random[:90]) == set(random[90:])
  assert random[:90] != random[90:] and random[:90] != sorted(random[:90])
  epochs = [servo[i : i + 30] for i in range(0, 180, 30)]
  assert all(len(set(epoch)) == 30 for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 6


def test_batches_of_hosts_joined_are_those_of_one(mixed):
  hosts = [
    _take(
      make_loader(
        mixed, dataclasses.replace(_CONFIG, batch_size=10, host_index=h, host_count=2)
      ),
      9,
    )
    for h in range(2)
  ]
  for *parts, whole in zip(*hosts, _take(make_loader(mixed, _CONFIG), 9), strict=True):
    for name in whole:
      joined = np.concatenate([part[name] for part in parts])
      np.testing.assert_array_equal(joined, whole[name])
    # Each host has its share of either dataset: what one of them sees is a mixture.
    assert [(mixed.part[part["attempt"]] == 1).sum() for part in parts] == [5, 5]


def test_a_mixture_is_repeatable_and_resumes_anywhere(mixed):
  expected = _take(make_loader(mixed, _CONFIG), 9)
  loader = make_loader(mixed, dataclasses.replace(_CONFIG, num_threads=2))
  _take(loader, 4)
  resumed = make_loader(mixed, _CONFIG)
  resumed.set_state(loader.get_state())
  for found, wanted in zip(_take(resumed, 5), expected[4:], strict=True):
    for name in wanted:
      np.testing.assert_array_equal(found[name], wanted[name])
  other = make_loader(mixed, dataclasses.replace(_CONFIG, mixture=(0.4, 0.6)))
  with pytest.raises(LoaderError, match="another dataset or loader configuration"):
    other.set_state(loader.get_state())


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"mixture": (0.5, 0.0)}, "expected weights above 0"),
    ({"num_epochs": 1}, "expected None with a mixture"),
    ({"mixture": (1.0,)}, "mixture has 1 weights, expected one for each of 2"),
    ({"mixture": (1.0, 1.0, 1.0)}, "dataset 2 of the mixture has 0 samples"),
  ],
)
def test_an_impossible_mixture_is_refused(mixed, change, message):
  with pytest.raises(LoaderError, match=message):
    make_loader(mixed, dataclasses.replace(_CONFIG, **change))


def test_a_configuration_without_mixture_has_the_identity_of_before():
  assert "mixture" not in loader_lib.LoaderConfig(4, 8).identity()
  assert "mixture" in _CONFIG.identity()
