"""How fast several graphs are relative to their original: runs of all of them in turn, ratios of neighbours, the median.

For choosing among candidates, in this process and quick; see session_rounds.py.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TypeVar

import numpy as np
import onnx

from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import rehearse_model
from pipeline.measure.child_process import machine_lock
from pipeline.measure.session_rounds import timed_round
from pipeline.own_time import own_time
from pipeline.sample import Sample

log = logging.getLogger(__name__)

Key = TypeVar("Key")

HOPELESS = 0.9  # of the speed of the fastest, after which a graph is not run again
ROUNDS = 3  # sessions are built again: where weights happen to lie in memory moves a latency by percents


def speedups(
    original: onnx.ModelProto,
    models: Mapping[Key, onnx.ModelProto],
    samples: Sequence[Sample],
    *,
    threads: int,
    seconds: float,
    until: float = math.inf,
) -> dict[Key, float]:
    """Return how many times as fast as the original each graph is; what is far from the fastest is not run to the end.

    A graph at which ONNX Runtime ends the process is 0 times as fast.

    Args:
        original: what the graphs are compared with.
        models: name -> graph, with the same inputs.
        samples: what is run, in turn.
        threads: intra-op threads.
        seconds: for each graph; every graph runs every sample three times at least.
        until: on the clock of `own_time`: no further round is begun then; the first one is run in any case.
    """
    ratios: dict[Key, list[float]] = {
        key: [] if _survives(model, samples[0], threads) else [0.0] for key, model in models.items()
    }
    rng = np.random.default_rng(0)
    with machine_lock():
        for number in range(ROUNDS):
            if number and own_time() >= until:
                break
            fastest = max((float(np.median(found)) for found in ratios.values() if found), default=0.0)
            left = [key for key, found in ratios.items() if not found or np.median(found) > HOPELESS * fastest]
            turns = timed_round(
                [original, *(models[key] for key in left)],
                samples,
                repeat(range(len(samples))),
                threads=threads,
                order=rng.permutation(len(left) + 1).tolist(),
                rng=rng,
                at_least=1,
                watch=time.perf_counter,  # on a busy machine, what is asked for is wall time too
                seconds=min(seconds * (len(left) + 1) / ROUNDS, max(until - own_time(), 0.0)),
            )
            for original_ms, *spent_ms in turns:
                for key, ms in zip(left, spent_ms, strict=True):
                    ratios[key].append(original_ms / ms)
    return {key: float(np.median(found)) for key, found in ratios.items()}


def _survives(model: onnx.ModelProto, sample: Sample, threads: int) -> bool:
    try:
        rehearse_model(model, threads, sample=sample)
    except EndedError as error:
        log.info("a graph that would have been timed: %s", error.how)
        return False
    return True
