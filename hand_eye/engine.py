"""The network for control on CPUs by OpenVINO, an optional extra.

XLA's convolutions on CPUs reach less than half of the speed of matrix products, and
none of what bfloat16 gives there; OpenVINO's reach nearly all of both. This file hands
the folded weights of `inference.prepare` to it, layer by layer, and gives a predictor
that `servo` takes like any other. The search stays in JAX, which calls the engine back
once for the images and once for each iteration of CEM.

`inference` is the reference. In float32 the probabilities agree to 1e-3 and far better;
in bfloat16 they do to about two digits. Needs `pip install openvino`.
"""

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hand_eye import inference, network

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class EngineError(RuntimeError):
  """OpenVINO is not installed, or cannot do what it is asked for."""


def build_predictor(
  weights: inference.FoldedWeights,
  config: network.NetworkConfig,
  *,
  precision: str = "float32",
) -> network.Predictor:
  """Builds a predictor that runs these weights with OpenVINO, on the CPU.

  It holds its weights: `encode` and `score` ignore the parameters that they are given.
  `encode` takes one image pair; under `jax.vmap`, pairs are taken one by one. Its
  features are for its own `score`. A model is compiled when a function of it is traced,
  for the number of commands that it then sees.

  Args:
    weights: of `inference.prepare`.
    config: the definition that they are of.
    precision: of products, `float32` or `bfloat16`; sums and what goes in and out are
      float32.

  Raises:
    EngineError: if OpenVINO is not installed, or the processor has no bfloat16.
    ValueError: for an unknown precision.
  """
  if precision not in PRECISIONS:
    raise ValueError(
      f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}."
    )
  weights = jax.tree.map(np.asarray, dict(weights))
  builder = _Builder(weights, config, precision)
  size, side = config.crop_size, inference.feature_size(config)
  features_shape = jax.ShapeDtypeStruct((1, config.channels, side, side), jnp.float32)
  models: dict[int, Callable[..., np.ndarray]] = {}

  @functools.cache
  def image_model():
    return builder.image_half()

  def encode(params, batch_stats, images):
    del params, batch_stats
    chex.assert_shape(images, (1, size, size, network.IMAGE_CHANNELS))
    run = image_model()
    return jax.pure_callback(
      run, features_shape, images.astype(jnp.float32), vmap_method="sequential"
    )

  def score(params, batch_stats, features, commands):
    del params, batch_stats
    chex.assert_shape(features, features_shape.shape)
    count = commands.shape[0]
    chex.assert_shape(commands, (count, network.COMMAND_SIZE))
    if count not in models:
      models[count] = builder.command_half(count)
    return jax.pure_callback(
      models[count],
      jax.ShapeDtypeStruct((count,), jnp.float32),
      features,
      commands,
      vmap_method="sequential",
    )

  return network.build_predictor(config)._replace(encode=encode, score=score)


class _Builder:
  """Puts the layers together. Images and maps are [N, C, H, W], as OpenVINO's are."""

  def __init__(
    self,
    weights: inference.FoldedWeights,
    config: network.NetworkConfig,
    precision: str,
  ):
    self._ov, self._op = _openvino()
    self._core = self._ov.Core()
    self._weights, self._config = weights, config
    known = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in known:
      raise EngineError(
        "this processor has no products in bfloat16: use precision float32."
      )
    self._options = {
      "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
      "PERFORMANCE_HINT": "LATENCY",
    }

  def image_half(self) -> Callable[..., np.ndarray]:
    """float32 images [1, S, S, 6] -> features [1, C, h, w], as `inference.encode`."""
    op, c, weights = self._op, self._config, self._weights
    images = op.parameter(
      [1, c.crop_size, c.crop_size, network.IMAGE_CHANNELS], np.float32
    )
    x = op.transpose(images, self._constant([0, 3, 1, 2], np.int64))
    x = op.subtract(op.multiply(x, self._constant(1 / 127.5)), self._constant(1.0))
    stem = weights["stem"]
    kernel = np.concatenate([stem["pregrasp"], stem["image"]], axis=2)
    layer = {"kernel": kernel, "bias": stem["bias"]}
    x = op.relu(self._convolve(x, layer, c.stem_stride, "SAME"))
    x = self._max_pool(x, c.stem_pool)
    for layer in _in_order(weights["image"]):
      x = op.relu(self._convolve(x, layer, 1, "SAME"))
    x = self._max_pool(x, c.image_pool)
    if c.command_convs:
      x = self._convolve(x, weights["command"]["0"], 1, "SAME")
    return self._compile(x, images)

  def command_half(self, count: int) -> Callable[..., np.ndarray]:
    """features [1, C, h, w], commands [N, 5] -> logits [N], as `inference.score`."""
    op, c, weights = self._op, self._config, self._weights
    side = inference.feature_size(c)
    features = op.parameter([1, c.channels, side, side], np.float32)
    commands = op.parameter([count, network.COMMAND_SIZE], np.float32)
    x = op.add(features, self._shares(commands, count))
    if c.command_convs:
      x = op.relu(x)
    for layer in _in_order(weights["command"])[1:]:
      x = op.relu(self._convolve(x, layer, 1, "SAME"))
    x = self._max_pool(x, c.command_pool)
    for layer in _in_order(weights["final"]):
      x = op.relu(self._convolve(x, layer, 1, "VALID"))
    # The order in which the dense layer's weights were trained: channels last.
    x = op.transpose(x, self._constant([0, 2, 3, 1], np.int64))
    x = op.reshape(x, self._constant([count, -1], np.int64), False)
    for layer in _in_order(weights["dense"]):
      x = op.relu(self._dense(x, layer))
    x = op.reshape(
      self._dense(x, weights["logit"]), self._constant([-1], np.int64), False
    )
    return self._compile(x, features, commands)

  def _shares(self, commands: Any, count: int) -> Any:
    """What the commands add after the first command convolution: [N, C, h, w]."""
    op, share = self._op, self._weights["command_share"]
    cases, channels = share["bias"].shape[1:]
    # [5, K, K, C] -> [5, C * K * K]: channels first.
    kernel = share["kernel"].transpose(0, 3, 1, 2).reshape(network.COMMAND_SIZE, -1)
    bias = share["bias"].transpose(2, 0, 1).reshape(1, -1)
    x = self._dense(commands, {"kernel": kernel, "bias": bias})
    shape = self._constant([count, channels, cases, cases], np.int64)
    x = op.reshape(x, shape, False)
    _, index = inference.border(self._config)
    for axis in (2, 3):
      x = op.gather(x, self._constant(index, np.int64), self._constant(axis, np.int64))
    return x

  def _convolve(self, x: Any, layer: Any, stride: int, padding: str) -> Any:
    op, kernel = self._op, layer["kernel"]
    y = op.convolution(
      x,
      self._constant(kernel.transpose(3, 2, 0, 1)),
      [stride] * 2,
      [0, 0],
      [0, 0],
      [1, 1],
      auto_pad={"SAME": "same_upper", "VALID": "valid"}[padding],
    )
    return op.add(y, self._constant(layer["bias"].reshape(1, -1, 1, 1)))

  def _dense(self, x: Any, layer: Any) -> Any:
    y = self._op.matmul(x, self._constant(layer["kernel"]), False, False)
    return self._op.add(y, self._constant(layer["bias"].reshape(1, -1)))

  def _max_pool(self, x: Any, window: int) -> Any:
    if window == 1:
      return x
    sides = [window] * 2
    none = [0, 0]
    return self._op.max_pool(
      x, sides, [1, 1], none, none, sides, auto_pad="same_upper"
    ).output(0)

  def _constant(self, value: Any, dtype: Any = np.float32) -> Any:
    return self._op.constant(np.ascontiguousarray(value, dtype))

  def _compile(self, output: Any, *inputs: Any) -> Callable[..., np.ndarray]:
    model = self._ov.Model([output], list(inputs))
    request = self._core.compile_model(
      model, "CPU", self._options
    ).create_infer_request()

    def run(*arrays: Any) -> np.ndarray:
      given = [np.ascontiguousarray(array, np.float32) for array in arrays]
      request.infer(given)
      return np.array(request.get_output_tensor(0).data)

    return run


def _openvino() -> tuple[Any, Any]:
  """Imports OpenVINO and the set of operations that is used here."""
  # Otherwise the import forks a process that reports it to the makers over the network:
  # not from the program that moves a robot, and a fork of a process that runs JAX can
  # hang. OpenVINO does without this package where it is missing.
  hidden = "openvino_telemetry"
  hide = hidden not in sys.modules
  if hide:
    sys.modules[hidden] = None  # type: ignore[assignment]
  try:
    openvino = importlib.import_module("openvino")
    return openvino, importlib.import_module("openvino.opset13")
  except ImportError as error:
    raise EngineError(
      "the engine needs OpenVINO, which is not installed: pip install openvino, or use"
      " hand_eye.inference."
    ) from error
  finally:
    if hide:
      del sys.modules[hidden]


def _in_order(layers: Any) -> list[Any]:
  return [layers[name] for name in sorted(layers, key=int)]
