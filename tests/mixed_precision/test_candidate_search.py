"""The end of a search: what is tried once the furthest point of each path is known."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.evaluate.loss import Loss
from pipeline.mixed_precision import candidate_timing
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import CandidateTimer, TrialContext
from pipeline.mixed_precision.candidates import Budget, best_of
from pipeline.mixed_precision.greedy_knapsack import Step
from pipeline.mixed_precision.precision_groups import Group
from pipeline.mixed_precision.time_limit import OutOfTimeError, TimeLimit
from pipeline.mixed_precision.typical_sample import rather_short
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample

NAMES = ("first", "second", "third", "fourth")


def groups_of(names=NAMES, *precisions, op_type="Conv"):
    """Return groups of one node each."""
    return [Group(name, op_type, (name,), f"{name}_weight", precisions or (Precision.static_int8,)) for name in names]


@pytest.fixture
def search(monkeypatch):
    """Make a search over Convs, for a loss and a speed of what is integer."""

    def make(loss_of, speed_of, seconds=float("inf"), groups=None, stored=False, on_path=None):
        groups = groups or groups_of()

        def build(choice, **_):
            return onnx.ModelProto(doc_string=" ".join(choice))  # stands for the graph

        def speeds(_, forms, *args, **kwargs):
            return {key: speed_of(form.doc_string.split()) for key, form in forms.items()}

        monkeypatch.setattr(candidate_timing, "speedups", speeds)

        def verdict(model, samples, allowed):
            return Loss(loss_of(model.doc_string.split()), 0.0, samples=1)

        weights = [helper.make_tensor(group.weight, 1, [10], [0.0] * 10) for group in groups]
        graph = helper.make_model(helper.make_graph([], "net", [], [], weights))
        builder = SimpleNamespace(groups=groups, build=build, rounding=True, model=graph)
        bench = TrialContext(
            onnx.ModelProto(), 1000, builder, SimpleNamespace(loss=verdict, items=[None]), [], 1, (), TimeLimit(seconds)
        )
        path = [Step(group.name, Precision.static_int8, 1.0, 0.01) for group in on_path or groups]
        search = CandidateSearch(bench, Budget("log_mel_l1", max_loss=0.1))
        search.measure_wholes(stored=stored)

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


def with_products(search, loss, speed):
    """Search over four Convs, of which the first must stay float, and three products, of which none gains anything alone."""
    products = groups_of(("query", "key", "value"), Precision.dynamic_int8, op_type="MatMul")

    def among(integer):
        return len({"query", "key", "value"} & set(integer))

    found = search(
        lambda integer: 0.5 * ("first" in integer) + loss * (among(integer) == 3),
        lambda integer: 1 + len(integer) - among(integer) + (speed if among(integer) == 3 else 0.0),
        groups=[*groups_of(), *products], on_path=groups_of(("second", "third", "fourth")),
    )  # fmt: skip
    best, _ = found.run()
    return best, found.search.candidates


def test_products_that_gain_together_alone_become_integers_together(search):
    best, _ = with_products(search, loss=0.0, speed=1.0)
    assert best.label.endswith("all 3 products int8")
    assert len(best.choice) == 6
    assert {best.choice[name] for name in ("query", "key", "value")} == {Precision.dynamic_int8}


def test_products_stay_float_where_they_are_slower_or_lose_too_much_together(search):
    slower, _ = with_products(search, loss=0.0, speed=-1.0)
    lossy, tried = with_products(search, loss=0.2, speed=1.0)
    assert sorted(slower.choice) == sorted(lossy.choice) == ["fourth", "second", "third"]
    [wider] = [candidate for candidate in tried if candidate.label.endswith("products int8")]
    assert not wider.measured, "time spent for nothing"


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


def test_many_groups_behind_one_that_loses_too_much_are_taken_together(search):
    letters = "abcdefghijkl"
    found = search(
        lambda integer: 0.5 if "b" in integer else 0.0, lambda integer: 1 + len(integer), groups=groups_of(letters)
    )  # fmt: skip
    best, met = found.run()
    assert met
    assert set(letters) - set(best.choice) == {"b"}
    further = [c for c in found.search.candidates if " more, to " in c.label]
    assert len(further) < len(letters) // 2, "each was scored by itself"


def test_of_groups_that_are_too_much_together_the_first_are_taken(search):
    letters = "abcdefgh"

    def loss_of(integer):  # of those behind a and b, three are allowed
        return 0.5 if "b" in integer else 0.03 * max(len(integer) - 1, 0)

    best, met = search(loss_of, lambda integer: 1 + len(integer), groups=groups_of(letters)).run()
    assert met
    assert sorted(best.choice) == ["a", "c", "d", "e"]


@pytest.mark.parametrize(("lossy", "followed"), [("b", False), ("g", True)])
def test_from_the_front_is_followed_only_where_it_can_compete_with_the_best_bargains(search, lossy, followed):
    letters = "abcdefgh"
    given = search(
        lambda integer: 0.5 if lossy in integer else 0.0, lambda integer: 1 + len(integer), groups=groups_of(letters)
    )
    front = [Step(name, Precision.static_int8, 1.0, 0.01) for name in letters]
    bargains = sorted(reversed(front), key=lambda step: step.group == lossy)
    given.search.run([bargains, bargains, front])
    tried = [c for c in given.search.candidates if c.label.endswith("from the front")]
    assert len([c for c in tried if "4 of 8" in c.label]) == 1, "where it gains half of what they do"
    assert any(c.measured for c in tried) == followed
    assert (len(tried) > 1) == followed


def test_paths_that_no_limit_ends_are_looked_back_on_each(search):
    letters = "abcdefghij"

    def speed_of(integer):  # the end of the other order is faster than that of the first, and this one's middle fastest
        return 1 + len(integer) / 10 + 0.3 * ("i" not in integer) + 0.5 * (len(integer) >= 8 and "j" not in integer)

    given = search(lambda integer: 0.0, speed_of, groups=groups_of(letters))
    steps = [Step(name, Precision.static_int8, 1.0, 0.01) for name in letters]
    given.search.run([steps, [steps[-1], *steps[:8]]])
    best, _ = best_of(given.search.candidates, given.search._budget)
    assert "j" not in best.choice


def test_the_ends_of_all_paths_are_timed_where_both_keep_the_quality(search):
    groups = groups_of(NAMES, Precision.static_int8, Precision.dynamic_int8)
    given = search(lambda integer: 0.0, lambda integer: 1 + len(integer), groups=groups)
    static, dynamic = (dict.fromkeys(NAMES, precision) for precision in (Precision.static_int8, Precision.dynamic_int8))
    ends = [{**static, "first": Precision.dynamic_int8}, {**dynamic, "first": Precision.static_int8}]
    assert given.search.all_keep_quality(ends)
    given.search.run([[Step(name, precision, 1.0, 0.01) for name, precision in end.items()] for end in ends])
    for end in ends:
        assert next(c for c in given.search.candidates if c.choice == end).measured


def test_where_time_is_short_a_small_file_that_computes_in_float_is_there_to_fall_back_on(search):
    groups = groups_of(NAMES, Precision.static_int8, Precision.weight_int8)
    hurried = search(lambda integer: 0.0, lambda integer: 1 + len(integer), seconds=0.0, groups=groups, stored=True)
    small = next(c for c in hurried.search.candidates if c.label == "the largest weights stored as int8")
    assert small.measured
    assert set(small.choice.values()) == {Precision.weight_int8}


def test_one_that_loses_too_much_is_not_timed(search):
    groups = groups_of(NAMES, Precision.static_int8, Precision.weight_int8)
    hurried = search(lambda integer: 0.2 * bool(integer), len, seconds=0.0, groups=groups, stored=True)
    small = next(c for c in hurried.search.candidates if c.label == "the largest weights stored as int8")
    assert not small.measured


def test_rewrites_are_tried_on_the_shortest_samples_that_are_half_as_long_as_usual():
    samples = [Sample(str(size), {"x": np.zeros(size, np.float32)}) for size in (100, 3, 80, 50, 60, 120, 90)]
    assert [sample.size for sample in rather_short(samples)] == [50, 60, 80]


@pytest.mark.parametrize(("session_s", "seconds"), [(0.0, 4.2), (0.5, 5.0)])
def test_what_a_graph_and_the_original_take_follows_from_what_one_takes_to_open(session_s, seconds):
    timer = CandidateTimer(SimpleNamespace(inference_s=1.0, session_s=session_s))
    assert timer._takes(1) == pytest.approx(seconds)
