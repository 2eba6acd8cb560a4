"""Graphs of PyTorch's newest exporter go through every mode, or one line says why not; modules name their nodes.

Where PyTorch is installed, the models are exported anew; the graphs in tests/exported/ are what it gave once.
"""

import importlib.util

import numpy as np
import onnx
import pytest

from pipeline.config.choices import Format
from pipeline.errors import ModelError, PipelineError
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import load_graph
from pipeline.sample import Sample
from pipeline.stages.quantize import quantize

STORED = {"hifigan", "vocos", "matcha", "conformer", "lstm"}
BANDS, TOKENS = 16, 20
TRACED = {"lstm": 40}  # frames; behind an LSTM the exporter freezes the length that it traced
MODES = {
    "dynamic": ("dynamic", {}),
    "dynamic of all": ("dynamic", {"op_types": ["all"], "subgraphs": True}),
    "static": ("static", {"min_channels": 1}),
    "qoperator": (
        "static",
        {"min_channels": 1, "format": Format.qoperator, "dynamic_op_types": [], "weight_only_op_types": []},
    ),
    "weight_only": ("weight_only", {}),
    "fp16": ("fp16", {}),
}
EXCLUDED = {  # a module, and how many layers it has
    "hifigan": ("resblocks", 4),
    "vocos": ("blocks.0", 3),
    "matcha": ("estimator", 4),
    "conformer": ("layers.1", 8),
    "lstm": ("second", 1),
}
LAYERS = {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM"}


def samples_of(name, lengths=(40, 26, 33)):
    """Return inputs of several lengths, where the graph takes them."""
    rng = np.random.default_rng(0)
    found = []
    for length in [TRACED.get(name, length) for length in lengths]:
        sound = rng.standard_normal((1, length, BANDS), dtype=np.float32)
        inputs = {
            "hifigan": {"mel": sound.transpose(0, 2, 1)},
            "vocos": {"mel": sound.transpose(0, 2, 1)},
            "matcha": {
                "tokens": rng.integers(0, TOKENS, (1, length)),
                "lengths": np.array([length]),
                "temperature": np.array([0.7], np.float32),
            },
            "conformer": {"features": sound, "lengths": np.array([length])},
            "lstm": {"features": sound},
        }[name]
        found.append(Sample(f"s{len(found)}", inputs))
    return found


def check_every_mode(name, source, directory, settings, modes=tuple(MODES)):
    """Check that each mode gives a valid graph that runs at other lengths, or one error; return what each gave."""
    samples, given = samples_of(name), {}
    for number, mode in enumerate(modes):
        kind, changes = MODES[mode]
        try:
            made = quantize({name: source}, settings(kind, **changes), {name: samples}, {name: samples}, directory(number))
        except PipelineError as error:
            assert "\n" not in str(error)
            given[mode] = str(error)
            continue
        artifact = made.artifacts[name]
        onnx.checker.check_model(str(artifact.path), full_check=True)
        session = open_session(artifact.path)
        for sample in samples:
            outputs = infer(session, sample)
            assert all(np.isfinite(array).all() for array in outputs.values())
        given[mode] = artifact
    return given


@pytest.fixture
def directory(tmp_path):
    from pipeline.record.run_directory import RunDirectory

    def make(number):
        path = tmp_path / f"run{number}"
        path.mkdir()
        return RunDirectory(path)

    return make


@pytest.fixture
def stored(repo):
    return lambda name: load_graph(name, str(repo / "tests" / "exported" / f"{name}.onnx"))


@pytest.mark.parametrize("name", sorted(STORED))
def test_every_mode_takes_an_exported_model_or_says_why_not(name, stored, directory, settings):
    given = check_every_mode(name, stored(name), directory, settings)
    refused = {mode: said for mode, said in given.items() if isinstance(said, str)}
    assert all("nothing" in said or "no node" in said for said in refused.values()), refused
    assert refused.keys() <= {"qoperator", "weight_only"}


@pytest.mark.parametrize("name", sorted(STORED))
def test_the_layers_of_a_module_are_excluded_by_its_path(name, stored, directory, settings):
    module, layers = EXCLUDED[name]
    source, samples = stored(name), samples_of(name)
    mode = settings("dynamic", nodes_to_exclude=[module], op_types=["all"])
    artifact = quantize({name: source}, mode, {name: samples}, {name: samples}, directory(0)).artifacts[name]
    excluded = [kept.node for kept in artifact.kept if "excluded" in kept.reason]
    assert len(excluded) == layers
    left = {node.name: node.op_type for node in onnx.load(artifact.path).graph.node}
    assert all(left[node] in LAYERS for node in excluded)
    assert artifact.quantized_nodes
    assert all(artifact.modules[node].startswith(module) for node in excluded)


def test_a_length_that_the_exporter_froze_is_the_originals_fault_and_said_so(run_quickly, repo, tmp_path):
    sound = np.random.default_rng(0).standard_normal((1, 31, BANDS), dtype=np.float32)
    np.savez(tmp_path / "data.npz", **{f"{key}/features": sound for key in "abcd"})
    done = run_quickly(
        "model=onnx", f"model.path={repo / 'tests' / 'exported' / 'lstm.onnx'}", "mode=dynamic",
        f"evaluation.path={tmp_path / 'data.npz'}",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
    assert "original" in done.stderr
    assert "on_bad_sample" in done.stderr


HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "onnxscript"))


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch and onnxscript are not installed (extra `recipes`)")
@pytest.mark.parametrize("external_data", [False, True], ids=["one file", "external data"])
@pytest.mark.parametrize("opset", [None, "newest"], ids=["default opset", "newest opset"])
@pytest.mark.parametrize("name", sorted(STORED))
def test_what_the_installed_exporter_writes_goes_through(name, opset, external_data, tmp_path, directory, settings):
    from data.recipes.torch_exports import NEWEST_OPSET, export

    path = tmp_path / "exported" / f"{name}.onnx"
    export(name, path, opset=NEWEST_OPSET if opset else None, external_data=external_data)
    try:
        source = load_graph(name, str(path))
    except ModelError as error:
        assert name == "matcha" and opset
        assert "RandomNormalLike" in str(error)
        return
    given = check_every_mode(name, source, directory, settings, ("dynamic", "static", "fp16"))
    assert not any(isinstance(said, str) for said in given.values()), given


def test_noise_of_an_opset_that_onnx_runtime_has_none_of_is_one_line_that_names_an_older_one(build, tmp_path):
    text = "g (float[1, n] x) => (float[1, n] y) { r = RandomNormalLike (x)  y = Add (x, r) }"
    onnx.save(build(text, 22, 10), tmp_path / "noise.onnx")
    with pytest.raises(ModelError, match=r"RandomNormalLike\(22\).* Export the model with opset 21 or an older one") as found:
        load_graph("model", str(tmp_path / "noise.onnx"))
    assert "\n" not in str(found.value)


def test_an_operator_that_no_older_opset_has_is_refused_without_such_advice(build, tmp_path):
    text = 'g (uint8[n] x) => (uint8[h, w, 3] y) { y = ImageDecoder <pixel_format = "RGB"> (x) }'
    onnx.save(build(text, 20, 9), tmp_path / "image.onnx")
    with pytest.raises(ModelError, match=r"ImageDecoder\(20\)") as found:
        load_graph("model", str(tmp_path / "image.onnx"))
    assert "Export" not in str(found.value)
