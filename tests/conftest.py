"""What all tests share: compiling less."""

import os

# Before JAX is imported, and for the programs that tests start. Tests compile far more
# than they compute, and half of that is spent on making fast what runs once.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
  """A folder for what is made once in a session, by whichever worker needs it first."""
  own = tmp_path_factory.getbasetemp()
  return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def _compiled(shared):
  return shared / "jax"


@pytest.fixture(scope="module")
def compiled_once(_compiled):
  """Keeps what is compiled, here and in processes that tests start.

  Compiling is most of a tiny run's time, and the same for all of them.
  """
  before = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_compilation_cache_dir", str(_compiled))
  compilation_cache.reset_cache()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(_compiled))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    yield
  jax.config.update("jax_compilation_cache_dir", None)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", before)
  compilation_cache.reset_cache()
