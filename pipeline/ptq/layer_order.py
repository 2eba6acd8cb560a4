"""Nodes by level, in the order in which errors propagate, and the tensors of a graph streamed over samples."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx

from pipeline.calibration.segments import open_segment, run_session
from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.session import inputs_for
from pipeline.graph.subgraph import upstream_of
from pipeline.graph.subgraph_scopes import input_tensors
from pipeline.sample import Array, Sample


def levels(model: onnx.ModelProto, nodes: Collection[str]) -> list[list[onnx.NodeProto]]:
    """Return the named nodes by how many of them lie on the longest path before each.

    Nodes of one level do not depend on each other, such as the parallel blocks of a HiFi-GAN: what is to be learned of a
    level takes one pass over the samples, however many nodes it has.
    """
    depth: dict[str, int] = {}
    found: list[list[onnx.NodeProto]] = []
    for node in model.graph.node:
        before = max((depth.get(tensor, 0) for tensor in input_tensors(node)), default=0)
        if node.name in nodes:
            found += [[] for _ in range(before + 1 - len(found))]
            found[before].append(node)
            before += 1
        depth.update(dict.fromkeys(node.output, before))
    return found


def stream(
    model: onnx.ModelProto, tensors: Collection[str], samples: Sequence[Sample], threads: int
) -> Iterator[dict[str, Array]]:
    """Yield some tensors of a graph for one sample after the other.

    Two graphs that draw noise draw the same. The graph runs as it is written: ONNX Runtime's optimisers would quantize the
    float weights of a simulated graph once more, with one scale for all channels.
    """
    noisy = with_noise_inputs(model)
    names = list(dict.fromkeys(tensors))
    session = open_segment(upstream_of(noisy.model, names), threads, optimize=False)
    for index, sample in enumerate(samples):
        feeds = sample.inputs | noisy.noise(np.random.default_rng(index))
        arrays = run_session(session, names, inputs_for(session, feeds), sample)
        yield dict(zip(names, arrays, strict=True))
