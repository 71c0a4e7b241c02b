"""Whether JAX can run on the platform that was asked for."""

import os

import jax


class PlatformError(RuntimeError):
  """JAX finds no device on the platform that was asked for."""


def check() -> None:
  """Starts JAX.

  Raises:
    PlatformError: naming the variable, and what to do, in place of what JAX raises
      deep inside: for JAX_PLATFORMS=cuda without a GPU, a bare AssertionError.
  """
  try:
    jax.devices()
  except Exception as error:
    wanted = jax.config.jax_platforms or ""
    lines = [line for line in str(error).splitlines() if line] or ["no such device"]
    name = "JAX_PLATFORMS" if os.environ.get("JAX_PLATFORMS") else "jax_platforms"
    raise PlatformError(
      f"{name}={wanted}: JAX cannot run on that here ({lines[0].rstrip('.')});"
      " unset it, or set JAX_PLATFORMS=cpu."
    ) from error
