"""The plan: which precision each node gets, and why the others keep fp32."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, DynamicConfig, StaticConfig, WeightOnlyConfig
from pipeline.errors import ConfigError
from pipeline.graph.attributes import int_attribute
from pipeline.graph.node_patterns import check_op_types, match_nodes
from pipeline.graph.op_sets import FUSED_LAYERS, RECURRENT_LAYERS, STORABLE, WEIGHTED_OPS, weight_inputs
from pipeline.graph.opset import MICROSOFT
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.shape_deciding import length_deciding_nodes, shape_deciding_nodes
from pipeline.graph.subgraph_scopes import graphs_of, name_bodies
from pipeline.quantize.exponents import layers_of_exponents
from pipeline.quantize.operators import computed_from_constants
from pipeline.quantize.target import is_arm, target_of
from pipeline.quantize.weight_storage import bytes_as_integers, scale_shape
from pipeline.record.results import Kept

FLOAT_BYTES = 4
NODE_BYTES = 160  # of the two nodes that restore a weight and the head of its scales, with their names
MIN_STORED_VALUES = 256  # a smaller weight costs more in scales and nodes than int8 saves
LARGE_VALUES = 4096  # of a weight that is stored as int8 where its node gains nothing by integers
MIN_HIDDEN = 128  # units of an LSTM that is faster in integers over 100 steps: 1.3 times (16 and 64 units: 0.6, 0.9; with VNNI)
MORE_DEPTHWISE = 2
"""Times as many channels as of another Conv: of 16 channels (GTCRN), a depthwise one has 0.5 to 0.54 of its speed in float; the
asr model that ships, with 144, is 1.06 times as fast with them in integers (AMX)."""
FEW_ROWS, FEW_ROWS_VALUES = (
    4,
    1 << 16,
)  # of a product with dynamic ranges that is slower than in float: 0.75 to 0.98 of its speed
WORK_PER_VALUE = 8
"""Products for each number that is converted to an integer or back, up to which dynamic ranges take longer than they save:
depth * columns / (depth + columns). On AMX, in 1.28.0 and 1.32.0, for 33 to 2000 rows, 16 x 16 has 0.41 to 0.45 of its speed in
float; 128 x 128 is 1.9 times as fast."""
SMALL_CONV = 1 << 16
"""Products of a Conv up to which it takes as long in integers or longer, as in one step of a streaming model."""
WIDE = {3: 32, 4: 64}
"""Channels from which on it gains all the same, among others: by the rank of its weight (`benchmarks/small_layers.py`)."""
DECIDES_SHAPES = "decides shapes, or reads what was decided"
DECIDES_LENGTH = "the length of the output follows from it (model.keep_durations)"
LEFT_CONSTANT = "its constant is its first input; a weight is the second (multiply the transposed tensors instead)"


class Precision(Enum):
    """How a node computes and stores its weight."""

    static_int8 = "int8, static ranges"
    dynamic_int8 = "int8, dynamic ranges"
    weight_int8 = "int8 weight, float computation"
    weight_int16 = "int16 weight, float computation"
    weight_blocks = "n-bit weight in blocks"
    fp16 = "fp16"


@dataclass
class Plan:
    """What becomes of each node.

    Attributes:
        precisions: node name -> precision, for the nodes that change.
        kept: the nodes that could have changed, with reasons.
    """

    precisions: dict[str, Precision] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)

    def nodes(self, *precisions: Precision) -> list[str]:
        """Return the nodes of these precisions, in the order of the graph."""
        return [name for name, precision in self.precisions.items() if precision in precisions]

    def keep(self, reasons: Mapping[str, str]) -> None:
        """Let nodes stay in fp32 after all.

        Args:
            reasons: node name -> why.
        """
        for name, reason in reasons.items():
            del self.precisions[name]
            self.kept.append(Kept(name, reason))


def plan_nodes(
    prepared: PreparedGraph, mode: AnyModeConfig, supported: Iterable[str], op_types: list[str], default: Precision
) -> Plan:
    """Decide each node's precision from the settings of a mode.

    Args:
        prepared: the graph.
        mode: its settings.
        supported: the operator types that the mode's quantizer knows.
        op_types: `mode.op_types`.
        default: the precision of a node that no setting singles out.

    Raises:
        ConfigError: a name or type in the settings means nothing in this graph, or names a node that decides shapes.
    """
    graph = prepared.model.graph
    scopes = [graph]
    if reaches_bodies(mode):
        name_bodies(graph)
        scopes = list(graphs_of(graph))
    nodes = [node for scope in scopes for node in scope.node]
    inner = {node.name for scope in scopes[1:] for node in scope.node}
    present = {node.op_type for node in nodes}
    wanted = check_op_types(op_types, supported, present, "mode.op_types")
    dynamic, stored = special_types(mode, present)
    names = {node.name for node in nodes}
    named = _match(mode.nodes_to_quantize, names, prepared, "mode.nodes_to_quantize")
    excluded = _match(mode.nodes_to_exclude, names, prepared, "mode.nodes_to_exclude")
    fixed = {name for scope in scopes for name in shape_deciding_nodes(scope)}
    lengths = length_deciding_nodes(graph) if prepared.keep_lengths else set()
    if refused := sorted(fixed & set(mode.nodes_to_quantize)):
        raise ConfigError(
            f"mode.nodes_to_quantize: {refused[0]} decides shapes (durations, lengths, masks), or reads what was decided; a "
            "rounding error there is another shape, so it is never quantized. Leave it out."
        )
    if refused := sorted(lengths & set(mode.nodes_to_quantize)):
        raise ConfigError(
            f"mode.nodes_to_quantize: the length of the output follows from {refused[0]}, which therefore stays in float. "
            "Leave it out, or accept another length with model.keep_durations=false."
        )
    weights = {tensor.name: tensor for scope in scopes for tensor in scope.initializer}
    in_8_bits = isinstance(mode, StaticConfig) and mode.activation_type not in (IntegerType.int16, IntegerType.uint16)
    exponents = layers_of_exponents(graph) if in_8_bits else set()
    computed = _computed_weights(prepared.model.graph, nodes, weights, folded=mode.preprocess)
    rows, positions = _rows_of(scopes), _positions_of(scopes)
    plan = Plan()
    for node in nodes:
        if node.op_type not in wanted and node.op_type not in WEIGHTED_OPS:
            continue
        named_alone = node.name in mode.nodes_to_quantize
        precision = _precision(node, dynamic, stored, default, weights, explicitly=named_alone)
        if precision is Precision.dynamic_int8 and not named_alone and _is_small_product(node, mode, rows, weights):
            precision = Precision.weight_int8
        if precision in (Precision.static_int8, Precision.dynamic_int8) and node.op_type in STORABLE:
            small = _large_of_few_channels(node, mode, weights) or _is_small_conv(node, mode, positions, weights)
            few = not named_alone and (small or node.name in exponents)
            if few or (node.name in inner and precision is Precision.static_int8):
                precision = Precision.weight_int8
        reason = (
            f"ONNX Runtime has already fused it ({node.op_type}); quantize the model as it was exported"
            if node.op_type in FUSED_LAYERS
            else f"{node.op_type} is not in mode.op_types" if node.op_type not in wanted
            else "excluded by mode.nodes_to_exclude" if node.name in excluded
            else "not in mode.nodes_to_quantize" if named and node.name not in named
            else DECIDES_SHAPES if node.name in fixed
            else DECIDES_LENGTH if node.name in lengths
            else "inside a body of If, Loop or Scan, whose tensors get no static ranges"
            if node.name in inner and precision is Precision.static_int8
            else _unfit(node, mode, weights, precision, computed, explicitly=named_alone)
        )  # fmt: skip
        if reason is None:
            plan.precisions[node.name] = precision
        else:
            plan.kept.append(Kept(node.name, reason))
    return plan


def _computed_weights(
    graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], weights: Collection[str], *, folded: bool
) -> dict[str, str]:
    """Return the tensors that are computed from constants alone, and why a weight among them stays as it is.

    Args:
        graph: the outermost graph.
        nodes: its nodes, and those of its bodies that may be quantized.
        weights: the constants.
        folded: preparation has folded constants; what is left would be stored twice.
    """
    if not folded:
        return dict.fromkeys(
            computed_from_constants(graph), "its weight is computed from constants: mode.preprocess=true folds it"
        )
    found = dict.fromkeys(
        computed_from_constants(graph), "its weight is computed from constants, and the file would be larger with it folded"
    )
    for node in nodes:
        if node.op_type == "Transpose" and (source := node.input[0]) in weights:
            found[node.output[0]] = (
                f"its weight is {source!r}, transposed, which others read: as integers it would be there twice"
            )
    return found


def _fault_of(weight: onnx.TensorProto) -> str | None:
    """Return why a weight cannot be stored as integers, or None."""
    if weight.data_type != onnx.TensorProto.FLOAT:
        return "its weight is not float32"
    finite = np.isfinite(numpy_helper.to_array(weight)).all()
    return None if finite else "its weight holds NaN or infinity, which no integer stands for"


def reaches_bodies(mode: AnyModeConfig) -> bool:
    """Return whether a mode quantizes what lies in the bodies of If, Loop and Scan."""
    return isinstance(mode, AutoConfig) or (
        isinstance(mode, StaticConfig | DynamicConfig | WeightOnlyConfig) and mode.subgraphs
    )


def special_types(mode: AnyModeConfig, present: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the types with dynamic ranges, and those that only store their weights as int8, where a mode names them.

    Raises:
        ConfigError: a type cannot be either.
    """
    dynamic, stored = [], []
    if isinstance(mode, StaticConfig):
        dynamic = check_op_types(mode.dynamic_op_types, ("MatMul", "LSTM"), present, "mode.dynamic_op_types")
    if isinstance(mode, StaticConfig | DynamicConfig):
        stored = check_op_types(mode.weight_only_op_types, STORABLE, present, "mode.weight_only_op_types")
    return dynamic, stored


def _precision(
    node: onnx.NodeProto,
    dynamic: list[str],
    stored: list[str],
    default: Precision,
    weights: Collection[str],
    *,
    explicitly: bool,
) -> Precision:
    if node.op_type in stored:
        return Precision.weight_int8
    if node.op_type in RECURRENT_LAYERS and default in (Precision.static_int8, Precision.dynamic_int8):
        asked = default is Precision.dynamic_int8 or node.op_type in dynamic
        faster = explicitly or int_attribute(node, "hidden_size", 0) >= _least_hidden(node, weights)
        has_kernel = node.op_type == "LSTM" and not int_attribute(node, "layout", 0)
        return Precision.dynamic_int8 if asked and faster and has_kernel else Precision.weight_int8
    precision = Precision.dynamic_int8 if node.op_type in dynamic else default
    if precision is Precision.dynamic_int8 and node.op_type == "Conv" and int_attribute(node, "group", 1) > 1:
        return Precision.weight_int8  # ConvInteger runs a depthwise convolution group by group, slower than fp32
    return precision


def _least_hidden(node: onnx.NodeProto, weights: Collection[str]) -> int:
    """Return how many units an LSTM must have to gain by integers: twice as many where its state comes from outside.

    Such a layer is run for a few steps at a time, so that a product with a whole sequence does not carry the cost of the
    ranges; and its rounding errors are fed back without end.
    """
    threaded = len(node.input) > 5 and bool(node.input[5]) and node.input[5] not in weights
    return 2 * MIN_HIDDEN if threaded else MIN_HIDDEN


def _rows_of(scopes: Iterable[onnx.GraphProto]) -> dict[str, int]:
    """Return how many rows tensors have, all axes but the last, where that is known."""
    found = {}
    for value in (value for scope in scopes for value in (*scope.input, *scope.value_info, *scope.output)):
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 1 and all(dim.dim_value for dim in dims):
            found[value.name] = math.prod(dim.dim_value for dim in dims[:-1])
    return found


def _positions_of(scopes: Iterable[onnx.GraphProto]) -> dict[str, int]:
    """Return at how many positions a Conv would compute what tensors hold, where that is known; a batch that is open is one."""
    found = {}
    for value in (value for scope in scopes for value in (*scope.value_info, *scope.output)):
        dims = value.type.tensor_type.shape.dim
        if len(dims) > 2 and all(dim.dim_value for dim in dims[2:]):
            found[value.name] = max(dims[0].dim_value, 1) * math.prod(dim.dim_value for dim in dims[2:])
    return found


def _is_small_conv(
    node: onnx.NodeProto, mode: AnyModeConfig, positions: Mapping[str, int], weights: Mapping[str, onnx.TensorProto]
) -> bool:
    """Say whether a Conv multiplies so little that converting its input and output takes longer than integers save."""
    if not isinstance(mode, StaticConfig) or node.op_type != "Conv":
        return False
    weight = weights.get(node.input[1])
    if weight is None or node.output[0] not in positions or mode.min_channels <= 1:
        return False
    if _channels(node, weight) >= WIDE.get(len(weight.dims), 0):
        return False
    return bool(math.prod(weight.dims) * positions[node.output[0]] <= SMALL_CONV)


def _is_small_product(
    node: onnx.NodeProto, mode: AnyModeConfig, rows: Mapping[str, int], weights: Mapping[str, onnx.TensorProto]
) -> bool:
    """Say whether a product is so small that the ranges of its input take longer than integers save, as in a streaming step."""
    if node.op_type not in ("MatMul", "Gemm") or len(node.input) < 2 or node.input[1] not in weights:
        return False
    dims = weights[node.input[1]].dims
    if isinstance(mode, StaticConfig) and math.prod(dims) >= MIN_STORED_VALUES and len(dims) > 1:
        depth, columns = dims[-2:]
        if depth * columns <= WORK_PER_VALUE * (depth + columns):
            return True
    return rows.get(node.input[0], FEW_ROWS + 1) <= FEW_ROWS and math.prod(dims) <= FEW_ROWS_VALUES


def _large_of_few_channels(node: onnx.NodeProto, mode: AnyModeConfig, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Say whether a Conv has too few channels for its integer kernel, and a weight that is large all the same.

    An example is a Fourier transform as a Conv of one channel, a fifth of the bytes of a voice activity detector.
    """
    weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
    least = mode.min_channels if isinstance(mode, StaticConfig) else StaticConfig.min_channels
    if weight is None or _channels(node, weight) >= least:
        return False
    return bool(math.prod(weight.dims) >= LARGE_VALUES)


def _channels(node: onnx.NodeProto, weight: onnx.TensorProto) -> int:
    """Return how many channels a Conv reads or makes, whichever are fewer."""
    return int(min(weight.dims[0], weight.dims[1] * int_attribute(node, "group", 1)))


def _few_channels(node: onnx.NodeProto, weight: onnx.TensorProto, mode: StaticConfig) -> str | None:
    """Return why a Conv has too few channels for its integer kernel, or None: a depthwise one on x86 needs more of them."""
    channels, groups = _channels(node, weight), int_attribute(node, "group", 1)
    shown = f"{channels} channel{'s' if channels > 1 else ''}"
    if channels < mode.min_channels:
        return f"{shown}, fewer than mode.min_channels: int8 is slower"
    if groups == channels > 1 and channels < MORE_DEPTHWISE * mode.min_channels and not is_arm(target_of(mode.target)):
        return f"depthwise of {shown}, fewer than {MORE_DEPTHWISE} times mode.min_channels: int8 is slower"
    return None


def _match(patterns: list[str], names: set[str], prepared: PreparedGraph, key: str) -> set[str]:
    """Match patterns against the graph as it is now; report where preparation has removed what a pattern means."""
    try:
        return match_nodes(patterns, names, key, prepared.paths)
    except ConfigError:
        for pattern in patterns:
            match_nodes([pattern], names | prepared.folded, key, prepared.paths)  # a misspelt name is reported as such
        raise ConfigError(
            f"{key}: preparation has folded all nodes that {patterns} matches; with mode.preprocess=false the graph stays as "
            "exported."
        ) from None


def _unfit(  # noqa: PLR0911 (one return per reason)
    node: onnx.NodeProto,
    mode: AnyModeConfig,
    weights: dict[str, onnx.TensorProto],
    precision: Precision,
    computed: Mapping[str, str],
    *,
    explicitly: bool,
) -> str | None:
    """Return why a node cannot or should not get the precision, or None."""
    if node.op_type not in WEIGHTED_OPS:
        return None
    if node.op_type == "Attention" and node.domain != MICROSOFT:  # ONNX Runtime's quantizer would take it for its own
        return "it is ONNX's Attention; ONNX Runtime has an integer form of its own (com.microsoft) only"
    found = [weights.get(node.input[place]) if len(node.input) > place else None for place in weight_inputs(node)]
    tensors = [weight for weight in found if weight is not None]
    if len(tensors) < len(found):
        if len(node.input) > 1 and node.input[1] in computed:
            return computed[node.input[1]]
        products = isinstance(mode, StaticConfig) and mode.products_of_activations and precision is Precision.static_int8
        if node.op_type == "MatMul" and products:
            return None
        left = node.op_type == "MatMul" and node.input[0] in weights
        return LEFT_CONSTANT if left else "its weight is not a constant"
    if (fault := next(filter(None, map(_fault_of, tensors)), None)) is not None:
        return fault
    values = sum(math.prod(weight.dims) for weight in tensors)
    if precision is Precision.weight_int8 and values < MIN_STORED_VALUES:
        return f"its weight has only {values} values"
    if precision is Precision.weight_int8 and node.op_type in STORABLE:
        scales = sum(math.prod(scale_shape(node, tuple(weight.dims))) for weight in tensors)
        if bytes_as_integers(values, scales) + NODE_BYTES * len(tensors) >= FLOAT_BYTES * values:
            return "its weight would be no smaller as int8 with its scales"
    if isinstance(mode, StaticConfig) and precision is Precision.static_int8 and node.op_type == "Conv" and not explicitly:
        return _few_channels(node, tensors[0], mode)
    return None
