"""`serve`: a real server in a process of its own: what it shows, what it refuses, and the page to compare by ear."""

import contextlib
import http.client
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from pipeline.serve.scores import SCORES_FILE, guessing_probability
from tests.conftest import REPO, heed_signals
from tests.report.browser import Browser, missing_programs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and signals are those of other systems")
needs_browser = pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs {' and '.join(missing_programs())}: Debian's packages chromium and chromium-driver"
)
NAME = "2026-01-0{}_00-00-00"


@contextlib.contextmanager
def serving(outputs, *options):
    """Run the command and yield its address; end it as Ctrl-C does, and check that it says so in one line."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(REPO / "run.py"), "serve", str(outputs), *options],
        cwd=outputs.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_signals,  # noqa: PLW1509  the suite has no threads
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+/", line)
        assert found is not None, line + process.stderr.read()
        yield found[0]
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(60)
        process.stdout.close()
        process.stderr.close()
    assert said == ""
    assert complained == f"no longer serving {outputs.resolve()}\n"
    assert process.returncode == 130


@pytest.fixture(scope="module")
def outputs(shipped_run, tmp_path_factory):
    """Return a directory of two runs of the shipped vocoder that share samples, one of them without a page."""
    root = tmp_path_factory.mktemp("served") / "outputs"
    run = shipped_run("vocoder", "static").directory
    for number in (1, 2):
        place = root / "vocoder" / "static" / NAME.format(number)
        (place / "samples").mkdir(parents=True)
        for name in ("report.json", "config.yaml", "report.html")[: 4 - number]:
            (place / name).write_bytes((run / name).read_bytes())
        stems = sorted({file.name.partition(".")[0] for file in run.glob("samples/*.wav")})
        for file in run.glob("samples/*.wav"):
            stem, _, rest = file.name.partition(".")
            (place / "samples" / f"e{stems.index(stem):03}.{rest}").write_bytes(file.read_bytes())
    (root / ".hidden").write_text("secret", encoding="utf-8")
    (root.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "folder").symlink_to(root.parent)
    (root / "vocoder" / "linked").symlink_to(root / "vocoder" / "static")
    os.mkfifo(root / "pipe.wav")
    return root


@pytest.fixture(scope="module")
def served(outputs):
    """Return the address of the server."""
    with serving(outputs) as address:
        yield address


def ask(address, path, method="GET", body=None, **headers):
    """Return (status, headers, body) of one request whose path is sent as it is."""
    port = int(address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    given = {"Host": f"127.0.0.1:{port}"} | {key.replace("_", "-"): value for key, value in headers.items()}
    if body is not None:
        given.setdefault("Content-Length", str(len(body)))
    for key, value in given.items():
        if value is not None:
            connection.putheader(key, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def test_the_page_of_all_runs_is_made_when_it_is_asked_for_and_nothing_is_written(served, outputs):
    with urllib.request.urlopen(served, timeout=60) as answer:
        page = answer.read().decode()
    assert page.count("<tr data-run=") == 2
    assert f'href="vocoder/static/{NAME.format(1)}/report.html"' in page
    assert not (outputs / "index.html").exists()
    assert not (outputs / ".index.json").exists()


def test_runs_behind_a_link_are_neither_listed_nor_offered_to_be_heard(served):
    assert "vocoder/linked" not in ask(served, "/")[2].decode()
    page = ask(served, "/listen")[2].decode()
    assert "vocoder/linked" not in page
    assert page.count("<optgroup") == 4  # two runs, for A and for B


def test_a_file_of_a_run_is_sent_as_it_is(served, outputs):
    file = next(iter((outputs / "vocoder/static" / NAME.format(1) / "samples").glob("*.fp32.wav")))
    path = "/" + file.relative_to(outputs).as_posix()
    status, headers, body = ask(served, path)
    assert (status, headers["Content-Type"], body) == (200, "audio/wav", file.read_bytes())
    status, headers, body = ask(served, path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(file.stat().st_size), b"")


OUTSIDE = (
    "/../secret.txt", "/vocoder/../../secret.txt", "/%2e%2e/secret.txt", "/vocoder/%2E%2E/%2e%2e/secret.txt",
    "/..%2fsecret.txt", "/%252e%252e/secret.txt", "/..%5csecret.txt", "/.hidden", "/%2ehidden", "/link.txt",
    "/folder/secret.txt", "//etc/passwd", "/%2fetc%2fpasswd", "/vocoder//static", "/vocoder", "/vocoder/", "/pipe.wav",
    "/link.txt%00.wav", "/%ff", "http://a.b/", "/vocoder/./static",
    "/vocoder/linked/2026-01-01_00-00-00/report.json", "/" + "a" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_address_leads_out_of_the_directory(served, path):
    status, headers, body = ask(served, path)
    assert status in (403, 404)
    assert b"secret" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "10.0.0.1:{port}", None, ""]
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(served, host):
    port = served.rstrip("/").rpartition(":")[2]
    host = None if host is None else host.format(port=port)
    for method, path in (("GET", "/"), ("HEAD", "/"), ("POST", "/scores")):
        assert ask(served, path, method, b"{}" if method == "POST" else None, Host=host)[0] == 421


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(served, method):
    status, headers, _ = ask(served, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def score(**changes):
    """Return the JSON of a series of two rounds, one of them right."""
    run = f"vocoder/static/{NAME.format(1)}"
    rounds = [{"sample": "e000", "x": "a", "answer": answer} for answer in "ab"]
    return {"a": f"{run}/fp32", "b": f"{run}/int8", "rounds": rounds} | changes


def post(served, sent, **headers):
    """Send a score as a page of the server does; a header that is None is left out."""
    own = {"Origin": served.rstrip("/"), "Content_Type": "application/json"}
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return ask(served, "/scores", "POST", body, **(own | headers))


def test_a_score_is_taken_from_a_page_of_the_server_alone(served, outputs):
    assert post(served, score(), Origin="http://evil.example")[0] == 403
    assert post(served, score(), Origin="null")[0] == 403  # a saved page, in its sandbox
    assert post(served, score(), Origin=None)[0] == 403
    assert post(served, score(), Sec_Fetch_Site="cross-site")[0] == 403
    assert post(served, score(), Content_Type="text/plain")[0] == 415
    assert post(served, score(), Content_Length=None)[0] == 411
    assert post(served, b" " * 70_000)[0] == 413
    assert ask(served, "/index.html", "POST", b"{}")[0] == 405
    assert not (outputs / SCORES_FILE).exists()


@pytest.mark.parametrize(
    "sent",
    [
        b"{", b"[" * 5000, b"null", b"\xff", score(a="vocoder/static/other/fp32"), score(rounds=[]), score(b=1), score(more=1),
        score(rounds=[{"sample": "../e000", "x": "a", "answer": "a"}]), score(rounds=[{"sample": "e000", "x": "a"}]),
        score(rounds=[{"sample": "e000", "x": ["a"], "answer": "a"}]), score(rounds=score()["rounds"] * 51),
    ],
)  # fmt: skip
def test_what_is_no_score_is_refused(served, outputs, sent):
    assert post(served, sent)[0] == 400
    assert not (outputs / SCORES_FILE).exists()


def test_the_score_of_guessing_is_the_tail_of_a_binomial_distribution():
    assert guessing_probability(10, 10) == 1 / 1024
    assert guessing_probability(8, 10) == (45 + 10 + 1) / 1024
    assert guessing_probability(0, 20) == 1
    assert math.isclose(guessing_probability(12, 16), 2517 / 65536)


def test_a_damaged_file_of_scores_is_left_as_it_is(outputs, served):
    file = outputs / SCORES_FILE
    file.write_text("not JSON", encoding="utf-8")
    try:
        status, _, body = post(served, score())
        assert (status, body.decode()) == (400, f"{SCORES_FILE} cannot be read\n")
        assert file.read_text(encoding="utf-8") == "not JSON"
        assert ask(served, "/listen")[0] == 200
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "the following arguments are required: directory"),
        (("nowhere",), "nowhere is not a directory"),
        (("data",), "no run lies in"),
        (("data", "--port", "x"), "'x' is no port"),
        (("data", "--prot", "1"), "unrecognized arguments: --prot 1"),
        (("data", "--host", "192.0.2.1"), "cannot listen on 192.0.2.1"),
        (("data", "--language", "fr"), "invalid choice: 'fr'"),
    ],
)
def test_a_wrong_command_is_one_error(run_quickly, tmp_path, words, told):
    (tmp_path / "data").mkdir()
    run = run_quickly("serve", *words)
    assert run.exit_code == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("error: serve: ")
    assert told in " ".join(run.stderr.split())


ASKING = (
    "<script>window.ran = 1; document.title = 'ran'; fetch('{}')</script><img src='{}x.png' onerror='window.ran = 2'>"
    "<style>body {{ background: url({}x.gif) }} @import '{}x.css';</style><video src='{}x.webm'></video>"
    "<form action='{}'><button autofocus onfocus='this.form.submit()'>x</button></form><svg><image href='{}x.svg'/></svg>"
)
HEADS = (
    "<meta http-equiv=refresh content='1;url={}away'>", "<link rel=preconnect href='{}'>", "<LINK rel=stylesheet href='{}x'>",
    "<iframe src='{}'></iframe>", "<object data='{}x'></object>", "<Embed src='{}x'>",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Return a browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


def requests_of(browser):
    """Return what the browser has asked for that is not part of a page."""
    return [url for url in browser.requests() if not url.startswith("data:")]


@needs_browser
def test_runs_are_listed_filtered_and_opened_in_a_browser(browser, served):
    browser.open(served, 1400)
    typed = "const field = document.querySelector('input[type=search]'); field.value = '{}';"
    told = "document.querySelector('.filter').dispatchEvent(new Event('input', {bubbles: true}));"
    count = "return document.querySelector('.count').textContent"
    assert browser.run(count) == "2 of 2 shown"
    assert browser.run(typed.format("2026-01-01") + told + count) == "1 of 2 shown"
    browser.run("setTimeout(() => document.querySelector('tr[data-run]:not([hidden]) a').click())")
    page = f"{served}vocoder/static/{NAME.format(1)}/report.html"
    for _ in range(200):
        if browser.run("return location.href + document.readyState") == f"{page}complete":
            break
        time.sleep(0.05)
    played = """document.querySelector('.play').click();
      for (let k = 0; k < 200 && document.querySelector('.play').textContent === 'Play'; k += 1)
        await new Promise(r => setTimeout(r, 50));
      return [document.querySelector('.play').textContent, origin, [...document.querySelectorAll('svg')].length > 3]"""
    assert browser.run(played) == ["Pause", "null", True]
    assert browser.log("browser") == []
    assert requests_of(browser) == [served, page]


@needs_browser
@pytest.mark.parametrize("head", [*HEADS, ""])
def test_a_saved_page_of_a_stranger_runs_nothing_and_connects_to_nothing(browser, served, outputs, head):
    place = outputs / "vocoder" / "static" / NAME.format(1) / "strange.html"
    page = (place.parent / "report.html").read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        outside = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        added = (head + ASKING).replace("{}", outside).replace("{{", "{").replace("}}", "}")
        place.write_text(page.replace("<body>", f"<body>{added}"), encoding="utf-8")
        address = f"{served}vocoder/static/{NAME.format(1)}/strange.html"
        browser.open(address, 1400)
        time.sleep(1.5 if "refresh" in head else 0.3)  # its refresh would come after one second
        look = {"expression": "[location.href, document.title === 'ran', window.ran, document.contentType].join(' ')"}
        kind = "text/plain" if head else "text/html"
        assert browser.cdp("Runtime.evaluate", look)["result"]["value"] == f"{address} false  {kind}"
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    place.unlink()


@needs_browser
def test_where_the_directory_cannot_be_written_the_browser_keeps_the_score(browser, served, outputs):
    (outputs / SCORES_FILE).mkdir()  # it cannot be replaced by a file, whoever runs this
    run = f"vocoder/static/{NAME.format(1)}"
    address = f"{served}listen?a={run}/fp32&b={run}/recording"
    try:
        browser.open(address, 1400)
        tally, _, _, listed = browser.run(LISTENER, [True] * 10, "Kept")
        assert tally.startswith(
            "Right: 10 of 10. Someone who only guesses gets as many right in 0.098 % of such series. Kept in this "
        )
        assert listed == 1
        browser.open(address, 1400)
        assert browser.run("return document.querySelectorAll('.past li').length") == 1
    finally:
        (outputs / SCORES_FILE).rmdir()


@needs_browser
@pytest.mark.parametrize(("query", "told"), [
    ("?a=x&b=y", "What the address names is not here."),
    ("?a={0}/fp32&b={0}/fp32", "A and B are the same; choose two versions."),
    ("?a=%3Cscript%3E1&a=2&b=%22%3E", "What the address names is not here."),
])  # fmt: skip
def test_a_pair_that_cannot_be_compared_is_told(served, query, told):
    status, _, body = ask(served, "/listen" + query.format(f"vocoder/static/{NAME.format(1)}"))
    assert status == 200
    assert f'<p class="notice">{told}</p>' in body.decode()
    assert 'class="player' not in body.decode()


def test_the_pages_are_chinese_where_that_is_asked_for(outputs):
    with serving(outputs, "--language", "zh") as address:
        for path, title in (("/", "2 次运行"), ("/listen", "用耳朵比较")):
            body = ask(address, path)[2].decode()
            assert '<html lang="zh-Hans">' in body
            assert f'<h1 class="verdict">{title}</h1>' in body


def test_another_address_is_served_with_a_warning(outputs):
    environment = os.environ | {"PYTHONPATH": str(REPO), "COLUMNS": "500"}
    command = [sys.executable, str(REPO / "run.py"), "serve", str(outputs), "--host", "0.0.0.0"]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        port = re.search(r"http://0\.0\.0\.0:(\d+)/", process.stdout.readline())[1]
        try:
            assert ask(f"http://127.0.0.1:{port}/", "/", Host=f"192.0.2.1:{port}")[0] == 200
            assert ask(f"http://127.0.0.1:{port}/", "/", Host=f"evil.example:{port}")[0] == 421
        finally:
            process.terminate()
        told = process.stderr.read()
    assert told.startswith("warning: --host 0.0.0.0: whoever reaches this machine can read every run in")
    assert process.returncode == 143


LISTENER = """
window.on = new Map();
const original = AudioParam.prototype.setTargetAtTime;
AudioParam.prototype.setTargetAtTime = function (value, ...rest) {
  window.on.set(this, value);
  return original.call(this, value, ...rest);
};
const press = (key) => document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
const heard = () => [...window.on].filter(([, value]) => value === 1).map(([param]) => param);
const until = async (done) => { for (let k = 0; k < 400 && !done(); k += 1) await new Promise(r => setTimeout(r, 25)); };
const find = (name) => document.querySelector('.abx ' + name);
const xs = [];
press('p');
for (let k = 0; k < arguments[0].length; k += 1) {
  window.on.clear();
  await until(() => { press('b'); press('a'); return heard().length === 1; });
  const [a] = heard();
  press('x');
  const x = heard()[0] === a ? 1 : 2;
  xs.push(x);
  const told = arguments[0][k] ? x : 3 - x;
  if (k % 2) press(String(told)); else document.querySelectorAll('.answers button')[told - 1].click();
}
await until(() => find('.tally').textContent.includes(arguments[1]));
return [find('.tally').textContent, xs, find('.again').hidden, [...document.querySelectorAll('.past li')].length];
"""
RIGHT = [True] * 8 + [False] * 2


@needs_browser
@pytest.mark.parametrize("other", [1, 2])
def test_a_round_of_ten_by_a_listener_who_is_right_eight_times_has_the_right_score(browser, served, outputs, other):
    first, second = f"vocoder/static/{NAME.format(1)}/fp32", f"vocoder/static/{NAME.format(other)}/int8"
    with contextlib.suppress(FileNotFoundError):
        (outputs / SCORES_FILE).unlink()
    address = f"{served}listen?a={first}&b={second}&rounds=10"
    browser.open(address, 1400)
    tally, xs, again_hidden, listed = browser.run(LISTENER, RIGHT, "Kept")
    assert tally == (
        "Right: 8 of 10. Someone who only guesses gets as many right in 5.5 % of such series. Kept beside the runs."
    )
    assert (again_hidden, listed) == (False, 1)
    assert browser.log("browser") == []
    assert [url for url in requests_of(browser) if not url.startswith(served)] == []
    [series] = json.loads((outputs / SCORES_FILE).read_text(encoding="utf-8"))["series"]
    assert (series["a"], series["b"], series["right"], series["of"]) == (first, second, 8, 10)
    assert series["guessing_probability"] == 56 / 1024
    assert [one["x"] for one in series["rounds"]] == ["ab"[x - 1] for x in xs]
    browser.open(address, 400)
    line = "return [...document.querySelectorAll('.past li')].map(line => line.textContent)"
    assert browser.run(line) == [f"{series['time']}: 8 of 10 right; by guessing in 5.5 % of series"]
    assert browser.run("return document.documentElement.scrollWidth") == 400
    (outputs / SCORES_FILE).unlink()
