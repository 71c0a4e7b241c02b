r"""A network of your own: trained, servoed and exported by its name, from outside.

  python -m experiments.demo --workdir=runs/own \
    --config.network.preset=examples.own_network:architecture

docs/own_network.md explains what a network must offer. This one is minimal: the images
become a vector, the command is appended to it, and two dense layers give the logit.
"""

import dataclasses

import chex
import jax.numpy as jnp
from flax import linen as nn

from hand_eye import architectures, network


@dataclasses.dataclass(frozen=True)
class PlainConfig:
  """What defines it: `architecture`, `frame_size` and `crop_size` every network has."""

  architecture: str = "examples.own_network:architecture"
  frame_size: int = 72  # of the camera's frames, pixels
  crop_size: int = 64  # of what the network sees
  channels: int = 16
  units: int = 64


class PlainNetwork(nn.Module):
  """Two halves, so that a decision encodes its images once."""

  config: PlainConfig

  def setup(self):
    c = self.config
    self.convolutions = [nn.Conv(c.channels, (5, 5), strides=2) for _ in range(4)]
    self.hidden, self.logit = nn.Dense(c.units), nn.Dense(1)

  def encode(self, images: chex.Array, *, train: bool) -> chex.Array:
    """[B, S, S, 6], 0 to 255 -> features [B, F]."""
    x = images.astype(jnp.float32) / 127.5 - 1
    for convolution in self.convolutions:
      x = nn.relu(convolution(x))
    return x.reshape(len(x), -1)

  def score(
    self, features: chex.Array, commands: chex.Array, *, train: bool
  ) -> chex.Array:
    """Features [B, F] or [1, F], commands [N, 5] -> logits [N]."""
    features = jnp.broadcast_to(features, (len(commands), features.shape[-1]))
    scale = jnp.array([10.0, 10.0, 10.0, 1.0, 1.0])  # decimetres
    x = jnp.concatenate([features, commands * scale], axis=-1)
    return self.logit(nn.relu(self.hidden(x)))[:, 0]

  def __call__(
    self, images: chex.Array, commands: chex.Array, *, train: bool
  ) -> chex.Array:
    return self.score(self.encode(images, train=train), commands, train=train)


def architecture() -> architectures.Architecture:
  return architectures.Architecture(
    config=PlainConfig,
    build=lambda config: network.from_module(PlainNetwork(config), config),
  )
