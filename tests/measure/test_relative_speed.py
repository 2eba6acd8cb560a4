"""Which of several graphs is fastest: what is far behind is left out soon, and what counts is timed as a client opens it."""

import contextlib
from types import SimpleNamespace

import onnx
import pytest

from pipeline.measure.relative_speed import speedups


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
    assert found == {"graph 1": 2.0, "graph 2": 1.0, "graph 3": 2.0}
    assert [numbers for numbers, _ in bench.rounds] == [[0, 1, 2, 3], [0, 1, 3], [0, 1, 3], [0, 1, 3]]


@pytest.mark.parametrize(("rounds", "until"), [(0, float("inf")), (3, 0.0)])
def test_where_there_is_no_time_for_that_the_quick_look_is_told(rounds, until):
    bench = Bench()
    found = speedups(onnx.ModelProto(), models(2), [], threads=1, seconds=1, rounds=rounds, until=until, place=bench)
    assert found == {"graph 1": 4.0, "graph 2": 4.0}
    assert len(bench.rounds) == 1
