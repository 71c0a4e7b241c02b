"""Filters and splits take whole attempts, and keep apart what must be apart."""

import numpy as np
import pytest

from data_pipeline import finish, source, splits, writer
from data_pipeline import plan as plan_lib
from data_pipeline.splits import Filter
from tests.data_pipeline.synthetic import synthetic_attempt


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
  """40 attempts of 5 units, 4 families, 2 rounds and 2 policies, 2 in each scene."""
  plan = plan_lib.Plan("varied", num_shards=1, frame_size=16)
  directory = plan_lib.begin(tmp_path_factory.mktemp("data"), plan)
  rng = np.random.default_rng(0)
  families = ["ball", "box", "cup", "rod"]
  with writer.ShardWriter(directory, 0) as shard:
    for i in range(40):
      scene = i // 2
      attempt = synthetic_attempt(rng, 16, unit=f"unit-{scene % 5}")
      attempt["scene_seed"] = scene
      attempt["objects"] = [f"{families[scene % 4]}-{k}" for k in range(2)]
      attempt["round"] = scene // 10
      attempt["policy"] = "servo" if scene >= 10 else "random"
      shard.write(attempt)
  finish.finalize(directory)
  return source.open_dataset(directory)


def _scenes(dataset):
  return set(dataset.attempts.scene_seed.tolist())


def test_filters_take_what_all_of_them_allow(varied):
  assert Filter().apply(varied) is varied
  assert _scenes(Filter(units=("unit-3",)).apply(varied)) == {3, 8, 13, 18}
  assert _scenes(Filter(rounds=(1,)).apply(varied)) == set(range(10, 20))
  assert _scenes(Filter(policies=("random",)).apply(varied)) == set(range(10))
  assert _scenes(Filter(families=("box", "rod")).apply(varied)) == set(range(1, 20, 2))
  both = Filter(families=("box",), rounds=(0,)).apply(varied)
  assert _scenes(both) == {1, 5, 9} and len(both) == 6


def test_a_filter_for_what_is_not_there_names_what_is(varied):
  with pytest.raises(plan_lib.DatasetError, match="policies names 'oracle'.*random, s"):
    Filter(policies=("oracle",)).apply(varied)
  with pytest.raises(plan_lib.DatasetError, match="no attempt is left of 40"):
    Filter(policies=("servo",), rounds=(0,)).apply(varied)


@pytest.mark.parametrize("by", splits.SPLITS)
def test_a_split_is_complete_and_repeatable(varied, by):
  rest, held_out = splits.split(varied, by, 0.25, seed=3)
  rows = [part.records.rows[:, 1].tolist() for part in (rest, held_out)]
  assert sorted(rows[0] + rows[1]) == list(range(40))
  again = splits.split(varied, by, 0.25, seed=3)[1]
  assert again.fingerprint == held_out.fingerprint
  others = {splits.split(varied, by, 0.25, s)[1].fingerprint for s in range(8)}
  assert len(others) > 1


def test_a_split_keeps_its_groups_apart(varied):
  rest, held_out = splits.split(varied, "unit", 0.4, seed=0)
  assert (len(rest), len(held_out)) == (24, 16)
  assert not set(rest.attempts.unit) & set(held_out.attempts.unit)
  rest, held_out = splits.split(varied, "family", 0.25, seed=0)
  hidden = set().union(*held_out.attempts.families)
  assert len(hidden) == 1 and len(held_out) == 10
  assert not rest.attempts.families.contains(hidden).any()
  rest, held_out = splits.split(varied, "scene", 0.1, seed=0)
  assert len(held_out) == 4 and not _scenes(rest) & _scenes(held_out)
  assert len(splits.split(varied, "attempt", 0.1, seed=0)[1]) == 4


def test_what_cannot_be_split_is_refused(varied):
  one = Filter(units=("unit-1",), families=("box",)).apply(varied)
  with pytest.raises(plan_lib.DatasetError, match="of 1 units"):
    splits.split(one, "unit", 0.5, seed=0)
  with pytest.raises(plan_lib.DatasetError, match="of 1 families, expected a share"):
    splits.split(one, "family", 0.5, seed=0)
  with pytest.raises(plan_lib.DatasetError, match="share of 1.5"):
    splits.split(varied, "scene", 1.5, seed=0)
  with pytest.raises(plan_lib.DatasetError, match="split by 'sample' is unknown"):
    splits.split(varied, "sample", 0.5, seed=0)
