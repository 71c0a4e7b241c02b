#!/bin/sh
# The gradient of jnp.max (and jnp.min) can be NaN under jit on CPUs, for finite values.
#
# jax and jaxlib 0.10.2, default flags. The gradient of a maximum is shared between all
# places that equal it: it compares each value with the maximum and divides by how many
# are equal. XLA may compute the values twice, once for the maximum and once for the
# comparison, in loops that round differently. Then no place equals the maximum, and
# 0 / 0 is NaN. Without jit, or with the maximum made of pairwise jnp.maximum, which
# does not divide, the same gradient is finite.
#
# Whoever pools with a reshape and jnp.max instead of reduce_window meets this.
#
# Output seen (2 cores, AVX-512):
#   jax 0.10.2 cpu
#   jit, jnp.max: 5485 of 25000 groups have a NaN gradient; all values are finite
#   no jit, jnp.max: 0
#   jit, pairwise maxima: 0
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2" "jaxlib==0.10.2"
env -u XLA_FLAGS -u JAX_DISABLE_MOST_OPTIMIZATIONS JAX_PLATFORMS=cpu \
  "$folder/venv/bin/python" - <<'PYTHON'
import functools

import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, jax.default_backend())
groups = 25_000
x = jnp.asarray(np.random.default_rng(0).normal(size=4 * groups), jnp.float32)


def values(x):
  y = jnp.exp(x) * x + jnp.sin(x) / jnp.sqrt(x * x + 1)
  return y.reshape(groups, 4)


def by_max(x):
  return jnp.sum(jnp.max(values(x), axis=1) ** 2)


def by_pairs(x):
  y = values(x)
  return jnp.sum(functools.reduce(jnp.maximum, (y[:, i] for i in range(4))) ** 2)


def broken(gradient):
  return int(np.isnan(np.asarray(gradient).reshape(groups, 4)).any(1).sum())


assert np.isfinite(jax.jit(values)(x)).all()
jitted = broken(jax.jit(jax.grad(by_max))(x))
eager = broken(jax.grad(by_max)(x))
pairs = broken(jax.jit(jax.grad(by_pairs))(x))
print(f"jit, jnp.max: {jitted} of {groups} groups have a NaN gradient; all values are finite")
print(f"no jit, jnp.max: {eager}")
print(f"jit, pairwise maxima: {pairs}")
assert jitted > 0 and eager == pairs == 0, "this has changed"
PYTHON
