"""A part of an ONNX graph that runs in torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from pipeline.graph.attributes import attributes_of, int_attribute
from pipeline.ptq.reconstruction.fake_quantization import Learned
from pipeline.ptq.reconstruction.torch_operators import OPERATORS

Tensor = Any  # torch.Tensor: types are checked where PyTorch need not be installed


class TorchGraph:
    """Nodes of a graph, in an order in which they can run.

    Args:
        model: the graph that they are of.
        nodes: those to run.
        learned: what stands in for constants that are learned, and for Q/DQ pairs; None: the graph has none.
    """

    def __init__(self, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], learned: Learned | None = None) -> None:
        self._learned = learned or Learned()
        read = {name for node in nodes for name in node.input}
        self._constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in model.graph.initializer
            if tensor.name in read
        }
        self._nodes = [(node, attributes_of(node)) for node in nodes]
        self._last: dict[str, int] = {name: index for index, node in enumerate(nodes) for name in node.input}

    def run(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> list[Tensor]:
        """Return some tensors that the nodes make.

        Args:
            feeds: what the nodes read and none of them makes.
            wanted: names of tensors.
        """
        return self._run(feeds, wanted)[0]

    def elements(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> int:
        """Return how many numbers the nodes make: what running them costs follows from it."""
        with torch.no_grad():
            return self._run(feeds, wanted)[1]

    def _run(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> tuple[list[Tensor], int]:
        made_in_all = 0
        values: dict[str, Tensor] = {**self._constants, **feeds, **self._learned.biases}
        kept = set(wanted)
        for index, (node, given) in enumerate(self._nodes):
            if node.op_type == "QuantizeLinear":
                made: object = self._quantize(node, values)
            elif node.op_type == "DequantizeLinear":
                made = self._dequantize(node, values)
            else:
                made = OPERATORS[node.op_type]([values[name] if name else None for name in node.input], given)
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(node.output, made, strict=False))
            made_in_all += sum(one.numel() for one in made)
            for name in node.input:
                if self._last.get(name) == index and name not in kept:
                    values.pop(name, None)
        return [values[name] for name in wanted], made_in_all

    def _quantize(self, node: onnx.NodeProto, values: Mapping[str, Tensor]) -> Tensor:
        """Return what the integers stand for: what restores them has nothing left to do."""
        x, scale = values[node.input[0]], node.input[1]
        grid = self._learned.activations.get(scale)
        if grid is not None:
            return grid.rounded(x)
        zero = values[node.input[2]]
        limits = torch.iinfo(zero.dtype)
        return torch.fake_quantize_per_tensor_affine(x, float(values[scale]), int(zero), limits.min, limits.max)

    def _dequantize(self, node: onnx.NodeProto, values: Mapping[str, Tensor]) -> Tensor:
        name = node.output[0]
        if name in self._learned.weights:
            return self._learned.weights[name].rounded()
        if name in self._learned.biases:
            return self._learned.biases[name]
        integers = values[node.input[0]]
        if integers.is_floating_point():
            return integers
        scale, zero = values[node.input[1]], values[node.input[2]] if len(node.input) > 2 else None
        shape = [1] * integers.dim()
        if scale.dim():
            shape[int_attribute(node, "axis", 1)] = -1
        shifted = integers.float() if zero is None else integers.float() - zero.reshape(shape).float()
        return shifted * scale.reshape(shape)
