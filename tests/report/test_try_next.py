"""What a run suggests: at most two commands, each with its reason, and each one that works when it is pasted."""

import shlex

import pytest
from html_page import Page, page_of

from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import (
    BenchmarkConfig,
    CalibrationConfig,
    EvaluationConfig,
    ReportConfig,
    RunConfig,
    RuntimeConfig,
)
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.onnx_file import OnnxFile
from pipeline.report.html.language import in_language, said
from pipeline.report.report_file import report_from_json
from pipeline.report.try_next import CommandLine, suggestions

GIVEN = ("model=onnx", "model.path=/data/my model.onnx", "mode=static", "mode.method=mse")
START = "python run.py model=onnx 'model.path=/data/my model.onnx'"
STAGES = ("load", "inspect", "quantize", "benchmark", "evaluate")


@pytest.fixture
def suggest(settings):
    """Return a function: (report, mode, ...) -> the suggestions after it."""

    def find(report, mode="static", given=GIVEN, data=CalibrationKind.real, stages=STAGES, **changes):
        config = RunConfig(
            OnnxFile(name="x"), settings(mode, **changes), CalibrationConfig(kind=data),
            EvaluationConfig(EvaluationKind.tensors), BenchmarkConfig(), RuntimeConfig(), ReportConfig(), stages, 0,
        )  # fmt: skip
        found = suggestions(report_from_json(report, "report"), config, given, "python run.py")
        assert len(found) <= 2
        with in_language("zh"):
            assert all(said(one.reason) != one.reason for one in found if "quantize" in stages)  # of an inspection: English
        return [(one.command, one.reason) for one in found]

    return find


def judged(report, outcome, loss, metric="log_mel_l1"):
    report["evaluation"]["limits"] = [
        {
            "metric": metric,
            "unit": "nat",
            "limit": 0.1,
            "asked": False,
            "outcome": outcome,
            "loss": loss,
            "low": loss,
            "high": loss,
        }
    ]
    return report


def timed(report, median, low, high, verdict):
    report["benchmark"]["encoder"] |= {"speedup": {"median": median, "low": low, "high": high}, "verdict": verdict}
    return report


def test_a_static_model_beyond_its_limit_is_sent_to_the_search(report, suggest):
    [(command, reason), *_] = suggest(judged(report, "beyond the limit", 0.373))
    assert command == f"{START} mode.method=mse mode=auto"  # the search has that setting, too
    assert reason.startswith("log_mel_l1 is 0.373, beyond the limit of 0.1; a search keeps nodes float")


def test_the_nodes_at_which_the_error_begins_are_named(report, suggest):
    judged(report, "beyond the limit", 0.373)
    report["artifacts"][0]["quantized_nodes"]["/stored/Conv"] = "int16 weight, float computation"
    errors = [("/x", 130.0), ("/stored/Conv", 90.0), ("/a/Conv", 30.0), ("/b", 29.0)]
    report["evaluation"]["node_errors"] = {
        "encoder": [{"node": node, "op_type": "Conv", "sqnr_db": level} for node, level in errors]
    }
    [_, (command, reason)] = suggest(report)
    assert shlex.split(command) == ["python", "run.py", *GIVEN, "mode.nodes_to_exclude=['/a/Conv']"]
    assert reason == "at these nodes the signal-to-noise ratio falls most: by 30 dB"


def test_without_data_a_model_beyond_its_limit_is_sent_to_the_doctor(report, suggest):
    [(command, reason), *_] = suggest(judged(report, "beyond the limit", 0.373), data=CalibrationKind.random)
    assert command == "python run.py doctor model=onnx 'model.path=/data/my model.onnx'"
    assert "make_calib.py" in reason


@pytest.mark.parametrize(("outcome", "loss"), [("within the limit", 0.05), ("beyond the limit", 0.3)])
def test_a_search_that_ran_out_of_time_is_repeated_with_as_much_as_it_needs(report, suggest, outcome, loss):
    judged(report, outcome, loss)
    report["search"] = {"encoder": {"metric": "log_mel_l1", "stopped_early": True, "enough_seconds": 180}}
    [(command, reason), *_] = suggest(report, mode="auto", given=("model=vocoder", "mode=auto", "mode.seconds=30"))
    assert command == "python run.py model=vocoder mode=auto mode.seconds=180"
    assert reason.startswith("the search ran out of time")


def test_a_search_beyond_its_limit_on_unseen_samples_is_repeated_with_room(report, suggest):
    [(command, _), *_] = suggest(judged(report, "beyond the limit", 0.11), "auto", ("model=vocoder", "mode=auto"))
    assert command == "python run.py model=vocoder mode=auto mode.metric=log_mel_l1 mode.max_loss=0.07"


def test_a_slower_model_is_sent_to_what_measures_first(report, suggest):
    timed(judged(report, "within the limit", 0.01), 0.8, 0.75, 0.85, "slower")
    assert suggest(report)[0][0].endswith("mode=auto")
    [(command, reason), *_] = suggest(report, "fp16", ("model=asr", "mode=fp16", "mode.keep_io_types=false"))
    assert command == "python run.py model=asr mode=static"  # which has no such setting
    assert reason == "this is 0.80 times as fast as fp32: fp16 computes in float; integer kernels are faster"


def test_a_speed_that_is_not_decided_is_timed_longer(report, suggest):
    timed(judged(report, "within the limit", 0.01), 3.87, 0.45, 6.86, "same")
    [(command, reason), *_] = suggest(report)
    assert command.endswith("benchmark=full")
    assert reason == "the speed-up lies between 0.45 and 6.86: longer timing decides"


def test_dynamic_ranges_in_a_network_of_convolutions_are_sent_to_static_ones(report, suggest):
    inspected = {"opset": 17, "nodes": 1, "ops": {}, "parameters": 1, "macs": {"Conv": 1}, "time_share": {"FusedConv": 0.7},
                 "advised_mode": "static", "reasons": ["r"]}  # fmt: skip
    report["inspect"] = {"encoder": inspected}
    found = suggest(judged(report, "within the limit", 0.01), "dynamic", ("model=vocoder", "mode=dynamic"))
    reason = "70 % of the time of fp32 is in convolutions, which gain from int8 only with static ranges"
    assert ("python run.py model=vocoder mode=static", reason) in found


def test_a_run_that_only_inspects_suggests_the_mode_that_it_advises_and_none_where_it_is_not_sure(report, suggest):
    inspected = {"opset": 17, "nodes": 1, "ops": {}, "parameters": 1, "macs": {"Conv": 1}, "time_share": {"Conv": 1.0},
                 "advised_mode": "static", "reasons": ["first", "because"]}  # fmt: skip
    seen = {"schema": 2, "status": "done", "stages": [], "inputs": [], "environment": {}, "warnings": []}
    given = ("model=asr", "mode=dynamic", "stages=[load,inspect]")
    for advised, wanted in (("static", [("python run.py model=asr mode=static", "g: because")]), ("not sure", [])):
        found = suggest(seen | {"inspect": {"g": inspected | {"advised_mode": advised}}}, "dynamic", given, stages=STAGES[:2])
        assert found == wanted


def test_who_has_asked_for_a_search_is_not_sent_to_a_mode_without_one(report, suggest):
    inspected = {"opset": 17, "nodes": 1, "ops": {}, "parameters": 1, "macs": {"Conv": 1}, "time_share": {"Conv": 1.0},
                 "advised_mode": "static", "reasons": ["because"]}  # fmt: skip
    seen = {
        "schema": 2,
        "status": "done",
        "stages": [],
        "inputs": [],
        "environment": {},
        "warnings": [],
        "inspect": {"g": inspected},
    }
    given = ("model=hifigan", "mode=auto", "stages=[load,inspect]")
    assert suggest(seen, "auto", given, stages=STAGES[:2]) == [("python run.py model=hifigan mode=auto", "g: because")]


def test_a_command_never_suggests_itself(report, suggest):
    timed(judged(report, "within the limit", 0.01), 1.0, 0.5, 2.0, "same")
    given = ("model=asr", "mode=optimize", "benchmark=full")
    assert all(
        command != "python run.py model=asr mode=optimize benchmark=full" for command, _ in suggest(report, "optimize", given)
    )


def test_settings_of_single_graphs_go_with_the_mode():
    line = CommandLine(
        "speech-quantize", ["model=x", "+mode@graph_modes.joiner=dynamic", "mode.nodes_to_exclude=[a]", "seed=1"]
    )
    assert line.with_settings("mode=fp16") == "speech-quantize model=x 'mode.nodes_to_exclude=[a]' seed=1 mode=fp16"


def test_suggestions_stand_on_the_page_ready_to_paste(report, tmp_path):
    report["try_next"] = [{"command": "python run.py model=asr mode=auto", "reason": "it is slow"}]
    page = Page(page_of(report, tmp_path))
    assert "python run.py model=asr mode=auto" in page.texts("pre")
    assert "Because it is slow:" in page.texts("p")


def test_what_a_run_suggests_works_when_it_is_pasted(user_files, run_quickly, users_model):
    quick = ("stages=[load,quantize,evaluate]", "evaluation.node_samples=0")
    run = run_quickly(*users_model, "mode=dynamic", *quick).succeeded()
    commands = [one["command"] for one in run.report["try_next"]]
    lines = run.stdout.splitlines()
    assert [line.strip() for line in lines if line.startswith("  python ")] == commands
    words = shlex.split(commands[0])
    assert words[2] == "doctor"  # quality was measured on noise
    found = run_quickly(*words[2:]).succeeded()
    assert (found.directory / "make_calib.py").is_file()
