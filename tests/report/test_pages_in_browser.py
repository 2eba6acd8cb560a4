"""The pages in a real browser: headless Chromium."""

import copy
import itertools
import json

import pytest
from browser import OUTSIDE, OVERLAPS, Browser, missing_programs

from pipeline.report.compare_runs import compare_runs, write_comparison
from pipeline.report.html.language import in_language
from pipeline.report.html.plots import Dot, Range, front
from pipeline.report.html.render import TEMPLATES
from pipeline.report.html.run_page import write_page
from pipeline.report.index_file import write_index
from pipeline.report.report_file import report_from_json

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}: Debian's packages chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


HEARD = {"matcha": 2, "vocoder": 2, "asr": 0}  # model -> samples that its page lets one hear and see
VERSIONS = {"matcha": 2, "vocoder": 3, "asr": 0}  # of each: fp32, quantized, and the recording of a vocoder
BOTH = [(400, "en"), (400, "zh"), (1400, "en"), (1400, "zh")]  # widths and languages
PAGES = (("matcha", "en"), ("vocoder", "zh"), ("asr", "en"))


@pytest.fixture(scope="module")
def real_page(shipped_run, tmp_path_factory):
    """Return a function: (model, language) -> the page of a real run of it, where no other file of the run is."""
    made = {}

    def page(model, language):
        if (model, language) not in made:
            path = tmp_path_factory.mktemp("page") / "report.html"
            run = shipped_run(model, "static")
            path.write_text(write_page(report_from_json(run.report, "report"), run.directory, language), encoding="utf-8")
            made[model, language] = path
        return made[model, language]

    return page


PICTURES = """
const pictures = [...document.querySelectorAll('svg')].map(svg => [svg.getBoundingClientRect().width,
  svg.getBoundingClientRect().height, svg.querySelectorAll('path, use, image, text').length]);
const images = await Promise.all([...document.querySelectorAll('svg image')].map(async element => {
  const image = new Image(); image.src = element.href.baseVal; await image.decode(); return image.naturalWidth; }));
return [pictures, images];
"""
AUDIO = """
return await Promise.all([...document.querySelectorAll('audio')].map(audio => new Promise(done => {
  const tell = () => done(audio.error ? audio.error.message || 'error' : audio.duration);
  if (audio.readyState > 0) return tell();
  audio.onloadedmetadata = tell; audio.onerror = tell; audio.load(); })));
"""
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth, getComputedStyle(document.body).backgroundColor]"


def assert_fits(browser, page, width):
    """Check that nothing reaches out of the window, no two texts of a picture overlap, and nothing else was asked for."""
    assert browser.run(WIDTHS)[:2] == [width, width]
    assert browser.run(OUTSIDE) == []
    assert browser.run(OVERLAPS) == []
    assert browser.log("browser") == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]


@pytest.mark.parametrize(("model", "language"), PAGES)
def test_the_page_is_drawn_without_errors_overlaps_or_requests_at_every_width(browser, real_page, model, language):
    page = real_page(model, language)
    assert page.stat().st_size < 15_000_000
    for width, dark in itertools.product((400, 1400), (False, True)):
        browser.open(page, width, dark=dark)
        pictures, images = browser.run(PICTURES)
        of_samples = HEARD[model] * (VERSIONS[model] + 1)
        assert len(pictures) >= 5 + of_samples
        assert all(across > 100 and height > 40 and parts > 3 for across, height, parts in pictures)
        assert len(images) == of_samples
        assert all(images)
        assert browser.run(WIDTHS)[2] == ("rgb(18, 20, 24)" if dark else "rgb(247, 247, 245)")
        assert_fits(browser, page, width)


@pytest.mark.parametrize(("model", "language"), PAGES)
def test_every_player_can_play(browser, real_page, model, language):
    browser.open(real_page(model, language), 1400)
    durations = browser.run(AUDIO)
    assert len(durations) == HEARD[model] * VERSIONS[model]
    assert all(isinstance(seconds, float) and seconds > 0.3 for seconds in durations)


def test_a_phone_shows_the_change_of_quality_without_scrolling(browser, real_page):
    browser.open(real_page("vocoder", "zh"), 400)
    boxes = browser.run("""return [...document.querySelectorAll('td.change')].map(cell => cell.querySelector('span'))
      .filter(Boolean).map(span => { const box = span.getBoundingClientRect();
        const scroll = span.closest('.scroll'); return [box.width, box.right, scroll.scrollWidth - scroll.clientWidth]; })""")
    assert len(boxes) == 2  # the metrics against the recording
    assert all(across > 0 and right <= 400 and hidden == 0 for across, right, hidden in boxes)


PRESSED = "return [...document.querySelectorAll('.choices button')].map(b => [b.textContent, b.getAttribute('aria-pressed')])"
PLAYER = "const find = name => document.querySelector('.player ' + name);"


def key(name):
    """Return a script that presses a key."""
    return f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{name}', bubbles: true}}));"


def test_keys_switch_between_the_versions_of_a_sample(browser, real_page):
    browser.open(real_page("vocoder", "zh"), 1400)
    assert browser.run(PRESSED) == [["fp32", "true"], ["量化", "false"], ["录音", "false"]]
    assert browser.run(key("3") + PRESSED) == [["fp32", "false"], ["量化", "false"], ["录音", "true"]]
    button = "return document.querySelector('.play').textContent"
    waited = (
        "for (let k = 0; k < 100 && find('.play').textContent === '播放'; k += 1) await new Promise(r => setTimeout(r, 50));"
    )
    assert browser.run(key("p") + PLAYER + waited + button) == "暂停"  # decoded, and playing
    assert browser.run(key("2") + PRESSED)[1] == ["量化", "true"]
    assert browser.run(key("p") + button) == "播放"
    assert browser.log("browser") == []


def test_a_blind_comparison_hides_which_is_which_and_counts_what_one_could_not_tell(browser, real_page):
    browser.open(real_page("matcha", "en"), 400)
    browser.run(PLAYER + "find('.blind input').click()")
    assert [name for name, _ in browser.run(PRESSED)] == ["A", "B"]
    answers = "[...document.querySelectorAll('.answers button')]"
    tally = browser.run(f"{answers}[2].click(); return document.querySelector('.tally').textContent")
    assert tally in [f"It was {right}. Right: 0 of 0. I could not tell: 1." for right in "AB"]
    script = f"for (let k = 0; k < 20; k += 1) {answers}[0].click(); return document.querySelector('.tally').textContent"
    told = browser.run(script)
    assert " of 20. I could not tell: 1. Someone who only guesses" in told
    assert "Right: 0 of" not in told  # the order changes from answer to answer: A is right in some
    assert "Right: 20 of" not in told
    assert browser.run("return [...document.querySelectorAll('.sentence audio')].every(audio => audio.inert)")
    assert browser.run(WIDTHS)[0] == 400


@pytest.fixture
def several(report, save_run, tmp_path):
    """Return a directory of outputs: runs of two models that lie near each other, and one that failed with a long message."""
    for model, (number, mode) in itertools.product(
        ("asr", "a_model_with_a_long_name"), enumerate(("static", "dynamic", "static"))
    ):
        run = copy.deepcopy(report)
        run |= {"model": model, "mode": mode}
        run["artifacts"][0] |= {"bytes": 1_000_000 + 100_000 * number, "sha256": str(number) * 64}
        middle = 1.5 + 0.01 * number
        run["benchmark"]["encoder"]["speedup"] = {"median": middle, "low": middle - 0.1, "high": middle + 0.1}
        save_run(run, f"2026-01-0{number + 1}_00-00-00")
    error = "mode.nodes_to_exclude: no such node. " + ", ".join(f"/layers.{k}/a/long/name/of/a/node/MatMul" for k in range(20))
    failed = {"schema": 2, "status": "failed", "error": error, "model": "asr", "mode": "static"}
    save_run(failed, "2026-01-09_00-00-00")
    return tmp_path / "outputs"


@pytest.mark.parametrize(("width", "language"), BOTH)
def test_a_comparison_is_drawn_without_errors_overlaps_or_requests(browser, several, tmp_path, width, language):
    page = write_comparison(compare_runs([f"{several}/*/*/*"]), tmp_path, language)
    browser.open(page, width)
    pictures, _ = browser.run(PICTURES)
    assert len(pictures) == 4
    first_result, failed = browser.run("""return ['table', '#failed'].map(name =>
      document.querySelector(name).getBoundingClientRect().top)""")
    assert first_result < min(failed, 900)
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert_fits(browser, page, width)


@pytest.mark.parametrize(("width", "language"), BOTH)
def test_the_index_is_drawn_without_errors_overlaps_or_requests(browser, several, width, language):
    page = write_index(several, language)
    browser.open(page, width, dark=language == "zh")
    assert browser.run("return document.querySelectorAll('svg.chart [data-run]').length") == 12
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert_fits(browser, page, width)


def test_the_filter_of_the_index_hides_runs_their_points_and_models_without_any(browser, several):
    browser.open(write_index(several, "en"), 1400)
    shown = """const seen = name => [...document.querySelectorAll(name)].filter(e => e.getBoundingClientRect().width).length;
      const told = document.querySelector('.count').textContent;
      return [seen('tr[data-run]'), seen('svg [data-run]'), seen('section.model'), told]"""
    typed = "const field = document.querySelector('input[type=search]'); field.value = '{}';"
    told = "document.querySelector('.filter').dispatchEvent(new Event('input', {bubbles: true}));"
    assert browser.run(shown) == [6, 12, 2, "6 of 6 shown"]
    assert browser.run(typed.format("asr STATIC") + told + shown) == [2, 4, 1, "2 of 6 shown"]
    assert browser.run(typed.format("nothing") + told + shown) == [0, 0, 0, "0 of 6 shown"]
    chosen = "document.querySelector('select[data-key=mode]').value = 'dynamic';"
    assert browser.run(typed.format("") + chosen + told + shown) == [2, 4, 2, "2 of 6 shown"]
    assert browser.log("browser") == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_labels_of_runs_that_lie_near_each_other_do_not_overlap(browser, tmp_path, language):
    dots = [
        Dot(f"{k} 静态 static", Range("", 1.5 + 0.02 * k, 1.4 + 0.02 * k, 1.6 + 0.02 * k),
            Range("", 0.1 + 0.001 * k, 0.099, 0.11), on_front=k % 2 == 0, own=k == 11)
        for k in range(12)
    ]  # fmt: skip
    with in_language(language):
        picture = front(dots, "log_mel_l1", "lower is better", "front", "Twelve runs.")
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><style>{style}</style><main>{picture}</main>", encoding="utf-8")
    browser.open(page, 400)
    assert browser.run(OVERLAPS) == []
    labels = browser.run("return [...document.querySelectorAll('svg text')].map(t => t.textContent.trim())")
    assert "11 静态 static" in labels  # the run that the page is about
    assert sum("静态" in label for label in labels) >= 4


PAYLOADS = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 2'>",
    '" onmouseover="window.ran = 3" autofocus onfocus="window.ran = 4',
    "</style></svg><svg onload='window.ran = 5'>",
    "javascript:window.ran=6",
    "</title><iframe srcdoc='<script>parent.ran = 7</script>'>",
    "{{ 7 * 7 }}${7*7}",
    "]]><script>window.ran = 8</script>-->",
)
EVIL = " ".join(PAYLOADS)


def with_evil_names(report):
    """Return a report in which all that comes from a stranger's files holds markup: names, texts, messages."""
    graph = f"encoder{EVIL}"
    [artifact] = report["artifacts"]
    artifact |= {"graph": graph, "quantized_nodes": {f"/a/Conv{EVIL}": f"int8{EVIL}"}, "file": f"{EVIL}.onnx"}
    artifact["kept"] = [{"node": EVIL, "reason": EVIL}]
    report |= {
        "model": f"asr{EVIL}",  # the folder has another name: this one has slashes
        "warnings": [EVIL],
        "notes": [EVIL],
        "skipped": [{"set": EVIL, "sample": EVIL, "reason": EVIL}],
    }
    report["benchmark"] = {graph: report["benchmark"]["encoder"]}
    report["environment"] = {key: EVIL if isinstance(value, str) else value for key, value in report["environment"].items()}
    for entry in report["inputs"]:
        entry["path"] = f"/home/{EVIL}"
    for number, sample in enumerate(report["evaluation"]["per_sample"]):
        sample |= {"id": f"{number}{EVIL}", "text": EVIL, "baseline_transcript": EVIL, "quantized_transcript": f"x {EVIL}"}
    return report


@pytest.mark.parametrize("language", ["en", "zh"])
def test_names_and_texts_of_strangers_are_shown_and_not_run(browser, report, save_run, tmp_path, language):
    evil = with_evil_names(report)
    directory = save_run(
        report | {"model": "asr"}, "2026-01-01_00-00-00", config=f"model: {{name: '{EVIL.replace(chr(39), '')}'}}"
    )
    (directory / "report.json").write_text(json.dumps(evil), encoding="utf-8")
    page = tmp_path / "report.html"
    page.write_text(write_page(report_from_json(evil, "report"), directory, language), encoding="utf-8")
    outputs = [
        page,
        write_comparison(compare_runs([str(directory)]), tmp_path, language),
        write_index(tmp_path / "outputs", language),
    ]
    for shown in outputs:
        browser.open(shown, 1400)
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        stir = """for (const element of document.querySelectorAll('*'))
            for (const kind of ['mouseover', 'focus', 'error', 'load']) element.dispatchEvent(new Event(kind));
          await new Promise(done => setTimeout(done, 100));"""
        assert browser.run(f"{stir} return window.ran === undefined ? null : window.ran") is None, shown
        assert browser.run("return document.querySelectorAll('img, iframe, [onload], [onerror], [onmouseover]').length") == 0
        assert browser.run("return document.body.innerText.includes('<script>window.ran = 1</script>')")
        assert [url for url in browser.requests() if not url.startswith("data:")] == [shown.as_uri()]
        assert "49" not in browser.run("return document.title")
