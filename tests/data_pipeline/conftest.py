import shutil

import numpy as np
import pytest

from data_pipeline import source
from tests.data_pipeline import synthetic


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
  """Folder of a finished dataset: 24 attempts of 3 steps, 4 units, 2 shards."""
  return synthetic.write_synthetic_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def dataset(finished):
  return source.open_dataset(finished)


@pytest.fixture
def breakable(finished, tmp_path):
  """A copy of the finished dataset, for tests that damage it."""
  return shutil.copytree(finished, tmp_path / "train" / "1.0.0")


@pytest.fixture
def attempt(rng):
  return synthetic.synthetic_attempt(rng, success=True, attempt_id="attempt-7")


@pytest.fixture
def rng():
  return np.random.default_rng(0)
