"""What each group gains in time and in bytes, measured where the search times: its nodes run alone, in float and quantized.

Each node is cut out with the tensor that it reads in the float graph, quantized as it would be in the whole, and run under
ONNX Runtime's profiler; the time is that of its kernels. Between float neighbours, conversions to and from integers belong to
it; among integer neighbours they do not. Both gains are kept, since which one comes true depends on what else is chosen. A
node is measured in every layout that `pipeline.optimize` may give it (Conv over time as Conv over an image, channels last),
since it will be as fast as the fastest. Nodes of the same shapes are measured once.
"""

import contextlib
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from pipeline.graph.graph_editor import Graph
from pipeline.graph.large_models import byte_size
from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.prepare import initializers_of
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import infer, inputs_for, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.subgraph import extract, upstream_of
from pipeline.measure.kernel_times import Times
from pipeline.measure.timing_place import HERE, Place
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.precision_groups import Group
from pipeline.optimize.outcome import Sites
from pipeline.optimize.rewrite_registry import LAYOUTS
from pipeline.own_time import own_time
from pipeline.quantize.plan import Precision
from pipeline.sample import Array, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelSaving:
    """What a group gains in one precision.

    Attributes:
        ms: by which one inference gets shorter where its neighbours are float.
        ms_among_integers: where its neighbours are integers.
        bytes_saved: by which the file gets smaller.
    """

    ms: float
    ms_among_integers: float
    bytes_saved: int


KernelSavings = dict[tuple[str, Precision], KernelSaving]
"""(group, precision) -> what it gains."""


def kernel_savings(
    builder: Builder,
    sample: Sample,
    *,
    threads: int,
    layouts: Collection[str],
    until: float = math.inf,
    place: Place = HERE,
) -> KernelSavings:
    """Return what each group gains in each precision that it may have: those that compute most first.

    Args:
        builder: makes the graphs.
        sample: a typical input of the graph: times depend on lengths.
        threads: intra-op threads.
        layouts: names of the rewrites that may give nodes another layout.
        until: on the clock of `own_time`: groups that are not measured by then are left out.
        place: where they are timed.
    """
    nodes = {node.name: node for node in builder.model.graph.node}
    constants = initializers_of(builder.model)
    computing = [group for group in builder.groups if set(group.precisions) != {Precision.weight_int8}]
    members = [name for group in computing for name in group.nodes]
    given = {name: [t for t in nodes[name].input if t and t not in constants] for name in members if name in nodes}
    tensors = _tensors(builder.model, [tensor for found in given.values() for tensor in found], sample, threads)
    size = byte_size(builder.model)
    times: dict[tuple[object, ...], Times] = {}

    def ms(name: str, precision: Precision | None) -> Times:
        node = nodes[name]
        arrays = {tensor: tensors[tensor] for tensor in given[name]}
        settings = tuple(sorted(entry.SerializeToString(deterministic=True) for entry in node.attribute))
        sizes = tuple(tuple(constants[tensor].dims) for tensor in node.input[1:] if tensor in constants)
        signature = (node.op_type, settings, sizes, tuple(array.shape for array in arrays.values()), precision)
        if signature not in times:
            float_form = alone(builder.model, node, arrays)
            forms = [float_form] if precision is None else [builder.quantized_alone(float_form, name, precision)]
            forms += _in_layouts(forms[0], layouts)
            times[signature] = _least(forms, Sample(name, arrays), threads, place)
        return times[signature]

    def products(group: Group) -> float:
        """Multiplications of a group, about: the values of its weight, at each position of its input; of one stored, 0."""
        if group not in computing:
            return 0.0
        arrays = [(nodes[name].op_type, tensors[nodes[name].input[0]]) for name in group.nodes]
        positions = sum(array.size / array.shape[1 if "Conv" in op_type else -1] for op_type, array in arrays)
        return float(np.prod(constants[group.weight].dims) * positions)

    saved_bytes: dict[tuple[object, ...], int] = {}

    def bytes_saved(group: Group, precision: Precision) -> int:
        """By how much the file gets smaller; it takes a graph, which groups of one shape need once."""
        readers = sum(group.weight in node.input for node in builder.model.graph.node) if group.weight else 0
        shape = tuple(constants[group.weight].dims) if group.weight else group.name
        key = (group.op_type, len(group.nodes), readers, shape, precision)
        if key not in saved_bytes:
            saved_bytes[key] = size - byte_size(builder.build({group.name: precision}, rounding=False))
        return saved_bytes[key]

    found: KernelSavings = {}
    for group in sorted(builder.groups, key=products, reverse=True):
        if found and own_time() >= until:
            break
        before = sum(ms(name, None).all for name in group.nodes) if group in computing else 0.0
        for precision in group.precisions:
            saved = bytes_saved(group, precision)
            if precision is Precision.weight_int8:  # restored when the model is loaded: what runs is what ran before
                found[group.name, precision] = KernelSaving(0.0, 0.0, saved)
                continue
            try:
                after = [ms(name, precision) for name in group.nodes]
            except EndedError as error:  # nothing is gained by what no process survives
                log.info("%s as %s: %s", group.name, precision.name, error.how)
                continue
            alone_ms = before - sum(t.all for t in after)
            among_ms = before - sum(t.computing for t in after)
            found[group.name, precision] = KernelSaving(alone_ms, among_ms, saved)
    return found


def alone(model: onnx.ModelProto, node: onnx.NodeProto, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a graph of one node, with the constants that it reads, for inputs like the given arrays."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in arrays.items()}
    given = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in arrays.items()]
    made = next(filter(None, node.output))  # a recurrent layer may give out its last state alone
    output = helper.make_tensor_value_info(made, next(iter(kinds.values())), None)
    return with_shapes(extract(model, [node], given, [output]))


def _least(forms: Sequence[onnx.ModelProto], sample: Sample, threads: int, place: Place) -> Times:
    """Return the times of the fastest of several forms of a graph; the first is as it is, the others have other layouts.

    Raises:
        EndedError: ONNX Runtime ends the process that opens or runs the first.
    """
    found = [place.kernel_times(forms[0], sample, threads)]
    for form in forms[1:]:
        with contextlib.suppress(EndedError):
            found.append(place.kernel_times(form, sample, threads))
    return min(found, key=lambda times: times.all)


def _in_layouts(model: onnx.ModelProto, allowed: Collection[str]) -> list[onnx.ModelProto]:
    found = []
    for layout in (layout for layout in LAYOUTS if layout.name in allowed):
        graph = Graph(with_shapes(model))
        if isinstance(layout.apply(graph), Sites):
            found.append(graph.finish())
    return found


def _tensors(model: onnx.ModelProto, names: list[str], sample: Sample, threads: int) -> dict[str, Array]:
    """Return tensors of a graph for one sample."""
    noisy = with_noise_inputs(model)
    feeds: dict[str, Array] = {**sample.inputs, **noisy.noise(np.random.default_rng(0))}
    made = list(dict.fromkeys(name for name in names if name not in feeds))
    if not made:
        return feeds
    session = open_session(upstream_of(noisy.model, made), threads)
    return feeds | infer(session, Sample(sample.id, inputs_for(session, feeds)))
