"""The ONNX form of each operation of JAX, see `onnx_graph`.

Each function here takes the graph, an equation of a jaxpr and its arguments, and
returns its results. Layouts stay JAX's; convolutions are transposed on both sides,
which engines undo where two meet.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hand_eye.deploy import onnx_graph
from hand_eye.deploy.onnx_graph import (
  Graph,
  Shape,
  Tensor,
  Value,
  is_free,
)
from hand_eye.deploy.onnx_session import OnnxError

Arguments = Sequence[Value]

# One ONNX operation each, with NumPy's broadcasting where there are two arguments.
_ELEMENTWISE = {
  "abs": "Abs", "add": "Add", "add_any": "Add", "and": "And", "ceil": "Ceil",
  "cos": "Cos", "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp",
  "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual",
  "log": "Log", "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min",
  "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or", "pow": "Pow", "sign": "Sign",
  "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tanh": "Tanh",
}  # fmt: skip
_REDUCTIONS = {
  "reduce_max": "ReduceMax",
  "reduce_min": "ReduceMin",
  "reduce_sum": "ReduceSum",
}
_NOTHING = ("copy", "copy_p", "stop_gradient", "optimization_barrier")
_CALLS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}
# Of which a constant result would be as large as the free dimension.
_FREE_SIZED = ("broadcast_in_dim", "iota")


def apply(graph: Graph, equation: Any, arguments: Arguments) -> list[Value]:
  """Writes one equation; constant ones are evaluated instead.

  Raises:
    OnnxError: the operation is not known.
  """
  name, params = equation.primitive.name, equation.params
  if name in _CALLS:
    inner = params[_CALLS[name]]
    constants = [np.asarray(c) for c in getattr(inner, "consts", ())]
    return onnx_graph.run(graph, getattr(inner, "jaxpr", inner), constants, arguments)
  if name == "platform_index":
    # What a platform that is not named takes, the last one.
    return [np.array(len(params["platforms"]) - 1, np.int32)]
  if name == "cond" and isinstance(arguments[0], np.ndarray):
    branch = params["branches"][int(arguments[0])]
    constants = [np.asarray(c) for c in branch.consts]
    return onnx_graph.run(graph, branch.jaxpr, constants, arguments[1:])
  if name in _NOTHING:
    return list(arguments)
  shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
  free = any(is_free(size) for shape in shapes for size in shape)
  if not free and all(isinstance(value, np.ndarray) for value in arguments):
    made = equation.primitive.bind(*arguments, **params)
    made = made if equation.primitive.multiple_results else [made]
    return [np.asarray(value) for value in made]
  out = equation.outvars[0].aval
  shape, dtype = tuple(out.shape), np.dtype(out.dtype)
  if name in _ELEMENTWISE:
    return [_elementwise(graph, _ELEMENTWISE[name], arguments, shape, dtype)]
  if name in _REDUCTIONS:
    return [_reduce(graph, _REDUCTIONS[name], arguments[0], params, shape, dtype)]
  if name not in _OPERATIONS:
    raise OnnxError(
      f"the operation {name} has no form in ONNX here: add one to"
      " hand_eye/deploy/onnx_operations.py."
    )
  return [_OPERATIONS[name](graph, arguments, params, shape, dtype)]


def _elementwise(
  graph: Graph, operation: str, arguments: Arguments, shape: Shape, dtype: np.dtype
) -> Tensor:
  tensors = [graph.tensor(value) for value in arguments]
  stored = np.broadcast_shapes(*(tensor.stored for tensor in tensors))
  made = graph.add(operation, tensors, stored, dtype)
  return Tensor(made.name, shape, stored, dtype)


def _reduce(graph, operation, value, params, shape, dtype):
  axes = np.array(params["axes"], np.int64)
  return graph.add(operation, [graph.full(value), axes], shape, dtype, keepdims=0)


def _atan2(graph, arguments, params, shape, dtype):
  """From the half plane where it is exact: 2 atan(y / (r + |x|)), turned for x < 0."""
  y, x = arguments
  ew = lambda op, *args: _elementwise(graph, op, args, shape, dtype)  # noqa: E731
  test = lambda op, *args: _elementwise(graph, op, args, shape, np.dtype(bool))  # noqa: E731
  zero, pi = np.zeros((), dtype), np.array(math.pi, dtype)
  length = ew("Sqrt", ew("Add", ew("Mul", x, x), ew("Mul", y, y)))
  below = ew("Add", length, ew("Abs", x))
  # No length, no angle: 0, as NumPy and JAX have it.
  below = ew("Where", test("Greater", below, zero), below, np.ones((), dtype))
  half = ew("Mul", ew("Atan", ew("Div", y, below)), np.array(2, dtype))
  left = ew("Where", test("Less", y, zero), np.array(-math.pi, dtype), pi)
  return ew("Where", test("Less", x, zero), ew("Sub", left, half), half)


def _broadcast_in_dim(graph, arguments, params, shape, dtype):
  tensor = graph.tensor(arguments[0])
  if tensor.stored != tensor.shape and 1 not in tensor.shape:
    tensor = graph.full(tensor)
  dims = params["broadcast_dimensions"]
  stored = [1] * len(shape)
  for axis, size in zip(dims, tensor.stored, strict=True):
    stored[axis] = size
  if tuple(stored) != tensor.stored:
    plain = Tensor(tensor.name, tensor.stored, tensor.stored, dtype)
    tensor = graph.reshape(plain, tuple(stored))
  return Tensor(tensor.name, shape, tuple(stored), dtype)


def _cast(graph, arguments, params, shape, dtype):
  tensor = graph.tensor(arguments[0])
  kind = graph.onnx.helper.np_dtype_to_tensor_dtype(dtype)
  made = graph.add("Cast", [tensor], tensor.stored, dtype, to=kind)
  return Tensor(made.name, shape, tensor.stored, dtype)


def _concatenate(graph, arguments, params, shape, dtype):
  parts = [graph.full(value) for value in arguments]
  return graph.add("Concat", parts, shape, dtype, axis=params["dimension"])


def _stack(graph, arguments, params, shape, dtype):
  axis = params["axis"] % len(shape)
  one = (*shape[:axis], 1, *shape[axis + 1 :])
  parts = [graph.reshape(value, one) for value in arguments]
  return graph.add("Concat", parts, shape, dtype, axis=axis)


def _convolve(graph, arguments, params, shape, dtype):
  image, kernel = graph.full(arguments[0]), arguments[1]
  spec = params["dimension_numbers"]
  if params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
    raise OnnxError("convolutions with batch groups or gaps are not known")
  image = _transposed(graph, image, spec.lhs_spec)
  if isinstance(kernel, np.ndarray):
    kernel = kernel.transpose(spec.rhs_spec)
  else:
    kernel = _transposed(graph, graph.full(kernel), spec.rhs_spec)
  pads = params["padding"]
  inner = tuple(shape[axis] for axis in spec.out_spec)
  made = graph.add(
    "Conv", [image, kernel], inner, dtype,
    strides=list(params["window_strides"]),
    dilations=list(params["rhs_dilation"]),
    pads=[low for low, _ in pads] + [high for _, high in pads],
    group=params["feature_group_count"],
  )  # fmt: skip
  return _transposed(graph, made, np.argsort(spec.out_spec))


def _dot(graph, arguments, params, shape, dtype):
  (left_sum, right_sum), (left_batch, right_batch) = params["dimension_numbers"]
  left, right = (graph.full(value) for value in arguments)
  if (left_sum, right_sum) == ((len(left.shape) - 1,), (0,)) and not left_batch:
    if len(right.shape) == 2:
      return graph.add("MatMul", [left, right], shape, dtype)
  letters = iter("abcdefghijklmnopqrstuvwxyz")
  mine = [next(letters) for _ in left.shape]
  other = [next(letters) for _ in right.shape]
  pairs = zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True)
  for here, there in pairs:
    other[there] = mine[here]
  out = [mine[axis] for axis in left_batch]
  out += [x for axis, x in enumerate(mine) if axis not in (*left_sum, *left_batch)]
  out += [x for axis, x in enumerate(other) if axis not in (*right_sum, *right_batch)]
  equation = f"{''.join(mine)},{''.join(other)}->{''.join(out)}"
  return graph.add("Einsum", [left, right], shape, dtype, equation=equation)


def _gather(graph, arguments, params, shape, dtype):
  """Whole slices along one axis, as `x[:, index]` makes them."""
  data, indices = graph.full(arguments[0]), graph.full(arguments[1])
  spec, sizes = params["dimension_numbers"], params["slice_sizes"]
  axes = spec.collapsed_slice_dims
  first = indices.shape[:-1]
  whole = all(
    size == full or axis in axes
    for axis, (size, full) in enumerate(zip(sizes, data.shape, strict=True))
  )
  if (
    len(axes) != 1
    or spec.start_index_map != axes
    or spec.operand_batching_dims
    or "FILL" in str(params["mode"])
    or not whole
  ):
    raise OnnxError(f"a gather of this form is not known: {spec}")
  axis = axes[0]
  plain = graph.reshape(indices, first)
  if "CLIP" in str(params["mode"]):
    last = np.array(data.shape[axis] - 1, plain.dtype)
    plain = graph.add("Max", [plain, np.zeros((), plain.dtype)], first, plain.dtype)
    plain = graph.add("Min", [plain, last], first, plain.dtype)
  rest = (*data.shape[:axis], *first, *data.shape[axis + 1 :])
  made = graph.add("Gather", [data, plain], rest, dtype, axis=axis)
  # ONNX has the indices where the axis was, JAX where the offsets are not.
  offsets = list(spec.offset_dims)
  batch = [i for i in range(len(shape)) if i not in offsets]
  order = np.argsort([*offsets[:axis], *batch, *offsets[axis:]])
  return _transposed(graph, made, order)


def _integer_pow(graph, arguments, params, shape, dtype):
  return _elementwise(
    graph, "Pow", [arguments[0], np.array(params["y"], dtype)], shape, dtype
  )


def _log1p(graph, arguments, params, shape, dtype):
  more = _elementwise(graph, "Add", [arguments[0], np.ones((), dtype)], shape, dtype)
  return _elementwise(graph, "Log", [more], shape, dtype)


def _pad(graph, arguments, params, shape, dtype):
  lows, highs, gaps = zip(*params["padding_config"], strict=True)
  if any(gaps):
    raise OnnxError("padding with gaps is not known")
  pads = np.array([*lows, *highs], np.int64)
  value = arguments[1]
  return graph.add("Pad", [graph.full(arguments[0]), pads, value], shape, dtype)


def _rsqrt(graph, arguments, params, shape, dtype):
  root = _elementwise(graph, "Sqrt", arguments, shape, dtype)
  return _elementwise(graph, "Reciprocal", [root], shape, dtype)


def _select(graph, arguments, params, shape, dtype):
  which, no, yes = arguments
  if graph.tensor(which).dtype != bool:
    raise OnnxError("a choice among several cases is not known")
  return _elementwise(graph, "Where", [which, yes, no], shape, dtype)


def _slice(graph, arguments, params, shape, dtype):
  strides = params["strides"] or [1] * len(shape)
  ends = [
    graph.shape(tuple(params[name])) for name in ("start_indices", "limit_indices")
  ]
  axes, steps = np.arange(len(shape)), np.array(strides, np.int64)
  return graph.add(
    "Slice", [graph.full(arguments[0]), *ends, axes, steps], shape, dtype
  )


def _reverse(graph, arguments, params, shape, dtype):
  axes = np.array(params["dimensions"], np.int64)
  first, last = np.full_like(axes, -1), np.full_like(axes, np.iinfo(np.int64).min)
  inputs = [graph.full(arguments[0]), first, last, axes, np.full_like(axes, -1)]
  return graph.add("Slice", inputs, shape, dtype)


def _square(graph, arguments, params, shape, dtype):
  return _elementwise(graph, "Mul", [arguments[0]] * 2, shape, dtype)


def _reshape(graph, arguments, params, shape, dtype):
  return graph.reshape(arguments[0], shape)


def _transpose(graph, arguments, params, shape, dtype):
  return _transposed(graph, graph.full(arguments[0]), params["permutation"])


def _transposed(graph: Graph, tensor: Tensor, order: Any) -> Tensor:
  order = [int(axis) for axis in order]
  if order == list(range(len(order))):
    return tensor
  shape = tuple(tensor.shape[axis] for axis in order)
  return graph.add("Transpose", [tensor], shape, tensor.dtype, perm=order)


_OPERATIONS: dict[str, Callable[..., Tensor]] = {
  "atan2": _atan2,
  "broadcast_in_dim": _broadcast_in_dim,
  "concatenate": _concatenate,
  "conv_general_dilated": _convolve,
  "convert_element_type": _cast,
  "dot_general": _dot,
  "expand_dims": _reshape,
  "gather": _gather,
  "integer_pow": _integer_pow,
  "log1p": _log1p,
  "pad": _pad,
  "reshape": _reshape,
  "rev": _reverse,
  "rsqrt": _rsqrt,
  "select_n": _select,
  "slice": _slice,
  "square": _square,
  "squeeze": _reshape,
  "stack": _stack,
  "transpose": _transpose,
}
