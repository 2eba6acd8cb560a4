"""Processors without VNNI: what is written for them does not saturate, checked on every x86-64 machine by emulation.

VNNI adds products of uint8 and int8 in 32 bits. AVX2 alone (vpmaddubsw) adds two of them in 16 bits, where what exceeds
32767 becomes 32767: 255 * (127 + 127) does, 255 * 128 does not, so pairs of weights are kept within 128 there. QEMU
executes a program as a Haswell would, a processor with AVX2 and nothing newer, and ONNX Runtime chooses the kernels that it
has for that. Where this machine can hide what its processor has beyond AVX2 (benchmarks/without_vnni.py), the same programs run
there, at its speed, and one test compares the two.

Nothing is timed here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.without_vnni import EMULATED, command, masked, missing, missing_for_emulation, missing_for_masking
from pipeline.config.choices import IntegerType, Target
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.graph.session import open_session
from pipeline.graph.source_graph import load_graph
from pipeline.measure.rewrite_gain import Gain
from pipeline.processor import cpu_flags
from pipeline.quantize.paired_sums import ROOM, in_rows, largest_sums
from pipeline.quantize.saturation import integer_products, saturating_shares
from pipeline.quantize.target import exact_on_target_only, this_machine
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize
from tests.quantize.test_modes import sample_of

REPO = Path(__file__).resolve().parent.parent
RUN_GRAPHS = "tests/run_graphs.py"
EXACT = (  # tests that expect exact sums of integers
    "tests/quantize/test_dynamic_ops.py",
    "tests/quantize/test_static_matmul_scales.py",
    "tests/quantize/test_qdq_writer.py",
    "tests/optimize/test_channels_last.py",
)
LIMIT_S = 3600  # for a program that hangs; it says nothing about speed
TESTS = """import sys
sys.modules["numba"] = None
import pytest
sys.exit(pytest.main(sys.argv[1:]))"""  # without Numba, whose compiler takes longer under an emulator than all tests together

CONVS = """g (float[1, 16, t] x) => (float[1, 16, t] y) {
    [one] a = Conv <pads = [1, 1]> (x, w_conv) [cut] r = Relu (a) [two] y = Conv <pads = [1, 1]> (r, w_conv)
}"""
STORED = "g (float[1, 16, t] x) => (float[1, 16, s] y) { [one] y = ConvTranspose <pads = [1, 1]> (x, w_conv) }"
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
KINDS = {"safe": {"target": Target.x86}, "full": {"reduce_range": False}}
IN_PAIRS_OF = {"static": IN_PAIRS, "dynamic": {}}
EXACT_AT_8_BITS = {"conv_depthwise", "conv_at_run_time"}  # kernels of their own: one channel at a time; uint8 by uint8


needs_avx2_alone = pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")


def run_python(*arguments, processor=()):
    """Run Python in the repository, on this processor or as on another; what it starts by itself is never emulated."""
    done = subprocess.run(
        [*processor, sys.executable, *map(str, arguments)], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def on_avx2_alone(*arguments):
    return run_python(*arguments, processor=command())


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
        patched.setattr("pipeline.optimize.engine.measure_gain", lambda *_, **__: Gain(1.5, True))
        return quantize({source.name: source}, mode, samples, samples, RunDirectory(folder)).artifacts[source.name]


def largest_pair(path):
    """Return the largest sum of two paired int8 weights of a graph whose products are added in 16 bits without VNNI."""
    products = [product for product in integer_products(onnx.load(path)) if product.pairing is not None]
    return max((largest_sums(in_rows(p.weights.astype(int), p.pairing)).max() for p in products), default=0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, build):
    """Return the float graphs by name."""
    folder = tmp_path_factory.mktemp("float")
    texts = {name: text for name, (text, *_) in GRAPHS.items()} | {"stored": STORED}
    for name, text in texts.items():
        onnx.save(float_model(build, text), folder / f"{name}.onnx")
    return {name: load_graph("model", str(folder / f"{name}.onnx")) for name in texts}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, sources, settings, shipped):
    """Return a folder of graphs, `safe` for any x86 and with `full` 8 bits, and of their inputs; and the artifacts."""
    folder, artifacts = tmp_path_factory.mktemp("graphs"), {}
    for name, (_, mode, changes, _) in GRAPHS.items():
        sample = sample_of(sources[name].model)
        for kind, choice in KINDS.items():
            made = tmp_path_factory.mktemp("runs") / "run"
            artifacts[name, kind] = quantized(sources[name], settings(mode, **changes, **choice), sample, made)
            shutil.copy(artifacts[name, kind].path, folder / f"{name}_{kind}.onnx")
            np.savez(folder / f"{name}_{kind}.npz", **sample.inputs)
    mels = {"mels": np.random.default_rng(0).standard_normal((1, 80, 20)).astype(np.float32)}
    for kind, choice in KINDS.items():
        made = tmp_path_factory.mktemp("runs") / "run"
        vocoder = quantized(shipped("vocoder"), settings("dynamic", **choice), Sample("probe", mels), made)
        shutil.copy(vocoder.path, folder / f"vocoder_{kind}.onnx")
        np.savez(folder / f"vocoder_{kind}.npz", **mels)
    return folder, artifacts


@pytest.fixture(scope="module")
def outputs(graphs, tmp_path_factory):
    """Return the outputs of every graph: name and kind -> (on this processor, on a Haswell)."""
    folder, _ = graphs
    here, there = (tmp_path_factory.mktemp(name) for name in ("here", "haswell"))
    run_python(RUN_GRAPHS, folder, here)
    on_avx2_alone(RUN_GRAPHS, folder, there)
    return {path.stem: tuple(dict(np.load(of / path.name)) for of in (here, there)) for path in sorted(here.glob("*.npz"))}


@pytest.fixture(scope="module")
def exact_outputs(graphs, tmp_path_factory):
    """Return the outputs on a Haswell of every graph with its weights as uint8."""
    own, results = tmp_path_factory.mktemp("own"), tmp_path_factory.mktemp("exact")
    for path in graphs[0].glob("*_full.onnx"):
        onnx.save(with_uint8_weights(onnx.load(path)), own / path.name)
        shutil.copy(path.with_suffix(".npz"), own)
    on_avx2_alone(RUN_GRAPHS, own, results)
    return {path.stem: dict(np.load(path)) for path in sorted(results.glob("*.npz"))}


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
def test_paired_weights_are_kept_small_exactly_where_their_sums_would_saturate(sources, settings, saturates, tmp_path, name):
    """On the processor that runs this: any that a developer has, and below, one without VNNI."""
    _, mode, changes, _ = GRAPHS[name]
    sample = sample_of(sources[name].model)
    path = quantized(sources[name], settings(mode, **changes), sample, tmp_path / "run").path
    if saturates and name.startswith("conv") and mode == "static":  # larger where activations of calibration allow it
        assert not any(saturating_shares(onnx.load(path), [sample]).values())
    else:
        assert (largest_pair(path) > ROOM) == (not saturates and name not in EXACT_AT_8_BITS)


@pytest.mark.parametrize("here", [{"avx2"}, {"avx2", "avx512_vnni"}, {"avx2", "avx512_vnni", "amx_int8"}])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_file_depends_on_its_target_and_not_on_the_processor_that_writes_it(
    sources, settings, monkeypatch, tmp_path, mode, here
):
    monkeypatch.setattr("pipeline.quantize.target.cpu_flags", lambda: frozenset(here))
    sample = sample_of(sources["matmul"].model)
    pairs, types = {}, {}
    for target in Target:
        made = quantized(sources["matmul"], settings(mode, target=target, **IN_PAIRS_OF[mode]), sample, tmp_path / target.name)
        pairs[target.name] = largest_pair(made.path)
        types[target.name] = {t.data_type for t in onnx.load(made.path).graph.initializer if len(t.dims) > 1}
    assert 100 < pairs["x86"] <= ROOM
    assert min(pairs[name] for name in ("x86_vnni", "x86_amx", "arm", "arm_i8mm")) > 1.8 * ROOM
    if mode == "static":
        assert 100 < pairs["x86_avx2"] <= ROOM
    else:  # weights of uint8, whose products are added exactly
        assert pairs["x86_avx2"] == 0
        assert types["x86_avx2"] == {onnx.TensorProto.UINT8}


def test_seven_and_eight_bits_are_written_where_they_are_asked_for(sources, settings, tmp_path):
    sample = sample_of(sources["conv"].model)
    for number, (target, reduce_range, most) in enumerate([(Target.x86_vnni, True, 64), (Target.x86, False, 127)]):
        chosen = settings("static", target=target, reduce_range=reduce_range)
        path = quantized(sources["conv"], chosen, sample, tmp_path / str(number)).path
        [product, *_] = integer_products(onnx.load(path))
        assert np.abs(product.weights.astype(int)).max() == most


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"avx2"}, Target.x86_avx2),
        ("x86_64", {"avx2", "avx_vnni"}, Target.x86_vnni),
        ("AMD64", {"avx2", "avx512_vnni", "amx_int8"}, Target.x86_amx),
        ("x86_64", set(), Target.x86),
        ("aarch64", {"asimddp"}, Target.arm),
        ("arm64", {"asimddp", "i8mm"}, Target.arm_i8mm),
        ("arm64", set(), Target.arm),
    ],
)
def test_the_processor_of_this_machine_is_told_by_its_instructions(monkeypatch, machine, flags, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("pipeline.quantize.target.cpu_flags", lambda: frozenset(flags))
    assert this_machine() is expected


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
    ("changes", "saturates_on", "said"),
    [
        ({}, [], ""),
        ({"reduce_range": True}, [], ""),
        ({"reduce_range": False}, ["x86", "x86_avx2"], "can saturate on x86_avx2; on calibration data they do in 2: "),
        ({"target": Target.x86_vnni}, ["x86", "x86_avx2"], "quality is measured with exact sums, as x86_vnni computes them"),
        ({"target": Target.arm}, ["x86", "x86_avx2"], "quality is measured with exact sums, as arm computes them"),
    ],
)
def test_the_report_says_where_a_file_is_right_and_where_its_sums_saturate(
    sources, settings, monkeypatch, tmp_path, changes, saturates_on, said
):
    """On a processor without VNNI; files for others have 8 bits, and are measured here."""
    monkeypatch.setattr("pipeline.quantize.target.cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "run").mkdir()
    source, samples = sources["conv"], {"model": [sample_of(sources["conv"].model)]}
    result = quantize({"model": source}, settings("static", **changes), samples, samples, RunDirectory(tmp_path / "run"))
    fit = result.artifacts["model"].processors
    assert fit.made_for == changes.get("target", Target.x86_avx2).name
    assert fit.saturates_on == saturates_on
    assert fit.right_on == [target.name for target in Target if target.name not in saturates_on]
    assert fit.exact_in_range == ([] if changes else ["one", "two"])
    assert set(fit.weight_bits) == {"one", "two"}
    assert set(fit.weight_bits.values()) == ({7} if changes.get("reduce_range") else {8})
    assert all(0.001 < share < 1 for share in fit.saturating_sums.values())
    assert bool(fit.saturating_sums) == bool(saturates_on)
    notes = " ".join(result.warnings)
    assert said in notes
    assert ("saturate" in notes) == bool(said)


def test_quality_for_a_processor_with_exact_sums_is_measured_with_exact_sums(sources, settings, monkeypatch):
    monkeypatch.setattr("pipeline.quantize.target.cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    wanted = {target: exact_on_target_only(settings("static", target=target)) for target in (None, *Target)}
    assert {target for target, exact in wanted.items() if exact} == {
        Target.x86_vnni,
        Target.x86_amx,
        Target.arm,
        Target.arm_i8mm,
    }
    assert not exact_on_target_only(settings("fp16"))


@pytest.mark.qemu
@pytest.mark.skipif(bool(missing_for_emulation()), reason=f"needs {missing_for_emulation()}")
@pytest.mark.skipif(bool(missing_for_masking()), reason=f"needs {missing_for_masking()}")
def test_an_emulated_haswell_and_this_processor_without_what_is_newer_compute_the_same(graphs, tmp_path):
    """Saturated sums included, in kernels of Conv and of matrix products."""
    some = tmp_path / "graphs"
    some.mkdir()
    for name in ("conv_full", "matmul_full", "conv_depthwise_full"):
        for ending in (".onnx", ".npz"):
            shutil.copy(graphs[0] / (name + ending), some)
    found = []
    for processor in (masked(), EMULATED):
        results = tmp_path / processor[0]
        results.mkdir()
        run_python(RUN_GRAPHS, some, results, processor=processor)
        found.append({path.name: dict(np.load(path)) for path in results.glob("*.npz")})
    assert len(found[0]) == 3
    np.testing.assert_equal(*found)


@pytest.mark.qemu
@needs_avx2_alone
@pytest.mark.parametrize("name", GRAPHS)
def test_a_file_for_any_x86_gives_the_same_to_the_bit_without_vnni(graphs, outputs, name):
    """Sums of integers are exact in any order; the floats around them are computed one by one, the same in any width."""
    *_, kernel = GRAPHS[name]
    assert kernel in graphs[1][name, "safe"].kernels
    here, haswell = outputs[f"{name}_safe"]
    np.testing.assert_array_equal(haswell["y"], here["y"])


@pytest.mark.qemu
@needs_avx2_alone
@pytest.mark.parametrize("name", GRAPHS)
def test_full_weights_of_eight_bits_saturate_without_vnni_where_a_kernel_adds_in_16(sources, outputs, name):
    """Else the test above would pass whatever QEMU does."""
    model = sources[name].model
    [expected] = open_session(model).run(None, dict(sample_of(model).inputs))
    safe, full = (largest_error(outputs[f"{name}_{kind}"][1]["y"], expected) for kind in KINDS)
    assert safe < 0.02
    assert full < 0.02 if name in EXACT_AT_8_BITS else full > 0.5


@pytest.mark.qemu
@needs_avx2_alone
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "conv_of_int8"])
def test_full_weights_as_uint8_give_the_same_to_the_bit_without_vnni(outputs, exact_outputs, name):
    """So quality for a processor whose sums do not saturate can be told on one whose sums do."""
    here, _ = outputs[f"{name}_full"]
    np.testing.assert_array_equal(exact_outputs[f"{name}_full"]["y"], here["y"])


@pytest.mark.qemu
@needs_avx2_alone
def test_stored_weights_run_where_onnxruntime_is_asked_for_exact_products(sources, settings, tmp_path):
    """ONNX Runtime 1.32 fails at the first run under this option where int8 weights have no zero points."""
    sample = sample_of(sources["stored"].model)
    stored = quantized(sources["stored"], settings("weight_only"), sample, tmp_path / "run")
    for folder in ("graphs", "results"):
        (tmp_path / folder).mkdir()
    shutil.copy(stored.path, tmp_path / "graphs" / "stored.onnx")
    np.savez(tmp_path / "graphs" / "stored.npz", **sample.inputs)
    on_avx2_alone(RUN_GRAPHS, tmp_path / "graphs", tmp_path / "results", "exact")
    [expected] = open_session(stored.path).run(None, dict(sample.inputs))
    with np.load(tmp_path / "results" / "stored.npz") as found:
        assert largest_error(found["y"], expected) < 1e-5


@pytest.mark.qemu
@needs_avx2_alone
def test_a_shipped_vocoder_for_any_x86_computes_the_same_without_vnni(outputs):
    """Between its integers are sums of floats, whose last bits may follow the width of vectors: hence no comparison of bits."""
    here, haswell = outputs["vocoder_safe"]
    assert set(here) == {"mag", "x", "y"}
    for output, expected in here.items():
        assert largest_error(haswell[output], expected) < 1e-5


@pytest.mark.qemu
@needs_avx2_alone
def test_a_shipped_vocoder_for_any_x86_is_within_1_db_of_one_with_full_weights_and_exact_sums(
    graphs, outputs, exact_outputs, shipped
):
    with np.load(graphs[0] / "vocoder_full.npz") as inputs:
        [expected] = open_session(shipped("vocoder").model).run(["y"], dict(inputs))
    noise = [np.square(found["y"] - expected).sum() for found in (outputs["vocoder_safe"][1], exact_outputs["vocoder_full"])]
    assert noise[0] < 10**0.1 * noise[1]


@pytest.mark.qemu
@needs_avx2_alone
def test_a_shipped_vocoder_of_full_weights_is_worse_without_vnni(graphs, outputs, shipped):
    with np.load(graphs[0] / "vocoder_full.npz") as inputs:
        [expected] = open_session(shipped("vocoder").model).run(["y"], dict(inputs))
    safe, full = (largest_error(outputs[f"vocoder_{kind}"][1]["y"], expected) for kind in KINDS)
    assert full > 3 * safe


@pytest.mark.qemu
@needs_avx2_alone
def test_tests_that_expect_exact_sums_pass_without_vnni():
    """And the processor is recognised from within."""
    recognised = test_paired_weights_are_kept_small_exactly_where_their_sums_would_saturate.__name__
    here = f"{Path(__file__).resolve().relative_to(REPO)}::{recognised}"
    no_plugins = ("-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:hydra_pytest", "-p", "no:xdist")
    said = on_avx2_alone("-c", TESTS, *no_plugins, "-m", "not qemu", *EXACT, here)
    assert re.search(r"\d\d passed", said)
    assert "skipped" not in said
