"""What results depend on."""

import importlib.metadata
import platform


def versions() -> dict[str, str]:
  """What results depend on: Python, the machine and the libraries that matter."""
  found = {"python": platform.python_version(), "machine": platform.machine()}
  for name in (
    "hand_eye", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "mujoco",
    "numpy", "grain", "array_record", "tensorflow-datasets", "simplejpeg",
  ):  # fmt: skip
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = "not installed"
  return found
