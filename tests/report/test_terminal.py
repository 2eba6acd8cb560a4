"""What a report looks like in a terminal of 60, 80 or 120 columns, and in a pipe: nothing is cut."""

import io
import json
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.metrics.metric_registry import METRICS, leading_metrics
from pipeline.report.fitted_table import Column, FittedTable
from pipeline.report.html.run_page import write_page
from pipeline.report.report_file import report_from_json
from pipeline.report.terminal import SLOW_LOAD, format_number, print_report

WIDTHS = (60, 80, 120)
COMMAND = "python run.py model=vocoder mode=static 'mode.nodes_to_exclude=[/embed/Conv,/blocks.0/Conv]' calibration.samples=64"
DIRECTORY = "/home/someone/projects/speech-models-for-android/outputs/asr/static/2026-01-01_00-00-00"


def shown(report, width, *, terminal=True, brief=False):
    """Return the lines that a console of this width shows of a report."""
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_report(report_from_json(report, "report"), DIRECTORY, console, brief=brief)
    return console.file.getvalue().splitlines()


def test_a_job_of_a_sweep_is_told_by_its_verdict_its_warnings_and_its_files(full_report):
    lines, whole = shown(full_report, 120, brief=True), shown(full_report, 120)
    assert [
        line for line in lines if line.startswith(("quality:", "speed of", "size:", "warning:", "model:", "report:", "page:"))
    ]
    assert lines[-1] == f"page: {DIRECTORY}/report.html"
    assert len(lines) < len(whole) / 2
    assert not any("Try next" in line or "mr_stft" in line for line in lines[2:] if not line.startswith("  "))
    full_report["artifacts"] = None
    assert shown(full_report, 120, brief=True) == shown(full_report, 120), "of a run that only inspects, what it has seen"


def test_an_interval_that_tells_nothing_has_no_ends_of_many_digits(full_report):
    [measured] = full_report["benchmark"].values()
    measured |= {
        "verdict": "same",
        "speedup": {"median": 0.96, "low": 0.0004, "high": 2231072932221403.75},
        "other_threads": [],
    }
    text = "\n".join(shown(full_report, 120))
    assert "NOT DECIDED: between <0.01 and >100 times fp32's speed" in text
    assert "<0.01–>100 times as fast" in text


def test_a_longer_load_is_told_of_where_it_is_seen_and_a_percentile_where_it_is_known(report, tmp_path):
    [measured] = report["benchmark"].values()
    for pairs, load_ms, said in ((40, 59.0, False), (400, 61.0, True)):
        measured |= {"pairs": pairs, "baseline_load_ms": 10.0, "quantized_load_ms": load_ms}
        lines, page = shown(report, 120), write_page(report_from_json(report, "report"), tmp_path)
        [load] = [line.split() for line in lines if line.startswith("load ")]
        assert load == ["load", "10", "ms", f"{load_ms:.0f}", "ms", f"{load_ms / 10:.2f}"]
        assert (SLOW_LOAD in lines, SLOW_LOAD in page) == (said, said)
        assert (any("latency, 99 %" in line for line in lines), "99th percentile" in page) == (said, said)


def rendered(table, width):
    """Return the lines of a table."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table, crop=False)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def full_report(real_report):
    """Return the report of a real run with what few runs have: a search, further threads, a state, warnings, notes."""
    report = json.loads(json.dumps(real_report))
    [graph] = report["benchmark"]
    measured = report["benchmark"][graph]
    measured["other_threads"] = [measured | {"threads": 16}]
    measured["self_check"] = {"median": 1.001, "low": 0.982, "high": 1.021}
    report["warnings"] = [f"the machine was busy; see {DIRECTORY}/run.log"]
    report["try_next"] = [{"command": COMMAND, "reason": "a search keeps nodes float until the loss is within the limit"}]
    report["notes"] = ["vocoder: converted from opset 11 to 13, which this mode needs."]
    report["rerun"] = {
        "of": DIRECTORY, "inputs_changed": [f"{DIRECTORY}/clip.wav is another file"], "environment_changed": [],
        "artifacts_identical": {"vocoder.int8.onnx": False}, "metrics_moved": {"truth_mr_stft": (1.0, 1.5)},
    }  # fmt: skip
    return report


def test_a_speed_that_is_not_decided_has_the_ends_of_its_interval_in_the_table_too(full_report):
    [measured] = full_report["benchmark"].values()
    measured |= {"verdict": "same", "speedup": {"median": 1.94, "low": 0.77, "high": 8.97}, "other_threads": []}
    [row] = [line for line in shown(full_report, 120) if line.startswith("latency, 1 thread")]
    assert "0.77–8.97 times as fast" in row
    assert "1.94 times" not in "\n".join(shown(full_report, 120))


@pytest.mark.parametrize("width", WIDTHS)
def test_every_metric_has_its_whole_name_and_its_whole_numbers(full_report, width):
    lines = shown(full_report, width)
    for name, metric in full_report["evaluation"]["metrics"].items():
        places = [index for index, line in enumerate(lines) if line.split(" ")[0] == name]
        assert places, name
        block = "\n".join(lines[places[0] : places[0] + 4])
        values = [metric["baseline"], metric["quantized"], *(metric["interval"] or {}).values()]
        for value in values:
            assert re.search(rf"(?<![\d.]){re.escape(format_number(value))}(?![\d.])", block), (name, value)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_longer_than_the_terminal_but_for_a_path(full_report, width):
    for line in shown(full_report, width):
        assert cell_len(line) <= width or DIRECTORY in line or COMMAND in line, line
        assert "…" not in line


@pytest.mark.parametrize("width", WIDTHS)
def test_the_files_come_last_whole_and_one_a_line(full_report, width):
    text = "\n".join(shown(full_report, width, terminal=False))
    assert text.endswith(
        f"\nmodel: {DIRECTORY}/vocoder.int8.onnx\nreport: {DIRECTORY}/report.json\npage: {DIRECTORY}/report.html"
    )
    words = "\n".join(shown(full_report, width)).split()
    assert words[-6:] == [
        "model:", f"{DIRECTORY}/vocoder.int8.onnx", "report:", f"{DIRECTORY}/report.json", "page:", f"{DIRECTORY}/report.html",
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_a_command_that_is_suggested_is_one_line_before_the_files(full_report, width):
    lines = shown(full_report, width)
    assert f"  {COMMAND}" in lines
    assert lines.index(f"  {COMMAND}") < next(number for number, line in enumerate(lines) if line.startswith("model:"))


@pytest.mark.parametrize("width", [80, 120])
def test_size_and_speed_fit_a_terminal_of_80_columns_side_by_side(full_report, width):
    [header] = [line for line in shown(full_report, width) if line.split() == ["fp32", "quantized", "ratio"]]
    assert header


def test_in_a_pipe_a_warning_is_one_line_and_on_a_terminal_its_words_are_whole(full_report):
    warning = f"warning: the machine was busy; see {DIRECTORY}/run.log"
    assert warning in shown(full_report, 60, terminal=False)
    assert f"{DIRECTORY}/run.log" in shown(full_report, 60)


def test_notes_stand_behind_the_numbers_and_warnings_before_them(full_report):
    text = "\n".join(shown(full_report, 120))
    assert text.index("warning: the machine") < text.index("Quality on") < text.index("note: vocoder: converted from opset 11")


def test_the_metric_of_the_task_comes_first_and_general_ones_behind(full_report, report):
    for found, first, last in ((full_report, "truth_log_mel_l1", "mse"), (report, "wer_percent", "posterior_kl")):
        lines = [line.split(" ")[0] for line in shown(found, 120)]
        places = [lines.index(name) for name in found["evaluation"]["metrics"]]
        assert lines.index(first) == min(places) < lines.index(last)
        assert first in leading_metrics()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_name_of_a_node_and_a_long_header_stay_whole(width):
    table = FittedTable(
        "Search", (Column("candidate", left=True, names=True), Column("speed"), Column("roundtrip_wer_percent"))
    )
    table.add("A17+2 /encoder/encoder.3/feed_forward2/MatMul_1, biases corrected", "1.62", "+0.01234 %")
    text = "\n".join(rendered(table, width))
    for whole in ("/encoder/encoder.3/feed_forward2/MatMul_1", "roundtrip_wer_percent", "1.62", "+0.01234 %"):
        assert whole in text


@pytest.mark.parametrize("width", [20, 40, *WIDTHS])
def test_a_table_of_every_metric_names_each_of_them_at_any_width(width):
    table = FittedTable("Metrics", (Column("metric", left=True, names=True), Column("value"), Column("why", optional=True)))
    for name in METRICS:
        table.add(name, "1.234e-05", "a long reason that a narrow terminal has no room for")
    lines = rendered(table, width)
    assert {line.split(" ")[0] for line in lines} >= set(METRICS)
    assert sum("1.234e-05" in line for line in lines) == len(METRICS)


def test_a_long_list_is_broken_at_its_commas_and_a_number_stays_with_its_unit():
    table = FittedTable("Graph", (Column("graph", left=True, names=True), Column("time goes to", left=True)))
    table.add("acoustic", "Softplus 25 %, MatMul 21 %, Conv 20 %, Add 7 %")
    assert rendered(table, 30)[1:4] == ["acoustic", "  time goes to Softplus 25 %,", "  MatMul 21 %, Conv 20 %,"]


def test_a_table_loses_its_optional_column_before_its_rows_become_blocks():
    table = FittedTable("T", (Column("name", left=True, names=True), Column("value"), Column("better is", optional=True)))
    table.add("roundtrip_wer_percent", "0.9912", "lower")
    assert rendered(table, 40)[1] == "name                    value  better is"
    assert rendered(table, 39)[1] == "name                    value"
    assert rendered(table, 28)[1:4] == ["roundtrip_wer_percent", "  value 0.9912;", "  better is lower"]
