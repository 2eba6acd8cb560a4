"""The graphs of one model, run by name: how evaluation, calibration and probes run a whole model."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import OUTPUTS
from pipeline.cache.recall import Form, remembered
from pipeline.errors import ModelError
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.noise_inputs import NoisyGraph, with_noise_inputs
from pipeline.graph.session import ORT_ERRORS, RunError, infer, open_session
from pipeline.graph.source_graph import SourceGraph
from pipeline.models.speech_model import Run
from pipeline.sample import Array, Outputs, Sample

TRACED_BYTES = 1 << 30
"""Of what a further graph of a model is given: caches of keys and values take megabytes a step."""

FORM: Form[Outputs] = Form(lambda outputs: Entry(arrays=outputs), lambda entry: dict(entry.arrays))

AnyGraph = SourceGraph | Path | onnx.ModelProto


@dataclass(frozen=True)
class Call:
    """One inference of one graph.

    Attributes:
        graph: its name.
        sample: what it was given, without noise.
        outputs: what came out.
    """

    graph: str
    sample: Sample
    outputs: Outputs


class Recorder(Protocol):
    """What keeps calls: a list keeps all."""

    def append(self, call: Call, /) -> None:
        """Take one more call."""


class SomeCalls:
    """Keeps some calls of one graph: those of all steps of a sequence may be more than fit into memory."""

    def __init__(self, wanted: Collection[int] | None, graph: str) -> None:
        """Take which calls of the graph are wanted, from 0; None: all."""
        self._wanted, self._graph, self._seen = wanted, graph, 0
        self.calls: list[Call] = []

    def append(self, call: Call, /) -> None:
        """Take the next call."""
        if call.graph != self._graph:
            return
        if self._wanted is None or self._seen in self._wanted:
            self.calls.append(call)
        self._seen += 1


class ModelSessions:
    """The graphs of one model, each opened when it is first run; those that draw noise are given it from outside."""

    def __init__(
        self,
        graphs: Mapping[str, AnyGraph],
        threads: int,
        changed: Mapping[str, Path | onnx.ModelProto] | None = None,
        *,
        remember_bytes: int = 0,
        exact_products: bool = False,
    ) -> None:
        """Open nothing yet.

        Args:
            graphs: name -> graph.
            threads: intra-op threads of each session.
            changed: name -> the graph in the place of that one.
            remember_bytes: outputs that are kept at most, for the same inputs to be run once only.
            exact_products: of the changed graphs, where this processor adds products of integers in 16 bits, which saturate.
        """
        self._graphs, self._changed = graphs, changed or {}
        self._threads, self._exact = threads, exact_products
        self._free_bytes = remember_bytes
        self._known: dict[tuple[str, bytes], Outputs] = {}
        self._opened: dict[str, onnxruntime.InferenceSession] = {}
        self._drawing: dict[str, NoisyGraph | None] = {}

    def runner(self, seed: Sequence[int], calls: Recorder | None = None) -> Run:
        """Return a function that runs a graph by name.

        Args:
            seed: of the noise: the same seed gives the same noise to every graph of this name, in any sessions.
            calls: each call is appended here, but for steps of a loop that others stand for.
        """

        def run(graph: str, sample: Sample) -> Outputs:
            if defaults := self._defaults(graph):
                sample = replace(sample, inputs={**defaults, **sample.inputs})
            noisy = self._noisy_form(graph)
            noise = noisy.noise(np.random.default_rng(list(seed))) if noisy is not None else {}
            outputs = self._remembered(graph, replace(sample, inputs={**sample.inputs, **noise}))
            if calls is not None and sample.stands_for_others:
                calls.append(Call(graph, sample, outputs))
            return outputs

        return run

    def noise_of(self, graph: str) -> frozenset[str]:
        """Return the names of the nodes of a graph that draw noise."""
        noisy = self._noisy_form(graph)
        return frozenset() if noisy is None else noisy.nodes

    def _remembered(self, graph: str, sample: Sample) -> Outputs:
        """Run a graph, or return what it gave for the same inputs before: in this run, or in another."""
        if sample.step is not None or not (self._free_bytes or self._known):  # a cache is as large as what it would save
            return self._infer(graph, sample)
        key = (graph, sample.digest)
        if key not in self._known:
            given = self._graphs[graph]
            if isinstance(given, SourceGraph) and graph not in self._changed:
                drawing = self._noisy_form(graph) is not None
                depends_on = (given.sha256, drawing, sample.digest, self._threads)
                outputs = remembered(OUTPUTS, lambda: depends_on, FORM, lambda: self._infer(graph, sample))
            else:
                outputs = self._infer(graph, sample)
            size = sum(array.nbytes for array in outputs.values())
            if size > self._free_bytes:
                return outputs
            self._free_bytes -= size
            self._known[key] = outputs
        return dict(self._known[key])

    def _infer(self, graph: str, sample: Sample) -> Outputs:
        try:
            session = self._open(graph, sample)
        except ORT_ERRORS as error:
            if graph in self._changed:
                raise RunError(sample.id, error) from error
            raise ModelError(
                f"model.path: ONNX Runtime {onnxruntime.__version__} loads the graph {graph} as it is written, but not "
                f"with its optimizers, which every user's session has: {' '.join(str(error).split())}"
            ) from error
        return infer(session, sample)

    def _defaults(self, graph: str) -> Mapping[str, Array]:
        """Return the optional inputs of a graph, and their values: a graph on its way to being quantized has none for them."""
        original = self._graphs.get(graph)
        return original.defaults if isinstance(original, SourceGraph) else {}

    def _noisy_form(self, graph: str) -> NoisyGraph | None:
        """Return the graph with the noise that it draws as inputs; None where it draws none."""
        if graph not in self._drawing:
            noisy = _noisy(self._changed[graph] if graph in self._changed else self._graphs[graph])
            self._drawing[graph] = noisy if noisy.tables else None
        return self._drawing[graph]

    def _open(self, graph: str, sample: Sample) -> onnxruntime.InferenceSession:
        """Return the session of a graph; the sample, completed with noise, is what it is run on first."""
        if graph not in self._opened:
            given = self._changed[graph] if graph in self._changed else self._graphs[graph]
            drawing, file = self._noisy_form(graph), given.path if isinstance(given, SourceGraph) else given
            if self._exact and graph in self._changed:
                opened: Path | onnx.ModelProto = with_uint8_weights((drawing or _noisy(given)).model)
            else:
                opened = file if drawing is None else drawing.model
            self._opened[graph] = open_session(opened, self._threads, sample=sample)
        return self._opened[graph]


def _noisy(graph: AnyGraph) -> NoisyGraph:
    if isinstance(graph, SourceGraph):
        return graph.noisy
    return with_noise_inputs(onnx.load(graph) if isinstance(graph, Path) else graph)


def traced(
    sessions: ModelSessions, infer_model: Callable[[Sample, Run], Outputs], samples: Sequence[Sample], seed: int, graph: str
) -> list[Sample]:
    """Return what one graph is given when the whole model runs on samples of its first graph, up to a gigabyte of it.

    What the graph is given for one sample is never cut. Of the steps of a loop, those that stand for others are there.

    Args:
        sessions: the graphs, as they are to be run.
        infer_model: runs the whole model.
        samples: inputs of the first graph.
        seed: of the noise.
        graph: whose inputs are wanted.
    """
    found: list[Sample] = []
    held: dict[int, int] = {}  # arrays by their identity: the steps of a loop share most of what they are given
    for number, sample in enumerate(samples):
        calls: list[Call] = []
        infer_model(sample, sessions.runner([seed, number], calls))
        found += [call.sample for call in calls if call.graph == graph]
        held = {id(array): array.nbytes for given in found for array in given.inputs.values()}
        if sum(held.values()) > TRACED_BYTES:
            break
    return found


def traced_steps(
    sessions: ModelSessions,
    infer_model: Callable[[Sample, Run], Outputs],
    sequences: Mapping[int, tuple[Sample, Collection[int]]],
    seed: int,
    graph: str,
) -> list[Sample]:
    """Return what the entry of a model is given at some steps of sequences.

    Args:
        sessions: the graphs, as they are to be run.
        infer_model: runs the whole model.
        sequences: number of a sample in its set -> the sample, and the wanted steps.
        seed: of the noise.
        graph: the entry.
    """
    found: list[Sample] = []
    for number, (sample, wanted) in sequences.items():
        recorder = SomeCalls(wanted, graph)
        infer_model(sample, sessions.runner([seed, number], recorder))
        found += [call.sample for call in recorder.calls]
    return found
