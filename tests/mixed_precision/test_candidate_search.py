"""The end of a search: what is tried once the furthest point of each path is known."""

from types import SimpleNamespace

import onnx
import pytest

from pipeline.evaluate.loss import Loss
from pipeline.mixed_precision import candidate_timing
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, best_of
from pipeline.mixed_precision.greedy_knapsack import Step
from pipeline.mixed_precision.precision_groups import Group
from pipeline.mixed_precision.time_limit import OutOfTimeError, TimeLimit
from pipeline.quantize.plan import Precision

GROUPS = [
    Group(name, "Conv", (name,), f"{name}_weight", (Precision.static_int8,)) for name in ("first", "second", "third", "fourth")
]


@pytest.fixture
def search(monkeypatch):
    """Make a search over four Convs, for a loss and a speed of what is integer."""

    def make(loss_of, speed_of, seconds=float("inf")):
        def build(choice, **_):
            return onnx.ModelProto(doc_string=" ".join(choice))  # stands for the graph

        def speeds(_, forms, *args, **kwargs):
            return {key: speed_of(form.doc_string.split()) for key, form in forms.items()}

        monkeypatch.setattr(candidate_timing, "speedups", speeds)

        def verdict(model, samples, allowed):
            return Loss(loss_of(model.doc_string.split()), 0.0, samples=1)

        builder = SimpleNamespace(groups=GROUPS, build=build, rounding=True)
        bench = TrialContext(
            onnx.ModelProto(), 1000, builder, SimpleNamespace(loss=verdict, items=[None]), [], 1, (), TimeLimit(seconds)
        )
        path = [Step(group.name, Precision.static_int8, 1.0, 0.01) for group in GROUPS]
        search = CandidateSearch(bench, Budget("log_mel_l1", max_loss=0.1))
        search.measure_wholes()

        def run():
            search.run([path])
            return best_of(search.candidates, search._budget)

        return SimpleNamespace(run=run, search=search)

    return make


def test_the_first_convs_are_float_where_that_is_faster(search):
    best, met = search(lambda integer: 0.0, lambda integer: 1 + len(integer) - 3 * ("first" in integer)).run()
    assert met
    assert list(best.choice) == ["second", "third", "fourth"]
    assert best.label.endswith("first 1 Conv float")


def test_they_stay_integers_where_that_is_faster(search):
    best, _ = search(lambda integer: 0.0, lambda integer: 1 + len(integer)).run()
    assert len(best.choice) == 4


def test_they_stay_integers_where_others_lose_too_much_without_them(search):
    lossy = search(
        lambda integer: 0.5 if integer and "first" not in integer else 0.0,
        lambda integer: 1 + len(integer) - 3 * ("first" in integer) if integer else 0.5,
    )
    best, met = lossy.run()
    assert met
    assert not best.choice or "first" in best.choice
    assert all(not candidate.measured for candidate in lossy.search.candidates if candidate.loss > 0.1), (
        "time spent for nothing"
    )


def test_without_any_time_whole_graphs_are_measured_and_nothing_else(search):
    hurried = search(lambda integer: 0.0, lambda integer: 1 + len(integer), seconds=0.0)
    with pytest.raises(OutOfTimeError):
        hurried.run()
    assert [(c.label, len(c.choice), c.measured) for c in hurried.search.candidates] == [
        ("float", 0, True), ("all int8", 4, True),
    ]  # fmt: skip


def test_the_fastest_are_timed_once_more_together_and_the_second_timing_decides(search):
    timings = []

    def speed_of(integer):  # the fourth is flattered, the first time that it is timed
        timings.append(tuple(integer))
        flattered = "fourth" in integer and timings.count(tuple(integer)) == 1
        return 2.0 + 0.05 * flattered - 0.03 * ("fourth" in integer and not flattered) if len(integer) >= 3 else 1.0

    best, met = search(lambda integer: 0.0, speed_of).run()
    assert met
    assert timings.count(("first", "second", "third", "fourth")) == 2
    assert "fourth" not in best.choice
