"""The same network and the same training step in PyTorch, for the benchmark only."""

import copy
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np

from hand_eye import network, training


def load() -> "Peer | None":
  """The peer, or None where torch is not installed."""
  try:
    import torch
  except ImportError:
    return None
  return Peer(torch)


class Peer:
  """Training in PyTorch: compiled, channels-last.

  Attributes:
    is_compiled: whether compiling worked; it needs a C++ compiler on CPUs.
  """

  def __init__(self, torch: ModuleType):
    self._torch = torch
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    self.is_compiled = True

  def step(
    self, config: network.NetworkConfig, batch: training.Batch, dtype: str
  ) -> Callable[[], Any]:
    """A function that takes one step more: forward, backward, AdamW, averages."""
    torch = self._torch
    module = _build(torch, config).to(self._device, memory_format=torch.channels_last)
    average = copy.deepcopy(module)
    parameters = list(module.parameters())
    pairs = [*zip(average.parameters(), parameters, strict=True)]
    pairs += [
      (a, b)
      for a, b in zip(average.buffers(), module.buffers(), strict=True)
      if b.is_floating_point()
    ]
    averages, sources = ([pair[side].detach() for pair in pairs] for side in (0, 1))
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4, fused=True)
    images, commands, success = self._inputs(batch)
    mixed = torch.autocast(self._device, torch.bfloat16, enabled=dtype == "bfloat16")

    def loss_of(images, commands, success):
      with mixed:
        logits = module(images, commands)
      return torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), success
      )

    compiled = self._compiled(loss_of, images, commands, success)

    def take() -> Any:
      optimizer.zero_grad(set_to_none=True)
      loss = compiled(images, commands, success)
      loss.backward()
      torch.nn.utils.clip_grad_norm_(parameters, 1.0)
      optimizer.step()
      with torch.no_grad():
        torch._foreach_lerp_(averages, sources, 0.001)
      return loss

    return take

  def product(self, dtype: str, size: int) -> Callable[[], Any]:
    """A bare matrix product."""
    torch = self._torch
    a = torch.ones(size, size, dtype=getattr(torch, dtype), device=self._device)
    return lambda: a @ a

  def wait(self, result: Any) -> None:
    """Waits until a result is there."""
    if self._device == "cuda":
      self._torch.cuda.synchronize()
    del result

  def difference(self, config: network.NetworkConfig, batch: training.Batch) -> float:
    """The most by which logits differ from ours, with the same weights, in training."""
    torch = self._torch
    predictor = network.build(config)
    params, stats = predictor.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    # Without the zeros of a fresh network, at which logits would agree anyhow.
    params["logit"]["kernel"] = rng.normal(size=params["logit"]["kernel"].shape)
    ours, _ = jax.jit(predictor.apply, static_argnames="train")(
      params, stats, training.stack_images(batch), batch.command, train=True
    )
    module = _build(torch, config).to(self._device)
    _copy_weights(torch, module, params)
    with torch.no_grad():
      images, commands, _ = self._inputs(batch)
      theirs = module(images, commands).cpu().numpy()
    return float(np.abs(np.asarray(ours) - theirs).max())

  def _inputs(self, batch: training.Batch) -> tuple[Any, Any, Any]:
    torch = self._torch
    images = np.concatenate([batch.pregrasp_image, batch.image], axis=-1)
    # A view of NHWC memory: that is what channels-last means.
    images = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
    command = torch.from_numpy(np.asarray(batch.command)).to(self._device)
    return images, command, torch.from_numpy(np.asarray(batch.success)).to(self._device)

  def _compiled(self, function: Callable, *arguments: Any) -> Callable:
    compiled = self._torch.compile(function)
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled(*arguments).backward()
    except Exception:  # Of the compiler, its toolchain or its absence.
      self.is_compiled = False
      return function
    return compiled


def _build(torch: ModuleType, config: network.NetworkConfig) -> Any:
  """The network of `config` as a torch.nn.Module, in training."""
  nn, c = torch.nn, config

  def block(inputs: int, kernel: int, stride: int = 1, padding: int = 0) -> Any:
    return nn.Sequential(
      nn.Conv2d(inputs, c.channels, kernel, stride, padding, bias=False),
      nn.BatchNorm2d(c.channels, c.batch_norm_epsilon, 1 - c.batch_norm_momentum),
      nn.ReLU(inplace=True),
    )

  def pool(size: int, window: int) -> Any:
    missing = -(-size // window) * window - size
    return nn.MaxPool2d(window, window, padding=missing // 2, ceil_mode=True)

  class Network(nn.Module):  # type: ignore[name-defined]
    def __init__(self) -> None:
      super().__init__()
      stem = -(-c.crop_size // c.stem_stride)
      image = -(-stem // c.stem_pool)
      command = -(-image // c.image_pool)
      same = (c.stem_kernel - c.stem_stride) // 2
      self.encode = nn.Sequential(
        block(network.IMAGE_CHANNELS, c.stem_kernel, c.stem_stride, same),
        pool(stem, c.stem_pool),
        *(
          block(c.channels, c.image_kernel, padding=c.image_kernel // 2)
          for _ in range(c.image_convs)
        ),
        pool(image, c.image_pool),
      )
      self.command = nn.Linear(network.COMMAND_SIZE, c.channels)
      self.score = nn.Sequential(
        *(
          block(c.channels, c.command_kernel, padding=c.command_kernel // 2)
          for _ in range(c.command_convs)
        ),
        pool(command, c.command_pool),
        *(block(c.channels, c.final_kernel) for _ in range(c.final_convs)),
      )
      side = -(-command // c.command_pool) - c.final_convs * (c.final_kernel - 1)
      widths = [side * side * c.channels, *c.dense_units]
      self.dense = nn.ModuleList(
        nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)
      )
      self.logit = nn.Linear(widths[-1], 1)
      scale = torch.tensor([c.command_scale] * 3 + [1.0, 1.0])
      self.register_buffer("scale", scale)

    def forward(self, images, commands):
      x = self.encode(images.float() / 127.5 - 1)
      x = x + self.command(commands / self.scale)[:, :, None, None]
      x = self.score(x).permute(0, 2, 3, 1).flatten(1)
      for layer in self.dense:
        x = torch.relu(layer(x))
      return self.logit(x)[:, 0]

  return Network().train()


def _copy_weights(torch: ModuleType, module: Any, params: Any) -> None:
  def copy_into(parameter: Any, values: Any) -> None:
    with torch.no_grad():
      parameter.copy_(torch.from_numpy(np.array(values, np.float32)))

  names = ["stem_block"]
  for kind in ("image", "command", "final"):
    count = sum(name.startswith(f"{kind}_blocks_") for name in params)
    names += [f"{kind}_blocks_{i}" for i in range(count)]
  convolutions = [m for m in module.modules() if isinstance(m, torch.nn.Conv2d)]
  norms = [m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)]
  for name, conv, norm in zip(names, convolutions, norms, strict=True):
    kernel = np.asarray(params[name]["conv"]["kernel"])
    copy_into(conv.weight, kernel.transpose(3, 2, 0, 1))
    copy_into(norm.weight, params[name]["batch_norm"]["scale"])
    copy_into(norm.bias, params[name]["batch_norm"]["bias"])
  dense = {f"dense_layers_{i}": layer for i, layer in enumerate(module.dense)}
  for name, layer in {
    **dense, "command_dense": module.command, "logit": module.logit
  }.items():  # fmt: skip
    copy_into(layer.weight, np.asarray(params[name]["kernel"]).T)
    copy_into(layer.bias, params[name]["bias"])
