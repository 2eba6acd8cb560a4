"""The search section: what was asked for, what was tried, what was chosen, and what became of each node."""

import pytest
from browser import Browser, missing_programs
from html_page import Page, page_of

from pipeline.report.html.search_section import searches
from pipeline.report.report_file import report_from_json
from pipeline.report.terminal import change


def candidate(index, label, speedup, size, loss, *, measured=True, on_front=True):
    return {"index": index, "label": label, "speedup": speedup, "bytes": size, "loss": loss, "measured": measured,
            "on_front": on_front}  # fmt: skip


@pytest.fixture
def searched(report):
    """Return a report with a search of 30 nodes and five candidates, of which the third is chosen."""
    nodes = [
        {"node": f"/layers.{k}/Conv", "op": "Conv", "precision": "int8, static ranges" if k % 3 else "fp32",
         "reason": "pays for itself" if k % 3 else "costs <more> than it gains", "loss": 0.001 * k, "gain_ms": 0.01 * k,
         "bytes_saved": 1024 * k}
        for k in range(30)
    ]  # fmt: skip
    report["search"] = {
        "encoder": {
            "budget": {"max_loss": 0.05, "max_bytes": None, "objective": "speed"}, "met": True, "seconds": 42.4, "chosen": 2,
            "metric": "posterior_kl", "unit": "nat", "nodes": nodes,
            "candidates": [
                candidate(0, "fp32", 1.0, 4_000_000, 0.0),
                candidate(1, "18 of 30 nodes", 1.4, 2_500_000, 0.02),
                candidate(2, "20 of 30 nodes", 1.7, 2_200_000, 0.04),
                candidate(3, "all nodes", 1.8, 1_100_000, 0.2, measured=False),
                candidate(4, "all but the first", 1.5, 2_400_000, 0.3, measured=False, on_front=False),
            ],
        }
    }  # fmt: skip
    return report


def test_a_run_without_a_search_has_no_such_section(report, tmp_path):
    assert searches(report_from_json(report, "report")) == []
    assert "Search" not in Page(page_of(report, tmp_path)).texts("h2")


def test_the_budget_the_choice_and_what_was_tried_are_told_in_words(searched, tmp_path):
    page = Page(page_of(searched, tmp_path))
    [told] = [text for text in page.texts("p") if text.startswith("Asked for")]
    assert told.startswith(
        "Asked for: posterior_kl worse by at most 0.05 nat; objective speed. Kept on the samples of the search."
    )
    assert "5 candidates, of which 3 were timed, in 42 s." in told
    assert "Chosen: 20 of 30 nodes, 1.70 ×, 2.10 MiB, posterior_kl 0.04 nat." in told
    assert page.unbalanced == []


def test_only_what_was_asked_for_is_called_so(searched, tmp_path):
    search = searched["search"]["encoder"]
    search |= {"budget": {"max_loss": 0.05, "max_length_change": 0.02}, "asked": []}
    page = Page(page_of(searched, tmp_path))
    assert not any("Asked for" in text for text in page.texts("p"))
    kept = "Usual limits: posterior_kl worse by at most 0.05 nat; a length changed by at most 2 %."
    assert any(kept in text for text in page.texts("p"))
    search |= {"asked": ["max_loss"]}
    page = Page(page_of(searched, tmp_path))
    assert any("Asked for: posterior_kl worse by at most 0.05 nat. Usual limits" in text for text in page.texts("p"))


def test_a_budget_that_was_not_met_is_said(searched, tmp_path):
    searched["search"]["encoder"]["met"] = False
    assert "Not met: the nearest candidate was taken." in " ".join(Page(page_of(searched, tmp_path)).texts("p"))


def test_the_front_is_drawn_and_listed_fastest_first_with_the_chosen_one_marked(searched, tmp_path):
    [found] = searches(report_from_json(searched, "report"))
    assert [one.label for one in found.front] == ["all nodes", "20 of 30 nodes", "18 of 30 nodes", "fp32"]
    assert [one.label for one in found.front if one.chosen] == ["20 of 30 nodes"]
    titles = Page(page_of(searched, tmp_path)).texts("title")
    assert any("5 candidates for encoder" in title and "Chosen: 20 of 30 nodes, 1.70 and 0.04" in title for title in titles)


def test_nodes_that_cost_most_come_first_and_the_rest_is_folded_away(searched, tmp_path):
    [found] = searches(report_from_json(searched, "report"))
    assert found.nodes[0].node == "/layers.29/Conv"
    assert (len(found.nodes), len(found.other_nodes)) == (12, 18)
    assert found.counts == [("int8, static ranges", 20), ("fp32", 10)]
    assert "costs &lt;more&gt; than it gains" in page_of(searched, tmp_path)


def test_numbers_that_a_search_does_not_know_are_left_empty(searched, tmp_path):
    search = searched["search"]["encoder"]
    search |= {"budget": {}, "met": None, "seconds": None, "chosen": None, "unit": ""}
    search["nodes"] = [{"node": "n", "op": "Conv", "precision": "fp32", "reason": None, "loss": None, "gain_ms": None,
                        "bytes_saved": None}]  # fmt: skip
    page = Page(page_of(searched, tmp_path))
    assert "Search" in page.texts("h2")
    assert page.unbalanced == []


@pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}: Debian's packages chromium and chromium-driver"
)
@pytest.mark.parametrize("width", [400, 1400])
def test_the_section_fits_a_phone_and_a_screen(searched, tmp_path, width):
    path = tmp_path / "report.html"
    path.write_text(page_of(searched, tmp_path), encoding="utf-8")
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as browser:
        browser.open(path, width)
        assert browser.run("return document.documentElement.scrollWidth") == width
        assert browser.run("return document.querySelectorAll('section[aria-labelledby=search] svg use').length") > 4
        assert browser.log("browser") == []


@pytest.mark.parametrize(("value", "shown"), [(0.25, "+0.25"), (0.0, "0"), (-0.16556, "-0.1656"), (None, "+∞")])
def test_a_loss_has_one_sign(value, shown):
    assert change(value) == shown
