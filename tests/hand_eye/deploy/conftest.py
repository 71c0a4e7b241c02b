"""What tests of exported policies share."""

import fcntl

import jax
import numpy as np
import pytest

from hand_eye import checkpoint, network
from tests.hand_eye.deploy import tiny


@pytest.fixture(scope="session")
def weights():
  """Of the tiny network, with a logit that tells commands apart."""
  params, batch_stats = network.build(tiny.CONFIG).init(jax.random.key(0))
  kernel = np.random.default_rng(0).normal(size=(64, 1)) / 4
  params["logit"]["kernel"] = kernel.astype(np.float32)
  return checkpoint.PolicyWeights(tiny.CONFIG, params, batch_stats, 7)


@pytest.fixture(scope="module")
def exported(weights, shared, compiled_once):
  """A policy file of the tiny network, written once in a session."""
  path = shared / "tiny.hep"
  with (shared / "tiny.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not path.exists():
      tiny.write(path, weights)
  return path
