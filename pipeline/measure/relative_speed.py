"""How fast several graphs are relative to their original: runs of all of them in turn, ratios of neighbours, the median.

For choosing among candidates, in this process or on a device, and quick; see session_rounds.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import onnx

from pipeline.measure.timing_place import HERE, Place
from pipeline.own_time import own_time
from pipeline.sample import Sample

Key = TypeVar("Key")

LOOKS = 2  # runs of each sample, with which what is far from the fastest is told
# Of the speed of the fastest, up to which a graph is left out of each of the three rounds that follow. Sessions are built again
# in each, since where weights happen to lie in memory moves a latency: that of a small conformer by a tenth.
HOPELESS = (0.85, 0.9, 0.95)
QUICK_ROUNDS = 2  # the look, and the round behind it: their sessions are opened quickly, and leave out what is slow


def speedups(
    original: onnx.ModelProto,
    models: Mapping[Key, onnx.ModelProto],
    samples: Sequence[Sample],
    *,
    threads: int,
    seconds: float,
    parts: Sequence[Sample] = (),
    until: float = math.inf,
    hopeless: Sequence[float] = HOPELESS,
    place: Place = HERE,
) -> dict[Key, float]:
    """Return how many times as fast as the original each graph is; what is far from the fastest is not run to the end.

    All are looked at first, with few runs, where there are several; then the fast ones are timed, in rounds, of which some
    leave out more. The ratio of a graph is that of the rounds whose sessions are opened as a client opens them, where it has
    come so far; that of the others is told in the measure of these.

    A graph at which ONNX Runtime ends the process is 0 times as fast.

    Args:
        original: what the graphs are compared with.
        models: name -> graph, with the same inputs.
        samples: what is run, in turn.
        threads: intra-op threads.
        seconds: for each graph; every graph runs every sample three times at least.
        parts: of these samples, on which what is slow is left out, where they take long; what is told is of the whole.
        until: on the clock of `own_time`: no further round is begun then; the first one is run in any case.
        hopeless: of the speed of the fastest, up to which a graph is left out of each round after the look; empty: a look is
            enough.
        place: where they are timed.

    Raises:
        StageError: a device is lost, or does not run the original.
    """
    graphs, given = [original, *models.values()], parts or samples
    bench = place.bench(graphs, given, threads)
    numbers = {key: number for number, key in enumerate(models, start=1)}
    looked: dict[Key, list[float]] = {key: [] if bench.survives(number) else [0.0] for key, number in numbers.items()}
    as_opened: dict[Key, list[float]] = {key: [] for key in models}
    rng = np.random.default_rng(0)
    with place.alone():
        first = 0 if len(models) > 1 or not hopeless else 1  # a single graph is not looked at
        for number in range(first, 1 + len(hopeless)):
            if number > first and own_time() >= until:
                break
            if number == QUICK_ROUNDS and parts:
                given = samples
                bench = place.bench(graphs, given, threads)
            known = _told(looked, as_opened)
            slow = max(known.values(), default=0.0) * hopeless[number - 1] if number else 0.0
            left = [key for key in models if key not in known or known[key] > slow]
            turns = bench.round(
                [0, *(numbers[key] for key in left)],
                together=True,
                order=rng.permutation(len(left) + 1).tolist(),
                rng=rng,
                at_least=1 if number else LOOKS * len(given),
                seconds=min(seconds * (len(left) + 1) / len(hopeless), max(until - own_time(), 0.0)) if number else 0.0,
                quick=number < QUICK_ROUNDS,
            )
            for original_ms, *spent_ms in turns:
                for key, ms in zip(left, spent_ms, strict=True):
                    (looked if number < QUICK_ROUNDS else as_opened)[key].append(original_ms / ms)
    return _told(looked, as_opened)


def _told(looked: Mapping[Key, Sequence[float]], as_opened: Mapping[Key, Sequence[float]]) -> dict[Key, float]:
    """Return how many times as fast graphs are, of those that were run: what a look flatters, it flatters all of them by."""
    at_first = {key: float(np.median(found)) for key, found in looked.items() if found}
    later = {key: float(np.median(found)) for key, found in as_opened.items() if found}
    both = [later[key] / at_first[key] for key in later if at_first.get(key)]
    flattered = float(np.median(both)) if both else 1.0
    return {key: later.get(key, flattered * at_first.get(key, 0.0)) for key in looked if key in later or key in at_first}
