"""What tests of exported policies share."""

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
