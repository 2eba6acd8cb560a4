"""What ends the process that opens a graph first is an error of the run, and no end of it; no graph here is a harmful one."""

import contextlib
import json
import os
import signal
import time

import numpy as np
import onnx
import psutil
import pytest

from pipeline.errors import StageError
from pipeline.graph import rehearsal as rehearsal_module
from pipeline.graph import session as session_module
from pipeline.graph.optimizer_crash import ends_the_process
from pipeline.graph.rehearsal import EndedError, rehearsals
from pipeline.graph.session import open_session, opens_quickly, rehearse_model
from pipeline.measure import child_process
from pipeline.measure.ort_profile import profile_ops_and_shapes
from pipeline.sample import Sample

SITE = """
import os, signal, sys, time
if "pipeline.graph.rehearsal_child" in sys.orig_argv:
    import onnxruntime

    class Session(onnxruntime.InferenceSession):
        def __init__(self, source, *arguments, **settings):
            if {when}:
                print("a kernel fell over", file=sys.stderr, flush=True)
                {then}
            super().__init__(source, *arguments, **settings)

    onnxruntime.InferenceSession = Session
"""
OPENS_FILE = "isinstance(source, str)"
ARTIFACT = "isinstance(source, str) and '.staging' in source"


@pytest.fixture
def other_process(tmp_path):
    """Return a function that lets the other process do something when it opens a graph; it returns PYTHONPATH."""

    def make(when, then="os.kill(os.getpid(), signal.SIGSEGV)"):
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(SITE.format(when=when, then=then), encoding="utf-8")
        return str(site)

    return make


def failed(run, *words):
    """Check that a run ended as it does for a bad model, and that its message and its report say all of these words."""
    assert run.exit_code == 2, run.stderr
    assert "Traceback" not in run.stderr + run.stdout
    assert run.report["status"] == "failed"
    for word in words:
        assert word in run.report["error"]
        assert word in run.stderr
    assert not (run.directory / ".staging").exists()
    return run


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_a_model_at_which_onnx_runtime_ends_the_process_is_refused_with_its_file_and_the_signal(
    run_quickly, user_files, users_model, users_data, other_process, name
):
    site = other_process(OPENS_FILE, f"os.kill(os.getpid(), signal.{name})")
    run = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize]", PYTHONPATH=site)
    failed(run, str(user_files / "model.onnx"), name)
    assert ("a kernel fell over" in run.report["error"]) == (name != "SIGKILL")  # what a killer from outside is not told by


def test_an_artifact_at_which_onnx_runtime_ends_the_process_is_not_published(
    run_quickly, user_files, users_model, users_data, other_process
):
    site = other_process(ARTIFACT)
    run = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize]", PYTHONPATH=site)
    failed(run, "model.int8.onnx", "SIGSEGV", "mode.nodes_to_exclude")
    assert [stage["status"] for stage in run.report["stages"]] == ["done", "failed"]
    assert not list(run.directory.glob("*.onnx"))


def test_a_graph_that_is_not_opened_in_time_is_refused_with_the_setting(run_quickly, user_files, users_model, other_process):
    site = other_process(OPENS_FILE, "time.sleep(600)")
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load]", "limits.opening_seconds=0.5", PYTHONPATH=site)
    failed(run, str(user_files / "model.onnx"), "limits.opening_seconds=0.5")


def test_a_graph_that_takes_too_much_memory_is_refused_with_the_setting(run_quickly, user_files, users_model, build):
    text = """g (float[1, 16, frames] x) => (float[1, 16, frames] y) {
        big = ConstantOfShape (shape) sum = ReduceSum <keepdims = 0> (big) y = Add (x, sum) }"""
    onnx.save(build(text, shape=np.array([4, 10**8])), user_files / "model.onnx")  # 1.6 GB
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load,inspect]", "limits.memory_mb=400", copies=False)
    failed(run, str(user_files / "model.onnx"), "400 MB", "limits.memory_mb")


def test_a_graph_whose_shapes_take_too_much_memory_to_infer_is_refused_with_the_setting(
    run_quickly, user_files, users_model, build
):
    """ONNX's inference keeps the values of a constant that may be a shape, however many they are."""
    text = "g (float[1] x) => (float[n] y) { big = ConstantOfShape (shape) y = Add (big, x) }"
    onnx.save(build(text, shape=np.array([10**8])), user_files / "model.onnx")
    run = run_quickly(*users_model, "mode=dynamic", "stages=[load]", "limits.memory_mb=400", copies=False)
    failed(run, str(user_files / "model.onnx"), "shapes", "400 MB", "limits.memory_mb")


def test_a_search_goes_on_with_the_next_candidate(run_quickly, user_files, users_model, users_data, other_process):
    """Graphs that quantize one of two convolutions end the process; the search still finds the other one, or none."""
    site = other_process("isinstance(source, bytes) and source.count(b'QuantizeLinear') > 2 and b'wb_quantized' in source")
    search = ("mode=auto", "mode.seconds=6", "mode.optimize=false", "mode.method=minmax", "mode.max_loss=0.5")
    run = run_quickly(*users_model, *users_data, *search, "stages=[load,quantize]", PYTHONPATH=site).succeeded()
    rows = {row["node"]: row["precision"] for row in run.report["search"]["model"]["nodes"]}
    assert "ranges" not in rows["conv_b"]  # which would make three of them
    assert "SIGSEGV" in (run.directory / "run.log").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path, conv_net):
    """Return a harmless model."""
    onnx.save(conv_net(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_one_process_opens_all_graphs_and_is_started_again_where_it_ended(
    file, conv_net, monkeypatch, other_process, make_noise
):
    monkeypatch.setenv("PYTHONPATH", other_process("b'deadly' in source"))
    deadly = conv_net(purpose="deadly")
    with rehearsals() as others:
        first = others._process.pid
        open_session(file, sample=Sample("one", {"x": make_noise(20)}))
        open_session(conv_net())
        assert others._process.pid == first
        with pytest.raises(EndedError, match=r"a graph that was made of the model.*SIGSEGV: a kernel fell over"):
            open_session(deadly)
        open_session(conv_net(made="later"))
        second = others._process.pid
        assert second != first
    for process in (first, second):
        assert not psutil.pid_exists(process)
    open_session(deadly)  # outside of a run, nobody is asked; and it is harmless


def test_what_has_survived_is_not_opened_there_again(file, monkeypatch, conv_net):
    with rehearsals() as others:
        asked = []
        monkeypatch.setattr(others, "_ask", lambda parts, what: asked.append(what) or {"error": None})
        for _ in range(3):
            open_session(file)
            rehearse_model(conv_net())
        assert len(asked) == 2
        open_session(file, optimization="none")  # other optimizers may fall over
        file.rename(file.with_name("moved.onnx"))
        open_session(file.with_name("moved.onnx"))  # the same file
        assert len(asked) == 3
        onnx.save(conv_net(another="model"), file)
        open_session(file)
        assert len(asked) == 4


def test_what_onnx_runtime_raises_there_is_raised_here(build, tmp_path):
    with rehearsals() as others, pytest.raises(Exception, match="Frobnicate"):
        open_session(build("g (float[n] x) => (float[n] y) { y = Frobnicate (x) }"))
    assert others._process is None


def test_whether_onnx_runtime_opened_a_graph_there_is_known_here(build, file):
    with rehearsals():
        assert rehearse_model(file)
        assert rehearse_model(file)  # what is known
        assert not rehearse_model(build("g (float[n] x) => (float[n] y) { y = Frobnicate (x) }"))
    assert not rehearse_model(file)  # nobody is asked


def test_a_session_that_is_open_there_runs_the_sample_that_comes_later(file, monkeypatch, other_process, make_noise):
    """Each opening of the other process makes a file longer; another file, or other optimizers, are opened anew."""
    opened = file.with_name("opened")
    then = f"open({str(opened)!r}, 'a').write('x')"
    monkeypatch.setenv("PYTHONPATH", other_process(OPENS_FILE, then))
    sample = Sample("one", {"x": make_noise(20)})
    with rehearsals():
        rehearse_model(file)
        rehearse_model(file, sample=sample)
        assert len(opened.read_text(encoding="ascii")) == 1
        rehearse_model(file, optimization="none", sample=sample)
        assert len(opened.read_text(encoding="ascii")) == 2
        file.write_bytes(file.read_bytes())  # the same contents, but who knows
        rehearse_model(file, optimization="none")
        assert len(opened.read_text(encoding="ascii")) == 3


def test_a_profile_is_made_by_the_process_that_is_there(file, monkeypatch, make_noise):
    sample = Sample("one", {"x": make_noise(20)})
    with rehearsals():
        monkeypatch.setattr(child_process, "run_and_end_with_us", None)  # which would start another one
        profile, shapes = profile_ops_and_shapes(file, sample)
    assert sum(profile.ops.values()) == pytest.approx(1)
    assert sum(node.op_type == "Conv" for node in shapes.nodes) == 2


def test_a_profile_at_which_the_process_ends_is_left_out_and_the_run_goes_on(
    run_quickly, user_files, users_model, users_data, other_process
):
    site = other_process("isinstance(source, str) and arguments and arguments[0].enable_profiling")
    stages = "stages=[load,inspect,quantize]"
    run = run_quickly(*users_model, *users_data, "mode=static", stages, PYTHONPATH=site).succeeded()
    found = run.report["inspect"]["model"]
    assert (found["advised_mode"], found["time_share"]) == ("not sure", {})
    assert "crashed (the process ended (SIGSEGV: a kernel fell over))" in found["reasons"][0]
    assert list(run.directory.glob("*.int8.onnx"))


def test_texts_and_names_of_any_kind_reach_the_other_process(build):
    text = "g (string[n] words, float[n] x) => (string[n] same, float[n] y) { same = Identity (words) y = Identity (x) }"
    words = np.array(["Wort", "词"], object)
    with rehearsals() as others:
        answers = []
        ask = others._ask
        others._ask = lambda parts, what: answers.append(ask(parts, what)) or answers[-1]
        open_session(build(text), sample=Sample("s", {"words": words, "x": np.zeros(2, np.float32)}))
    assert answers == [{"error": None}]


def test_a_process_that_cannot_be_started_is_told_of_with_its_last_words(file, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(2, b'no such library\\n')\nos._exit(7)\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with rehearsals(), pytest.raises(StageError, match=r"exit status 7. no such library"):
        open_session(file)


def test_whether_a_graph_ends_the_process_is_asked_outside_of_a_run_too(conv_net, monkeypatch, other_process):
    monkeypatch.setenv("PYTHONPATH", other_process("b'deadly' in source"))
    assert not ends_the_process(conv_net())
    assert ends_the_process(conv_net(purpose="deadly"))


def test_an_exception_in_this_process_ends_the_other(file, monkeypatch, other_process):
    monkeypatch.setenv("PYTHONPATH", other_process(OPENS_FILE, "time.sleep(600)"))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    with rehearsals() as others:
        first = others._process.pid
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.7)
        try:
            with pytest.raises(KeyboardInterrupt):
                open_session(file)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert not psutil.pid_exists(first)


TOLD = """
import os, sys
from pipeline.graph.rehearsal import rehearsals
with rehearsals() as others:
    others.on_death("pipeline.record.report_end", "end_report", sys.argv[1])
    request = b'{"path": null, "blobs": [10], "threads": 1, "optimization": "all", "without": [], "sample": "", "names": [], '
    request += b'"seconds": 60, "memory_bytes": null}\\n'
    sent = {"die half way": request[:40], "die in a graph": request + b"half", "die asking": request + bytes(10)}
    others._send(sent.get(sys.argv[2], b""))
    os._exit(9) if "die" in sys.argv[2] else None
"""


@pytest.mark.parametrize("end", ["die", "die half way", "die in a graph", "die asking", "end"])
def test_a_run_that_is_killed_is_said_to_have_failed_by_the_other_process(tmp_path, repo, end):
    report = tmp_path / "report.json"
    stages = [{"name": "load", "status": "done"}, {"name": "quantize", "status": "running"}]
    report.write_text(json.dumps({"schema": 2, "status": "running", "stages": stages}), encoding="utf-8")
    (tmp_path / ".staging").mkdir()
    os.spawnve(os.P_WAIT, _python(), [_python(), "-c", TOLD, str(report), end], os.environ | {"PYTHONPATH": str(repo)})
    until = time.monotonic() + 60
    while "die" in end and time.monotonic() < until and "running" in report.read_text(encoding="utf-8"):
        time.sleep(0.05)
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["status"] == ("failed" if "die" in end else "running")
    assert ("in the stage quantize" in found.get("error", "")) == ("die" in end)
    with contextlib.suppress(FileNotFoundError):
        assert end == "end" or not list((tmp_path / ".staging").iterdir())


def _python():
    import sys

    return sys.executable


def test_a_graph_that_is_opened_again_and_again_is_optimised_once_and_gives_the_same_numbers(conv_net, monkeypatch):
    model, sample = conv_net(), Sample("s", {"x": np.random.default_rng(0).standard_normal((1, 16, 50)).astype(np.float32)})
    expected = open_session(model).run(None, dict(sample.inputs))
    levels = []
    opened = session_module.session_options

    def noted(*arguments, optimization="all", **settings):
        levels.append(optimization)
        return opened(*arguments, optimization=optimization, **settings)

    monkeypatch.setattr(session_module, "session_options", noted)
    with rehearsals() as others:
        assert rehearse_model(model, sample=sample, again=True)
        for _ in range(2):
            for a, b in zip(open_session(model, quick=True).run(None, dict(sample.inputs)), expected, strict=True):
                np.testing.assert_array_equal(a, b)
        assert levels[1::2] == ["none", "none"]
        open_session(model)
        assert levels[-1] == "all", "as a client opens it, where nobody is in a hurry"
        monkeypatch.setattr(rehearsal_module, "HELD_BYTES", 0)
        others._hold(("another",), b"1")
        assert not opens_quickly(model), "memory is let go of"


def test_a_graph_that_was_opened_before_is_held_all_the_same_where_it_will_be_opened_again(conv_net):
    model = conv_net()
    with rehearsals():
        open_session(model)
        assert not opens_quickly(model)
        assert rehearse_model(model, again=True)
        assert opens_quickly(model)


def test_what_onnx_runtime_does_not_open_as_it_has_optimised_it_is_opened_as_it_was_given(conv_net):
    model = conv_net()
    with rehearsals() as others:
        assert rehearse_model(model, again=True)
        [key] = others._optimized
        others._optimized[key] = b"no graph"
        assert [output.name for output in open_session(model, quick=True).get_outputs()] == [o.name for o in model.graph.output]


def test_what_ran_on_a_sample_there_is_not_opened_there_again(conv_net, monkeypatch):
    asked, ask = [], rehearsal_module.Rehearsals._ask

    def noted(others, parts, what):
        asked.append(what)
        return ask(others, parts, what)

    monkeypatch.setattr(rehearsal_module.Rehearsals, "_ask", noted)
    model, sample = conv_net(), Sample("s", {"x": np.zeros((1, 16, 50), np.float32)})
    with rehearsals():
        assert rehearse_model(model, sample=sample)
        open_session(model)
    assert len(asked) == 1
