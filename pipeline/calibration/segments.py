"""A graph cut into consecutive parts, so that only one part's measured tensors are in memory at a time.

Every tensor that a session returns lives until the session ends its run: with all of them, a HiFi-GAN needs ten times the
memory of plain inference. Cut into parts whose measured tensors take a few megabytes, it needs hardly more than plain
inference. Weights are outside of the parts, which share them. Where a graph is cut, ONNX Runtime may choose another kernel, and
a value differ in its last bits.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pipeline.calibration.derived_tensors import Inferred, constants_of, infer, is_small
from pipeline.errors import DataError
from pipeline.graph.session import ORT_ERRORS, Optimization, feeds_for, open_with, run_inference, session_options
from pipeline.graph.subgraph import extract
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.graph.value_info import FLOAT_TYPES
from pipeline.sample import Array, Sample

UNKNOWN_BYTES = 1 << 15  # of a tensor whose size the graph does not declare, until it has been seen
RECUT = 8  # times the budget that a segment must take for the graph to be cut again


class DoesNotRunError(DataError):
    """A sample does not fit the graph, or the graph does not run as it was cut."""


@dataclass(frozen=True)
class Segment:
    """Consecutive nodes of a graph, as a model.

    Attributes:
        model: the nodes, with the constants they use; weights are named only.
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


class SegmentedGraph:
    """A graph that runs segment by segment."""

    def __init__(
        self, model: onnx.ModelProto, tensors: Collection[str], sample: Sample, threads: int, budget_bytes: int
    ) -> None:
        """Cut a graph so that the measured tensors of a segment fit a budget, where one alone does.

        Args:
            model: the graph, its nodes in topological order.
            tensors: to measure, outputs of nodes.
            sample: the sizes of whose tensors count.
            threads: of ONNX Runtime.
            budget_bytes: what the measured tensors of a segment take at most.
        """
        self._model, self._tensors, self._threads, self._budget_bytes = model, tensors, threads, budget_bytes
        self._inferred = infer(model, {name: array.shape for name, array in sample.inputs.items()})
        sizes = {name: self._inferred[name].bytes if name in self._inferred else None for name in tensors}
        self._weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(constant))
            for name, constant in constants_of(model)
            if _is_weight(constant)
        }
        self._has_run = False
        self._seen: list[dict[str, int]] | None = [] if None in sizes.values() else None  # the true sizes, segment by segment
        self._open({name: UNKNOWN_BYTES if size is None else size for name, size in sizes.items()})

    def recut(self) -> bool:
        """Cut the graph again where its segments take far more than the budget, as the first run has shown.

        To be called after the first run. Where it returns True, the segments are others from now on.
        """
        seen, self._seen = self._seen or [], None
        self._has_run = True
        if any(len(segment) > 1 and sum(segment.values()) > RECUT * self._budget_bytes for segment in seen):
            self._open({name: size for segment in seen for name, size in segment.items()})
            return True
        return False

    def join(self) -> bool:
        """Cut the graph no more, where its first run has failed; False where it is whole already, or has run before.

        An operator may need what a cut takes from it: a Scan needs the shapes of its outputs, which ONNX Runtime works out
        from all that leads there.
        """
        if self._has_run or len(self.segments) < 2:
            return False
        self._budget_bytes, self._seen = sys.maxsize, None
        self._open(dict.fromkeys(self._tensors, 0))
        return True

    def _open(self, sizes: Mapping[str, int]) -> None:
        self.segments = tuple(cut(self._model, sizes, self._budget_bytes, self._inferred))
        self._sessions = []
        for segment in self.segments:
            self._sessions.append(open_segment(segment.model, self._threads, weights=self._weights))
            segment.model.Clear()  # the session has it
        self._kept: list[frozenset[str]] = []  # what later segments need, after each
        needed: frozenset[str] = frozenset()
        for segment in reversed(self.segments):
            self._kept.insert(0, needed)
            needed |= frozenset(segment.inputs)

    def run(self, sample: Sample) -> Iterator[dict[str, Array]]:
        """Yield the measured tensors of one sample, segment by segment.

        Raises:
            DoesNotRunError: the sample does not fit the graph.
        """
        tensors: dict[str, Array] = dict(sample.inputs)
        for segment, session, kept in zip(self.segments, self._sessions, self._kept, strict=True):
            feeds = {name: tensors[name] for name in segment.inputs if name in tensors}
            arrays = dict(zip(segment.outputs, run_session(session, segment.outputs, feeds, sample), strict=True))
            known = {**tensors, **arrays}
            tensors = {name: known[name] for name in kept if name in known}
            del known
            if self._seen is not None:
                self._seen.append({name: arrays[name].nbytes for name in segment.measured})
            yield {name: arrays[name] for name in segment.measured}
            del arrays


def open_segment(
    model: onnx.ModelProto,
    threads: int,
    *,
    optimize: bool = True,
    weights: Mapping[str, onnxruntime.OrtValue] | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session for samples of any length, which keeps no memory between its runs.

    Args:
        model: what is run.
        threads: of ONNX Runtime.
        optimize: fuse what can be.
        weights: the values of weights that the model only names.
    """
    optimization: Optimization = "all" if optimize else "none"
    options = session_options(threads, optimization=optimization, memory_pattern=False, shared_arena=True)
    if weights:
        outside = [weight.name for weight in model.graph.initializer if weight.data_location == TensorProto.EXTERNAL]
        options.add_external_initializers(outside, [weights[name] for name in outside])
    return open_with(model, options)


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, Array], sample: Sample
) -> list[Array]:
    """Return the outputs, in ONNX Runtime's own memory.

    Raises:
        DoesNotRunError: the sample does not fit the graph.
    """
    try:
        return run_inference(session, outputs, feeds_for(session, inputs))
    except (*ORT_ERRORS, ValueError) as error:
        raise DoesNotRunError(f"Sample {sample.id!r} does not fit the graph: {error}") from error


def cut(model: onnx.ModelProto, sizes: Mapping[str, int], budget_bytes: int, inferred: Mapping[str, Inferred]) -> list[Segment]:
    """Cut a graph into as few segments as keep the measured tensors of each within the budget.

    Args:
        model: the graph, its nodes in topological order.
        sizes: tensors to measure, outputs of nodes -> bytes.
        budget_bytes: what the measured tensors of a segment take at most, where one alone does not take more.
        inferred: of tensors; where an element type is unknown, the graph is not cut.
    """
    constants = {name: _named(name, constant) for name, constant in constants_of(model) if name not in sizes}
    nodes = [node for node in model.graph.node if not constants.keys() & set(node.output)]
    uses = [frozenset(input_tensors(node)) for node in nodes]
    starts, held, end = [0], 0, 0
    for index, node in enumerate(nodes):
        measured = [name for name in node.output if name in sizes]
        if not measured:
            continue
        end = index + 1  # what comes after the last measured tensor need not run
        added = sum(sizes[name] for name in measured)
        if held and held + added > budget_bytes:
            starts.append(index)
            held = 0
        held += added
    declared = {value.name: value for value in model.graph.input}

    segments: list[Segment] = []
    needed_later: frozenset[str] = frozenset()
    for start in reversed(starts if end else []):
        made = {name for node in nodes[start:end] for name in node.output if name}
        used = frozenset().union(*uses[start:end])
        taken = sorted(used - made - constants.keys())
        if not all(name in declared or (name in inferred and inferred[name].elem_type) for name in taken):
            continue  # the segment begins further ahead
        carried = needed_later & made
        measured = [name for node in nodes[start:end] for name in node.output if name in sizes]
        inputs = [declared[name] if name in declared else _given(name, inferred[name]) for name in taken]
        outputs = (*measured, *sorted(carried.difference(measured)))
        part = extract(
            model, nodes[start:end], inputs, outputs, initializers=[constants[name] for name in used & constants.keys()]
        )
        segments.append(Segment(part, tuple(taken), tuple(measured), carried))
        needed_later = (needed_later - made) | set(taken)
        end = start
    return segments[::-1]


def _given(name: str, inferred: Inferred) -> onnx.ValueInfoProto:
    """Return a tensor as an input, of free lengths: samples differ in them, but their number may be needed."""
    axes = None if inferred.shape is None else [None] * len(inferred.shape.dim)
    return helper.make_tensor_value_info(name, inferred.elem_type, axes)


def _is_weight(initializer: TensorProto) -> bool:
    """Whether a constant is worth sharing: not small, and of floating-point numbers, which decide no shapes."""
    return initializer.data_type in FLOAT_TYPES and not is_small(initializer)


def _named(name: str, constant: TensorProto) -> TensorProto:
    """Return a constant under its name; a weight without its values, which come from outside."""
    named = TensorProto(name=name, dims=constant.dims, data_type=constant.data_type, data_location=TensorProto.EXTERNAL)
    if _is_weight(constant):
        named.external_data.add(key="location", value="shared")  # ONNX asks for a name; nothing is read from there
    else:
        named.CopyFrom(constant)
        named.name = name
    return named
