"""`doctor`: what a model is, whether its front end fits, what each mode would gain, and how to bring data."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

FILL_IN = '    raise SystemExit("make_calib.py: fill in inputs_of first.")\n'


@pytest.fixture(scope="module")
def examined(tmp_path_factory, make_user_files, run_in):
    """Return a run of the doctor on a user's model, which is of no known kind and has no data."""
    folder = make_user_files(tmp_path_factory.mktemp("doctor"))
    return run_in(folder, "doctor", "model.path=model.onnx").succeeded()


def test_the_doctor_tells_kind_inputs_states_and_what_each_mode_gains(examined):
    found = examined.report["doctor"]
    assert found["kind"] == "onnx"
    [graph] = found["graphs"].values()
    assert graph["states"] == {}
    trials = {trial["mode"]: trial for trial in graph["trials"]}
    assert set(trials) == {"static", "dynamic", "weight_only", "fp16"}
    assert all(trial["why_not"] or (trial["speedup"] > 0 and 0.2 < trial["size_ratio"] < 1.2) for trial in trials.values())
    assert trials["static"]["speedup"] is not None
    assert "x: float32 (1, 16, ?)" in examined.stdout
    assert "mode=static: about" in examined.stdout


def test_without_data_the_doctor_says_that_nothing_is_known_of_the_front_end(examined):
    found = examined.report["doctor"]
    assert found["front_end"].startswith("not known: without evaluation.path")
    assert found["front_end_fits"] is None


def test_the_doctor_leaves_a_report_a_page_and_a_script_and_no_artifact(examined):
    names = {path.name for path in examined.directory.iterdir()}
    assert {"report.json", "report.html", "make_calib.py"} <= names
    assert not any(name.endswith(".onnx") for name in names)
    assert examined.stdout.splitlines()[-3] == f"script: {examined.directory}/make_calib.py"
    page = (examined.directory / "report.html").read_text(encoding="utf-8")
    assert "What was found" in page
    assert "mode=static: about" in page


def test_the_script_refuses_to_run_before_it_is_filled_in(examined):
    (examined.folder / "recordings").mkdir(exist_ok=True)
    (examined.folder / "recordings" / "a.wav").touch()
    done = run_script(examined.directory / "make_calib.py", examined.folder)
    assert done.returncode != 0
    assert "fill in inputs_of first" in done.stderr


def test_the_script_refuses_arrays_that_the_model_does_not_take(examined):
    (examined.folder / "recordings").mkdir(exist_ok=True)
    (examined.folder / "recordings" / "a.wav").touch()
    filled = examined.folder / "wrong.py"
    text = (examined.directory / "make_calib.py").read_text(encoding="utf-8")
    filled.write_text(text.replace(FILL_IN, '    return {"x": np.zeros((1, 17, 20), np.float32)}\n'), encoding="utf-8")
    done = run_script(filled, examined.folder)
    assert done.returncode != 0
    assert "x is float32 (1, 17, 20); the model takes float32 (1, 16, None)" in done.stderr


def test_the_filled_in_script_makes_arrays_that_static_quantization_takes(examined, run_in):
    recordings = examined.folder / "more"
    recordings.mkdir()
    for number in range(4):
        (recordings / f"{number}.wav").touch()
    text = (examined.directory / "make_calib.py").read_text(encoding="utf-8")
    drawn = "np.random.default_rng(int(path.stem)).standard_normal((1, 16, 20)).astype(np.float32)"
    body = f'    return {{"x": {drawn}}}\n'
    filled = examined.folder / "make_calib.py"
    filled.write_text(text.replace(FILL_IN, body), encoding="utf-8")
    done = run_script(filled, examined.folder, "more")
    assert done.returncode == 0, done.stderr
    with np.load(examined.folder / "calib.npz") as arrays:
        assert sorted(arrays) == ["0/x", "2/x"]
    run_in(
        examined.folder, "model=onnx", "model.path=model.onnx", "mode=static", "calibration=arrays",
        "calibration.path=calib.npz", "evaluation.path=eval.npz", "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip


def test_the_doctor_scores_fp32_itself_where_there_is_a_truth(tmp_path, run_quickly, shipped):
    run = run_quickly("doctor", "model=vocoder", "evaluation.samples=4").succeeded()
    found = run.report["doctor"]
    assert found["kind"] == "vocoder"
    assert found["front_end_fits"] is True
    assert found["front_end"].startswith("fits: truth_log_mel_l1 of fp32 itself is 0.2")


def test_a_streaming_models_states_are_named(tmp_path, run_quickly):
    text = """streaming (float[1, 8] x, float[1, 8] cache) => (float[1, 8] y, float[1, 8] new_cache) {
        [product] y = MatMul (x, w)
        [sum] new_cache = Add (cache, y)
    }"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    onnx.save(model, tmp_path / "stream.onnx")
    run = run_quickly("doctor", "model.path=stream.onnx").succeeded()
    [graph] = run.report["doctor"]["graphs"].values()
    assert graph["states"] == {"new_cache": "cache"}
    script = (run.directory / "make_calib.py").read_text(encoding="utf-8")
    assert "Its states (cache) are left out" in script
    assert "'x': ('float32', ('steps', 1, 8))" in script
    assert "'cache': (" not in script
    assert "'model.states={new_cache: cache}'" in run.stdout


def test_the_doctor_needs_a_model(run_quickly):
    run = run_quickly("doctor")
    assert run.exit_code == 2
    assert "doctor: of which model? Name its file: doctor model.path=model.onnx" in run.stderr


def run_script(script, folder, data="recordings"):
    return subprocess.run([sys.executable, str(script), data], cwd=folder, capture_output=True, text=True, check=False)
