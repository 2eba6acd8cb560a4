"""Which of several graphs is fastest: what is far behind is left out soon, and what counts is timed as a client opens it."""

import contextlib
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from pipeline.graph.rehearsal import rehearsals
from pipeline.measure import timing_place
from pipeline.measure.relative_speed import speedups
from pipeline.measure.timing_place import HERE
from pipeline.sample import Sample


class Bench:
    """Stands for a place where graphs are timed: sessions that are opened quickly run twice as fast."""

    words = None

    def __init__(self, slow=()):
        self.rounds, self.slow = [], slow

    def alone(self):
        """Keep nobody out."""
        return contextlib.nullcontext()

    def bench(self, models, samples, threads):
        """Return what times graphs, all of which survive."""
        return SimpleNamespace(survives=lambda number: True, round=self.round)

    def round(self, numbers, *, quick, **_):
        """Note what is timed, and how it is opened."""
        self.rounds.append((list(numbers), quick))
        return [[8.0, *(8.0 if number in self.slow else 2.0 if quick else 4.0 for number in numbers[1:])]] * 5


def models(count):
    return {f"graph {number}": onnx.ModelProto() for number in range(1, 1 + count)}


def test_the_speed_that_is_told_is_that_of_sessions_as_a_client_opens_them():
    bench = Bench()
    assert speedups(onnx.ModelProto(), models(2), [], threads=1, seconds=1, place=bench) == {"graph 1": 2.0, "graph 2": 2.0}
    assert [quick for _, quick in bench.rounds] == [True, True, False, False]


def test_what_is_far_behind_is_not_opened_slowly():
    bench = Bench(slow={2})
    found = speedups(onnx.ModelProto(), models(3), [], threads=1, seconds=1, place=bench)
    assert found == {"graph 1": 2.0, "graph 2": 0.5, "graph 3": 2.0}, "which is told as if it had been"
    assert [numbers for numbers, _ in bench.rounds] == [[0, 1, 2, 3], [0, 1, 3], [0, 1, 3], [0, 1, 3]]


@pytest.mark.parametrize(("hopeless", "until"), [((), float("inf")), ((0.9, 0.9), 0.0)])
def test_where_there_is_no_time_for_that_the_quick_look_is_told(hopeless, until):
    bench = Bench()
    found = speedups(onnx.ModelProto(), models(2), [], threads=1, seconds=1, hopeless=hopeless, until=until, place=bench)
    assert found == {"graph 1": 4.0, "graph 2": 4.0}
    assert len(bench.rounds) == 1


def test_what_is_slow_is_left_out_on_parts_and_the_others_are_told_on_whole_samples():
    given = []

    class OnSamples(Bench):
        def bench(self, models, samples, threads):
            given.append(samples)
            return super().bench(models, samples, threads)

    bench = OnSamples()
    found = speedups(onnx.ModelProto(), models(2), ["whole"], parts=["part"], threads=1, seconds=1, place=bench)
    assert given == [["part"], ["whole"]]
    assert [quick for _, quick in bench.rounds] == [True, True, False, False], "of which the last two are of the whole"
    assert found == {"graph 1": 2.0, "graph 2": 2.0}


def test_graphs_are_opened_quickly_all_or_none(conv_net, monkeypatch):
    asked = []

    def noted(*_, quick, **__):
        asked.append(quick)
        return iter(())

    monkeypatch.setattr(timing_place, "timed_round", noted)
    sample = Sample("s", {"x": np.zeros((1, 16, 50), np.float32)})
    other = conv_net(another="graph")
    with rehearsals() as others:
        bench = HERE.bench([conv_net(), other], [sample], 1)
        turn = {
            "together": True,
            "order": [0, 1],
            "rng": np.random.default_rng(0),
            "at_least": 1,
            "seconds": 0.0,
            "quick": True,
        }
        bench.round([0, 1], **turn)
        for key in list(others._optimized)[:1]:
            others._optimized[key] = b""  # it was let go of
        bench.round([0, 1], **turn)
    assert asked == [True, False]
