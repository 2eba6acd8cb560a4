"""A graph cut into consecutive parts, so that only one part's measured tensors are in memory at a time.

Every tensor that a session returns lives until the session ends its run: with all of them, a HiFi-GAN needs ten times the
memory of plain inference. Cut where the measured tensors of a part reach a budget, it needs the budget.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state as capi

from pipeline.calibration.tensors import elem_types
from pipeline.errors import DataError, ModelError
from pipeline.samples import Sample

PROBES = 64  # tensors whose sizes stand for those of all

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Segment:
    """Consecutive nodes of a graph, as a model.

    Attributes:
        model: the nodes, with the constants they use.
        inputs: tensors that come from the graph's inputs or from an earlier segment.
        measured: tensors to measure here.
        carried: tensors that a later segment needs.
    """

    model: onnx.ModelProto
    inputs: tuple[str, ...]
    measured: tuple[str, ...]
    carried: frozenset[str]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a run of the segment has to return."""
        return (*self.measured, *sorted(self.carried.difference(self.measured)))


def open_segment(model: onnx.ModelProto, threads: int, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """Open a session that runs nodes in the order of the graph, whatever the lengths of the samples.

    The order matters to memory: by default ONNX Runtime runs a node that nothing depends on, such as a reduction of an
    intermediate tensor, after everything else, and so keeps every such tensor alive until the end.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_mem_pattern = False  # one pattern a shape: speech comes in as many shapes as samples
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        serialized = model.SerializeToString()
    except ValueError as error:
        raise ModelError("The graph is above 2 GB, which cannot be calibrated in memory.") from error
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


@cache
def _share_arena() -> None:
    """Give the sessions of all segments one arena, once a process; each would keep the memory of its own segment otherwise."""
    memory = capi.OrtMemoryInfo("Cpu", capi.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, capi.OrtMemType.DEFAULT)
    same_as_requested = 1  # grow by what is asked for, not to the next power of two
    onnxruntime.create_and_register_allocator(memory, capi.OrtArenaCfg(0, same_as_requested, -1, -1))


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Arrays, sample: Sample
) -> list[npt.NDArray[np.generic]]:
    """Return the outputs, in ONNX Runtime's own memory.

    Raises:
        DataError: the sample does not fit the graph.
    """
    try:
        return list(session.run(list(outputs), dict(inputs)))
    except (capi.Fail, capi.InvalidArgument, capi.NotImplemented, capi.RuntimeException, ValueError) as error:
        raise DataError(f"Sample {sample.id!r} does not fit the graph: {error}") from error


def open_segments(
    model: onnx.ModelProto, tensors: Sequence[str], sample: Sample, threads: int, budget_bytes: int
) -> tuple[list[Segment], list[onnxruntime.InferenceSession]]:
    """Return a graph's segments, and a session of each.

    A graph whose tensors fit the budget is one segment. That is seen from a few of its tensors, evenly spread, since the
    sizes of all of them cost as much as another session.

    Args:
        model: the graph, its nodes in topological order.
        tensors: to measure, outputs of nodes.
        sample: whose tensors the budget is compared with.
        threads: of ONNX Runtime.
        budget_bytes: what the measured tensors of a segment take at most, where one alone does not take more.
    """
    if not tensors:
        return [], []
    whole = _whole(model, tensors)
    session = open_segment(whole.model, threads)
    probed = run_session(session, tensors[:: -(-len(tensors) // PROBES)], sample.inputs, sample)
    if sum(array.nbytes for array in probed) / len(probed) * len(tensors) <= budget_bytes:
        return [whole], [session]
    del session, whole, probed
    segments = cut(model, measure_sizes(model, tensors, sample, threads), budget_bytes)
    return segments, [open_segment(segment.model, threads) for segment in segments]


def _whole(model: onnx.ModelProto, tensors: Sequence[str]) -> Segment:
    """Return a graph as one segment."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    return Segment(part, tuple(value.name for value in model.graph.input), tuple(tensors), frozenset())


def measure_sizes(model: onnx.ModelProto, tensors: Collection[str], sample: Sample, threads: int) -> dict[str, int]:
    """Return how many bytes each tensor takes for one sample, without keeping any of them."""
    survey = onnx.ModelProto()
    survey.CopyFrom(model)
    nodes, wanted = list(survey.graph.node), set(tensors)
    del survey.graph.node[:], survey.graph.output[:]
    sized: list[str] = []
    for node in nodes:
        survey.graph.node.append(node)
        for name in wanted.intersection(node.output):
            survey.graph.node.append(helper.make_node("Size", [name], [f"{name}/calibration_size"]))
            survey.graph.output.append(onnx.ValueInfoProto(name=f"{name}/calibration_size"))
            sized.append(name)
    if not sized:
        return {}
    session = open_segment(survey, threads, optimize=False)
    sizes = run_session(session, [f"{name}/calibration_size" for name in sized], sample.inputs, sample)
    return {name: 4 * int(size) for name, size in zip(sized, sizes, strict=True)}


def cut(model: onnx.ModelProto, sizes: Mapping[str, int], budget_bytes: int) -> list[Segment]:
    """Cut a graph into as few segments as keep the measured tensors of each within the budget.

    Args:
        model: the graph, its nodes in topological order.
        sizes: tensors to measure, outputs of nodes -> bytes.
        budget_bytes: what the measured tensors of a segment take at most, where one alone does not take more.
    """
    nodes = list(model.graph.node)
    uses = [frozenset(_uses(node)) for node in nodes]
    ends, held = [], 0
    for index, node in enumerate(nodes):
        added = sum(sizes.get(name, 0) for name in node.output)
        if held and held + added > budget_bytes:
            ends.append(index)
            held = 0
        held += added
    measured_at = [index for index, node in enumerate(nodes) if not sizes.keys().isdisjoint(node.output)]
    if not measured_at:
        return []
    ends.append(measured_at[-1] + 1)  # what comes after the last measured tensor need not run
    starts = [0, *ends[:-1]]
    types = elem_types(model) if len(ends) > 1 else {}
    initializers = {initializer.name: initializer for initializer in model.graph.initializer}

    segments: list[Segment] = []
    needed_later: frozenset[str] = frozenset()
    for start, end in reversed(list(zip(starts, ends, strict=True))):
        made = {name for node in nodes[start:end] for name in node.output if name}
        used = frozenset().union(*uses[start:end])
        carried = needed_later & made
        measured = tuple(name for node in nodes[start:end] for name in node.output if name in sizes)
        taken = sorted(used - made - initializers.keys())
        part = _extract(model, nodes[start:end], used, taken, types)
        part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*measured, *sorted(carried - set(measured))))
        segments.append(Segment(part, tuple(taken), measured, carried))
        needed_later = (needed_later - made) | set(taken)
    return segments[::-1]


def _extract(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    used: Collection[str],
    inputs: Sequence[str],
    types: Mapping[str, int],
) -> onnx.ModelProto:
    """Return a model of some nodes, with the initializers they use and with typed inputs."""
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name or "segment"
    part.graph.node.extend(nodes)
    part.graph.initializer.extend(initializer for initializer in model.graph.initializer if initializer.name in used)
    part.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    declared = {value.name: value for value in model.graph.input}
    for name in inputs:
        if name in declared:
            part.graph.input.append(declared[name])
        elif types.get(name):
            part.graph.input.append(helper.make_tensor_value_info(name, types[name], None))
        else:
            raise ModelError(f"The type of tensor {name!r} cannot be inferred: calibrate with a larger memory budget.")
    return part


def _uses(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            made = {value.name for value in (*graph.input, *graph.initializer)}
            made.update(name for inner in graph.node for name in inner.output)
            used = {name for inner in graph.node for name in _uses(inner)} | {value.name for value in graph.output}
            yield from used - made
