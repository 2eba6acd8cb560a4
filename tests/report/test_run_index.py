"""The page of all runs: what it lists, that it is cheap, and that no report of elsewhere can harm it."""

import copy
import json
import subprocess
import sys

import pytest
from html_page import Page

from pipeline.errors import ConfigError
from pipeline.report import run_index
from pipeline.report.index_file import refresh_index, write_index
from pipeline.report.run_index import MEMORY_FILE, read_index
from pipeline.report.run_rows import why_not_done
from pipeline.report.schema import Report


@pytest.fixture
def outputs(report, save_run, tmp_path):
    """Return a directory of three runs: a fast one, a small one, and one that failed."""
    for number, (mode, speed, size) in enumerate((("static", 2.0, 2_000_000), ("dynamic", 1.2, 1_000_000)), 1):
        run = copy.deepcopy(report)
        run["mode"] = mode
        run["artifacts"][0]["bytes"] = size
        run["benchmark"]["encoder"]["speedup"] = {"median": speed, "low": speed - 0.05, "high": speed + 0.05}
        save_run(run, f"2026-01-0{number}_12-30-00")
    failed = {"schema": 2, "status": "failed", "error": "model.path: <b>x</b>", "model": "asr", "mode": "static"}
    save_run(failed, "2026-01-03_00-00-00")
    return tmp_path / "outputs"


def page_of(root):
    """Return the index of a directory, read."""
    return Page(write_index(root, "en").read_text(encoding="utf-8"))


def test_all_runs_are_listed_the_newest_first_and_failed_ones_are_folded_away(outputs):
    page = page_of(outputs)
    assert page.unbalanced == []
    assert page.texts("h1") == ["3 runs"]
    rows = [attributes for attributes, _ in page.all("tr") if "data-run" in attributes]
    assert [row["data-mode"] for row in rows] == ["dynamic", "static"]
    [folded] = [text for _, text in page.all("details") if "without numbers" in text]
    assert "model.path: <b>x</b>" in folded
    assert page.all("svg")[0][0]["aria-label"].startswith("Speed-up against posterior_kl")


def test_a_run_links_to_its_page_whatever_its_name_holds(report, save_run, tmp_path):
    directory = save_run(report, "2026-01-01_00-00-00 #1 50%")
    (directory / "report.html").touch()
    links = [attributes["href"] for attributes, _ in page_of(tmp_path / "outputs").all("a")]
    assert links == ["asr/static/2026-01-01_00-00-00%20%231%2050%25/report.html"]


def test_a_report_is_read_once_and_again_when_it_has_changed(outputs, report, monkeypatch):
    read = []
    original = run_index.read_report
    monkeypatch.setattr(
        run_index, "read_report", lambda directory, setting: read.append(directory) or original(directory, setting)
    )
    for _ in range(3):
        write_index(outputs, "en")
    assert len(read) == 3
    [changed] = outputs.glob("asr/dynamic/*/report.json")
    report["mode"] = "dynamic"
    changed.write_text(json.dumps(report) + " ", encoding="utf-8")
    assert read_index(outputs).count == 3
    assert len(read) == 4


@pytest.mark.parametrize("damage", ["", "{", '{"version": 1, "runs": [{"directory": 3}]}', "[" * 100_000])
def test_a_damaged_memory_is_made_again(outputs, damage):
    write_index(outputs, "en")
    (outputs / MEMORY_FILE).write_text(damage, encoding="utf-8")
    assert page_of(outputs).texts("h1") == ["3 runs"]
    assert json.loads((outputs / MEMORY_FILE).read_text(encoding="utf-8"))["version"] == 1


def test_a_run_that_was_removed_is_gone_from_the_page(outputs):
    write_index(outputs, "en")
    [removed] = outputs.glob("asr/dynamic/*/report.json")
    removed.unlink()
    assert page_of(outputs).texts("h1") == ["2 runs"]


def test_a_refresh_reads_a_bounded_number_of_new_reports_and_names_the_command_that_reads_all(outputs):
    text = write_index(outputs, "en", most_new=1).read_text(encoding="utf-8")
    assert "2 older runs are not shown here yet" in text
    assert "python run.py index=" in text
    assert "not shown here yet" not in write_index(outputs, "en").read_text(encoding="utf-8")


FOREIGN = {
    "not_json": "{",
    "nested": "[" * 100_000,
    "a_list": "[]",
    "another_schema": '{"schema": 99, "status": "done"}',
    "wrong_types": '{"schema": 2, "status": "done", "artifacts": "x"}',
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_report_that_cannot_be_read_is_listed_and_does_not_hide_the_others(outputs, text):
    foreign = outputs / "evil" / "static" / "2026-02-01_00-00-00"
    foreign.mkdir(parents=True)
    (foreign / "report.json").write_text(text, encoding="utf-8")
    page = page_of(outputs)
    assert page.texts("h1") == ["4 runs"]
    assert len([attributes for attributes, _ in page.all("tr") if "data-run" in attributes]) == 2
    assert any("evil static 2026-02-01_00-00-00" in text for text in page.texts("details"))


def test_artifacts_without_a_size_metrics_of_another_version_and_settings_of_any_kind_do_no_harm(report, save_run, tmp_path):
    report["evaluation"]["metrics"]["of_tomorrow"] = report["evaluation"]["metrics"]["posterior_kl"]
    save_run(report, "a", config="- a list")
    save_run(report, "b", config="evaluation: a text\nmode: 3")
    report["artifacts"][0]["baseline_bytes"] = 0
    save_run(report, "c")
    assert page_of(tmp_path / "outputs").texts("h1") == ["3 runs"]


def test_what_a_report_holds_is_text_and_never_markup(report, save_run, tmp_path):
    evil = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
    report["model"] = "m"
    report["mode"] = "static"
    directory = save_run(report, "a")
    report |= {"model": evil, "mode": evil}
    report["artifacts"][0]["graph"] = evil
    report["benchmark"] = {evil: report["benchmark"]["encoder"]}
    (directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
    page = page_of(tmp_path / "outputs")
    assert page.all("img") == []
    assert len(page.all("script")) == 1
    assert any(evil in attributes.get("data-model", "") for attributes, _ in page.all("tr"))


def test_the_page_needs_no_library_that_draws_or_runs_models(repo):
    code = (
        "import pipeline.report.html.index_page, sys; print({'matplotlib', 'onnxruntime', 'scipy', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_directory_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"index: .* is not a directory. Give one that runs lie in: index=outputs"):
        write_index(tmp_path / "nothing", "en")
    with pytest.raises(ConfigError, match=r"index: no run lies in .*: no report.json in <model>/<mode>/<timestamp>"):
        write_index(tmp_path, "en")


def test_a_run_elsewhere_than_below_outputs_has_no_index(report, save_run, tmp_path):
    save_run(report, "a").rename(tmp_path / "run")
    assert refresh_index(tmp_path / "run", "en") is None


def test_an_index_that_cannot_be_written_is_a_warning_and_no_failure(outputs, caplog):
    (outputs / "index.html").mkdir()
    assert refresh_index(next(outputs.glob("asr/static/*")), "en") is None
    assert "index.html was not written" in caplog.text


def test_the_command_makes_the_page_and_leaves_no_directory(run_quickly, outputs):
    before = sorted(path for path in outputs.rglob("*"))
    run = run_quickly("index=outputs").succeeded()
    assert run.stdout.strip().splitlines()[-1] == "index: outputs/index.html"
    after = sorted(path for path in outputs.rglob("*"))
    assert [path.name for path in after if path not in before] == [MEMORY_FILE, "index.html"]


def test_the_command_removes_nothing_of_a_directory_that_the_user_names(run_quickly, outputs):
    before = sorted(outputs.rglob("report.json"))
    run_quickly("index=outputs", "hydra.run.dir=outputs").succeeded()
    assert sorted(outputs.rglob("report.json")) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("index=nothing",), "index: nothing is not a directory"),
        (("index=.",), "index: no run lies in ."),
        (("index=outputs", "rerun=outputs/x"), "leave out rerun"),
    ],
)
def test_a_command_that_names_no_runs_is_refused(run_quickly, outputs, wrong, said):
    run = run_quickly(*wrong)
    assert run.exit_code == 2
    assert said in run.stderr
    assert not (outputs / "comparisons").exists()


def test_a_failed_run_is_on_the_page_too(run_quickly, tmp_path):
    assert run_quickly("model=onnx", "model.path=nothing.onnx", "mode=dynamic").exit_code == 2
    page = Page((tmp_path / "outputs" / "index.html").read_text(encoding="utf-8"))
    assert page.texts("h1") == ["1 run"]
    assert any("nothing.onnx" in text for text in page.texts("details"))


def test_a_run_that_was_interrupted_says_so_and_one_that_goes_on_says_that_it_is_not_over():
    assert "interrupted" in why_not_done(Report("interrupted", error="KeyboardInterrupt"))
    assert "not over" in why_not_done(Report("running"))
    assert why_not_done(Report("failed", error="model.path: not there")) == "model.path: not there"
