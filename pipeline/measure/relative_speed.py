"""How fast several graphs are beside their original: runs of all of them in turn, ratios of neighbours, the median.

For choosing among candidates, in this process and quick; what is reported of the chosen one comes from the benchmark. The
clock is that of `pipeline.measure.rewrite_gain`, for the same reason.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx

from pipeline.graph.session import open_session
from pipeline.measure.child_process import machine_lock
from pipeline.measure.rewrite_gain import clock_of
from pipeline.sample import Sample

Key = TypeVar("Key")

HOPELESS = 0.9  # of the speed of the fastest, after which a graph is not run again
ROUNDS = 3  # sessions are built anew: where weights happen to lie in memory moves a latency by percents


def speedups(
    original: onnx.ModelProto,
    models: Mapping[Key, onnx.ModelProto],
    samples: Sequence[Sample],
    *,
    threads: int,
    seconds: float,
) -> dict[Key, float]:
    """Return how many times as fast as the original each graph is; what is far from the fastest is not run to the end.

    Args:
        original: what the graphs are compared with.
        models: name -> graph, with the same inputs.
        samples: what is run, in turn.
        threads: intra-op threads.
        seconds: for each graph; every graph runs every sample three times at least.
    """
    clock = clock_of(threads)
    ratios: dict[Key, list[float]] = {key: [] for key in models}
    rng = np.random.default_rng(0)
    with machine_lock():
        for _ in range(ROUNDS):
            fastest = max((float(np.median(found)) for found in ratios.values() if found), default=0.0)
            left = [key for key, found in ratios.items() if not found or np.median(found) > HOPELESS * fastest]
            order: list[Key | None] = [None, *left]
            opened = {}
            for which in rng.permutation(len(order)):  # what is opened later runs some percent faster
                key = order[which]
                opened[key] = open_session(original if key is None else models[key], threads)
            for sample in samples:
                for session in opened.values():
                    session.run(None, dict(sample.inputs))
            began = clock()
            first = True
            while first or clock() - began < seconds * len(order) / ROUNDS:
                first = False
                for sample in samples:
                    spent = {}
                    for which in rng.permutation(len(order)):
                        key = order[which]
                        start = clock()
                        opened[key].run(None, dict(sample.inputs))
                        spent[key] = clock() - start
                    for key in left:
                        ratios[key].append(spent[None] / max(spent[key], 1e-9))
    return {key: float(np.median(found)) for key, found in ratios.items()}
