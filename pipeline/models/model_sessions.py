"""The graphs of one model, run by name: what an evaluation, a calibration and a probe run a whole model with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from pipeline.graph.noise_inputs import NoisyGraph, with_noise_inputs
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import SourceGraph
from pipeline.models.speech_model import Run
from pipeline.sample import Outputs, Sample

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


class ModelSessions:
    """The graphs of one model, each opened when it is first run; those that draw noise are given it from outside."""

    def __init__(
        self, graphs: Mapping[str, AnyGraph], threads: int, changed: Mapping[str, Path | onnx.ModelProto] | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            graphs: name -> graph.
            threads: intra-op threads of each session.
            changed: name -> the graph in the place of that one.
        """
        self._graphs, self._changed = graphs, changed or {}
        self._threads = threads
        self._opened: dict[str, tuple[onnxruntime.InferenceSession, NoisyGraph | None]] = {}

    def runner(self, seed: Sequence[int], calls: list[Call] | None = None) -> Run:
        """Return a function that runs a graph by name.

        Args:
            seed: of the noise: the same seed gives the same noise to every graph of this name, in any sessions.
            calls: each call is appended here.
        """

        def run(graph: str, sample: Sample) -> Outputs:
            session, noisy = self._open(graph)
            noise = noisy.noise(np.random.default_rng(list(seed))) if noisy is not None else {}
            outputs = infer(session, Sample(sample.id, {**sample.inputs, **noise}))
            if calls is not None:
                calls.append(Call(graph, sample, outputs))
            return outputs

        return run

    def noise_of(self, graph: str) -> frozenset[str]:
        """Return the names of the nodes of a graph that draw noise."""
        noisy = self._open(graph)[1]
        return frozenset() if noisy is None else noisy.nodes

    def _open(self, graph: str) -> tuple[onnxruntime.InferenceSession, NoisyGraph | None]:
        if graph not in self._opened:
            given = self._changed[graph] if graph in self._changed else self._graphs[graph]
            noisy = _noisy(given)
            drawing = bool(noisy.tables)
            file = given.path if isinstance(given, SourceGraph) else given
            session = open_session(noisy.model if drawing else file, self._threads)
            self._opened[graph] = (session, noisy if drawing else None)
        return self._opened[graph]


def _noisy(graph: AnyGraph) -> NoisyGraph:
    if isinstance(graph, SourceGraph):
        return graph.noisy
    return with_noise_inputs(onnx.load(graph) if isinstance(graph, Path) else graph)


def traced(
    sessions: ModelSessions, infer_model: Callable[[Sample, Run], Outputs], samples: Sequence[Sample], seed: int, graph: str
) -> list[Sample]:
    """Return what one graph is given when the whole model runs on samples of its first graph.

    Args:
        sessions: the graphs, as they are to be run.
        infer_model: runs the whole model.
        samples: inputs of the first graph.
        seed: of the noise.
        graph: whose inputs are wanted.
    """
    calls: list[Call] = []
    for number, sample in enumerate(samples):
        infer_model(sample, sessions.runner([seed, number], calls))
    return [call.sample for call in calls if call.graph == graph]
