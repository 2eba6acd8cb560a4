"""Block reconstruction: what is learned makes held-back data better, or is not kept; the graph stays an ordinary Q/DQ graph.

All but the errors skips without PyTorch, which is too large for the extra `test`.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.mode_settings import AutoConfig, StaticConfig
from pipeline.errors import ConfigError
from pipeline.ptq import reconstructed as stage

REPO = Path(__file__).resolve().parents[2]


def silent(_part, _steps):
    return contextlib.nullcontext(lambda: None)


@pytest.fixture
def case(residual_net, make_samples, static, quantized):
    """Return the float graph, the quantized one, and samples."""
    samples = make_samples(1, 8, 60, count=6)
    plan, mode, ranges = static(residual_net, samples)
    return residual_net, quantized(residual_net, plan, mode, ranges), samples


@pytest.fixture
def learn(case):
    """Return a function: seconds -> (a reconstructed copy of the quantized graph, what is said of it)."""
    pytest.importorskip("torch")
    from pipeline.ptq.reconstruction.reconstruct import Effort, reconstruct

    reference, original, samples = case

    def make(seconds=3600.0, **settings):
        model = onnx.ModelProto.FromString(original.SerializeToString())
        effort = Effort(seconds, block_steps=60, whole_steps=60, train_pieces=8, held_pieces=4)
        return model, reconstruct(model, reference, reference, samples, effort, bar=silent, **settings)

    return make


@pytest.fixture
def error(run, make_samples):
    """Return a function: (graph, float graph) -> its squared error on data that nothing has seen, over the power of fp32."""
    unseen = make_samples(1, 8, 60, count=4, seed=99)

    def of(model, reference):
        made, right = (np.concatenate([one[0].reshape(-1) for one in run(graph, unseen)]) for graph in (model, reference))
        return float(np.mean((made - right) ** 2) / np.mean(right**2))

    return of


def test_unseen_data_lose_less(case, learn, error):
    reference, original, _ = case
    model, found = learn()
    assert error(model, reference) < 0.9 * error(original, reference)
    assert any(part.kept for part in found.parts)
    assert not found.stopped_early


def test_only_integers_scales_zero_points_and_biases_differ(case, learn):
    _, original, _ = case
    model, _ = learn()
    before, after = ({tensor.name: numpy_helper.to_array(tensor) for tensor in m.graph.initializer} for m in (original, model))
    assert [node.SerializeToString() for node in model.graph.node] == [n.SerializeToString() for n in original.graph.node]
    assert {n: (a.dtype, a.shape) for n, a in before.items()} == {n: (a.dtype, a.shape) for n, a in after.items()}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    restored = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.input}
    assert changed
    assert changed <= restored | {"bc"}  # the bias of the ConvTranspose, whose weight is int8 and that computes in float


def test_the_same_seed_gives_the_same_graph(learn):
    assert learn(seed=3)[0].SerializeToString() == learn(seed=3)[0].SerializeToString()


def test_what_is_no_better_on_held_back_samples_is_left_as_it_was(learn):
    _, found = learn()
    for part in found.parts:
        assert part.held_back_after <= part.held_back_before
        assert part.kept == (part.held_back_after < part.held_back_before)


def test_without_time_nothing_changes_and_the_report_says_so(case, learn):
    model, found = learn(seconds=1e-9)
    assert model.SerializeToString() == case[1].SerializeToString()
    assert found.stopped_early
    assert not any(part.kept for part in found.parts)
    assert stage.warnings_on_reconstruction("net", found) == [
        "net: mode.reconstruct_seconds ended the reconstruction; with more, the result may be better."
    ]


def test_torch_computes_what_the_quantized_graph_does(case, run):
    torch = pytest.importorskip("torch")
    from pipeline.ptq.reconstruction.fake_quantization import learned_of
    from pipeline.ptq.reconstruction.torch_graph import TorchGraph

    reference, original, samples = case
    graph = TorchGraph(original, list(original.graph.node), learned_of(original, reference))
    with torch.no_grad():
        [made] = graph.run({"x": torch.from_numpy(samples[0].inputs["x"])}, ["y"])
    [[right]] = run(original, samples[:1])
    np.testing.assert_allclose(made.numpy(), right, atol=0.02 * np.abs(right).max())


def test_without_pytorch_the_setting_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    stage.check_torch([StaticConfig(), AutoConfig()])
    for asked in (StaticConfig(reconstruct=True), AutoConfig(reconstruct=True)):
        with pytest.raises(
            ConfigError, match=r"mode\.reconstruct=true.*pip install 'speech-quantization-pipeline\[reconstruct\]'"
        ):
            stage.check_torch([asked])


def test_a_command_without_pytorch_ends_before_it_computes_anything(tmp_path):
    line = [sys.executable, str(REPO / "tests" / "without_libraries.py"), "torch", *["model=hifigan", "mode.reconstruct=true"]]
    run = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "pip install 'speech-quantization-pipeline[reconstruct]'" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("given", "reader"),
    [
        (["mode=static", "mode.reconstruct_seconds=60"], "mode.reconstruct=true"),
        (["mode=auto", "mode.reconstruct_seconds=60"], "mode.reconstruct=true"),
        (["mode=static", "mode.format=qoperator", "mode.reconstruct=true"], "mode.format=qdq"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(tmp_path, run_in, given, reader):
    run = run_in(tmp_path, "model=hifigan", *given)
    assert run.exit_code == 2
    assert reader in run.stderr


def test_one_sample_is_too_few(case):
    reference, original, samples = case
    with pytest.raises(ConfigError, match=r"calibration\.samples.*2 or more"):
        stage.reconstructed(
            original, reference, reference, samples[:1], seconds=60, bar=silent, rate_hz=None, seed=0, threads=1,
        )  # fmt: skip
