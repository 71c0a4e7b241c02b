"""Convolutions of stride 1 by Winograd's method, for CPUs.

On the CPU, XLA's convolutions reach less than half of the speed of its matrix products.
Winograd's F(m, k) computes tiles of m x m outputs from tiles of a x a inputs, a = m + k
- 1, by a^2 matrix products instead of m^2 k^2: with 3x3 kernels and m = 4 a quarter of
the multiplications, with 5x5 kernels and m = 2 a third. In float32 it costs one digit:
relative errors of 1e-5 instead of 1e-6.

The sums before the products are written out as sums of slices, which XLA turns into
loops over the channels. The sums after the products are another product: written out,
XLA would merge them into one loop that repeats most of the work.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

# Both have tiles of six: larger ones lose more digits, and the time of their longer
# sums is more than that of the products that they save.
_OUTPUTS = {3: 4, 5: 2}
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)


class Transforms(NamedTuple):
  """The matrices of F(m, k), a = m + k - 1.

  inputs: [a, a] of a tile of the input.
  kernel: [a, k] of the kernel.
  outputs: [m, a] back to a tile of the output.
  """

  inputs: np.ndarray
  kernel: np.ndarray
  outputs: np.ndarray


def applies_to(kernel_size: int) -> bool:
  """Whether there is a form for kernels of this side."""
  return kernel_size in _OUTPUTS


@functools.cache
def transforms(kernel_size: int) -> Transforms:
  """Returns the matrices for kernels of side k, after Toom and Cook.

  A tile is a polynomial; it is evaluated at `_POINTS` and at infinity, multiplied there
  value by value, and read off again.
  """
  m, k = _OUTPUTS[kernel_size], kernel_size
  size = m + k - 1
  points = np.asarray(_POINTS)
  last = np.eye(size)[-1]
  # With each point left out, the polynomial whose roots are the others.
  others = [np.delete(points, i) for i in range(size - 1)]
  inputs = [np.append(np.poly(roots)[::-1], 0.0) for roots in others]
  scale = np.array(
    [np.prod(p - roots) for p, roots in zip(points, others, strict=True)]
  )
  kernel = np.vander(points, k, increasing=True) / scale[:, None]
  outputs = np.vander(points, m, increasing=True).T
  return Transforms(
    inputs=np.stack([*inputs, np.poly(points)[::-1]]),
    kernel=np.vstack([kernel, last[-k:]]),
    outputs=np.hstack([outputs, last[-m:, None]]),
  )


def transform_kernel(kernel: chex.Array) -> chex.Array:
  """Returns the a^2 matrices of a kernel: [k, k, C, D] -> [a * a, C, D] float32."""
  size, _, channels, outputs = kernel.shape
  matrix = transforms(size).kernel
  # As one product with the map of whole tiles: the einsum of both sides is far slower.
  whole = jnp.asarray(np.kron(matrix, matrix), jnp.float32)
  flat = jnp.dot(whole, kernel.reshape(size * size, -1), precision="highest")
  return flat.reshape(-1, channels, outputs)


def convolve(
  x: chex.Array, matrices: chex.Array, kernel_size: int, padding: str
) -> chex.Array:
  """Convolves with stride 1.

  Args:
    x: [B, H, W, C] float32.
    matrices: [a * a, C, D] of `transform_kernel`.
    kernel_size: k, odd.
    padding: `SAME` or `VALID`.

  Returns:
    [B, H', W', D], to the last digits what `jax.lax.conv_general_dilated` returns.
  """
  t = transforms(kernel_size)
  m, size = t.outputs.shape
  batch, height, width, channels = x.shape
  before = kernel_size // 2 if padding == "SAME" else 0
  lost = kernel_size - 1 - 2 * before
  rows, columns = -(-(height - lost) // m), -(-(width - lost) // m)
  after = [
    (count - 1) * m + size - before - side
    for count, side in ((rows, height), (columns, width))
  ]
  x = jnp.pad(x, ((0, 0), (before, after[0]), (before, after[1]), (0, 0)))

  def element(x: chex.Array, axis: int, count: int, number: int) -> chex.Array:
    """The element `number` of each tile along an axis."""
    index = [slice(None)] * 4
    index[axis] = slice(number, number + (count - 1) * m + 1, m)
    return x[tuple(index)]

  tiles = [
    tile.reshape(-1, channels)
    for in_rows in _combine(t.inputs, [element(x, 1, rows, i) for i in range(size)])
    for tile in _combine(
      t.inputs, [element(in_rows, 2, columns, j) for j in range(size)]
    )
  ]
  products = jnp.einsum("tmc,tcd->tmd", jnp.stack(tiles), matrices, precision="highest")
  back = jnp.asarray(np.kron(t.outputs, t.outputs), x.dtype)
  y = jnp.dot(back, products.reshape(size * size, -1), precision="highest")
  y = y.reshape(m, m, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
  y = y.reshape(batch, rows * m, columns * m, -1)
  return y[:, : height - lost, : width - lost]


def _combine(matrix: np.ndarray, arrays: Sequence[chex.Array]) -> list[chex.Array]:
  """The linear combinations of `arrays` that the rows of `matrix` name."""
  combinations = []
  for row in matrix:
    terms = [
      x if factor == 1 else np.float32(factor) * x
      for factor, x in zip(row, arrays, strict=True)
      if factor
    ]
    combinations.append(functools.reduce(jnp.add, terms))
  return combinations
