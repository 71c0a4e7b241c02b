"""Winograd's form equals the convolution that it stands for."""

import jax
import numpy as np
import pytest

from hand_eye import winograd


def _convolve(x, kernel, padding):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@pytest.mark.parametrize(
  ("kernel_size", "padding", "shape"),
  [
    (3, "SAME", (27, 27)),
    (3, "SAME", (8, 5)),  # Tiles that do and do not end with the map.
    (3, "VALID", (14, 14)),
    (3, "VALID", (3, 6)),
    (5, "SAME", (27, 13)),
    (5, "VALID", (12, 5)),
    (3, "SAME", (1, 1)),
  ],
)
def test_equals_the_convolution(kernel_size, padding, shape):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, *shape, 5)).astype(np.float32)
  kernel = rng.normal(size=(kernel_size, kernel_size, 5, 7)).astype(np.float32)
  matrices = winograd.transform_kernel(kernel)
  expected = _convolve(x, kernel, padding)
  found = winograd.convolve(x, matrices, kernel_size, padding)
  assert found.shape == expected.shape
  np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_transforms_multiply_polynomials(kernel_size):
  """In one dimension and double precision: a correlation, to the last digits."""
  rng = np.random.default_rng(0)
  t = winograd.transforms(kernel_size)
  tile, kernel = rng.normal(size=len(t.inputs)), rng.normal(size=kernel_size)
  found = t.outputs @ ((t.inputs @ tile) * (t.kernel @ kernel))
  np.testing.assert_allclose(found, np.correlate(tile, kernel), atol=1e-12)
  outputs, size = t.outputs.shape
  assert size == outputs + kernel_size - 1 < outputs * kernel_size


def test_other_kernels_have_no_form():
  assert [k for k in range(1, 9) if winograd.applies_to(k)] == [3, 5]
