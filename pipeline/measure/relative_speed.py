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

LOOKS = 2  # runs of each sample, with which what is far from the fastest is told
# Of the speed of the fastest, up to which a graph is left out of each of the three rounds that follow. Sessions are built again
# in each, since where weights happen to lie in memory moves a latency by percents.
HOPELESS = (0.85, 0.9, 0.95)
ROUNDS = len(HOPELESS)


def speedups(
    original: onnx.ModelProto,
    models: Mapping[Key, onnx.ModelProto],
    samples: Sequence[Sample],
    *,
    threads: int,
    seconds: float,
    until: float = math.inf,
    rounds: int = ROUNDS,
) -> dict[Key, float]:
    """Return how many times as fast as the original each graph is; what is far from the fastest is not run to the end.

    All are looked at first, with few runs, where there are several; then the fast ones are timed, in rounds, of which some
    leave out more.

    A graph at which ONNX Runtime ends the process is 0 times as fast.

    Args:
        original: what the graphs are compared with.
        models: name -> graph, with the same inputs.
        samples: what is run, in turn.
        threads: intra-op threads.
        seconds: for each graph; every graph runs every sample three times at least.
        until: on the clock of `own_time`: no further round is begun then; the first one is run in any case.
        rounds: after the look; 0: a look is enough.
    """
    ratios: dict[Key, list[float]] = {
        key: [] if _survives(model, samples[0], threads) else [0.0] for key, model in models.items()
    }
    rng = np.random.default_rng(0)
    with machine_lock():
        first = 0 if len(models) > 1 or not rounds else 1  # a single graph is not looked at
        for number in range(first, 1 + rounds):
            if number > first and own_time() >= until:
                break
            fastest = max((float(np.median(found)) for found in ratios.values() if found), default=0.0)
            hopeless = fastest * HOPELESS[max(number, 1) - 1]
            left = [key for key, found in ratios.items() if not found or np.median(found) > hopeless]
            turns = timed_round(
                [original, *(models[key] for key in left)],
                samples,
                repeat(range(len(samples))),
                threads=threads,
                order=rng.permutation(len(left) + 1).tolist(),
                rng=rng,
                at_least=1 if number else LOOKS * len(samples),
                watch=time.perf_counter,  # on a busy machine, what is asked for is wall time too
                seconds=min(seconds * (len(left) + 1) / rounds, max(until - own_time(), 0.0)) if number else 0.0,
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
