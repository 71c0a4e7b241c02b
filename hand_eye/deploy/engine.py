"""The network on CPUs by OpenVINO, an optional extra behind the exported policy.

On CPUs, XLA's convolutions reach less than half of the speed of matrix products and
gain nothing from bfloat16; OpenVINO's reach nearly the full speed in both. This file
passes the folded weights of a policy file to OpenVINO, layer by layer. The search and
the limits stay with the functions of the file, see `program`.

The jitted functions are the reference. In float32 the probabilities agree to 1e-3 and
far better, in bfloat16 to about two digits. Needs `pip install openvino` and
NumPy, and of this project `presets` alone.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hand_eye import presets


class Precision(NamedTuple):
  """What an engine computes with.

  products: what OpenVINO calls the type of products.
  tolerance: by how much probabilities may be off those of the reference.
  """

  products: str
  tolerance: float


ENGINES = {
  "openvino_float32": Precision("f32", 1e-3),
  "openvino_bfloat16": Precision("bf16", 0.05),
}


class EngineError(RuntimeError):
  """OpenVINO is not installed, or cannot do what it is asked for."""


class OpenVino:
  """The two halves of a network, compiled by OpenVINO for the CPU.

  Sums and what goes in and out are float32, whatever the products are. Not for several
  threads at once.
  """

  def __init__(
    self,
    weights: Mapping[str, Any],
    config: presets.NetworkConfig,
    name: str,
    counts: Iterable[int],
  ):
    """Compiles them.

    Args:
      weights: of `inference.prepare`, as NumPy arrays.
      config: the definition that they are of.
      name: of `ENGINES`.
      counts: numbers of commands that `score` will be asked for.

    Raises:
      EngineError: if OpenVINO is not installed, the name is none, or the processor has
        no such products.
    """
    if name not in ENGINES:
      raise EngineError(
        f"the engine {name!r} is not known, expected one of {', '.join(ENGINES)}."
      )
    builder = _Builder(weights, config, ENGINES[name].products)
    self._encode = builder.image_half()
    self._score = {count: builder.command_half(count) for count in set(counts)}

  def encode(self, images: np.ndarray) -> np.ndarray:
    """[1, S, S, 6], 0 to 255 -> features [1, C, h, w] for `score`."""
    return self._encode(images)

  def score(self, features: np.ndarray, commands: np.ndarray) -> np.ndarray:
    """Features of `encode`, commands [N, 5] -> logits [N]; N is one of the counts."""
    return self._score[len(commands)](features, commands)


def openvino(name: str) -> Callable[..., OpenVino]:
  """Returns what makes the engine of a name: `make(weights, config, counts)`."""

  def make(weights: Any, config: presets.NetworkConfig, counts: Any) -> OpenVino:
    return OpenVino(weights, config, name, counts)

  return make


class _Builder:
  """Puts the layers together. Images and maps are [N, C, H, W], as OpenVINO's are."""

  def __init__(
    self, weights: Mapping[str, Any], config: presets.NetworkConfig, products: str
  ):
    self._ov, self._op = _openvino()
    self._core = self._ov.Core()
    self._weights, self._config = weights, config
    known = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if products == "bf16" and "BF16" not in known:
      raise EngineError(
        "this processor has no products in bfloat16: use openvino_float32."
      )
    self._options = {
      "INFERENCE_PRECISION_HINT": products,
      "PERFORMANCE_HINT": "LATENCY",
    }

  def image_half(self) -> Callable[..., np.ndarray]:
    """float32 images [1, S, S, 6] -> features [1, C, h, w], as `inference.encode`."""
    op, c, weights = self._op, self._config, self._weights
    images = op.parameter(
      [1, c.crop_size, c.crop_size, presets.IMAGE_CHANNELS], np.float32
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
    side = presets.feature_size(c)
    features = op.parameter([1, c.channels, side, side], np.float32)
    commands = op.parameter([count, presets.COMMAND_SIZE], np.float32)
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
    kernel = share["kernel"].transpose(0, 3, 1, 2).reshape(presets.COMMAND_SIZE, -1)
    bias = share["bias"].transpose(2, 0, 1).reshape(1, -1)
    x = self._dense(commands, {"kernel": kernel, "bias": bias})
    shape = self._constant([count, channels, cases, cases], np.int64)
    x = op.reshape(x, shape, False)
    _, index = presets.border(self._config)
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
      "the engine needs OpenVINO, which is not installed: pip install openvino, or load"
      " the policy without an engine."
    ) from error
  finally:
    if hide:
      del sys.modules[hidden]


def _in_order(layers: Any) -> list[Any]:
  return [layers[name] for name in sorted(layers, key=int)]
