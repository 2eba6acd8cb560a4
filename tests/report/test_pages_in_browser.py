"""The pages in a real browser: headless Chromium."""

import itertools

import pytest
from browser import Browser, missing_programs
from html_page import page_of

from pipeline.report.compare_runs import compare_runs, write_comparison

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}: Debian's packages chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


HEARD = {"matcha": 2, "vocoder": 2, "asr": 0}  # model -> sentences that its page lets one hear and see


@pytest.fixture(scope="module")
def real_page(shipped_run, tmp_path_factory):
    """Return a function: model -> the page of a real run of it, where no other file of the run is."""

    def page(model):
        path = tmp_path_factory.mktemp("page") / "report.html"
        run = shipped_run(model, "static")
        path.write_text(page_of(run.report, run.directory), encoding="utf-8")
        return path

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


@pytest.mark.parametrize("model", HEARD)
def test_the_page_is_drawn_without_errors_or_requests_at_every_width(browser, real_page, model):
    page = real_page(model)
    assert page.stat().st_size < 15_000_000
    for width, dark in itertools.product((400, 1400), (False, True)):
        browser.open(page, width, dark=dark)
        pictures, images = browser.run(PICTURES)
        assert len(pictures) >= 5 + 3 * HEARD[model]
        assert all(across > 100 and height > 40 and parts > 3 for across, height, parts in pictures)
        assert len(images) == 3 * HEARD[model]
        assert all(images)
        scroll, inner, background = browser.run(WIDTHS)
        assert scroll == inner == width
        assert background == ("rgb(18, 20, 24)" if dark else "rgb(247, 247, 245)")
        assert browser.log("browser") == []
        assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]


@pytest.mark.parametrize("model", HEARD)
def test_every_player_can_play(browser, real_page, model):
    browser.open(real_page(model), 1400)
    durations = browser.run(AUDIO)
    assert len(durations) == 2 * HEARD[model]
    assert all(isinstance(seconds, float) and seconds > 0.3 for seconds in durations)


@pytest.mark.parametrize("width", [400, 1400])
def test_a_comparison_is_drawn_without_errors_or_requests(browser, report, save_run, tmp_path, width):
    save_run(report, "one")
    report["artifacts"][0]["bytes"] = 2_000_000
    save_run(report, "two")
    page = write_comparison(compare_runs([str(tmp_path / "outputs/*/*/*")]), tmp_path)
    browser.open(page, width)
    pictures, _ = browser.run(PICTURES)
    assert len(pictures) == 2
    assert browser.run(WIDTHS)[:2] == [width, width]
    assert browser.log("browser") == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [page.as_uri()]
