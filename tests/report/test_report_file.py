"""report.json as a file: what is written is what is read, and what cannot be read is refused in one message."""

import copy
import dataclasses
import json
import math

import pytest
from html_page import page_of

from pipeline.errors import ConfigError
from pipeline.record.run_directory import RunDirectory
from pipeline.report.compare_runs import compare_runs
from pipeline.report.report_file import read_report, report_from_json, report_to_json, write_report
from pipeline.report.schema import Report
from pipeline.report.search_schema import SearchReport
from pipeline.typed_json import from_json


def read(value):
    """Return a report.json as what its readers get."""
    return report_from_json(value, "report")


def test_the_report_of_a_run_is_the_same_after_it_was_read_and_written(real_report):
    assert report_to_json(read(real_report)) == real_report


def test_a_report_is_read_back_as_it_was_written(report, tmp_path):
    written = write_report(RunDirectory(tmp_path), read(report))
    assert written == read_report(tmp_path, "report") == read(report)


def test_a_number_that_json_does_not_know_is_null_in_the_file_and_none_when_read(report, tmp_path):
    given = read(report)
    [metric, *_] = given.evaluation.metrics.values()
    for value in (math.inf, -math.inf, math.nan):
        metrics = {"sqnr_db": dataclasses.replace(metric, quantized=value)}
        infinite = dataclasses.replace(given, evaluation=dataclasses.replace(given.evaluation, metrics=metrics))
        assert report_to_json(infinite)["evaluation"]["metrics"]["sqnr_db"]["quantized"] is None
        assert read(report_to_json(infinite)).evaluation.metrics["sqnr_db"].quantized is None


def test_what_a_run_has_not_come_to_is_absent_and_what_it_could_not_measure_is_null(report):
    report["benchmark"]["encoder"] |= {"rtf": None, "baseline_rtf": None}
    del report["evaluation"]
    found = report_to_json(read(report))
    assert found["benchmark"]["encoder"]["rtf"] is None
    assert not {"evaluation", "search", "rerun", "error"} & set(found)


def test_a_report_of_schema_1_is_read_with_the_precision_of_each_node(report):
    old = copy.deepcopy(report) | {"schema": 1}
    precisions = old["artifacts"][0].pop("quantized_nodes")
    old["artifacts"][0] |= {"quantized_nodes": list(precisions), "precisions": precisions}
    assert read(old) == read(report)
    del old["artifacts"][0]["precisions"]
    assert list(read(old).artifacts[0].quantized_nodes) == list(precisions)


def compared(directory):
    compare_runs([str(directory)])


def repeated(directory):
    read_report(directory, "rerun")


def shown(directory):
    page_of(json.loads((directory / "report.json").read_text(encoding="utf-8")), directory)


@pytest.mark.parametrize(("reader", "setting"), [(compared, "compare"), (repeated, "rerun"), (shown, "report")])
@pytest.mark.parametrize("schema", [0, 3, "2", None])
def test_a_report_of_another_schema_is_refused_by_every_reader_with_what_to_do(report, save_run, reader, setting, schema):
    directory = save_run(report | {"schema": schema}, "a")
    said = rf"^{setting}: .*report\.json is of schema {schema}; .* reads 1 and 2\. Leave it out, run it again"
    with pytest.raises(ConfigError, match=said):
        reader(directory)


def text_for_a_number(report):
    report["benchmark"]["encoder"]["threads"] = "two"


def list_for_an_object(report):
    report["benchmark"] = []


def missing_size(report):
    del report["artifacts"][0]["bytes"]


def infinite_latency(report):
    report["benchmark"]["encoder"]["baseline_ms"]["p50"] = None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (text_for_a_number, r"benchmark\.encoder\.threads must be a whole number, not 'two'"),
        (list_for_an_object, r"benchmark must be an object, not \[\]"),
        (missing_size, r"artifacts\[0\]\.bytes is missing"),
        (infinite_latency, r"benchmark\.encoder\.baseline_ms\.p50 must be a number, not None"),
    ],
)
def test_a_report_with_a_wrong_value_is_damaged_and_the_value_is_named(report, save_run, damage, said):
    damage(report)
    directory = save_run(report, "a")
    with pytest.raises(ConfigError, match=rf"rerun: .*report\.json is damaged: {said}"):
        read_report(directory, "rerun")
    [failed] = compare_runs([str(directory)]).failed
    assert failed.status == "damaged"


def test_programs_that_read_schema_1_find_the_precision_of_each_node(real_report):
    [artifact] = real_report["artifacts"]
    assert artifact["precisions"] == artifact["quantized_nodes"] != {}


def test_keys_of_a_later_version_are_passed_over_when_read_and_refused_when_written():
    value = {"status": "done", "later": 1}
    assert from_json(Report, value) == Report("done")
    with pytest.raises(ValueError, match="keys that Report lacks: later"):
        from_json(Report, value, strict=True)


def test_losses_of_a_search_on_both_halves_of_the_samples_are_kept(report):
    half = {"metric": "posterior_kl", "value": 0.01, "low": None, "high": None, "samples": 50}
    search = {"metric": "posterior_kl", "selection_loss": half, "report_loss": {**half, "value": 0.02}}
    report |= {"search": {"encoder": search}, "samples": {"selection": ["a"], "report": ["b", "c"]}}
    found = report_to_json(read(report))
    assert found["search"]["encoder"]["report_loss"]["value"] == 0.02
    assert found["samples"] == {"selection": ["a"], "report": ["b", "c"]}
    assert "selection_loss" not in report_to_json(Report("done", search={"encoder": SearchReport("mse")}))["search"]["encoder"]
