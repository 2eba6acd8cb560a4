"""Ctrl-C and SIGTERM, sent to the real command at many moments: one line, an exit status, and what the run has so far."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO, heed_signals

SMALL = ("evaluation.samples=2", "evaluation.listen=0", "evaluation.node_samples=0", "calibration.samples=2")
WAIT_LIMIT_S = 900  # says nothing about speed: a test must not hang
LONG = ("benchmark.seconds=600", "benchmark.rounds=2")


class Command:
    """A command that runs, in a group of processes of its own, as a terminal makes one.

    Attributes:
        stdout: what it has printed, on both streams, once it has ended.
    """

    def __init__(self, folder, *overrides):
        self._folder = folder
        self.stdout = ""
        self._process = subprocess.Popen(
            [sys.executable, str(REPO / "run.py"), *overrides],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env=os.environ | {"TMPDIR": str(folder), "COLUMNS": "200"},
            preexec_fn=heed_signals,  # noqa: PLW1509  the suite has no threads
        )  # fmt: skip

    def wait_for(self, words):
        """Wait until its log holds some words."""
        log, until = self._folder / "run" / "run.log", time.monotonic() + WAIT_LIMIT_S
        while not (log.is_file() and words in log.read_text(encoding="utf-8")):
            assert self._process.poll() is None, self._process.communicate()[0]
            assert time.monotonic() < until, f"{words!r} has not come"
            time.sleep(0.05)

    def wait_for_handlers(self):
        """Wait until it has taken over SIGTERM, which an interpreter leaves alone; where /proc does not tell, a second."""
        status, until = Path(f"/proc/{self._process.pid}/status"), time.monotonic() + WAIT_LIMIT_S
        if not status.is_file():
            time.sleep(1)
            return
        while not (caught := re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.MULTILINE)) or not (
            int(caught[1], 16) >> (signal.SIGTERM - 1) & 1
        ):
            assert time.monotonic() < until, "SIGTERM is not taken over"
            time.sleep(0.01)

    def send(self, number, *, to_all=True):
        """Send a signal as a terminal does, to all of its processes, or as `kill` does, to the command alone."""
        (os.killpg if to_all else os.kill)(self._process.pid, number)

    def kill(self):
        """End it, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)

    def end(self):
        """Wait for its end; return its exit status."""
        self.stdout = self._process.communicate(timeout=WAIT_LIMIT_S)[0]
        return self._process.returncode

    @property
    def left(self):
        """Whether a process of its group goes on; joblib's ends a moment later."""
        until = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < until:
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.1)
        return True


@pytest.fixture
def command(tmp_path):
    """Return a function that starts the command in this test's directory; none outlives the test."""
    started = []

    def start(*overrides):
        started.append(Command(tmp_path, *overrides, "hydra.run.dir=run"))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def statuses(folder):
    """Return the status of each run of a sweep, and whether it has an artifact."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("outputs/*/*/*/report.json")]
    return [(report["status"], bool(report.get("artifacts"))) for report in reports]


def report_in(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_ctrl_c_before_a_run_has_begun_is_one_line(command):
    for delay in (0.0, 0.3):  # in the midst of imports, which take longer on any machine
        started = command("model=vocoder", "mode=static")
        started.wait_for_handlers()
        time.sleep(delay)
        started.send(signal.SIGINT)
        assert started.end() == 130
        assert started.stdout.strip().splitlines() == ["interrupted before a run began"]


@pytest.mark.parametrize(
    ("stage", "number", "status"),
    [("inspect", signal.SIGINT, 130), ("quantize", signal.SIGTERM, 143), ("benchmark", signal.SIGINT, 130),
     ("benchmark", signal.SIGTERM, 143)],
)  # fmt: skip
def test_a_signal_ends_a_run_with_what_it_has(command, tmp_path, stage, number, status):
    started = command("model=vocoder", "mode=static", *SMALL, *LONG)
    started.wait_for(f"[pipeline.runner][INFO] - {stage}\n")
    time.sleep(random.Random(f"{stage} {number}").uniform(0.0, 1.5))
    started.send(number, to_all=number == signal.SIGINT)
    assert started.end() == status
    assert "Traceback" not in started.stdout
    assert started.stdout.splitlines()[-1].startswith("interrupted")
    assert str(tmp_path / "run" / "report.json") in started.stdout.splitlines()[-1]
    assert not started.left
    report = report_in(tmp_path / "run")
    assert report["status"] == "interrupted"
    assert "This run was interrupted" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    files = [artifact["file"] for artifact in report.get("artifacts") or []]
    assert files == [path.name for path in (tmp_path / "run").glob("*.onnx")]
    assert stage != "benchmark" or files == ["vocoder.int8.onnx"]
    assert not (tmp_path / "run" / ".staging").exists()


def test_a_search_that_is_interrupted_gives_its_best_candidate(command, tmp_path):
    started = command("model=vocoder", "mode=auto", "mode.optimize=false", "mode.method=minmax", *SMALL)
    started.wait_for("measuring whole graphs took")
    time.sleep(random.Random(7).uniform(0.0, 1.0))
    started.send(signal.SIGINT)
    assert started.end() == 130
    assert "Traceback" not in started.stdout
    report = report_in(tmp_path / "run")
    assert report["status"] == "interrupted"
    assert report["search"]["vocoder"]["stopped"].startswith("interrupted after ")
    [artifact] = report["artifacts"]
    assert (tmp_path / "run" / artifact["file"]).stat().st_size == artifact["bytes"] < artifact["baseline_bytes"]
    assert str(tmp_path / "run" / artifact["file"]) in started.stdout.splitlines()[-1]


def test_a_search_that_is_interrupted_before_anything_was_measured_gives_the_graph_that_it_has_built(
    user_files, users_model, users_data
):
    held = ("mode=auto", "mode.optimize=false", "mode.method=minmax", "hydra.run.dir=run")
    started = Command(user_files, *users_model, *users_data, *held)
    started.wait_for("building a first int8 graph took")
    started.send(signal.SIGINT)
    assert started.end() == 130
    assert "Traceback" not in started.stdout
    assert not started.left
    report = report_in(user_files / "run")
    [artifact] = report["artifacts"]
    assert (user_files / "run" / artifact["file"]).stat().st_size == artifact["bytes"] < artifact["baseline_bytes"]
    assert str(user_files / "run" / artifact["file"]) in started.stdout.splitlines()[-1]
    found = report["search"]["model"]
    chosen = found["candidates"][found["chosen"]]
    assert (chosen["label"], chosen["measured"], chosen["speedup"], found["met"]) == ("all int8", False, None, None)
    assert chosen["scored"] == (chosen["loss"] is not None)
    assert "Interrupted: what there is so far is being checked and written" in started.stdout
    assert set(artifact["processors"]["saturating_sums"].values()) <= {None}, "they are not counted: somebody waits"
    unknown = "its speed was" if chosen["scored"] else "its loss and its speed were"
    assert found["stopped"].endswith(f"'all int8' is taken: {unknown} not measured.")
    assert "not timed" in (user_files / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")], ids=["basic", "joblib"])
def test_a_sweep_that_is_interrupted_compares_the_runs_that_are_done(user_files, users_model, launcher):
    sweep = ("-m", *users_model, "mode=dynamic", "stages=[load,quantize],[load,quantize,benchmark]", "hydra.sweep.dir=sweep")
    started = Command(user_files, *sweep, *LONG, *launcher)
    until = time.monotonic() + WAIT_LIMIT_S
    while sorted(statuses(user_files)) != [("done", True), ("running", True)]:
        assert time.monotonic() < until
        time.sleep(0.2)
    started.send(signal.SIGINT)
    assert started.end() == 130
    assert "Traceback" not in started.stdout
    assert "1 of 2 jobs were interrupted: #1" in started.stdout
    [compared] = user_files.glob("sweep/comparison.json")
    assert len(json.loads(compared.read_text(encoding="utf-8"))) == 2
    assert not started.left


TOLD = """
import os, signal, sys, time
from pipeline.interruption import Interrupted, begin, boundary, hold, install, interruption_in, status_of
install()
begin()
"""


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", f"{TOLD}\n{code}"],
        cwd=REPO, capture_output=True, text=True, check=False, timeout=WAIT_LIMIT_S,
        preexec_fn=heed_signals,
    )  # fmt: skip


def test_a_second_ctrl_c_ends_at_once():
    caught = "try: os.kill(os.getpid(), signal.SIGINT)\nexcept Interrupted as e:\n interruption_in(e)"
    again = " print('noticed', flush=True); time.sleep(0.5); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    done = run_python(f"{caught}\n{again}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "noticed\n", "interrupted again: ended at once\n")


NATIVE = """
import threading
def soon(*seconds):
    for one in seconds:
        threading.Timer(one, os.kill, (os.getpid(), signal.SIGINT)).start()
"""
ENDLESS = """
import numpy as np
from onnx.parser import parse_model
from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample
session = open_session(parse_model('''<ir_version: 8, opset_import: ["" : 17]>
g (int64 n, bool c, float[1] x) => (float[1] y) {
    y = Loop <body = b (int64 i, bool go, float[1] a) => (bool on, float[1] z) { on = Identity(go) z = Add(a, x) }> (n, c, x)
}'''))
soon(0.1)
try: infer(session, Sample("0", {"n": np.array(10**15), "c": np.array(True), "x": np.ones(1, np.float32)}))
except Interrupted as e: sys.exit(status_of(e))
"""


def test_a_second_ctrl_c_ends_native_code_too():
    done = run_python(f"{NATIVE}\nimport hashlib\nsoon(0.1, 0.6)\nhashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)")
    assert (done.returncode, done.stderr) == (130, "interrupted again: ended at once\n")


def test_the_first_ctrl_c_ends_an_inference_that_takes_long():
    done = run_python(NATIVE + ENDLESS)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_signal_that_a_destructor_or_foreign_code_swallows_is_raised_again():
    lost = "class Lost:\n def __del__(self): os.kill(os.getpid(), signal.SIGINT)\nLost()"
    done = run_python(f"{lost}\ntry: time.sleep(60)\nexcept Interrupted as e: sys.exit(status_of(e))")
    assert (done.returncode, done.stderr) == (130, "")


def test_a_signal_while_a_result_becomes_visible_waits_for_the_end_of_the_stage():
    stage = "kept = []\ntry:\n with boundary():\n  hold(); os.kill(os.getpid(), signal.SIGTERM); kept.append(1)"
    done = run_python(f"{stage}\nexcept Interrupted as e: print(kept, status_of(e))")
    assert done.stdout == "[1] 143\n"


INTERRUPTS_ITSELF = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep({seconds})\nwhole = True\n"
IMPORTED = "import sys; sys.path.insert(0, {folder!r})\ntry:\n import torn; time.sleep(60)\nexcept Interrupted as e: {then}"


def test_a_signal_waits_for_the_end_of_an_import(tmp_path):
    (tmp_path / "torn.py").write_text(INTERRUPTS_ITSELF.format(seconds=0.1))
    done = run_python(IMPORTED.format(folder=str(tmp_path), then="print(torn.whole, status_of(e))"))
    assert (done.stdout, done.stderr) == ("True 130\n", "")


def test_a_signal_does_not_wait_for_an_import_that_does_not_end(tmp_path):
    (tmp_path / "torn.py").write_text(INTERRUPTS_ITSELF.format(seconds=WAIT_LIMIT_S))
    code = IMPORTED.format(folder=str(tmp_path), then="print('torn' in sys.modules, status_of(e))")
    done = run_python(f"import pipeline.interruption as i\ni.PATIENCE_SECONDS = 0.2\n{code}")
    assert (done.stdout, done.stderr) == ("False 130\n", "")


def test_a_signal_waits_until_a_log_handler_is_made(tmp_path):
    code = f"""
import logging
from pipeline.record.console import LogFile
register = logging.Handler.__init__
def interrupted(handler, *given):
    register(handler, *given)
    os.kill(os.getpid(), signal.SIGINT)
logging.Handler.__init__ = interrupted
try: LogFile({str(tmp_path / "run.log")!r}); time.sleep(60)
except Interrupted as e:
    kept = e  # and with it what was being made, to the end of the process
    sys.exit(status_of(e))
"""
    done = run_python(code)
    assert (done.returncode, done.stderr) == (130, ""), "logging ends each handler as the process ends, half made or not"
