"""The peer of the control benchmark: one decision in idiomatic PyTorch.

The embedding is tiled, batch norm folded, the halves compiled, maps channels last. The
search is a plain CEM without limits: less than ours does.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hand_eye import inference, network, servo


def is_installed() -> bool:
  return importlib.util.find_spec("torch") is not None


def decisions(
  config: network.NetworkConfig,
  variables: Any,
  frames: np.ndarray,
  search: servo.ServoConfig,
) -> dict[str, Callable[[], Any]]:
  """Decisions in float32 and bfloat16 by name; none without PyTorch."""
  if not is_installed():
    return {}
  return {
    f"PyTorch {dtype}": _decision(
      *halves(config, variables, dtype), config, frames, search
    )
    for dtype in ("float32", "bfloat16")
  }


def products(size: int) -> dict[str, Callable[[], Any]]:
  """The bare matrix product in bfloat16, for a floor: XLA has no fast one on CPUs."""
  if not is_installed():
    return {}
  import torch

  matrix = torch.ones(size, size, dtype=torch.bfloat16)
  return {"bfloat16": lambda: matrix @ matrix}


def halves(
  config: network.NetworkConfig,
  variables: Any,
  dtype_name: str,
  compile_them: bool = True,
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """The two halves on tensors: images [1, S, S, 6]; features and commands [N, 5]."""
  import torch
  from torch.nn import functional

  dtype = getattr(torch, dtype_name)
  weights = jax.tree.map(
    np.asarray, inference.prepare(variables[0], variables[1], config)
  )
  dense = jax.tree.map(np.asarray, variables[0]["command_dense"])

  def tensor(x, *axes):
    x = torch.from_numpy(np.array(x.transpose(axes) if axes else x)).to(dtype)
    return x.to(memory_format=torch.channels_last) if len(axes) == 4 else x

  def kernel(layer):
    return tensor(layer["kernel"], 3, 2, 0, 1), tensor(layer["bias"])

  def kernels(name):
    return [kernel(weights[name][key]) for key in sorted(weights[name], key=int)]

  stem = weights["stem"]
  both = np.concatenate([stem["pregrasp"], stem["image"]], axis=2)
  stem = kernel({"kernel": both, "bias": stem["bias"]})
  image, command, final = kernels("image"), kernels("command"), kernels("final")
  into, into_bias = tensor(dense["kernel"], 1, 0), tensor(dense["bias"])
  layers = [weights["dense"][key] for key in sorted(weights["dense"], key=int)]
  layers = [
    (tensor(each["kernel"], 1, 0), tensor(each["bias"]))
    for each in (*layers, weights["logit"])
  ]
  scale = torch.tensor([config.command_scale] * 3 + [1.0, 1.0])

  def pad_same(x, window, stride, value):
    lost = max((-(-x.shape[-1] // stride) - 1) * stride + window - x.shape[-1], 0)
    around = (lost // 2, lost - lost // 2)
    return functional.pad(x, around * 2, value=value) if lost else x

  def convolve(x, layer, stride=1, same=True):
    if same and stride > 1:
      x = pad_same(x, layer[0].shape[-1], stride, 0.0)
    padding = layer[0].shape[-1] // 2 if same and stride == 1 else 0
    return functional.relu(functional.conv2d(x, *layer, stride, padding))

  def pool(x, window):
    return functional.max_pool2d(pad_same(x, window, window, -torch.inf), window)

  def encode(images):
    x = (images.permute(0, 3, 1, 2).float() / 127.5 - 1.0).to(dtype)
    x = pool(convolve(x, stem, config.stem_stride), config.stem_pool)
    for layer in image:
      x = convolve(x, layer)
    return pool(x, config.image_pool)

  def score(features, candidates):
    vector = functional.linear((candidates / scale).to(dtype), into, into_bias)
    x = features + vector[:, :, None, None]
    for layer in command:
      x = convolve(x, layer)
    x = pool(x, config.command_pool)
    for layer in final:
      x = convolve(x, layer, same=False)
    x = x.permute(0, 2, 3, 1).flatten(1)
    for layer in layers[:-1]:
      x = functional.relu(functional.linear(x, *layer))
    return functional.linear(x, *layers[-1])[:, 0].float()

  if not compile_them:
    return encode, score
  return torch.compile(encode), torch.compile(score, dynamic=False)


def _decision(encode, score, config, frames, search):
  import torch

  first = (config.frame_size - config.crop_size) // 2
  crop = slice(first, first + config.crop_size)
  pair = np.concatenate(list(frames[:, crop, crop]), axis=-1)[None]
  images = torch.from_numpy(np.ascontiguousarray(pair))
  rng = np.random.default_rng(0)

  def commands_of(motions):
    turns = np.stack([np.sin(motions[:, 2]), np.cos(motions[:, 2])], axis=-1)
    down = np.full((len(motions), 1), -0.1)
    together = np.concatenate([motions[:, :2], down, turns], axis=-1)
    return torch.from_numpy(together.astype(np.float32))

  def decide():
    with torch.inference_mode():
      features = encode(images)
      mean, deviation = np.zeros(3), np.diag(np.square(search.initial_std))
      best, best_score = mean, -np.inf
      for _ in range(search.num_iterations):
        motions = rng.multivariate_normal(mean, deviation, search.num_samples)
        scores = score(features, commands_of(motions)).numpy()
        order = np.argsort(-scores)
        if scores[order[0]] > best_score:
          best, best_score = motions[order[0]], scores[order[0]]
        elites = motions[order[: search.num_elites]]
        mean = elites.mean(0)
        deviation = np.cov(elites.T) + np.diag(np.square(search.min_std))
      null = score(features, commands_of(np.zeros((1, 3)))).numpy()
      return best, null

  return decide
