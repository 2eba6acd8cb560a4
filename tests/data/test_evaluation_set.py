"""The evaluation set is split into samples that choices are made on and samples that are reported."""

import random

import numpy as np
import onnx
import pytest

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.data.evaluation_set import EvaluationSet, split
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import load_graph
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.onnx_file import OnnxFile
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample


def items(count):
    return [EvaluationSample(Sample(f"u{number}", {})) for number in range(count)]


def ids_of(part):
    return [item.sample.id for item in part]


def parts_of(samples, seed=0, **settings):
    """Return the ids of the selection part and of the reported one."""
    return [set(ids_of(part)) for part in split(samples, seed, **settings)]


@pytest.mark.parametrize("count", [2, 3, 6, 7, 100, 101])
def test_the_parts_share_no_sample_and_hold_all_and_the_reported_one_is_the_larger_of_an_odd_number(count):
    selection, report = parts_of(items(count))
    assert not selection & report
    assert selection | report == set(ids_of(items(count)))
    assert len(report) - len(selection) == count % 2


def test_samples_keep_the_order_of_the_set():
    for part in split(items(50), 0):
        assert ids_of(part) == [name for name in ids_of(items(50)) if name in ids_of(part)]


def test_the_split_follows_from_the_seed_and_the_ids_and_not_from_the_order_or_from_what_the_samples_hold():
    mixed = [EvaluationSample(Sample(item.sample.id, {"x": np.ones(3)})) for item in items(50)]
    random.Random(0).shuffle(mixed)
    assert parts_of(mixed, 4) == parts_of(items(50), 4)
    assert parts_of(items(50), 5) != parts_of(items(50), 4)


def test_neighbours_in_a_file_do_not_alternate_and_are_not_cut_in_the_middle():
    """Sets are often ordered by speaker: neither part is to be the first of them, nor every second recording."""
    selection, _ = parts_of(items(100))
    numbers = sorted(int(name[1:]) for name in selection)
    assert min(sum(number < 50 for number in numbers), sum(number >= 50 for number in numbers)) > 10
    assert min(sum(number % 2 for number in numbers), sum(number % 2 == 0 for number in numbers)) > 10


def test_one_more_sample_moves_one_other_at_most():
    for count in range(2, 60):
        (before, _), (after, _) = parts_of(items(count)), parts_of(items(count + 1))
        assert len((before ^ after) - {f"u{count}"}) <= 1


@pytest.mark.parametrize("count", [10, 11])
def test_exchanged_parts_are_the_same_the_other_way_round(count):
    assert parts_of(items(count), exchange=True) == parts_of(items(count))[::-1]


@pytest.fixture
def evaluation_set(tmp_path, conv_net, write_arrays, make_noise):
    """Return a function: number of samples -> a set of them, and its run's log; with None, the set is noise."""
    onnx.save(conv_net(), tmp_path / "model.onnx")
    source = load_graph("model", str(tmp_path / "model.onnx"))
    model = LoadedModel(OnnxFile("onnx", str(source.path)), {"model": source}, threads=1)

    def make(count, **settings):
        path = None
        if count is not None:
            path = str(tmp_path / "eval.npz")
            write_arrays(tmp_path / "eval.npz", {f"u{number}": {"x": make_noise(10, number)} for number in range(count)})
        run_log = RunLog()
        config = EvaluationConfig(kind=EvaluationKind.tensors, path=path, **settings)
        return EvaluationSet(model, config, 3, run_log), run_log

    return make


def test_a_set_that_was_not_read_has_no_ids(evaluation_set):
    found, _ = evaluation_set(7)
    assert found.ids is None
    assert found.report.samples
    assert [set(found.ids[part]) for part in ("selection", "report")] == parts_of(items(7), 3)


def test_a_setting_exchanges_the_parts(evaluation_set):
    found, _ = evaluation_set(7, exchange_parts=True)
    assert [set(ids_of(part.samples)) for part in (found.report, found.selection)] == parts_of(items(7), 3)


@pytest.mark.parametrize(("count", "said"), [(30, True), (31, False), (32, False), (None, False)])
def test_fewer_than_16_reported_samples_are_warned_of(evaluation_set, count, said):
    found, run_log = evaluation_set(count)
    assert found.is_split
    few = f"{len(found.report.samples)} samples are left to report on, after {len(found.selection.samples)} of"
    assert any(few in warning for warning in run_log.warnings) == said
    assert any("Fewer than 16 are too few" in warning for warning in run_log.warnings) == said


@pytest.fixture
def run_on_one(user_files, run_quickly, users_model, users_data, write_arrays, make_noise):
    """Return a function that runs the command on a set of a single sample."""
    write_arrays(user_files / "eval.npz", {"alone": {"x": make_noise(20)}})

    def run(*overrides):
        return run_quickly(*users_model, *users_data, "stages=[load,quantize,evaluate]", *overrides)

    return run


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_single_sample_serves_both_and_that_is_said(run_on_one, mode):
    report = run_on_one(f"mode={mode}").succeeded().report
    assert report["samples"] == {"selection": ["alone"], "report": ["alone"]}
    assert report["evaluation"]["samples"] == 1
    said = [warning for warning in report["warnings"] if warning.startswith("evaluation.path: ")]
    assert [warning for warning in said if "one sample ('alone') cannot be split" in warning] == said


def test_a_search_on_a_single_sample_is_refused(run_on_one):
    run = run_on_one("mode=auto", "mode.metric=relative_error", "mode.max_loss=0.1")
    assert run.exit_code == 2
    assert "error: evaluation.path: one sample, but mode=auto chooses on some samples and reports on others" in run.stderr
    assert not list(run.directory.glob("*.onnx"))


def test_choices_see_one_part_and_the_report_the_other(user_files, run_quickly, users_model, write_arrays, make_noise):
    """What the command evaluates and times is what it says that it reports."""
    write_arrays(user_files / "eval.npz", {f"u{number}": {"x": make_noise(10 + number, number)} for number in range(9)})
    quick = ("benchmark.runs=5", "benchmark.seconds=0", "benchmark.rounds=2")
    report = run_quickly(*users_model, "evaluation.path=eval.npz", "mode=dynamic", "seed=3", *quick).succeeded().report
    selection, reported = (set(report["samples"][part]) for part in ("selection", "report"))
    assert [selection, reported] == parts_of(items(9), 3)
    assert {sample["id"] for sample in report["evaluation"]["per_sample"]} == reported
    assert report["evaluation"]["samples"] == len(reported)
    assert {length["sample"] for length in report["benchmark"]["model"]["lengths"].values()} <= reported
    assert report["inspect"]["model"]["probe"] in selection
