"""ONNX files as functions of arrays, by onnxruntime. Needs no jax and no onnx."""

from collections.abc import Callable

import numpy as np

Arrays = dict[str, np.ndarray]


class OnnxError(Exception):
  """A package is not installed, a file is damaged, or a function has no ONNX form."""


def session(model: bytes) -> Callable[[Arrays], Arrays]:
  """Returns a model as a function from named inputs to named outputs, on the CPU.

  Raises:
    OnnxError: onnxruntime is not installed.
  """
  try:
    import onnxruntime
  except ImportError as error:
    raise OnnxError(
      "running ONNX files needs onnxruntime: pip install onnxruntime"
    ) from error
  made = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
  names = [output.name for output in made.get_outputs()]

  def run(inputs: Arrays) -> Arrays:
    return dict(zip(names, made.run(names, inputs), strict=True))

  return run
