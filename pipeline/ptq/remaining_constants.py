"""What no layer holds as its weight, as integers: tables, positions, norms and biases, a tenth to a quarter of a small file.

As int8 where outputs stay as close to fp32's on calibration samples as they were, else as int16, whose rounding is 256 times
as fine. ONNX Runtime restores both when it opens the file (`weight_storage.py`), so that speed is what it was.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import AnyModeConfig, DynamicConfig, StaticConfig, WeightOnlyConfig
from pipeline.graph.large_models import byte_size
from pipeline.graph.node_patterns import match_nodes
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.shape_deciding import length_deciding_nodes
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.ptq.layer_order import stream
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.stored_constants import Saved, storable_constants
from pipeline.quantize.weight_storage import store_constants
from pipeline.sample import Array, Sample

WORTHWHILE = 0.02  # of the file, that int8 must save
COMPARED = 8  # samples
AS_CLOSE = 1.05  # times the error of the outputs before
STORED = (Precision.weight_int8, Precision.weight_int16)


def remaining_constants(prepared: PreparedGraph, plan: Plan, mode: AnyModeConfig) -> dict[str, Saved]:
    """Return the constants that a mode may store beside the weights that are planned, and what each saves.

    None where settings name what changes.

    Args:
        prepared: the float graph, before it is quantized.
        plan: what becomes of its layers; what nodes read that it keeps, stays as it is.
        mode: static, dynamic or weight-only; others have none.
    """
    if not isinstance(mode, StaticConfig | DynamicConfig | WeightOnlyConfig) or mode.nodes_to_quantize:
        return {}
    usual = type(mode)(kind=mode.kind, name=mode.name).op_types
    if not set(usual) <= set(mode.op_types) and "all" not in mode.op_types:
        return {}
    nodes = {node.name for scope in graphs_of(prepared.model.graph) for node in scope.node}
    kept = match_nodes(mode.nodes_to_exclude, nodes, "mode.nodes_to_exclude", prepared.paths)
    kept |= {entry.node for entry in plan.kept}
    if not mode.subgraphs:
        kept |= nodes - {node.name for node in prepared.model.graph.node}
    kept |= length_deciding_nodes(prepared.model.graph)  # their few bytes are worth no other length, even where it is allowed
    stored = plan.nodes(*STORED)
    integer = plan.precisions.keys() - set(stored)
    return storable_constants(prepared.model, integer=integer, weights_of=stored, kept=kept)


def store_remaining_constants(
    model: onnx.ModelProto,
    constants: Mapping[str, Saved],
    original: onnx.ModelProto,
    samples: Sequence[Sample],
    *,
    threads: int = 1,
) -> IntegerType | None:
    """Store constants of a quantized graph, in place, as far as its outputs allow; nothing where that saves little.

    Args:
        model: the quantized graph.
        constants: which, and what each saves.
        original: the fp32 graph, which has the same outputs.
        samples: on a few of which outputs are compared.
        threads: intra-op threads.

    Returns:
        What they are now; None: what they were.
    """
    size = byte_size(model)
    saves = sum(saved.get(Precision.weight_int8, 0) for saved in constants.values())
    if not samples or saves < WORTHWHILE * size:
        return None
    given = samples[:: math.ceil(len(samples) / COMPARED)]
    names_of_outputs = [value.name for value in model.graph.output]

    def outputs(graph: onnx.ModelProto) -> list[dict[str, Array]]:
        return list(stream(graph, names_of_outputs, given, threads))

    reference: list[dict[str, Array]] = []
    before = 0.0
    for kind in (IntegerType.int8, IntegerType.int16):
        stored = onnx.ModelProto()
        stored.CopyFrom(model)
        store_constants(stored, list(constants), kind)
        reference = reference or outputs(original)
        before = before or _error(reference, outputs(model))
        error = _error(reference, outputs(stored))
        if error <= AS_CLOSE * before or (kind is IntegerType.int16 and math.isfinite(error)):
            model.CopyFrom(stored)
            return kind
    return None


def _error(reference: Sequence[Mapping[str, Array]], test: Sequence[Mapping[str, Array]]) -> float:
    """Return the error of outputs relative to fp32's, over all outputs alike; infinite where lengths differ."""
    total = 0.0
    for name in reference[0]:
        pairs = [
            (np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)) for a, b in zip(reference, test, strict=True)
        ]
        if any(a.shape != b.shape for a, b in pairs):
            return math.inf
        power = sum(float(np.sum(np.square(a))) for a, _ in pairs)
        noise = sum(float(np.sum(np.square(a - b))) for a, b in pairs)
        total += noise / power if power else noise
    return math.sqrt(total) if math.isfinite(total) else math.inf
