"""An input that is always the same for a user: the branch that it decides is quantized, and the graph is called as before."""

import numpy as np
import onnx
import pytest

from pipeline.graph.session import infer, open_session
from pipeline.sample import Sample

RATES = """rates (float[n, 16, t] x, int64 sr) => (float[n, 16, u] y) {
    [high] wide = Equal (sr, rate)
    [rates] y = If (wide) <
        then_branch = at_16000 () => (float[n, 16, u] a) { [at_16000] a = Conv <pads = [1, 1]> (x, w) },
        else_branch = at_8000 () => (float[n, 16, u] b) { [at_8000] h = Conv <pads = [1, 1]> (x, v) b = Tanh (h) }
    >
}"""
MODEL = ("model=onnx", "model.path=rates.onnx", "mode=static", "stages=[load,quantize,evaluate]", "calibration=arrays")
DATA = ("calibration.path=arrays.npz", "evaluation.path=arrays.npz")


@pytest.fixture
def rates(build, make_weight):
    """Return a model that has one layer for each of two sampling rates."""
    return build(RATES, rate=np.array(16000), w=make_weight(16, 16, 3), v=make_weight(16, 16, 3, seed=1))


@pytest.fixture
def run(run_quickly, tmp_path, rates, write_arrays):
    """Return a function: settings -> the run of that model on arrays of one rate, or of none."""
    onnx.save(rates, tmp_path / "rates.onnx")
    rng = np.random.default_rng(0)

    def run(*overrides, rate=16000):
        given = {} if rate is None else {"sr": np.array(rate)}
        write_arrays(
            tmp_path / "arrays.npz",
            {f"s{k}": {"x": rng.standard_normal((1, 16, 20 + k), dtype=np.float32), **given} for k in range(3)},
        )
        return run_quickly(*MODEL, *DATA, *overrides)

    return run


@pytest.mark.parametrize("rate", [16000, None])
def test_the_branch_that_it_decides_is_quantized_and_the_input_is_still_taken(run, rate):
    result = run("model.fixed_inputs={sr: 16000}", rate=rate).succeeded()
    [path] = result.directory.glob("*.int8.onnx")
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["x", "sr"]
    assert "If" not in {node.op_type for node in model.graph.node}
    assert "DequantizeLinear" in {node.op_type for node in model.graph.node}


def test_without_it_weights_are_only_stored_and_a_warning_says_how_to_fix_it(run):
    result = run().succeeded()
    assert set(result.report["artifacts"][0]["kernels"]) <= {"DequantizeLinear"}
    [warning] = [text for text in result.report["warnings"] if "model.fixed_inputs={sr: 16000}" in text]
    assert "they compute in float" in warning


def test_the_model_computes_what_the_original_does_at_that_value_and_ignores_others(run, rates):
    result = run("model.fixed_inputs={sr: 16000}").succeeded()
    [path] = result.directory.glob("*.int8.onnx")
    x = np.random.default_rng(1).standard_normal((1, 16, 30), dtype=np.float32)
    [original] = infer(open_session(rates), Sample("x", {"x": x, "sr": np.array(16000)})).values()
    for rate in (16000, 8000):
        [quantized] = infer(open_session(path), Sample("x", {"x": x, "sr": np.array(rate)})).values()
        assert np.abs(quantized - original).max() < 0.05 * np.abs(original).max()
    assert any("takes sr and ignores it" in note for note in result.report["notes"])


def test_noise_has_that_value_too(run):
    found = run(
        "model.fixed_inputs={sr: 16000}", "calibration=random", "calibration.path=null", "evaluation.path=null"
    ).succeeded()
    assert found.report["status"] == "done"


@pytest.mark.parametrize(
    ("fixed", "rate", "message"),
    [
        ("{sr: 16000}", 8000, "evaluation.path: sample 's0', input 'sr': 8000, but model.fixed_inputs fixes it at 16000"),
        ("{rate: 16000}", 16000, "model.fixed_inputs: the graph has no input 'rate'. Allowed: sr, x"),
        ("{sr: 0.5}", 16000, "model.fixed_inputs.sr: 0.5 is not a value of its type, int64"),
        (
            "{x: 0.5}",
            16000,
            "model.fixed_inputs.x: the input takes [None, 16, None]; only an input of one element can be fixed",
        ),
        ("{sr: fast}", 16000, "model.fixed_inputs.sr: Value 'fast'"),
    ],
)
def test_what_cannot_be_fixed_is_refused(run, fixed, rate, message):
    result = run(f"model.fixed_inputs={fixed}", rate=rate)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not result.directories or not list(result.directory.glob("*.onnx"))
