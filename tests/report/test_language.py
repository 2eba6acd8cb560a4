"""The pages in Chinese: every text is translated, what a report holds stays as it is, and the setting chooses."""

import ast
import itertools
import re

import pytest
import yaml
from html_page import Page
from jinja2 import Environment, nodes

import pipeline
from pipeline.metrics.metric_registry import METRICS
from pipeline.mixed_precision.candidate_search import ORDERS, STEPS
from pipeline.mixed_precision.first_answer import ALL_INTEGER
from pipeline.report.compare_runs import compare_runs, write_comparison
from pipeline.report.html.language import TRANSLATIONS, in_language, said, texts, tr
from pipeline.report.html.render import TEMPLATES
from pipeline.report.html.run_page import write_page
from pipeline.report.index_file import write_index
from pipeline.report.report_file import report_from_json

DATA = {  # what stands in headings and labels and is no text of the pages: names, units, formats
    "asr", "encoder", "static", "fp", "int", "ms", "MiB", "nat", "sha", "opset", "SQNR", "RTF", "cpu", "cores", "flags",
    "onnxruntime", "ONNX", "Runtime", "data", "models", "clips", "evaluation", "calibration", "model", "onnx", "manifest",
    "jsonl", "its", "weight", "is", "not", "a", "constant",
}  # fmt: skip


def texts_of_the_code():
    """Return the texts that the code and the templates translate."""
    found = set()
    for path in TEMPLATES.parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("tr", "tr_html")
            if called and isinstance(node.args[0], ast.Constant):
                found.add(node.args[0].value)
    for path in TEMPLATES.glob("*.j2"):
        for call in Environment().parse(path.read_text(encoding="utf-8")).find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "_":
                found.add(call.args[0].value)
    for metric in METRICS.values():
        found |= {metric.description, metric.title or metric.description, metric.compared}
    return found


def test_every_text_of_the_pages_is_translated():
    assert sorted(texts_of_the_code() - texts("zh").keys()) == []


def test_no_translation_is_of_a_text_that_is_gone():
    package = TEMPLATES.parents[2]
    constants = {
        node.value
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert package.name == pipeline.__name__
    assert sorted(texts("zh").keys() - texts_of_the_code() - constants) == []


def test_a_translation_has_the_values_and_the_markup_of_its_text():
    for text, translation in (texts("zh") | sentences()).items():
        for pattern in (r"\{\w+\}", r"<[^>]+>"):
            assert sorted(re.findall(pattern, text)) == sorted(re.findall(pattern, translation)), text


def sentences():
    """Return the sentences of reports that are translated."""
    return yaml.safe_load(TRANSLATIONS["zh"].read_text(encoding="utf-8"))["sentences"]


def test_every_sentence_that_is_translated_is_one_that_the_program_says():
    package = TEMPLATES.parents[2]
    said_by_the_program = " ".join(
        node.value
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ).lower()
    for sentence in sentences():
        fragments = [part.lower().split() for part in re.split(r"\{\w+\}", sentence)]
        pairs = [" ".join(pair) for words in fragments for pair in itertools.pairwise(words)]
        few = len(pairs) < 8  # which may be put together of several
        assert few or sum(pair in said_by_the_program for pair in pairs) >= 0.8 * len(pairs), sentence


@pytest.mark.parametrize("model", ["matcha", "vocoder", "asr"])
def test_what_usual_runs_say_is_said_in_chinese(shipped_run, model):
    report = report_from_json(shipped_run(model, "static").report, "report")
    kept = {entry.reason for artifact in report.artifacts for entry in artifact.kept}
    advice = [reason for found in (report.inspect or {}).values() for reason in found.reasons]
    with in_language("zh"):
        assert [text for text in (*report.warnings, *report.notes, *kept, *advice) if said(text) == text] == []


def test_a_sentence_in_a_sentence_is_translated():
    stopped = (
        "vocoder: the search was interrupted after 12 s while calibrating: 'all int8' is taken: its speed was not measured."
    )
    with in_language("zh"):
        assert said(stopped) == "vocoder：搜索在 12 秒后被中断，当时正在校准：取 全部 int8：未测其速度。"


def test_what_a_search_could_not_try_and_what_its_candidates_are_is_said_in_chinese():
    left = "; ".join(["what 7 of 20 groups gain", "what 3 of 9 groups lose", *STEPS])
    taken = "the best of 3 measured candidates is taken"
    stopped = f"v: the search stopped after mode.seconds=20 while measuring what each node gains: {taken}. Not tried: {left}."
    labels = ["float", ALL_INTEGER, "all products dynamic", *(f"3 of 9 groups int8, {order}" for order in ORDERS.values())]
    stored = [
        f"{what} ({count}) stored as {kind}"
        for what in ("the weights of float groups", "other constants")
        for count, kind in ((1, "int8"), (7, "int16"))
    ]
    further = ["biases corrected", "reconstructed", "first 2 Conv float", "all 18 products int8", *stored]
    labels += [f"{label}, {more}" for label in labels for more in further]
    with in_language("zh"):
        for sentence in (f"{stopped} To let it finish, give mode.seconds=180.", *labels):
            assert not set(re.findall("[A-Za-z]{2,}", said(sentence))) - {"Conv", "mode", "seconds", "int"}, said(sentence)


def test_what_is_not_translated_is_shown_in_english():
    with in_language("zh"):
        assert tr("a text of another version") == "a text of another version"
        assert said("a reason: {of} a report") == "a reason: {of} a report"
    assert tr("Quality") == "Quality"


def test_a_verdict_is_translated_with_its_number():
    with in_language("zh"):
        assert said("Faster than fp32: 1.50 times its speed") == "比 fp32 快：速度为其 1.50 倍"
        assert said("int4 weight in blocks of 32, float computation") == "int4 权重（每块 32 个），浮点计算"


def english_words(page):
    """Return the words in headings, labels and pictures of a page that are neither names nor Chinese."""
    shown = page.texts("h1", "h2", "h3", "th", "dt", "figcaption", "summary", "button", "label", "text", "footer")
    named = set(re.findall(r"\w+", " ".join(page.texts("code", "small", "pre"))))
    words = set(re.findall(r"[A-Za-z]{2,}", " ".join(shown)))
    return sorted(word for word in words - DATA if not any(word in name for name in named))


@pytest.mark.parametrize("kind", ["run", "comparison", "index"])
def test_a_chinese_page_speaks_chinese(report, save_run, tmp_path, kind):
    for name in ("2026-01-01_00-00-00", "2026-01-02_00-00-00"):
        directory = save_run(report, name)
    save_run(
        {"schema": 2, "status": "failed", "error": "model.path: x", "model": "asr", "mode": "static"}, "2026-01-03_00-00-00"
    )
    if kind == "run":
        text = write_page(report_from_json(report, "report"), directory, "zh")
    elif kind == "comparison":
        comparison = compare_runs([str(tmp_path / "outputs/*/*/*")])
        text = write_comparison(comparison, tmp_path, "zh").read_text(encoding="utf-8")
    else:
        text = write_index(tmp_path / "outputs", "zh").read_text(encoding="utf-8")
    page = Page(text)
    assert page.unbalanced == []
    assert page.all("html")[0][0]["lang"] == "zh-Hans"
    assert english_words(page) == []


FEW = ("model=vocoder", "mode=dynamic", "evaluation.samples=2", "evaluation.node_samples=0", "evaluation.listen=0")


def test_the_setting_chooses_the_language_of_the_pages(run_quickly, tmp_path):
    run = run_quickly(*FEW, "stages=[load,quantize,evaluate]", "report.language=zh").succeeded()
    for page in (run.directory / "report.html", tmp_path / "outputs" / "index.html"):
        assert '<html lang="zh-Hans">' in page.read_text(encoding="utf-8")


def test_a_language_that_is_not_known_is_refused_with_those_that_are(run_quickly):
    run = run_quickly(*FEW, "report.language=fr")
    assert run.exit_code == 2
    assert "report.language" in run.stderr
    assert "en, zh" in run.stderr
