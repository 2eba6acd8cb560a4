"""Turn the noise that a graph draws into an input, so that two graphs can be run on the same noise.

Two runs of one Matcha model differ, since it draws the noise that its flow starts from. To compare fp32 with int8, both
graphs get a flat table of standard numbers as a further input, and every random operator takes its values from there. The
table is laid out with the last axis (time) slowest: frame t sees the same noise whatever length the model has predicted,
so that another duration at the end of a sentence does not change its beginning. The saved files keep their own
random operators; only the copies that are evaluated are changed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pipeline.errors import ModelError
from pipeline.graph.attributes import attributes_of
from pipeline.graph.shape_inference import inferred_types

NORMAL = ("RandomNormalLike", "RandomNormal")
UNIFORM = ("RandomUniformLike", "RandomUniform")
OTHER_RANDOM = ("Multinomial", "Bernoulli")
RANDOM_OPS = frozenset({*NORMAL, *UNIFORM, *OTHER_RANDOM})
TABLE_VALUES = 1 << 21  # 26,000 frames of 80 bands: five minutes of speech
PREFIX = "pipeline_noise_"


@dataclass(frozen=True)
class NoisyGraph:
    """A graph whose noise is given from outside.

    Attributes:
        model: the changed graph.
        tables: input name -> "normal" or "uniform".
    """

    model: onnx.ModelProto
    tables: dict[str, str]

    def noise(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """Return a table of noise for each of the further inputs."""
        return {
            name: rng.standard_normal(TABLE_VALUES, dtype=np.float32)
            if kind == "normal"
            else rng.random(TABLE_VALUES, dtype=np.float32)
            for name, kind in self.tables.items()
        }


def with_noise_inputs(model: onnx.ModelProto) -> NoisyGraph:
    """Return a copy of the graph whose random operators read from further inputs; without any, the graph itself.

    Raises:
        ModelError: the graph draws random numbers in a way that cannot be given from outside, or of unknown rank.
    """
    random = [node for node in model.graph.node if node.op_type in (*NORMAL, *UNIFORM)]
    if other := [node.name for node in model.graph.node if node.op_type in OTHER_RANDOM]:
        raise ModelError(f"the node {other[0]} draws classes at random; two models cannot be given the same draw.")
    if not random:
        return NoisyGraph(model, {})
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    ranks = _ranks(changed)
    tables: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        if node.op_type not in (*NORMAL, *UNIFORM):
            nodes.append(node)
            continue
        table = f"{PREFIX}{len(tables)}"
        tables[table] = "normal" if node.op_type in NORMAL else "uniform"
        changed.graph.input.append(helper.make_tensor_value_info(table, onnx.TensorProto.FLOAT, [None]))
        nodes += _read_table(changed.graph, node, table, ranks)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return NoisyGraph(changed, tables)


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    return {name: len(tensor.shape.dim) for name, tensor in inferred_types(model).items() if tensor.HasField("shape")}


def _read_table(graph: onnx.GraphProto, node: onnx.NodeProto, table: str, ranks: dict[str, int]) -> list[onnx.NodeProto]:
    """Return nodes that compute what the random node would: values of the table, in its shape, at its mean and scale."""
    settings = attributes_of(node)
    output = node.output[0]
    rank = len(settings["shape"]) if "shape" in settings else ranks.get(node.input[0], ranks.get(output))
    if rank is None:
        raise ModelError(f"the rank of the noise that {node.name} draws is not known; run shape inference on the model.")

    def constant(name: str, values: list[int] | float, kind: int) -> str:
        shape = [len(values)] if isinstance(values, list) else []
        flat = values if isinstance(values, list) else [values]
        graph.initializer.append(helper.make_tensor(f"{table}_{name}", kind, shape, flat))
        return f"{table}_{name}"

    def step(op_type: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401
        return helper.make_node(op_type, inputs, [f"{table}_{name}"], name=f"{table}_{name}", **attributes)

    integer, real = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
    order = [rank - 1, *range(rank - 1)]
    if node.op_type in NORMAL:
        shift, scale = settings.get("mean", 0.0), settings.get("scale", 1.0)
    else:
        shift = settings.get("low", 0.0)
        scale = settings.get("high", 1.0) - shift
    shape = (
        f"{table}_shape" if "shape" not in settings else constant("fixed_shape", [int(n) for n in settings["shape"]], integer)
    )
    nodes = [] if "shape" in settings else [step("Shape", [node.input[0]], "shape")]
    return [
        *nodes,
        step("Gather", [shape, constant("order", order, integer)], "time_first_shape", axis=0),
        step("ReduceProd", [shape], "count", keepdims=1),
        step("Slice", [table, constant("zero", [0], integer), f"{table}_count"], "values"),
        step("Reshape", [f"{table}_values", f"{table}_time_first_shape"], "time_first"),
        step("Transpose", [f"{table}_time_first"], "unit", perm=[*range(1, rank), 0]),
        step("Mul", [f"{table}_unit", constant("scale", float(scale), real)], "scaled"),
        helper.make_node("Add", [f"{table}_scaled", constant("shift", float(shift), real)], [output], name=node.name),
    ]
