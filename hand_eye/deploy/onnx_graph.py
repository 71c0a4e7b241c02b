"""Writes functions of JAX as ONNX graphs, operation by operation.

`convert` traces a function, evaluates what depends on constants alone, and writes the
remaining operations with ONNX's own helpers. `onnx_operations` has those of our
networks; others raise an error that names them. One dimension may stay free: the
function is traced with a large prime in its place, and every dimension that is a
multiple of that prime is free in the graph. Needs `pip install onnx`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core as jax_core

from hand_eye.deploy.onnx_session import OnnxError

FREE = 7919  # stands for the free dimension while tracing; no network is that large
OPSET = 18
_FREE_NAME = "N"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """A value of the graph.

  Attributes:
    name: in the graph.
    shape: that the function gives it.
    stored: that it has in the graph: 1 where it is still to be broadcast.
    dtype: of its elements.
  """

  name: str
  shape: Shape
  stored: Shape
  dtype: np.dtype


Value = Tensor | np.ndarray  # constants stay arrays until an operation needs them


def convert(
  function: Callable[..., Sequence[Any]],
  inputs: Mapping[str, jax.ShapeDtypeStruct],
  outputs: Sequence[str],
  name: str,
) -> bytes:
  """Returns a function as the bytes of an ONNX file.

  Args:
    function: of arrays, returns a sequence of arrays. Its constants become weights.
    inputs: by name; FREE in a shape is the free dimension, `N`.
    outputs: names of what it returns.
    name: of the graph.

  Raises:
    OnnxError: onnx is not installed, or an operation is not known.
  """
  onnx = load_onnx()
  traced = jax.make_jaxpr(function)(*inputs.values())
  graph = Graph(onnx)
  given = []
  for label, spec in inputs.items():
    shape = tuple(spec.shape)
    graph.inputs.append(graph.value_info(label, shape, np.dtype(spec.dtype)))
    given.append(Tensor(label, shape, shape, np.dtype(spec.dtype)))
  made = run(graph, traced.jaxpr, [np.asarray(c) for c in traced.consts], given)
  for label, value in zip(outputs, made, strict=True):
    tensor = graph.full(graph.tensor(value))
    graph.nodes.append(onnx.helper.make_node("Identity", [tensor.name], [label]))
    graph.outputs.append(graph.value_info(label, tensor.shape, tensor.dtype))
  return graph.serialize(name)


def run(
  graph: "Graph", jaxpr: Any, constants: Sequence[Value], given: Sequence[Value]
) -> list[Value]:
  """Writes the operations of a jaxpr; returns its outputs."""
  from hand_eye.deploy import onnx_operations  # needs this module

  values: dict[Any, Value] = {}
  values.update(zip(jaxpr.constvars, constants, strict=True))
  values.update(zip(jaxpr.invars, given, strict=True))

  def read(variable: Any) -> Value:
    if isinstance(variable, jax_core.Literal):
      return np.asarray(variable.val, variable.aval.dtype)
    return values[variable]

  for equation in jaxpr.eqns:
    arguments = [read(variable) for variable in equation.invars]
    results = onnx_operations.apply(graph, equation, arguments)
    values.update(zip(equation.outvars, results, strict=True))
  return [read(variable) for variable in jaxpr.outvars]


class Graph:
  """An ONNX graph that grows."""

  def __init__(self, onnx: Any):
    self.onnx = onnx
    self.nodes: list[Any] = []
    self.inputs: list[Any] = []
    self.outputs: list[Any] = []
    self._weights: dict[tuple[Any, ...], Any] = {}
    self._count = 0
    self._free: str | None = None

  def add(
    self,
    operation: str,
    inputs: Sequence["Tensor | np.ndarray"],
    shape: Shape,
    dtype: Any,
    **attributes: Any,
  ) -> Tensor:
    """Adds a node with one output, of this shape and type."""
    names = [self.tensor(value).name for value in inputs]
    output = self._name(operation.lower())
    self.nodes.append(
      self.onnx.helper.make_node(operation, names, [output], **attributes)
    )
    return Tensor(output, tuple(shape), tuple(shape), np.dtype(dtype))

  def tensor(self, value: Value) -> Tensor:
    """A value of the graph; constants become initializers, equal ones once."""
    if isinstance(value, Tensor):
      return value
    key = (value.dtype.str, value.shape, value.tobytes())
    if key not in self._weights:
      name = self._name("constant")
      array = np.ascontiguousarray(value).reshape(value.shape)
      self._weights[key] = self.onnx.numpy_helper.from_array(array, name)
    name = self._weights[key].name
    return Tensor(name, value.shape, value.shape, value.dtype)

  def full(self, value: Value) -> Tensor:
    """The value with all of its shape, nothing of it left to broadcast."""
    tensor = self.tensor(value)
    if tensor.stored == tensor.shape:
      return tensor
    sizes = self.shape(tensor.shape)
    return self.add("Expand", [tensor, sizes], tensor.shape, tensor.dtype)

  def reshape(self, value: Value, shape: Shape) -> Tensor:
    """The value in another shape, of which one dimension may be free."""
    tensor = self.full(value)
    free = [i for i, size in enumerate(shape) if is_free(size)]
    if len(free) > 1:
      raise OnnxError(f"a reshape to {shape} has two free dimensions")
    sizes = [-1 if i in free else size for i, size in enumerate(shape)]
    target = np.array(sizes, np.int64)
    return self.add("Reshape", [tensor, target], shape, tensor.dtype)

  def shape(self, sizes: Shape) -> Value:
    """Dimensions as int64[rank]; free ones are computed from an input's."""
    if not any(is_free(size) for size in sizes):
      return np.array(sizes, np.int64)
    parts = [
      self.free_size(size) if is_free(size) else np.array([size], np.int64)
      for size in sizes
    ]
    return self.add("Concat", parts, (len(sizes),), np.int64, axis=0)

  def free_size(self, size: int) -> Tensor:
    """A free dimension as int64[1]."""
    if self._free is None:
      self._free = self._size_of_an_input()
    times = np.array([size // FREE], np.int64)
    free = Tensor(self._free, (1,), (1,), np.dtype(np.int64))
    return free if size == FREE else self.add("Mul", [free, times], (1,), np.int64)

  def _size_of_an_input(self) -> str:
    for one in self.inputs:
      for axis, dim in enumerate(one.type.tensor_type.shape.dim):
        if dim.dim_param == _FREE_NAME:
          output = self._name("free")
          node = self.onnx.helper.make_node(
            "Shape", [one.name], [output], start=axis, end=axis + 1
          )
          self.nodes.append(node)
          return output
    raise OnnxError("a dimension is free, but none of an input's is")

  def value_info(self, name: str, shape: Shape, dtype: np.dtype) -> Any:
    """What the graph says of an input or output."""
    kind = self.onnx.helper.np_dtype_to_tensor_dtype(dtype)
    sizes = [
      {1: _FREE_NAME}.get(size // FREE, f"{size // FREE}{_FREE_NAME}")
      if is_free(size)
      else size
      for size in shape
    ]
    return self.onnx.helper.make_tensor_value_info(name, kind, sizes)

  def serialize(self, name: str) -> bytes:
    """The file's bytes, after ONNX's full check."""
    helper = self.onnx.helper
    graph = helper.make_graph(
      self.nodes, name, self.inputs, self.outputs, list(self._weights.values())
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="hand_eye")
    model.ir_version = min(model.ir_version, 10)
    self.onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()

  def _name(self, kind: str) -> str:
    self._count += 1
    return f"{kind}_{self._count}"


def is_free(size: int) -> bool:
  """Whether a dimension stands for one that is free."""
  return size > 0 and size % FREE == 0


def load_onnx() -> Any:
  """The module onnx, with what is used of it.

  Raises:
    OnnxError: it is not installed.
  """
  try:
    import onnx
    import onnx.checker
    import onnx.helper
    import onnx.numpy_helper
  except ImportError as error:
    raise OnnxError(
      "writing ONNX files needs onnx, and testing them onnxruntime:"
      " pip install onnx onnxruntime"
    ) from error
  return onnx
