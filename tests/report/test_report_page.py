"""The page of one run: self-contained, accessible, honest about what was measured."""

import base64
import hashlib
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from html_page import Page, page_of

from pipeline.report.html.render import TEMPLATES

LIMIT_BYTES = 15_000_000


@pytest.fixture(scope="module")
def real_page(real_report, run_directory):
    """Return the page of the real run."""
    return Page(page_of(real_report, run_directory))


def outside(page):
    """Return the addresses that a page refers to and that are not inside of it."""
    links = [
        attributes.get(key) for _, attributes, _ in page.elements for key in ("src", "href", "xlink:href", "srcset", "data")
    ]
    return [link for link in links if link is not None and not link.startswith(("data:", "#"))]


def test_the_page_of_a_real_run_refers_to_nothing_outside_of_itself(real_page):
    assert outside(real_page) == []
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", real_page.text)
    assert "http:" not in without_namespaces
    assert "https:" not in without_namespaces
    assert "@import" not in real_page.text


def test_a_page_runs_the_one_script_that_ships_and_allows_no_other(real_page):
    [policy] = [attributes["content"] for attributes, _ in real_page.all("meta") if "http-equiv" in attributes]
    [script] = re.findall(r"<script>(.*?)</script>", real_page.text, flags=re.DOTALL)
    assert script == (TEMPLATES / "player.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"; script-src 'sha256-{allowed}'")


def test_a_page_without_audio_runs_no_script(report, tmp_path):
    assert "<script" not in page_of(report, tmp_path).replace("&lt;script", "")
    assert "script-src" not in page_of(report, tmp_path)


def test_the_page_of_a_real_run_is_well_formed_and_of_a_size_to_send(real_page):
    assert real_page.unbalanced == []
    assert len(real_page.text.encode()) < LIMIT_BYTES


def test_every_id_is_unique_and_every_reference_leads_to_one(real_page):
    ids = [attributes["id"] for _, attributes, _ in real_page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r"url\(#([^)]+)\)", real_page.text) + re.findall(r'href="#([^"]+)"', real_page.text)
    for _, attributes, _ in real_page.elements:
        wanted += (attributes.get("aria-labelledby") or "").split()
    assert wanted
    assert set(wanted) <= set(ids)


def test_every_picture_and_player_has_a_text_alternative(real_page):
    pictures = real_page.all("svg")
    titles = {attributes.get("id"): text for attributes, text in real_page.all("title")}
    assert pictures
    for attributes, _ in pictures:
        assert attributes["role"] == "img"
        assert len(titles[attributes["aria-labelledby"]]) > 20
    assert all(attributes.get("alt") for attributes, _ in real_page.all("img"))
    assert all(attributes["aria-label"] for attributes, _ in real_page.all("audio"))


def test_headings_start_with_one_h1_and_skip_no_level(real_page):
    levels = [int(tag[1]) for tag, _, _ in real_page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_real_run_can_be_heard_and_seen_before_and_after_beside_its_recording(real_page, real_report, run_directory):
    players = real_page.all("audio")
    assert [attributes["data-version"] for attributes, _ in players] == 2 * ["recording", "fp32", "quantized"]
    moved = {one["id"]: one["fidelity"]["log_mel_l1"] for one in real_report["evaluation"]["per_sample"]}
    worst = max(moved, key=moved.get)
    first = [base64.b64decode(attributes["src"].partition(",")[2]) for attributes, _ in players[:3]]
    files = [run_directory / "samples" / f"{worst}.{label}.wav" for label in ("recording", "fp32", "int8")]
    assert first == [file.read_bytes() for file in files]
    spectrograms = [text for text in real_page.texts("title") if "spectrogram" in text]
    assert len(spectrograms) == 8


def test_a_sample_that_can_be_heard_shows_what_was_measured_of_it(real_page, real_report):
    samples = {one["id"]: one for one in real_report["evaluation"]["per_sample"]}
    articles = [text for _, text in real_page.all("article")]
    assert len(articles) == 2
    for name, shown in zip(heard_ids(real_page), articles, strict=True):
        assert f"{samples[name]['fidelity']['log_mel_l1']:.4g} nat" in shown
        truth = samples[name]["truth"]["truth_log_mel_l1"]
        assert f"{truth['baseline']:.4g} → {truth['quantized']:.4g} nat" in shown


def heard_ids(page):
    """Return the ids of the samples of the page, in their order."""
    return [attributes["data-id"] for attributes, _ in page.all("article")]


def test_the_samples_that_changed_most_are_heard_first(report, tmp_path):
    (tmp_path / "samples").mkdir()
    for name in ("a", "b", "c"):
        for label in ("fp32", "int8"):
            soundfile.write(tmp_path / "samples" / f"{name}.{label}.wav", np.ones(4000, np.float32), 16000)
    assert heard_ids(Page(page_of(report, tmp_path))) == ["c", "a", "b"]


def test_a_real_run_says_how_it_was_made(real_page, real_report, run_directory):
    assert real_report["environment"]["cpu"] in real_page.text
    assert all(entry["sha256"] in real_page.text for entry in real_report["inputs"])
    assert any("python run.py rerun=" in text and run_directory.name in text for text in real_page.texts("pre"))
    assert any("evaluation_path" in text for text in real_page.texts("pre"))
    assert {stage["name"] for stage in real_report["stages"]} <= set(real_page.texts("b"))


def test_a_model_that_is_slower_than_fp32_is_called_slower_first_of_all(report, tmp_path):
    measured = report["benchmark"]["encoder"]
    measured["speedup"], measured["verdict"] = {"median": 0.8, "low": 0.75, "high": 0.85}, "slower"
    page = Page(page_of(report, tmp_path))
    assert page.texts("h1") == ["Slower than fp32: 0.80 times its speed"]
    assert "0.75 to 0.85" in page.text


def test_of_two_graphs_the_slower_one_is_named_first(report, tmp_path):
    slow = report["benchmark"]["encoder"] | {"speedup": {"median": 0.8, "low": 0.7, "high": 0.9}, "verdict": "slower"}
    report["artifacts"].append(report["artifacts"][0] | {"graph": "joiner", "file": "joiner.int8.onnx"})
    report["benchmark"]["joiner"] = slow
    page = Page(page_of(report, tmp_path))
    assert page.texts("h1") == ["joiner Slower than fp32: 0.80 times its speed"]
    assert page.unbalanced == []


def test_a_speed_that_cannot_be_told_from_fp32s_is_called_neither(report, tmp_path):
    report["benchmark"]["encoder"] |= {"speedup": {"median": 1.01, "low": 0.97, "high": 1.05}, "verdict": "same"}
    assert Page(page_of(report, tmp_path)).texts("h1") == ["As fast as fp32: between 0.97 and 1.05 times its speed"]


def test_the_check_of_fp32_against_itself_and_further_threads_stand_beside_the_speed_up(report, tmp_path):
    measured = report["benchmark"]["encoder"]
    two = measured | {"threads": 2, "speedup": {"median": 1.2, "low": 1.1, "high": 1.3}}
    measured |= {"self_check": {"median": 1.001, "low": 0.99, "high": 1.01}, "other_threads": [two]}
    page = Page(page_of(report, tmp_path))
    [told] = [title for title in page.texts("title") if title.startswith("Speed of encoder")]
    assert "1 thread 1.50 (1.40 to 1.60); 2 threads 1.20 (1.10 to 1.30); fp32 against itself 1.00 (0.99 to 1.01)" in told
    assert "Latency median, 2 threads" in [text.replace("Latencymedian", "Latency median") for text in page.texts("th")]


def test_the_top_tells_size_latency_and_quality_with_its_interval(report, tmp_path):
    text = page_of(report, tmp_path)
    top = Page(text[text.index('<dl class="tiles">') : text.index("</header>")])
    assert top.texts("b") == ["2 ms", "0.95 MiB", "500 ×", "20 %", "0.011 nat"]
    assert "0 to 25" in top.texts("span")
    assert "fp32 10 %" in top.texts("span")


def test_a_metric_that_is_not_known_of_all_samples_says_of_how_many(report, tmp_path):
    report["evaluation"]["metrics"]["posterior_kl"]["samples"] = 2
    assert "of 2 samples, in the others the lengths differ" in page_of(report, tmp_path)


def test_warnings_stand_before_any_table(report, tmp_path):
    report["warnings"] = ["the machine was <busy>"]
    text = page_of(report, tmp_path)
    assert text.index("the machine was &lt;busy&gt;") < text.index("<table")


def test_differences_of_transcripts_are_marked(report, tmp_path):
    page = Page(page_of(report, tmp_path))
    assert "Quantization changed 2 of 3 transcripts" in " ".join(page.texts("p"))
    assert "jazz" in page.texts("del")
    assert "jaz" in page.texts("ins")


def test_text_with_markup_stays_text(report, tmp_path):
    report["artifacts"][0]["kept"][0]["reason"] = "<img src=x onerror=alert(1)>"
    page = Page(page_of(report, tmp_path))
    assert page.all("script", "i", "img") == []
    assert "<script>alert(1)</script>" in " ".join(page.texts("dd"))
    assert any("/b/<i>MatMul" in text for text in page.texts("li"))


def test_the_worst_samples_are_named_worst_first(report, tmp_path):
    text = page_of(report, tmp_path)
    part = text[text.index("The samples that changed most") :]
    order = [part.index(f"<code>{name}</code>") for name in ("c", "a", "b")]
    assert order == sorted(order)


def test_nodes_are_grouped_by_how_they_compute_or_why_they_were_kept(report, tmp_path):
    summaries = Page(page_of(report, tmp_path)).texts("summary")
    assert "1 Quantized int8, static ranges" in summaries
    assert "1 Kept in fp32 its weight is not a constant" in summaries


def test_sections_without_data_are_left_out(report, tmp_path):
    del report["evaluation"]
    del report["benchmark"]
    page = Page(page_of(report, tmp_path))
    assert page.texts("h1") == ["Quantized, and not timed in this run"]
    assert page.texts("h2") == ["Size and speed", "Nodes", "How this was made"]
    assert page.unbalanced == []


def test_time_after_and_errors_along_the_graph_are_drawn_where_the_report_has_them(report, tmp_path):
    seen = {
        "time_share": {"Conv": 0.7, "Add": 0.3}, "macs": {"Conv": 100}, "advised_mode": "static", "reasons": ["convolutions"],
        "nodes": 2, "opset": 17, "parameters": 10, "ops": {"Conv": 1, "Add": 1},
    }  # fmt: skip
    report["inspect"] = {"encoder": seen}
    before = page_of(report, tmp_path)
    times = {"sample": "a", "baseline_ms": {"Conv": 2.0, "Add": 1.0}, "quantized_ms": {"QLinearConv": 0.5, "Add": 0.001}}
    report["benchmark"]["encoder"]["op_times"] = times | {"trace": "encoder.trace.json"}
    errors = [{"node": f"n{k}", "op_type": "Conv", "sqnr_db": 40.0 - k} for k in range(3)]
    errors.append({"node": "exact", "op_type": "Relu", "sqnr_db": None})
    report["evaluation"]["node_errors"] = {"encoder": errors}
    after = Page(page_of(report, tmp_path))
    assert "QLinearConv 0.50" not in before
    assert "Error along the graph" not in before
    assert any("lowest at n2: 38.0, at the last node 38.0" in title for title in after.texts("title"))
    cells = after.texts("td")
    assert {"0.50", "< 0.01", "3.00"} <= set(cells)
    assert "Convfp32: Conv 2.00; quantized: QLinearConv 0.50" in after.texts("th")
    assert "encoder.trace.json" in after.text
    assert "Without any error, and so without a point: 1" in " ".join(after.texts("p"))
    assert after.unbalanced == []


def test_of_the_lowest_nodes_only_quantized_ones_are_listed_since_those_can_be_kept_in_float(report, tmp_path):
    errors = [
        {"node": "/float", "op_type": "Pow", "sqnr_db": -0.04},
        {"node": "/a/Conv", "op_type": "Conv", "sqnr_db": -0.01},
        {"node": "/other", "op_type": "Mul", "sqnr_db": 12.0},
    ]
    report["evaluation"]["node_errors"] = {"encoder": errors}
    text = page_of(report, tmp_path)
    part = text[text.index('id="errors"') : text.index('id="nodes"')]
    page = Page(part[: part.rindex("</section>")].partition(">")[2])
    assert [text for text in page.texts("code") if text.startswith("/")] == ["/a/Conv"]
    assert "0.0 dB" in page.texts("td")
    report["artifacts"][0]["quantized_nodes"] = {}
    assert "Lowest of the quantized nodes" not in page_of(report, tmp_path)


def test_a_failed_run_says_why_and_nothing_else(tmp_path):
    page = Page(page_of({"schema": 1, "status": "failed", "error": "model.path: no <such> file", "warnings": []}, tmp_path))
    assert page.texts("h1") == ["This run failed"]
    assert "model.path: no <such> file" in page.texts("p")
    assert page.texts("h2") == []


def test_a_run_that_repeats_another_says_what_differs(report, tmp_path):
    report["rerun"] = {
        "of": "outputs/x",
        "inputs_changed": [],
        "environment_changed": ["numpy: 1 -> 2"],
        "artifacts_identical": {"encoder.int8.onnx": False},
        "metrics_moved": {"wer_percent": [20.0, 21.0]},
    }
    text = page_of(report, tmp_path)
    assert all(part in text for part in ("numpy: 1 -&gt; 2", "differs", "21"))


def test_speech_of_another_length_is_aligned_before_the_difference_and_that_is_said(report, tmp_path):
    (tmp_path / "samples").mkdir()
    rng = np.random.default_rng(0)
    for label, length in (("fp32", 8000), ("int8", 9000)):
        soundfile.write(tmp_path / "samples" / f"a.{label}.wav", 0.1 * rng.standard_normal(length), 16000)
    assert "the difference is taken along the best alignment" in page_of(report, tmp_path)


def test_long_recordings_are_named_instead_of_making_the_page_too_large(report, tmp_path):
    (tmp_path / "samples").mkdir()
    for label in ("fp32", "int8"):
        soundfile.write(tmp_path / "samples" / f"a.{label}.wav", np.zeros(3_200_000), 48000, subtype="PCM_16")
    text = page_of(report, tmp_path)
    assert len(text) < LIMIT_BYTES
    assert "<audio" not in text
    assert "samples/a.fp32.wav" in text


def test_the_command_is_quoted_for_the_shell_and_for_hydra(report, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "a run=1"
    directory.mkdir()
    (directory / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    assert any("""'rerun="a run=1"'""" in text for text in Page(page_of(report, directory)).texts("pre"))


def test_the_same_run_gives_the_same_page(real_report, run_directory, real_page, tmp_path, monkeypatch):
    copy = shutil.copytree(run_directory, tmp_path / run_directory.name)
    monkeypatch.chdir(tmp_path)
    again = page_of(real_report, copy)
    assert again == real_page.text.replace(str(run_directory), run_directory.name)
