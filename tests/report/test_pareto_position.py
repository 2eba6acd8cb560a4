"""The place of a run: on the front, or beaten, among fp32 and the earlier runs that may be ranked with it."""

import pytest
from html_page import Page

from pipeline.report.html.pareto_position import places
from pipeline.report.html.run_page import write_page
from pipeline.report.report_file import report_from_json


@pytest.fixture
def run(report, save_run):
    """Return a function that saves a run of some speed, size and divergence, and returns its report and directory."""

    def save(name, speed, size, divergence=0.01, **changes):
        report["artifacts"][0]["bytes"] = size
        measured = report["benchmark"]["encoder"]
        measured["speedup"] = {"median": speed, "low": speed - 0.01, "high": speed + 0.01}
        for key in ("wer_percent", "posterior_kl"):
            value = 20.0 if key == "wer_percent" else divergence
            report["evaluation"]["metrics"][key] |= {"quantized": value, "interval": {"low": value, "high": value}}
        report.update(changes)
        return report_from_json({**report, "schema": 2}, "report"), save_run(report, name)

    return save


def test_without_other_runs_it_is_compared_with_fp32(run):
    [place] = places(*run("a", 1.5, 1_000_000))
    assert place.on_front
    assert place.words == "Compared with fp32, nothing is as good in everything: speed, size, wer_percent, posterior_kl."
    assert [(row.name, row.speedup, row.front) for row in place.rows] == [("this run", "1.50", True),
                                                                                    ("fp32", "1.00", True)]  # fmt: skip


def test_a_model_that_is_slower_and_larger_than_fp32_is_beaten_by_it(run):
    [place] = places(*run("a", 0.9, 5_000_000))
    assert not place.on_front
    assert place.words.startswith("fp32 is nowhere worse, and somewhere better beyond noise: speed")


def test_a_run_that_an_earlier_one_beats_says_which(run):
    run("a", 1.8, 1_000_000)
    [place] = places(*run("b", 1.5, 1_000_000))
    assert place.words.startswith("static a is nowhere worse")
    assert place.words.endswith("Compared with fp32 and 1 earlier run.")
    assert "not on the front" in Page(write_page(*run("c", 1.4, 1_000_000))).texts("span")


def test_runs_that_cannot_be_ranked_with_it_do_not_count(run, report):
    run("a", 1.8, 1_000_000)
    run("failed", 1.8, 1_000_000, status="failed")
    report["environment"]["cpu"] = "Another processor"
    [place] = places(*run("b", 1.5, 1_000_000, status="done"))
    assert place.on_front
    assert len(place.rows) == 2


def test_a_damaged_neighbour_is_passed_over(run):
    _, damaged = run("a", 1.8, 1_000_000)
    (damaged / "report.json").write_text("{", encoding="utf-8")
    assert places(*run("b", 1.5, 1_000_000))[0].on_front


def test_a_neighbour_of_another_schema_is_passed_over(run, report):
    run("a", 1.8, 1_000_000, schema=7)
    report["schema"] = 2
    assert places(*run("b", 1.5, 1_000_000))[0].on_front


def test_the_picture_and_the_table_hold_every_run(run):
    run("a", 1.8, 2_000_000)
    page = Page(write_page(*run("b", 1.5, 1_000_000)))
    assert any("Speed-up against posterior_kl of encoder" in title for title in page.texts("title"))
    assert page.unbalanced == []
    assert "Its place" in page.texts("h2")


def test_a_run_without_a_benchmark_has_no_place(report, tmp_path):
    del report["benchmark"]
    assert places(report_from_json(report, "report"), tmp_path) == []
