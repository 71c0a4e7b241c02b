"""Networks by name: the one table that training, checkpoints and policies look in.

The name is the field `architecture` of a network's configuration, and so stored with
every checkpoint and policy file. A name of the form 'module:factory' is a network of
your own: a function without arguments that returns an `Architecture`, see
docs/own_network.md.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hand_eye import factories, glimpse, inference, network, presets


class Architecture(NamedTuple):
  """How networks of one kind are built.

  Attributes:
    config: frozen dataclass of what defines a network, JSON-able, every field with a
      default. Of its fields, `architecture` is the name of this, and `frame_size` and
      `crop_size` are the sides of the camera's frames and of the network's images,
      pixels. Where float32 is required, `dtype` is set to it.
    build: `(config) -> network.Predictor`.
    build_for_control: the same, where a faster form of `encode` and `score` is known.
  """

  config: Callable[..., Any]
  build: Callable[[Any], network.Predictor]
  build_for_control: Callable[[Any], network.Predictor] | None = None


ARCHITECTURES: Mapping[str, Architecture] = {
  "figure4": Architecture(presets.NetworkConfig, network.build, inference.build),
  "glimpse": Architecture(presets.NetworkConfig, glimpse.build),
}


def find(name: str) -> Architecture:
  """Returns the architecture of a name.

  Raises:
    ValueError: there is none.
  """
  if name in ARCHITECTURES:
    return ARCHITECTURES[name]
  if ":" not in name:
    raise ValueError(
      f"architecture is {name!r}, expected {', '.join(ARCHITECTURES)}, or"
      " module:factory for your own."
    )
  found = factories.load(name)()
  if not isinstance(found, Architecture):
    raise ValueError(f"{name!r} returned {found!r}, expected an Architecture.")
  return found


def configure(architecture: str = "figure4", **fields: Any) -> Any:
  """Returns the configuration of a network of this architecture.

  Args:
    architecture: its name.
    **fields: values that differ from the defaults.

  Raises:
    TypeError, ValueError: for unknown fields or values, or a configuration without
      the fields that every network must have.
  """
  config = find(architecture).config(**fields, architecture=architecture)
  missing = [name for name in ("frame_size", "crop_size") if not hasattr(config, name)]
  if missing:
    raise ValueError(f"{type(config).__name__} has no {' and no '.join(missing)}.")
  return config


def build(config: Any) -> network.Predictor:
  """Builds the predictor that `config` defines."""
  return find(config.architecture).build(config)


def build_for_control(config: Any) -> network.Predictor:
  """Builds it in its fastest form for control, or as it is trained."""
  found = find(config.architecture)
  return (found.build_for_control or found.build)(config)
