"""Operators of ONNX in torch, so that a part of a graph can be differentiated.

onnx2torch 1.5.15 converts float operators, but has no converter of QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear or
MatMulInteger, which a quantized graph is made of, and needs torchvision beside torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as nn
from onnx import helper, numpy_helper

from pipeline.graph.attributes import attributes_of

Tensor = Any  # torch.Tensor: types are checked where PyTorch need not be installed
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Any], Attributes], Any]
"""(inputs, None for one that is left out; attributes) -> the output, or a tuple of outputs."""

CONVOLUTIONS = (nn.conv1d, nn.conv2d, nn.conv3d)
TRANSPOSED = (nn.conv_transpose1d, nn.conv_transpose2d, nn.conv_transpose3d)


def numbers(tensor: Tensor | None) -> list[int]:
    """Return a tensor of axes, sizes or positions as whole numbers."""
    return [] if tensor is None else [int(value) for value in tensor.reshape(-1).tolist()]


def _conv(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, weight, *bias = inputs
    rank = weight.dim() - 2
    pads, strides = given.get("pads", [0] * 2 * rank), given.get("strides", [1] * rank)
    before, after = pads[:rank], pads[rank:]
    if before != after:
        x = nn.pad(x, [size for axis in reversed(range(rank)) for size in (before[axis], after[axis])])
        before = [0] * rank
    dilations = given.get("dilations", [1] * rank)
    return CONVOLUTIONS[rank - 1](x, weight, bias[0] if bias else None, strides, before, dilations, given.get("group", 1))


def _conv_transpose(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, weight, *bias = inputs
    rank = weight.dim() - 2
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    pads, more = given.get("pads", [0] * 2 * rank), given.get("output_padding", [0] * rank)
    whole = TRANSPOSED[rank - 1](x, weight, bias[0] if bias else None, strides, 0, 0, given.get("group", 1), dilations)
    for axis in range(rank):
        missing = more[axis] - pads[rank + axis]  # what lies behind the last product is the bias alone
        if missing > 0:
            shape = [*whole.shape]
            shape[2 + axis] = missing
            end = bias[0].reshape(1, -1, *[1] * rank).expand(shape) if bias else whole.new_zeros(shape)
            whole = torch.cat([whole, end], dim=2 + axis)
            missing = 0
        whole = whole.narrow(2 + axis, pads[axis], whole.shape[2 + axis] - pads[axis] + missing)
    return whole


def _gemm(inputs: Sequence[Any], given: Attributes) -> Tensor:
    a, b, *bias = inputs
    a, b = a.t() if given.get("transA", 0) else a, b.t() if given.get("transB", 0) else b
    product = given.get("alpha", 1.0) * (a @ b)
    return product + given.get("beta", 1.0) * bias[0] if bias else product


def _layer_norm(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, scale, *bias = inputs
    shape = x.shape[given.get("axis", -1) % x.dim() :]
    return nn.layer_norm(x, shape, scale.expand(shape), bias[0].expand(shape) if bias else None, given.get("epsilon", 1e-5))


def _batch_norm(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return nn.batch_norm(x, mean, variance, scale, bias, False, 0.0, given.get("epsilon", 1e-5))


def _softmax(inputs: Sequence[Any], given: Attributes) -> Tensor:
    return torch.softmax(inputs[0], given.get("axis", -1))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def reduce(inputs: Sequence[Any], given: Attributes) -> Tensor:
        axes = numbers(inputs[1]) if len(inputs) > 1 else list(given.get("axes", []))
        if not axes and given.get("noop_with_empty_axes", 0):
            return inputs[0]
        return function(inputs[0], dim=axes or list(range(inputs[0].dim())), keepdim=bool(given.get("keepdims", 1)))

    return reduce


def _slice(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    x, starts, ends, *rest = inputs
    axes = numbers(rest[0]) if rest and rest[0] is not None else list(range(len(numbers(starts))))
    steps = numbers(rest[1]) if len(rest) > 1 and rest[1] is not None else [1] * len(axes)
    for start, end, axis, step in zip(numbers(starts), numbers(ends), axes, steps, strict=True):
        size = x.shape[axis]
        if step < 0:  # torch has no negative steps: the same positions by name
            x = x.index_select(axis, torch.tensor(list(range(size))[slice(start, end if end > -size - 1 else None, step)]))
        else:
            first, last, _ = slice(start, end, step).indices(size)
            x = x[(slice(None),) * (axis % x.dim()) + (slice(first, max(first, last), step),)]
    return x


def _reshape(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, wanted = inputs[0], numbers(inputs[1])
    keep = not given.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and keep else size for i, size in enumerate(wanted)])


def _squeeze(inputs: Sequence[Any], given: Attributes) -> Tensor:
    axes = numbers(inputs[1]) if len(inputs) > 1 else list(given.get("axes", []))
    x = inputs[0]
    return x.squeeze(tuple(axes) if axes else tuple(axis for axis, size in enumerate(x.shape) if size == 1))


def _unsqueeze(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, axes = inputs[0], numbers(inputs[1]) if len(inputs) > 1 else list(given["axes"])
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _split(inputs: Sequence[Any], given: Attributes) -> tuple[Tensor, ...]:
    axis = given.get("axis", 0)
    sizes = numbers(inputs[1]) if len(inputs) > 1 else list(given.get("split", []))
    if not sizes:
        return tuple(torch.chunk(inputs[0], given["num_outputs"], axis))
    return tuple(torch.split(inputs[0], sizes, axis))


def _pad(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, pads, *rest = inputs
    sizes = numbers(pads)
    mode = given.get("mode", b"constant").decode()
    if len(rest) > 1 and rest[1] is not None:
        axes = [axis % x.dim() for axis in numbers(rest[1])]
        half = len(axes)
        full = [0] * 2 * x.dim()
        for place, axis in enumerate(axes):
            full[axis], full[axis + x.dim()] = sizes[place], sizes[place + half]
        sizes = full
    rank = x.dim()
    flat = [size for axis in reversed(range(rank)) for size in (sizes[axis], sizes[axis + rank])]
    if mode == "constant":
        value = float(rest[0].item()) if rest and rest[0] is not None else 0.0
        return nn.pad(x, flat, value=value)
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return nn.pad(x, flat, mode={"edge": "replicate", "reflect": "reflect"}[mode])


def _gather(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, places = inputs
    axis = given.get("axis", 0) % x.dim()
    where = places.long()
    where = torch.where(where < 0, where + x.shape[axis], where)
    return x.index_select(axis, where.reshape(-1)).reshape(*x.shape[:axis], *where.shape, *x.shape[axis + 1 :])


def _clip(inputs: Sequence[Any], given: Attributes) -> Tensor:
    low = inputs[1] if len(inputs) > 1 else given.get("min")
    high = inputs[2] if len(inputs) > 2 else given.get("max")
    x = inputs[0]
    x = x if low is None else torch.maximum(x, torch.as_tensor(low, dtype=x.dtype))
    return x if high is None else torch.minimum(x, torch.as_tensor(high, dtype=x.dtype))


def _instance_norm(inputs: Sequence[Any], given: Attributes) -> Tensor:
    x, scale, bias = inputs
    return nn.instance_norm(x, None, None, scale, bias, True, 0.0, given.get("epsilon", 1e-5))


def _prelu(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    x, slope = inputs
    return torch.where(x < 0, x * slope, x)


def _cast(inputs: Sequence[Any], given: Attributes) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(given["to"])
    return inputs[0].to(torch.from_numpy(np.zeros((), kind)).dtype)


def _constant(_inputs: Sequence[Any], given: Attributes) -> Tensor:
    [(name, value)] = given.items()
    return torch.from_numpy(np.array(numpy_helper.to_array(value) if name == "value" else value))


def _constant_of_shape(inputs: Sequence[Any], given: Attributes) -> Tensor:
    value = given.get("value")
    filled = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return torch.from_numpy(np.full(numbers(inputs[0]), filled.reshape(-1)[0]))


def _dynamic_quantize(inputs: Sequence[Any], _given: Attributes) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers, as float so that derivatives pass, their scale and their zero point."""
    x = inputs[0]
    with torch.no_grad():
        low, high = torch.clamp(x.min(), max=0.0), torch.clamp(x.max(), min=0.0)
        scale = torch.clamp((high - low) / 255, min=torch.finfo(torch.float32).tiny)
        zero = torch.clamp(torch.round(-low / scale), 0, 255)
    steps = x / scale
    return steps + (torch.round(steps) - steps).detach() + zero, scale, zero


def _integer_product(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    a, b, *zeros = inputs
    first, second = (0.0 if zero is None else zero.float() for zero in [*zeros, None, None][:2])
    return torch.matmul(a.float() - first, b.float() - second)


def _range(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    return torch.arange(*(value.item() for value in inputs), dtype=inputs[0].dtype)


def _divide(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    a, b = inputs
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _total(inputs: Sequence[Any], _given: Attributes) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*inputs)).sum(0) if len(inputs) > 1 else inputs[0]


def _one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(inputs[0])


def _two(function: Callable[[Any, Any], Tensor]) -> Operator:
    return lambda inputs, _: function(inputs[0], inputs[1])


OPERATORS: Mapping[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _two(torch.matmul),
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _integer_product,
    "Add": _two(torch.add),
    "Sub": _two(torch.sub),
    "Mul": _two(torch.mul),
    "Div": _divide,
    "Pow": _two(lambda x, power: torch.pow(x, power.to(x.dtype))),
    "Sum": _total,
    "Max": _two(torch.maximum),
    "Min": _two(torch.minimum),
    "Neg": _one(torch.neg),
    "Abs": _one(torch.abs),
    "Sqrt": _one(torch.sqrt),
    "Reciprocal": _one(torch.reciprocal),
    "Exp": _one(torch.exp),
    "Log": _one(torch.log),
    "Sin": _one(torch.sin),
    "Cos": _one(torch.cos),
    "Erf": _one(torch.erf),
    "Tanh": _one(torch.tanh),
    "Sigmoid": _one(torch.sigmoid),
    "Softplus": _one(nn.softplus),
    "Mish": _one(nn.mish),
    "Relu": _one(torch.relu),
    "HardSwish": _one(nn.hardswish),
    "Gelu": lambda inputs, given: nn.gelu(inputs[0], approximate=given.get("approximate", b"none").decode()),
    "LeakyRelu": lambda inputs, given: nn.leaky_relu(inputs[0], given.get("alpha", 0.01)),
    "Elu": lambda inputs, given: nn.elu(inputs[0], given.get("alpha", 1.0)),
    "HardSigmoid": lambda inputs, given: torch.clamp(given.get("alpha", 0.2) * inputs[0] + given.get("beta", 0.5), 0.0, 1.0),
    "PRelu": _prelu,
    "Clip": _clip,
    "Softmax": _softmax,
    "LogSoftmax": lambda inputs, given: torch.log_softmax(inputs[0], given.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "BatchNormalization": _batch_norm,
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "ReduceMax": _reduce(torch.amax),
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean(dim=list(range(2, inputs[0].dim())), keepdim=True),
    "Identity": _one(lambda x: x),
    "Dropout": _one(lambda x: x),
    "Transpose": lambda inputs, given: inputs[0].permute(
        *(given.get("perm") or list(reversed(range(inputs[0].dim()))))
    ),
    "Reshape": _reshape,
    "Flatten": lambda inputs, given: inputs[0].reshape(int(np.prod(inputs[0].shape[: given.get("axis", 1)])), -1),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda inputs, given: torch.cat(list(inputs), dim=given["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": lambda inputs, _: inputs[0] * torch.ones(numbers(inputs[1]), dtype=inputs[0].dtype),
    "Tile": lambda inputs, _: inputs[0].repeat(*numbers(inputs[1])),
    "Pad": _pad,
    "Where": lambda inputs, _: torch.where(inputs[0], inputs[1], inputs[2]),
    "Equal": _two(torch.eq),
    "Less": _two(torch.lt),
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "LessOrEqual": _two(torch.le),
    "And": _two(torch.logical_and),
    "Or": _two(torch.logical_or),
    "Not": _one(torch.logical_not),
    "Cast": _cast,
    "Shape": lambda inputs, given: torch.tensor(inputs[0].shape)[slice(given.get("start", 0), given.get("end"))],
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}  # fmt: skip
"""Operator type -> the same in torch; those of the standard domain alone."""


def unknown_operators(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """Return the operator types among some nodes that torch cannot compute here, each once."""
    return sorted({node.op_type for node in nodes if node.domain not in ("", "ai.onnx") or not _is_known(node)})


def _is_known(node: onnx.NodeProto) -> bool:
    given = attributes_of(node)
    if node.op_type in ("Conv", "ConvTranspose"):
        explicit = given.get("auto_pad", b"NOTSET") in (b"", b"NOTSET")
        return explicit and not given.get("output_shape")
    if node.op_type == "Softmax" and "axis" not in given:
        return True
    return node.op_type in OPERATORS or node.op_type in ("QuantizeLinear", "DequantizeLinear")
