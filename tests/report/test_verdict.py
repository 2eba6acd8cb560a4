"""The verdict in words: in report.json, in the terminal, on the page, in comparisons."""

import dataclasses
import io
from types import SimpleNamespace

import pytest
from html_page import Page, page_of
from rich.console import Console

from pipeline.report.compare_runs import compare_runs
from pipeline.report.comparison_table import comparison_parts
from pipeline.report.html.comparison_page import comparison_page
from pipeline.report.report_file import report_from_json
from pipeline.report.terminal import print_report
from pipeline.report.verdict import broken_limits, verdict_of

LOST = {"loss": 0.373, "low": 0.361, "high": 0.384}
KEPT = {"loss": 0.05, "low": 0.04, "high": 0.06}
UNSURE = {"loss": 0.095, "low": 0.081, "high": 0.12}
OUTCOMES = {"beyond the limit": LOST, "within the limit": KEPT, "not decided": UNSURE}


def judged(report, outcome, **more):
    """Give a report a limit of log-mels, and where its loss lies."""
    check = {"metric": "log_mel_l1", "unit": "nat", "limit": 0.1, "asked": False, "outcome": outcome}
    report["evaluation"]["limits"] = [check | OUTCOMES.get(outcome, {}) | more]
    return report


def read(report):
    return report_from_json(report, "report")


def printed(report):
    output = io.StringIO()
    print_report(read(report), "outputs/run", Console(file=output, width=200))
    return output.getvalue().splitlines()


def timed(report, median, low, high, verdict):
    report["benchmark"]["encoder"] |= {"speedup": {"median": median, "low": low, "high": high}, "verdict": verdict}
    return report


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_verdict_of_a_report_begins_with_the_outcome_and_names_loss_interval_and_limit(report, outcome):
    found = verdict_of(read(judged(report, outcome)))
    loss = OUTCOMES[outcome]
    assert found.quality == (
        f"{outcome}: log_mel_l1 is worse by {loss['loss']:g} nat ({loss['low']:g} to {loss['high']:g}), limit 0.1 nat"
    )
    assert found.speed == "faster than fp32: 1.50 times its speed (1.40 to 1.60)"
    assert found.size == "0.25 of fp32's size (0.95 of 3.81 MiB)"


def test_a_loss_of_nothing_is_not_called_worse(report):
    judged(report, "within the limit", loss=0.0, low=-0.0, high=-0.0)
    words = "within the limit: log_mel_l1 is as good as fp32's (0 to 0 worse), limit 0.1 nat"
    assert verdict_of(read(report)).quality == words


def test_quality_is_the_first_verdict_in_the_terminal_before_speed_and_size(report):
    lines = printed(judged(report, "beyond the limit"))
    assert lines[0] == "asr static"
    assert lines[1].startswith("quality: BEYOND THE LIMIT: log_mel_l1 is worse by 0.373 nat")
    assert lines[2].startswith("speed of encoder: FASTER than fp32: 1.50 times its speed")
    assert lines[3].startswith("size: 0.25 of fp32's size")


def test_a_fast_model_beyond_its_limit_has_no_green_headline_and_no_green_badge(report, save_run):
    judged(report, "beyond the limit")
    directory = save_run(report, "2026-01-01_00-00-00")
    page = Page(page_of(report, directory))
    [(attributes, text)] = page.all("h1")
    assert (attributes["class"], text) == ("verdict slower", "Beyond the limit")
    assert [a["class"] for a, text in page.all("p") if text.startswith("Faster than fp32")] == ["verdict plain-verdict"]
    badges = [(a["class"], text) for a, text in page.all("span") if "on the front" in text]
    assert badges == [("badge beaten", "on the front, beyond the limit of quality")]
    assert page.unbalanced == []


def test_a_model_within_its_limit_has_both_verdicts_in_green(report, tmp_path):
    page = Page(page_of(judged(report, "within the limit"), tmp_path))
    assert [(a["class"], text) for a, text in page.all("h1")] == [("verdict faster", "Within the limit")]
    assert [a["class"] for a, text in page.all("p") if text.startswith("Faster than fp32")] == ["verdict faster"]


def test_a_speed_that_is_not_decided_is_told_by_the_ends_of_its_interval_alone(report, tmp_path):
    timed(judged(report, "within the limit"), 3.87, 0.45, 6.86, "same")
    assert verdict_of(read(report)).speed == "not decided: between 0.45 and 6.86 times fp32's speed"
    assert "speed of encoder: NOT DECIDED: between 0.45 and 6.86 times fp32's speed" in printed(report)
    page = Page(page_of(report, tmp_path))
    assert "Not decided: between 0.45 and 6.86 times fp32’s speed".replace("’", "'") in page.texts("p")


def test_a_narrow_interval_around_fp32s_speed_is_an_answer(report):
    timed(report, 1.01, 0.97, 1.04, "same")
    assert verdict_of(read(report)).speed == "as fast as fp32: between 0.97 and 1.04 times its speed"


def test_quality_that_was_not_measured_is_said_to_be_so(report):
    del report["evaluation"]
    assert verdict_of(read(report)).quality == "not measured: the stage evaluate was not run"


def test_only_a_broken_limit_or_none_at_all_is_worse_than_is_allowed(report):
    assert broken_limits(read(judged(report, "beyond the limit"))).startswith("beyond the limit: log_mel_l1")
    assert broken_limits(read(judged(report, "not measured", why="on noise"))) == "not measured: on noise"
    assert broken_limits(read(judged(report, "within the limit"))) is None
    assert broken_limits(read(judged(report, "not decided"))) is None


def test_a_comparison_shows_the_verdict_on_quality_and_stars_no_run_beyond_its_limit(report, save_run):
    fast = save_run(judged(report, "beyond the limit"), "a")
    slow = save_run(judged(timed(report, 1.1, 1.05, 1.15, "faster"), "within the limit"), "b")
    comparison = compare_runs([str(fast), str(slow)])
    output = io.StringIO()
    for part in comparison_parts(comparison):
        Console(file=output, width=200).print(part, crop=False)
    rows = [line for line in output.getvalue().splitlines() if "the limit" in line and not line.startswith("☆")]
    assert ["beyond the limit" in row and "☆" in row and "★" not in row for row in rows] == [True, False]
    assert "within the limit" in rows[1]
    page = Page(comparison_page(comparison, fast.parent))
    assert {"beyond the limit", "within the limit"} <= set(page.texts("td"))
    assert [a["class"] for a, text in page.all("span") if text == "☆"] == ["star beyond"]


def test_a_report_without_limits_is_shown_without_a_verdict_on_quality(report, tmp_path):
    assert verdict_of(read(report)).quality is None
    assert Page(page_of(report, tmp_path)).texts("h1") == ["Faster than fp32: 1.50 times its speed"]


def test_what_became_integers_is_said_of_all_graphs_together_by_their_bytes_and_multiplications(report):
    [first] = report["artifacts"]
    first |= {"weights": {"int8": 0.9, "fp32": 0.1}, "multiplications": {"int8, static ranges": 0.75, "fp32": 0.25}}
    second = first | {"graph": "decoder", "baseline_bytes": 3 * first["baseline_bytes"]}
    second |= {"weights": {"int8": 0.5, "fp32": 0.5}, "multiplications": {"int8 weight, float computation": 1.0}}
    report["artifacts"] = [first, second]
    counted = {"encoder": SimpleNamespace(macs={"Conv": 3_000_000}), "decoder": SimpleNamespace(macs={"LSTM": 1_000_000})}
    inspected = dataclasses.replace(read(report), inspect=counted)
    assert verdict_of(inspected).integers == "60 % of the weights' bytes, 56 % of the multiplications"


def test_without_a_count_of_multiplications_and_without_integers_nothing_is_made_up(report):
    [artifact] = report["artifacts"]
    artifact |= {"weights": {"int8": 0.9, "fp32": 0.1}, "multiplications": None}
    assert verdict_of(read(report)).integers == "90 % of the weights' bytes"
    assert "in integers: 90 % of the weights' bytes" in printed(report)
    artifact |= {"weights": {"fp16": 1.0}}
    assert verdict_of(read(report)).integers is None
