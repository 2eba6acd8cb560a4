"""Runs side by side: what may be ranked, what differs beyond noise, and what bad input is answered with."""

import copy
import io
import json

import pytest
from html_page import Page
from rich.console import Console

from pipeline.errors import ConfigError
from pipeline.report.compare_runs import compare_runs, find_runs, write_comparison
from pipeline.report.comparison_table import comparison_parts
from pipeline.report.html.comparison_page import comparison_page
from tests.report.conftest import CONFIG


@pytest.fixture
def three(report, save_run, tmp_path):
    """Save three runs: `fast` (and large), `small` (and slow), and `bad`, which is beaten in everything; return the glob."""
    for name, speed, size, posterior_kl in (
        ("fast", 2.0, 2_000_000, 1.0),
        ("small", 1.2, 1_000_000, 1.0),
        ("bad", 1.1, 3_000_000, 9.0),
    ):
        run = copy.deepcopy(report)
        run["mode"] = name
        run["artifacts"][0]["bytes"] = size
        run["benchmark"]["encoder"]["speedup"] = {"median": speed, "low": speed - 0.05, "high": speed + 0.05}
        for sample in run["evaluation"]["per_sample"]:
            sample["fidelity"]["posterior_kl"] *= posterior_kl
        run["evaluation"]["metrics"]["posterior_kl"]["quantized"] *= posterior_kl
        save_run(run, "2026-01-01_00-00-00")
    return str(tmp_path / "outputs/*/*/*")


def modes(comparison):
    """Return the modes of the ranked runs, group by group."""
    return [[row.mode for row in group.rows] for group in comparison.groups]


def printed(comparison, width=300):
    """Return what a terminal shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(*comparison_parts(comparison), crop=False)
    return console.file.getvalue()


def test_runs_are_sorted_by_speed_where_nothing_else_is_named(three):
    assert modes(compare_runs([three])) == [["fast", "small", "bad"]]


@pytest.mark.parametrize(
    ("sort_by", "first"), [("bytes", "small"), ("size_ratio", "small"), ("speedup", "fast"), ("mode", "bad")]
)
def test_runs_are_sorted_by_what_the_user_names_best_first(three, sort_by, first):
    assert modes(compare_runs([three], sort_by))[0][0] == first


def test_runs_can_be_sorted_by_a_metric(three):
    assert modes(compare_runs([three], "posterior_kl"))[0][-1] == "bad"


def test_an_infinite_signal_to_noise_ratio_is_the_best_one(report, save_run, tmp_path):
    sqnr = {"baseline": None, "quantized": 40.0, "delta": None, "unit": "dB", "higher_is_better": True, "version": 1}
    report["evaluation"]["metrics"]["sqnr_db"] = sqnr
    save_run(report, "a")
    sqnr["quantized"] = None
    exact = save_run(report, "b")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")], "sqnr_db")
    assert comparison.runs[0].row.directory == str(exact)
    assert "∞ dB" in comparison_page(comparison, tmp_path)


def test_an_unknown_order_is_answered_with_the_nearest_names(three):
    with pytest.raises(ConfigError, match=r"sort_by: these runs have no 'sped_up'.*speedup"):
        compare_runs([three], "sped_up")


def test_the_front_holds_the_runs_that_no_other_one_beats(three):
    [group] = compare_runs([three]).groups
    assert {run.row.mode: run.front for run in group.runs} == {"fast": True, "small": True, "bad": False}


def test_runs_whose_intervals_overlap_do_not_differ_beyond_noise(three):
    [group] = compare_runs([three]).groups
    assert group.orders["speedup"] == "1 > 2 ≈ 3"
    assert [run.row.mode for run in group.runs if "speedup" in run.best] == ["fast"]


def test_a_few_bytes_are_no_difference_in_size(report, save_run, tmp_path):
    save_run(report, "a")
    report["artifacts"][0]["bytes"] += 100
    save_run(report, "b")
    [group] = compare_runs([str(tmp_path / "outputs/*/*/*")]).groups
    assert group.orders["bytes"] == "1 ≈ 2"


def test_settings_are_shown_as_they_are_given(report, save_run, tmp_path):
    for name, given in (("a", "per_channel: null, fused: true, ops: [x, 1]"), ("b", "per_channel: 0.5, fused: false, ops: []")):
        save_run(report, name, CONFIG.replace("method: minmax", given))
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    for shown in (printed(comparison), comparison_page(comparison, tmp_path)):
        for setting in ("per_channel=null", "fused=true", "ops=[x,1]", "per_channel=0.5", "fused=false", "ops=[]"):
            assert f"mode.{setting}" in shown


def different_machine(report):
    report["environment"]["cpu"] = "Another processor"


def different_library(report):
    report["environment"]["onnxruntime"] = "1.31.0"


def different_samples(report):
    report["evaluation"]["per_sample"][0]["text"] = "other words"


def different_clips(report):
    report["inputs"][1]["sha256"] = "9" * 64


def different_original(report):
    report["inputs"][0]["sha256"] = "9" * 64


def different_threads(report):
    report["benchmark"]["encoder"]["threads"] = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (different_machine, "machine Another processor"),
        (different_library, "libraries onnxruntime 1.31.0"),
        (different_samples, "evaluation set"),
        (different_clips, "evaluation set"),
        (different_original, "original"),
        (different_threads, "threads 2"),
    ],
)
def test_runs_under_different_conditions_are_not_ranked_together_and_it_is_said_why(report, save_run, tmp_path, change, said):
    save_run(report, "a")
    change(report)
    save_run(report, "b")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    assert [len(group.rows) for group in comparison.groups] == [1, 1]
    for shown in (printed(comparison), comparison_page(comparison, tmp_path)):
        assert "not ranked" in shown
        assert said in shown


def test_other_calibration_data_does_not_keep_runs_apart(report, save_run, tmp_path):
    save_run(report, "a")
    report["inputs"][2]["sha256"] = "9" * 64
    save_run(report, "b")
    assert len(compare_runs([str(tmp_path / "outputs/*/*/*")]).groups) == 1


def test_calibration_arrays_beside_the_evaluation_arrays_do_not_keep_runs_apart(report, save_run, tmp_path):
    config = "evaluation:\n  path: data/eval.npz\n"
    report["inputs"][1:] = [{"path": "data/eval.npz", "sha256": "2" * 64, "bytes": 300}]
    save_run(report, "a", config)
    report["inputs"].append({"path": "data/calib.npz", "sha256": "3" * 64, "bytes": 300})
    save_run(report, "b", config)
    assert len(compare_runs([str(tmp_path / "outputs/*/*/*")]).groups) == 1
    report["inputs"][1]["sha256"] = "9" * 64
    save_run(report, "c", config)
    assert len(compare_runs([str(tmp_path / "outputs/*/*/*")]).groups) == 2


def test_several_models_are_no_reason_for_a_warning(report, save_run, tmp_path):
    save_run(report, "a")
    report["model"] = "other"
    report["inputs"][0]["sha256"] = "9" * 64
    save_run(report, "a")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    assert len(comparison.groups) == 2
    assert comparison.notes == []
    assert "Read this first" not in comparison_page(comparison, tmp_path)


def test_runs_that_made_the_same_file_are_called_the_same_and_give_nothing_up(report, save_run, tmp_path):
    save_run(report, "a")
    save_run(report, "b")
    text = comparison_page(compare_runs([str(tmp_path / "outputs/*/*/*")]), tmp_path)
    assert "Runs 1 and 2 have made the same file, bit by bit." in text
    assert "No run differs from another one beyond noise" in text
    assert "gives something up" not in text


def test_results_stand_before_failed_runs_which_are_folded_with_short_reasons(report, save_run, tmp_path):
    save_run(report, "a")
    reason = "mode.op_types: nothing to quantize. Left out are " + ", ".join(f"/layers.{k}/Conv" for k in range(20)) + "."
    for name in ("b", "c"):
        save_run({"schema": 2, "status": "failed", "error": reason, "model": "asr", "mode": "static"}, name)
    text = comparison_page(compare_runs([str(tmp_path / "outputs/*/*/*")]), tmp_path)
    page = Page(text)
    assert page.unbalanced == []
    assert text.index('class="runs') < text.index('id="failed"')
    [failed] = [text for _, text in page.all("details") if text.startswith("2 runs without numbers")]
    assert failed.count("/layers.19/Conv") == 1  # once for both, and folded away once more
    [short] = [text for text in page.texts("summary") if text.startswith("mode.op_types")]
    assert short == "mode.op_types: nothing to quantize."


def test_the_settings_in_which_runs_differ_are_shown(report, save_run, tmp_path):
    first = save_run(report, "a")
    config = (first / "config.yaml").read_text(encoding="utf-8")
    save_run(report, "b", config.replace("minmax", "entropy"))
    [group] = compare_runs([str(tmp_path / "outputs/*/*/*")]).groups
    assert [row.settings for row in group.rows] == [{"mode.method": "minmax"}, {"mode.method": "entropy"}]


def test_a_run_is_compared_once_however_often_it_is_named(report, save_run):
    directory = save_run(report, "a")
    assert find_runs([str(directory), f"{directory}/", str(directory / "report.json"), f"{directory.parent}/*"]) == [directory]


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"compare: .* is not a run's directory: it has no report.json"):
        find_runs([str(tmp_path)])


def test_a_directory_that_holds_runs_is_answered_with_where_they_lie(report, save_run, tmp_path):
    save_run(report, "a")
    with pytest.raises(ConfigError, match=r"Runs lie deeper in it: compare=\[.*/outputs/\*/\*/\*/\]"):
        find_runs([str(tmp_path / "outputs")])


@pytest.mark.parametrize(("pattern", "said"), [("nothing", "does not exist"), ("no*", "matches nothing"), ("*", "but no run")])
def test_a_name_that_leads_to_no_run_is_refused(tmp_path, pattern, said):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=said):
        find_runs([str(tmp_path / pattern)])


def test_naming_no_run_at_all_is_refused():
    with pytest.raises(ConfigError, match="compare: names no run"):
        find_runs([])


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 1}', ""])
def test_a_damaged_report_is_listed_and_does_not_stop_the_others(report, save_run, tmp_path, damage):
    save_run(report, "a")
    broken = save_run(report, "b")
    (broken / "report.json").write_text(damage, encoding="utf-8")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    assert len(comparison.runs) == 1
    [failed] = comparison.failed
    assert failed.status == "damaged"
    assert "report.json" in printed(comparison)


def test_a_failed_run_is_listed_with_its_error(report, save_run, tmp_path):
    save_run(report, "a")
    save_run({"schema": 2, "status": "failed", "error": "model.path: [no] <file>", "warnings": []}, "b")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    assert "model.path: [no] <file>" in printed(comparison)
    assert "model.path: [no] &lt;file&gt;" in comparison_page(comparison, tmp_path)


def test_runs_that_were_not_timed_or_not_evaluated_are_still_compared(report, save_run, tmp_path):
    del report["benchmark"]
    del report["evaluation"]
    save_run(report, "a")
    save_run(report, "b")
    comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
    assert len(comparison.groups[0].rows) == 2
    assert Page(comparison_page(comparison, tmp_path)).unbalanced == []
    assert "size" in printed(comparison)


def test_the_page_links_to_the_pages_of_the_runs(three, tmp_path):
    [first] = tmp_path.glob("outputs/asr/fast/*")
    (first / "report.html").touch()
    page = Page(write_comparison(compare_runs([three]), tmp_path / "sweep").read_text(encoding="utf-8"))
    assert [attributes["href"] for attributes, _ in page.all("a")] == ["../outputs/asr/fast/2026-01-01_00-00-00/report.html"]
    assert page.unbalanced == []


def test_comparison_json_holds_a_row_per_graph(three, tmp_path):
    write_comparison(compare_runs([three]), tmp_path)
    rows = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["metrics"]["posterior_kl"]["interval"]["low"] <= rows[0]["metrics"]["posterior_kl"]["quantized"]


@pytest.mark.parametrize("wrong", ["compare=[nothing]", "compare=[.]"])
def test_a_comparison_that_is_refused_leaves_no_directory(run_quickly, tmp_path, wrong):
    run = run_quickly(wrong)
    assert run.exit_code == 2
    assert "compare: " in run.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_ends_with_its_own_page(user_files, run_quickly, users_model, tmp_path):
    stages = "stages=[load,quantize]"
    run_quickly("-m", *users_model, "mode=dynamic,weight_only", "sort_by=bytes", stages).succeeded()
    [page] = tmp_path.glob("outputs/sweeps/*/comparison.html")
    text = page.read_text(encoding="utf-8")
    assert "2 runs side by side" in text
    assert "weight_only" in text
    assert "Best first by Size" in text
    rows = json.loads((page.parent / "comparison.json").read_text(encoding="utf-8"))
    assert rows[0]["bytes"] < rows[1]["bytes"]
    assert '<h1 class="verdict">2 runs</h1>' in (tmp_path / "outputs" / "index.html").read_text(encoding="utf-8")


def test_an_order_without_anything_to_sort_is_refused(run_quickly, tmp_path):
    run = run_quickly("model=vocoder", "sort_by=bytes")
    assert run.exit_code == 2
    assert "sort_by: only runs side by side are sorted" in run.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_terminal_of_any_width_names_runs_by_what_differs_and_cuts_no_name_and_no_number(report, save_run, tmp_path, width):
    for percentile in ("99.9", "99.99"):
        config = CONFIG.replace("method: minmax", f"method: percentile, percentile: {percentile}")
        save_run(report, f"2026-01-01_00-00-0{len(percentile)}", config)
    lines = printed(compare_runs([str(tmp_path / "outputs/*/*/*")]), width).splitlines()
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for number, percentile in ((1, "99.9"), (2, "99.99")):
        [row] = [line for line in lines if line.lstrip().startswith(f"{number} ")]
        assert f"{number} mode.percentile={percentile}" in " ".join(row.split())
    for whole in ("wer_percent", "posterior_kl", "1.50 (1.40–1.60)", "10 → 20", "0.011", "0.25"):
        assert text.count(whole) >= (2 if whole[0].isdigit() else 1), whole


def test_runs_that_differ_in_nothing_are_named_by_their_directories(report, save_run, tmp_path):
    for name in ("2026-01-01_00-00-00", "2026-01-01_00-00-01"):
        save_run(report, name)
    text = printed(compare_runs([str(tmp_path / "outputs/*/*/*")]), 80)
    assert "static, 2026-01-01_00-00-00" in text
    assert "static, 2026-01-01_00-00-01" in text


def test_the_metric_that_runs_are_sorted_by_is_shown(report, save_run, tmp_path):
    report["evaluation"]["metrics"]["cosine"] = report["evaluation"]["metrics"]["posterior_kl"] | {"quantized": 0.9876}
    save_run(report, "2026-01-01_00-00-00")
    assert "0.9876" in printed(compare_runs([str(tmp_path / "outputs/*/*/*")], "cosine"))
    assert "0.9876" not in printed(compare_runs([str(tmp_path / "outputs/*/*/*")]))
