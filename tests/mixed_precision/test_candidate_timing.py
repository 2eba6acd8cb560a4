"""Candidates are looked at on a part of an utterance and timed on a whole one, in the layouts that may be fast."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.evaluate.loss import Loss
from pipeline.graph.prepare import prepare
from pipeline.measure.relative_speed import HOPELESS
from pipeline.mixed_precision import candidate_timing
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidate_timing import CandidateTimer, TrialContext
from pipeline.mixed_precision.candidates import Candidate
from pipeline.mixed_precision.precision_groups import groups_of
from pipeline.mixed_precision.time_limit import TimeLimit
from pipeline.mixed_precision.typical_sample import typical
from pipeline.optimize.layouts import FURTHER, INTEGERS
from pipeline.quantize.plan import Precision
from pipeline.sample import Sample
from tests.mixed_precision.test_smaller_file import STATIC

CONVS = """net (float[1, 16, n] x) => (float[1, 16, n] y) {
    [first] a = Conv <pads = [1, 1]> (x, w)
    b = LeakyRelu (a)
    [second] c = Conv <pads = [4, 4]> (b, v)
    d = LeakyRelu (c)
    [third] y = Conv <pads = [2, 2]> (d, u)
}"""
TAPS = {"w": 3, "v": 9, "u": 5}
LAYOUTS = (INTEGERS, "conv1d_to_conv2d", "conv1d_to_conv2d_wide", *FURTHER)


@pytest.fixture
def context(build, make_weight, source_of):
    """Return what candidates over three Convs are measured with: samples, and other arguments of it."""
    weights = {name: make_weight(16, 16, taps, seed=taps) for name, taps in TAPS.items()}
    prepared = prepare(source_of(build(CONVS, **weights)), opset=None, needed_opset=13, preprocess=True)
    samples = [noise(40)]
    groups, _ = groups_of(prepared, STATIC)
    builder = Builder(prepared.model, groups, STATIC, samples, lambda model: cached_statistics(model, samples), threads=1)
    scores = SimpleNamespace(loss=lambda *_, **__: Loss(0.0, 0.0, samples=1), items=[None])

    def make(samples=samples, **others):
        settings = {"layouts": LAYOUTS, "limit": TimeLimit(float("inf"))} | others
        return TrialContext(prepared.model, 1000, builder, scores, samples, 1, **settings)

    return make


@pytest.fixture
def timed(monkeypatch):
    """Return what was timed: samples, and layouts; how fast it is, is for the test to say."""
    calls = []

    def install(speed_of):
        def speeds(_, forms, samples, **__):
            calls.append(SimpleNamespace(samples=samples, keys=list(forms)))
            return {key: speed_of(key, samples[0]) for key in forms}

        monkeypatch.setattr(candidate_timing, "speedups", speeds)
        return calls

    return install


def noise(length):
    return Sample(str(length), {"x": np.random.default_rng(0).standard_normal((1, 16, length)).astype(np.float32)})


def candidate(label, *integers):
    return Candidate(label, dict.fromkeys(integers, Precision.static_int8), 0.0, 0.0, 100, 0.5)


def test_where_time_is_short_mixtures_are_timed_in_what_was_fast_for_whole_graphs(context, timed):
    fast = {"float": ("conv1d_to_conv2d",), "all int8": (INTEGERS,)}
    calls = timed(lambda key, _: 2.0 if key[1] == fast.get(key[0], (INTEGERS, "conv1d_to_conv2d")) else 1.0)
    timer = CandidateTimer(context(limit=TimeLimit(10.0), session_s=1.0))
    wholes = [candidate("float"), candidate("all int8", "first", "second", "third")]
    assert [found.layout for found in timer.timed(wholes, always=True)] == list(fast.values())
    [mixture] = timer.timed([candidate("two", "first", "second")])
    assert mixture.layout == (INTEGERS, "conv1d_to_conv2d")
    assert len(calls[-1].keys) <= 4, "and in few others"


@pytest.mark.parametrize(("seconds", "length"), [(0.05, None), (0.2, 40)])
def test_what_takes_long_is_looked_at_on_a_part_where_it_can_be_cut(build, make_weight, seconds, length):
    def inference_s(model, sample, threads):
        return seconds * sample.size / (80 * 16)

    place = SimpleNamespace(inference_s=inference_s)
    model = build(CONVS, **{name: make_weight(16, 16, taps, seed=taps) for name, taps in TAPS.items()})
    samples = [noise(80), replace(noise(400), id="longest"), noise(20)]
    parts, whole, taken = typical(samples, model, 1, place)
    assert whole is samples[0]
    assert [part.inputs["x"].shape for part in parts] == ([] if length is None else [(1, 16, length)])
    assert taken == pytest.approx(seconds * (length or 80) / 80)


def test_of_what_takes_seconds_the_shortest_sample_is_timed(build, make_weight):
    place = SimpleNamespace(inference_s=lambda model, sample, threads: 2.0 * sample.size / (80 * 16))
    model = build(CONVS, **{name: make_weight(16, 16, taps, seed=taps) for name, taps in TAPS.items()})
    parts, whole, taken = typical([noise(80), noise(400), noise(20)], model, 1, place)
    assert (parts, whole.id, taken) == ([], "20", pytest.approx(0.5))


def test_what_cannot_be_cut_is_timed_whole(build):
    model = build("net (float[1, 16, 80] x) => (float[1, 16, 80] y) { y = Relu (x) }")
    parts, whole, _ = typical([noise(80)], model, 1, SimpleNamespace(inference_s=lambda *_: 1.0))
    assert (parts, whole.id) == ([], "80")


def test_layouts_are_left_out_on_parts_and_told_on_whole_samples(context, monkeypatch):
    given = {}

    def speeds(_, forms, samples, *, parts, **__):
        given.update(samples=samples, parts=parts)
        return dict.fromkeys(forms, 2.0)

    monkeypatch.setattr(candidate_timing, "speedups", speeds)
    part, whole = noise(40), noise(80)
    CandidateTimer(context([whole], parts=[part], layouts=())).timed([candidate("two", "first", "second")])
    assert given == {"samples": [whole], "parts": [part]}


def test_what_is_timed_again_is_opened_more_often_and_not_left_out_for_one_slow_session(context, monkeypatch):
    given = {}

    def speeds(_, forms, samples, *, hopeless, **__):
        given[tuple(forms)] = hopeless
        return dict.fromkeys(forms, 2.0)

    monkeypatch.setattr(candidate_timing, "speedups", speeds)
    CandidateTimer(context(layouts=())).timed_again([candidate("one", "first"), candidate("two", "second")])
    [hopeless] = given.values()
    assert len(hopeless) > len(HOPELESS)
    assert max(hopeless) < max(HOPELESS)
