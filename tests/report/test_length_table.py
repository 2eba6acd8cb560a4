"""The table of error rates by the length of the recordings."""

import pytest
from html_page import Page, page_of

from pipeline.report.html.language import in_language, said
from pipeline.report.html.run_page import write_page
from pipeline.report.report_file import report_from_json


@pytest.fixture
def by_length(report):
    """Return the report of a recogniser that is worse on long recordings."""

    def one(start, end, delta, low, high):
        rate = {"baseline": 5.0, "quantized": 5.0 + delta, "delta": delta, "low": low, "high": high}
        counted = {"samples": 20, "words": 1200, "characters": 5000}
        return {"from_s": start, "to_s": end, **counted, "rates": {"wer_percent": rate}}

    report["evaluation"]["by_length"] = [one(0.5, 4, 0.0, 0.0, 0.0), one(4, 12, 0.5, -0.5, 1.5), one(12, 30, 3.0, 1.5, 4.5)]
    return report


def rows_of(text, heading):
    return [row for row in Page(text[text.index(heading) :]).texts("tr") if row[:1].isdigit()][:3]


def test_the_page_shows_each_range_and_calls_worse_what_is_so_beyond_chance(by_length, tmp_path):
    assert rows_of(page_of(by_length, tmp_path), "By the length of the recordings") == [
        "0.5 to 4201,200550",
        "4 to 12201,20055.5+0.5 (−0.5 to +1.5) no difference beyond noise",
        "12 to 30201,20058+3 (+1.5 to +4.5) worse",
    ]


def test_the_page_is_in_chinese_where_that_is_asked_for(by_length, tmp_path):
    text = write_page(report_from_json(by_length, "report"), tmp_path, "zh")
    assert rows_of(text, "按录音长度")[2] == "12 至 30201,20058+3 (+1.5 至 +4.5) 更差"


def test_a_report_without_ranges_has_no_table(report, tmp_path):
    assert "By the length of the recordings" not in page_of(report, tmp_path)


def test_the_warning_of_a_loss_that_the_mean_hides_is_said_in_chinese():
    warning = (
        "The mean over all lengths hides a loss: on the 21 recordings of 12 to 30 s wer_percent is worse by 3 points (1.5 to "
        "4.5), over all by 0.5 (-0.1 to 1). If such recordings matter, evaluate on them alone (evaluation.path): the verdict "
        "is then on them."
    )
    with in_language("zh"):
        assert (
            "在 12 至 30 秒的 21 条录音上，wer_percent 变差 3 个百分点（1.5 至 4.5），而全部录音上为 0.5（-0.1 至 1）"
            in said(warning)
        )
