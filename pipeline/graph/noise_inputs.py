"""Turn the noise that a graph draws into an input, so that two graphs can be run on the same noise.

Two runs of one Matcha model differ, since it draws the noise that its flow starts from. To compare fp32 with int8, both
graphs get flat tables of standard numbers as further inputs, one of normal and one of uniform numbers, and every random
operator takes its values from there. What a node reads depends on its name, on the step of the Loop or Scan that it runs in,
and on nothing else: two graphs may differ in their other nodes. The values are laid out with the last axis (time) slowest:
frame t sees the same noise whatever length the model has predicted, so that another duration at the end of a sentence does
not change its beginning. The saved files keep their own random operators; only the copies that are evaluated are changed.

A table is read in as many orders as there are streams. Value i = TABLE_VALUES * q + r of stream s is

    table[(r * (1 + STRIDE * (s + q)) + SHIFT * (s + q)) mod TABLE_VALUES]

which visits each entry once per q: the multiplier is odd, and the length of the table is a power of two. No noise is too long,
and no two streams, nor two parts of one, are shifted copies of each other.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.graph.attributes import attribute, attributes_of
from pipeline.graph.opset import MICROSOFT, import_microsoft, opset_of
from pipeline.graph.shape_inference import element_types
from pipeline.graph.subgraph_scopes import Names, bodies, graphs_of, replace_nodes

NORMAL = ("RandomNormalLike", "RandomNormal")
UNIFORM = ("RandomUniformLike", "RandomUniform")
OTHER_RANDOM = ("Multinomial", "Bernoulli")
RANDOM_OPS = frozenset({*NORMAL, *UNIFORM, *OTHER_RANDOM})
TABLE_VALUES = 1 << 18  # 1 MB, since each inference is given one: 38 s of mels of 80 bands before it is read in another order
STRIDE, SHIFT = 0x2E376, 0x1BD1F  # an even and an odd number below TABLE_VALUES
FIRST_SCAN_WITHOUT_BATCH = 9  # opset; before, states have an axis of samples
FIRST_RESHAPE_TO_NOTHING = 14  # opset; before, a 0 stands for the size that an axis has
STEP_FACTOR = 1021  # streams of one step of a Loop begin so far from those of the step before
PREFIX = "pipeline_noise_"


@dataclass(frozen=True)
class NoisyGraph:
    """A graph whose noise is given from outside.

    Attributes:
        model: the changed graph.
        tables: input name -> "normal" or "uniform".
        nodes: names of the nodes that draw, those in bodies included.
    """

    model: onnx.ModelProto
    tables: dict[str, str]
    nodes: frozenset[str] = frozenset()

    def noise(self, rng: np.random.Generator) -> dict[str, npt.NDArray[np.float32]]:
        """Return the tables; one kind is the same whether the graph draws the other kind or not."""
        [uniform] = rng.spawn(1)
        return {
            name: rng.standard_normal(TABLE_VALUES, dtype=np.float32)
            if kind == "normal"
            else uniform.random(TABLE_VALUES, dtype=np.float32)
            for name, kind in self.tables.items()
        }


def draws(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a node is a random operator: a Dropout only where it is not told that it is in inference.

    Args:
        node: the node.
        constants: name -> constant.
    """
    if node.domain:
        return False
    if node.op_type != "Dropout":
        return node.op_type in RANDOM_OPS
    if len(node.input) < 3 or not node.input[2]:
        return False
    training = constants.get(node.input[2])
    return training is None or bool(numpy_helper.to_array(training).any())


def random_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of its bodies that draw random numbers."""
    constants = _constants(graph)
    for scope in graphs_of(graph):
        yield from (node for node in scope.node if draws(node, constants))


def with_noise_inputs(model: onnx.ModelProto) -> NoisyGraph:
    """Return a copy of the graph whose random operators read from further inputs; without any, the graph itself.

    Names decide what a node draws, so nodes that are to draw the same in two graphs must have the same name in both. Local
    functions are not looked into: `pipeline.graph.local_functions` inlines them.
    """
    found = frozenset(node.name for node in random_nodes(model.graph))
    if not found:
        return NoisyGraph(model, {})
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    expand_bernoulli(changed)
    writer = _Writer(changed, model)
    writer.rewrite(changed.graph, None)
    return NoisyGraph(changed, writer.finish(), found)


def expand_bernoulli(model: onnx.ModelProto) -> None:
    """Write each Bernoulli as the operators that it is made of, in place, the random one under its name.

    ONNX Runtime does so too when it folds constants, under names of its own. Like ONNX Runtime's, the result is 1 where a
    uniform number is above the input; ONNX says below.
    """
    names: Names | None = None
    for scope in graphs_of(model.graph):
        if not any(node.op_type == "Bernoulli" and not node.domain for node in scope.node):
            continue
        names = names or Names(model.graph)
        nodes: list[onnx.NodeProto] = []
        for node in list(scope.node):
            if node.op_type != "Bernoulli" or node.domain:
                nodes.append(node)
                continue
            [data], kind = node.input, attribute(node, "dtype")
            drawn, above = (names.fresh(f"{node.output[0]}_{part}") for part in ("drawn", "above"))
            last = (
                helper.make_node("CastLike", [above, data], node.output)
                if kind is None
                else helper.make_node("Cast", [above], node.output, to=kind)
            )
            last.name = names.fresh(f"{node.name}_cast")
            nodes += [
                helper.make_node("RandomUniformLike", [data], [drawn], name=node.name),
                helper.make_node("Greater", [drawn, data], [above], name=names.fresh(f"{node.name}_above")),
                last,
            ]
        replace_nodes(scope, nodes)


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for scope in graphs_of(graph) for tensor in scope.initializer}
    for scope in graphs_of(graph):
        for node in scope.node:
            if node.op_type == "Constant" and isinstance(value := attribute(node, "value"), TensorProto):
                found[node.output[0]] = value
    return found


class _Writer:
    """Puts values of the tables in the place of random nodes. Constants and tables go to the outermost graph."""

    def __init__(self, model: onnx.ModelProto, original: onnx.ModelProto) -> None:
        self._model, self._original = model, original
        self._opset = opset_of(model)
        self._names = Names(model.graph)
        self._constants_of_graph = _constants(model.graph)
        self._tables: dict[str, str] = {}  # kind -> input
        self._new: dict[tuple[str, bytes], onnx.TensorProto] = {}
        self._nodes: list[onnx.NodeProto] = []  # of the scope that is being written

    def finish(self) -> dict[str, str]:
        graph = self._model.graph
        graph.initializer.extend(self._new.values())
        for kind in sorted(self._tables):
            graph.input.append(helper.make_tensor_value_info(self._tables[kind], TensorProto.FLOAT, [None]))
        import_microsoft(self._model)
        return {self._tables[kind]: kind for kind in sorted(self._tables)}

    def rewrite(self, graph: onnx.GraphProto, step: str | None) -> None:
        """Rewrite a graph and its bodies, in place.

        Args:
            graph: the graph.
            step: a tensor (int64, one value) that is another one whenever the graph is run once more for one inference.
        """
        around, nodes = self._nodes, list(graph.node)
        self._nodes = []
        for node in nodes:
            inner = list(bodies(node))
            if any(True for body in inner for _ in random_nodes(body)):
                for body in inner:
                    self._rewrite_body(node, body, step)
            if draws(node, self._constants_of_graph):
                self._replace(node, step)
            else:
                self._nodes.append(node)
        replace_nodes(graph, self._nodes)
        self._nodes = around

    def _rewrite_body(self, node: onnx.NodeProto, body: onnx.GraphProto, step: str | None) -> None:
        around, self._nodes = self._nodes, []
        number = self._iteration(node, body)
        if number is None:
            self._nodes = around
            self.rewrite(body, step)
            return
        inner = self._step("Mul", [number, self._integers(STEP_FACTOR)])
        if step is not None:
            inner = self._step("Add", [inner, self._step("Mul", [step, self._integers(STEP_FACTOR + 2)])])
        inner = self._remainder(inner, TABLE_VALUES)
        begin, self._nodes = self._nodes, around
        self.rewrite(body, inner)
        replace_nodes(body, [*begin, *body.node])

    def _iteration(self, node: onnx.NodeProto, body: onnx.GraphProto) -> str | None:
        """Return the tensor of a body that counts its runs; None where it runs once, or nothing counts."""
        if node.op_type == "Loop":
            return str(body.input[0].name)
        if node.op_type != "Scan" or self._opset < FIRST_SCAN_WITHOUT_BATCH:
            return None
        number, following = self._names.fresh(f"{PREFIX}step"), self._names.fresh(f"{PREFIX}next_step")
        node.input.insert(0, self._integers(0))  # one state more
        node.output.insert(0, self._names.fresh(f"{PREFIX}steps"))
        body.input.insert(0, helper.make_tensor_value_info(number, TensorProto.INT64, []))
        body.output.insert(0, helper.make_tensor_value_info(following, TensorProto.INT64, []))
        self._step("Add", [number, self._integers(1)], output=following)
        return number

    def _replace(self, node: onnx.NodeProto, step: str | None) -> None:
        match node.op_type:
            case "Dropout":
                self._dropout(node, step)
            case "Multinomial":
                self._multinomial(node, step)
            case _:
                self._random(node, step)

    def _random(self, node: onnx.NodeProto, step: str | None) -> None:
        """Write values at the mean and the scale, or between the limits, of the node."""
        settings = attributes_of(node)
        normal = node.op_type in NORMAL
        shape = (
            self._step("Shape", [node.input[0]])
            if "shape" not in settings
            else self._integers(*(int(size) for size in settings["shape"]), vector=True)
        )
        if normal:
            shift, scale = settings.get("mean", 0.0), settings.get("scale", 1.0)
        else:
            shift = settings.get("low", 0.0)
            scale = settings.get("high", 1.0) - shift
        unit = self._values("normal" if normal else "uniform", node, shape, step)
        scaled = self._step("Mul", [unit, self._real(scale)])
        kind = settings.get("dtype") or (self._types.get(node.input[0]) if node.input else None)
        if kind in (None, TensorProto.FLOAT):
            self._step("Add", [scaled, self._real(shift)], output=node.output[0], name=node.name)
            return
        self._step("Cast", [self._step("Add", [scaled, self._real(shift)])], output=node.output[0], name=node.name, to=kind)

    def _dropout(self, node: onnx.NodeProto, step: str | None) -> None:
        """Write x * keep / (1 - ratio) where the node is told that it is in training, and x elsewhere."""
        data, ratio, training = node.input[0], node.input[1] or self._real(0.5), node.input[2]
        ratio = self._step("Cast", [ratio], to=TensorProto.FLOAT)
        drawn = self._values("uniform", node, self._step("Shape", [data]), step)
        dropped = self._step("And", [self._step("Less", [drawn, ratio]), training])
        kept = self._step("Div", [self._real(1.0), self._step("Sub", [self._real(1.0), ratio])])
        factor = self._step("Where", [training, kept, self._real(1.0)])
        factor = self._step("Where", [dropped, self._real(0.0), factor])
        kind = self._types.get(data, TensorProto.FLOAT)
        if kind != TensorProto.FLOAT:
            factor = self._step("Cast", [factor], to=kind)
        self._step("Mul", [data, factor], output=node.output[0], name=node.name)
        if len(node.output) > 1 and node.output[1]:
            self._step("Not", [dropped], output=node.output[1])

    def _multinomial(self, node: onnx.NodeProto, step: str | None) -> None:
        """Write the class of the largest logit with Gumbel noise on it: drawn as its probability says."""
        count = int(attribute(node, "sample_size", 1))
        logits = self._step("Cast", [node.input[0]], to=TensorProto.FLOAT)
        rows = self._step("Reshape", [logits, self._integers(0, 1, -1, vector=True)])  # (batch, 1, classes)
        shape = self._step("Mul", [self._step("Shape", [rows]), self._integers(1, count, 1, vector=True)])
        drawn = self._values("uniform", node, shape, step)
        exponential = self._step("Neg", [self._step("Log", [drawn])])
        noise = self._step("Neg", [self._step("Log", [exponential])])
        best = self._step("ArgMax", [self._step("Add", [rows, noise])], axis=2, keepdims=0)
        kind = attribute(node, "dtype", TensorProto.INT32)
        self._step("Cast", [best], output=node.output[0], name=node.name, to=kind)

    def _values(self, kind: str, node: onnx.NodeProto, shape: str, step: str | None) -> str:
        """Write values of a table in a shape (int64, one axis; it may be empty), the last axis slowest."""
        if kind not in self._tables:
            self._tables[kind] = self._names.fresh(f"{PREFIX}{kind}")
        sizes = self._step("Concat", [self._integers(1, 1, vector=True), shape], axis=0)  # two axes for a scalar, too
        count = self._step("ReduceProd", [sizes], keepdims=0)
        last = self._step("Sub", [self._step("Size", [sizes]), self._integers(1)])
        frames = self._step("Gather", [sizes, last], axis=0)
        none = self._step("Cast", [self._step("Equal", [frames, self._integers(0)])], to=TensorProto.INT64)
        others = self._step("Div", [count, self._step("Add", [frames, none])])
        # ONNX has a Range since opset 11 only
        place = self._step("Range", [self._integers(0), count, self._integers(1)], domain=MICROSOFT)
        stream = self._integers(zlib.crc32(node.name.encode()) % TABLE_VALUES)
        if step is not None:
            stream = self._step("Add", [stream, step])
        round_ = self._step("Div", [place, self._integers(TABLE_VALUES)])
        within = self._step("Sub", [place, self._step("Mul", [round_, self._integers(TABLE_VALUES)])])
        stream = self._remainder(self._step("Add", [round_, stream]), TABLE_VALUES)
        factor = self._step("Mul", [stream, self._integers(STRIDE)])
        factor = self._remainder(self._step("Add", [factor, self._integers(1)]), TABLE_VALUES)
        shift = self._step("Mul", [stream, self._integers(SHIFT)])
        index = self._step("Add", [self._step("Mul", [within, factor]), shift])
        flat = self._step("Gather", [self._tables[kind], self._remainder(index, TABLE_VALUES)], axis=0)
        both = [self._step("Reshape", [size, self._integers(1, vector=True)]) for size in (frames, others)]
        axes = self._step("Concat", both, axis=0)
        literal: dict[str, Any] = {"allowzero": 1} if self._opset >= FIRST_RESHAPE_TO_NOTHING else {}
        rows = self._step("Transpose", [self._step("Reshape", [flat, axes], **literal)], perm=[1, 0])
        return self._step("Reshape", [rows, shape], **literal)

    def _remainder(self, tensor: str, divisor: int) -> str:
        """Write the remainder of numbers that are not negative; ONNX has a Mod only since opset 10."""
        whole = self._step("Div", [tensor, self._integers(divisor)])
        return self._step("Sub", [tensor, self._step("Mul", [whole, self._integers(divisor)])])

    def _step(
        self,
        op_type: str,
        inputs: list[str],
        *,
        output: str | None = None,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401
    ) -> str:
        output = output or self._names.fresh(f"{PREFIX}{op_type}")
        node = helper.make_node(op_type, inputs, [output], name=name or output, domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def _integers(self, *values: int, vector: bool = False) -> str:
        return self._put(np.array(values if vector else values[0], np.int64))

    def _real(self, value: float) -> str:
        return self._put(np.array(value, np.float32))

    def _put(self, values: npt.NDArray[np.generic]) -> str:
        key = (f"{values.dtype}{values.shape}", values.tobytes())
        if key not in self._new:
            self._new[key] = numpy_helper.from_array(values, self._names.fresh(f"{PREFIX}constant"))
        return self._new[key].name

    @cached_property
    def _types(self) -> dict[str, int]:
        """Return the types of all tensors, those of bodies included, as far as they can be inferred."""
        return element_types(self._original)
