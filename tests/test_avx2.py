"""Processors without VNNI: what is written for them does not saturate, checked on every x86-64 machine by emulation.

VNNI adds products of uint8 and int8 in 32 bits. AVX2 alone (vpmaddubsw) adds two of them in 16 bits, where what exceeds
32767 becomes 32767: 2 * 255 * 127 does, 2 * 255 * 64 does not, so weights get 7 bits there. QEMU executes a program as a
Haswell would, a processor with AVX2 and nothing newer, and ONNX Runtime chooses the kernels that it has for that.

The arithmetic is that of the processor, the speed is not: nothing is timed here.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.choices import IntegerType, Target
from pipeline.graph.session import open_session
from pipeline.graph.source_graph import load_graph
from pipeline.measure.rewrite_gain import Gain
from pipeline.processor import cpu_flags
from pipeline.quantize.user_notes import warnings_on
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize
from tests.quantize.test_modes import sample_of

QEMU = "qemu-x86_64"
REPO = Path(__file__).resolve().parent.parent
RUN_GRAPHS = "tests/run_graphs.py"
EXACT = (  # tests that expect exact sums of integers
    "tests/quantize/test_dynamic_ops.py",
    "tests/quantize/test_static_matmul_scales.py",
    "tests/quantize/test_qdq_writer.py",
    "tests/optimize/test_channels_last.py",
)
LIMIT_S = 600  # for a program that hangs; it says nothing about speed

CONVS = """g (float[1, 16, t] x) => (float[1, 16, t] y) {
    [one] a = Conv <pads = [1, 1]> (x, w_conv) [cut] r = Relu (a) [two] y = Conv <pads = [1, 1]> (r, w_conv)
}"""
DEPTHWISE = "g (float[1, 16, t] x) => (float[1, 16, t] y) { [one] y = Conv <pads = [1, 1], group = 16> (x, w_depth) }"
MATMULS = """g (float[t, 32] x) => (float[t, 32] y) {
    [one] a = MatMul (x, w_square) [cut] r = Relu (a) [two] y = MatMul (r, w_square)
}"""
GEMM = "g (float[t, 32] x) => (float[t, 32] y) { [one] y = Gemm <alpha = 0.5> (x, w_square, bias) }"
IN_PAIRS = {"dynamic_op_types": [], "weight_only_op_types": []}
LAID_OUT = {"optimize": True, "rewrites": ["integer_channels_last"]}
GRAPHS = {  # name -> graph, mode, its settings, the kernel that ONNX Runtime takes
    "conv": (CONVS, "static", {}, "QLinearConv"),
    "conv_of_int8": (CONVS, "static", {"activation_type": IntegerType.int8}, "QLinearConv"),
    "conv_channels_last": (CONVS, "static", LAID_OUT, "QLinearConv"),
    "matmul": (MATMULS, "static", IN_PAIRS, "QLinearMatMul"),
    "gemm": (GEMM, "static", IN_PAIRS, "QGemm"),
    "matmul_at_run_time": (MATMULS, "dynamic", {}, "DynamicQuantizeMatMul"),
    "conv_depthwise": (DEPTHWISE, "static", {"min_channels": 1}, "QLinearConv"),
    "conv_at_run_time": (CONVS, "dynamic", {}, "ConvInteger"),
}
EXACT_AT_8_BITS = {"conv_depthwise", "conv_at_run_time"}  # kernels of their own: one channel at a time; uint8 by uint8


def missing():
    """Return what the emulation needs and this machine lacks, or an empty text."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "Linux on an x86-64 processor, to execute its programs as an older one would"
    if shutil.which(QEMU) is None:
        return f"{QEMU}: Debian's package qemu-user"
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    return "" if version >= (7, 2) else f"QEMU 7.2, the first that executes AVX2, not {'.'.join(map(str, version))}"


MISSING = missing()
needs_emulation = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")


def run_python(*arguments, emulator=()):
    """Run Python in the repository, on this processor or emulated; what it starts by itself is never emulated."""
    done = subprocess.run(
        [*emulator, sys.executable, *map(str, arguments)], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def on_haswell(*arguments):
    return run_python(*arguments, emulator=(QEMU, "-cpu", "Haswell"))


def float_model(build, text):
    """Return a graph whose weights are all near the largest: at 8 bits, nearly any two products are too much for 16."""
    rng = np.random.default_rng(0)
    shapes = {"w_conv": (16, 16, 3), "w_depth": (16, 1, 3), "w_square": (32, 32), "bias": (32,)}
    weights = {
        name: (rng.uniform(0.8, 1, shape) * rng.choice([-1, 1, 1], shape)).astype(np.float32)
        for name, shape in shapes.items()
        if name in text
    }
    return build(text, **weights)


def quantized(source, mode, sample, folder):
    """Quantize as the command does, but that a layout counts as faster without a measurement; return the artifact."""
    folder.mkdir()
    samples = {source.name: [sample]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.optimize.engine.measure_gain", lambda *_: Gain(1.5, True))
        return quantize({source.name: source}, mode, samples, samples, RunDirectory(folder)).artifacts[source.name]


def integer_weights(path):
    """Return the weights of a graph that are int8 or uint8."""
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return [array for array in arrays if array.dtype in (np.int8, np.uint8) and array.ndim > 1]


@pytest.fixture(scope="module")
def sources(tmp_path_factory, build):
    """Return the float graphs by name."""
    folder = tmp_path_factory.mktemp("float")
    for name, (text, *_) in GRAPHS.items():
        onnx.save(float_model(build, text), folder / f"{name}.onnx")
    return {name: load_graph("model", str(folder / f"{name}.onnx")) for name in GRAPHS}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, sources, settings, shipped):
    """Return a folder of graphs with weights of 7 and of 8 bits, and of their inputs; and the artifacts."""
    folder, artifacts = tmp_path_factory.mktemp("graphs"), {}
    for name, (_, mode, changes, _) in GRAPHS.items():
        sample = sample_of(sources[name].model)
        for bits, reduce_range in ((7, True), (8, False)):
            made = tmp_path_factory.mktemp("runs") / "run"
            chosen = settings(mode, **changes, reduce_range=reduce_range)
            artifacts[name, bits] = quantized(sources[name], chosen, sample, made)
            shutil.copy(artifacts[name, bits].path, folder / f"{name}_{bits}.onnx")
            np.savez(folder / f"{name}_{bits}.npz", **sample.inputs)
    mels = {"mels": np.random.default_rng(0).standard_normal((1, 80, 20)).astype(np.float32)}
    for bits, reduce_range in ((7, True), (8, False)):
        made = tmp_path_factory.mktemp("runs") / "run"
        vocoder = quantized(shipped("vocoder"), settings("dynamic", reduce_range=reduce_range), Sample("probe", mels), made)
        shutil.copy(vocoder.path, folder / f"vocoder_{bits}.onnx")
        np.savez(folder / f"vocoder_{bits}.npz", **mels)
    return folder, artifacts


@pytest.fixture(scope="module")
def outputs(graphs, tmp_path_factory):
    """Return the outputs of every graph: name and bits -> (on this processor, on a Haswell)."""
    folder, _ = graphs
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "haswell"))
    run_python(RUN_GRAPHS, folder, here)
    on_haswell(RUN_GRAPHS, folder, there)
    return {path.stem: tuple(dict(np.load(of / path.name)) for of in (here, there)) for path in sorted(here.glob("*.npz"))}


def largest_error(found, expected):
    """Return the largest error in shares of the largest value."""
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture
def saturates(build):
    """Return whether this process's processor adds two products of uint8 and int8 in 16 bits: one such sum is computed."""
    model = build("g (uint8[1, 64] x) => (int32[1, 16] y) { y = MatMulInteger (x, w) }", w=np.full((64, 16), 127, np.int8))
    [found] = open_session(model).run(None, {"x": np.full((1, 64), 255, np.uint8)})
    return bool((found != 64 * 255 * 127).any())


@pytest.mark.parametrize("name", GRAPHS)
def test_weights_get_seven_bits_exactly_where_eight_would_saturate(sources, settings, saturates, tmp_path, name):
    """On the processor that runs this: any that a developer has, and below, one without VNNI."""
    _, mode, changes, _ = GRAPHS[name]
    sample = sample_of(sources[name].model)
    weights = integer_weights(quantized(sources[name], settings(mode, **changes), sample, tmp_path / "run").path)
    assert weights
    for weight in weights:
        most_of_seven_bits = 64 if weight.dtype == np.int8 else 127
        assert (np.abs(weight.astype(int)).max() <= most_of_seven_bits) == saturates


def test_instruction_sets_have_the_names_of_the_kernel(monkeypatch):
    found = {"avx2": True, "avx512vnni": True, "avxvnni": True, "avx512bf16": True, "amx-int8": True, "avx512f": False}
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: found)
    cpu_flags.cache_clear()
    try:
        assert cpu_flags() == {"avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8"}
    finally:
        cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, False), ({"reduce_range": True}, False), ({"reduce_range": False}, True), ({"target": Target.arm}, True)],
)
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_weights_that_saturate_on_this_processor_are_told_of(sources, settings, monkeypatch, mode, changes, said):
    """Models for ARM have 8 bits, but are measured here."""
    monkeypatch.setattr("pipeline.quantize.target.cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    source = sources["conv"]
    warnings = " ".join(warnings_on(source, settings(mode, **changes)))
    assert ("saturate on this processor" in warnings) == said


@pytest.mark.qemu
@needs_emulation
@pytest.mark.parametrize("name", GRAPHS)
def test_weights_of_seven_bits_give_the_same_to_the_bit_without_vnni(graphs, outputs, name):
    """Sums of integers are exact in any order; the floats around them are computed one by one, the same in any width."""
    *_, kernel = GRAPHS[name]
    assert kernel in graphs[1][name, 7].kernels
    here, haswell = outputs[f"{name}_7"]
    np.testing.assert_array_equal(haswell["y"], here["y"])


@pytest.mark.qemu
@needs_emulation
@pytest.mark.parametrize("name", GRAPHS)
def test_weights_of_eight_bits_saturate_without_vnni_where_a_kernel_adds_in_16(sources, outputs, name):
    """Else the test above would pass whatever QEMU does."""
    model = sources[name].model
    [expected] = open_session(model).run(None, dict(sample_of(model).inputs))
    seven, eight = (largest_error(outputs[f"{name}_{bits}"][1]["y"], expected) for bits in (7, 8))
    assert seven < 0.02
    assert eight < 0.02 if name in EXACT_AT_8_BITS else eight > 0.5


@pytest.mark.qemu
@needs_emulation
def test_a_shipped_vocoder_of_seven_bits_computes_the_same_without_vnni(outputs):
    """Between its integers are sums of floats, whose last bits may follow the width of vectors: hence no comparison of bits."""
    here, haswell = outputs["vocoder_7"]
    assert set(here) == {"mag", "x", "y"}
    for output, expected in here.items():
        assert largest_error(haswell[output], expected) < 1e-5


@pytest.mark.qemu
@needs_emulation
def test_a_shipped_vocoder_of_eight_bits_is_worse_without_vnni_than_one_of_seven(graphs, outputs, shipped):
    with np.load(graphs[0] / "vocoder_8.npz") as inputs:
        [expected] = open_session(shipped("vocoder").model).run(["y"], dict(inputs))
    seven, eight = (largest_error(outputs[f"vocoder_{bits}"][1]["y"], expected) for bits in (7, 8))
    assert eight > 3 * seven


@pytest.mark.qemu
@needs_emulation
def test_tests_that_expect_exact_sums_pass_without_vnni():
    """And those of this file that need no emulation: the processor is recognised from within."""
    here = Path(__file__).resolve().relative_to(REPO)
    said = on_haswell("-m", "pytest", "-p", "no:cacheprovider", "-m", "not qemu", *EXACT, here)
    assert re.search(r"\d\d passed", said)
    assert "skipped" not in said
