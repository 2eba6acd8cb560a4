"""A model above 2 GB, which no protobuf message can hold, goes through every stage.

One mode is run on such a model: a pass over 2 GiB takes seconds, and a run makes many. That no mode asks for a message of the
whole model is seen on a small one, whose messages are refused as protobuf refuses those above 2 GB.
"""

import numpy as np
import onnx
import psutil
import pytest
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper

from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph import large_models
from pipeline.measure.benchmark_graph import benchmark_graph
from pipeline.models.onnx_file import OnnxFile
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample
from pipeline.stages.inspect import inspect_graph
from pipeline.stages.load import load
from pipeline.stages.quantize import quantize

WIDTH, WIDE, LAYERS = 8192, 16384, 4  # weights of 512 MiB each
GIB = 1 << 30


@pytest.fixture
def large_model(tmp_path):
    """Write a chain of matrix products with 2 GiB of weights in one external file, a layer at a time."""
    free_memory, free_disk = psutil.virtual_memory().available, psutil.disk_usage(str(tmp_path)).free
    if free_memory < 14 * GIB or free_disk < 12 * GIB:
        pytest.skip("needs 14 GiB of memory and 12 GiB of disk")
    yield write_chain(tmp_path, WIDTH, WIDE)
    for file in tmp_path.rglob("*"):  # pytest would keep them
        if file.is_file():
            file.unlink()


def write_chain(folder, width, wide):
    """Write a chain of matrix products, from `width` to `wide` channels and back, and return its file."""
    rng = np.random.default_rng(0)
    graph = onnx.GraphProto(name="large")
    tensor = "x"
    with (folder / "large.data").open("wb") as data:
        for layer in range(LAYERS):
            rows, columns = (wide, width) if layer % 2 else (width, wide)
            block = (rng.standard_normal((64, columns)) / rows**0.5).astype(np.float32)  # a weight repeats its first rows
            initializer = graph.initializer.add(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=(rows, columns))
            initializer.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.data"), ("offset", data.tell()), ("length", 4 * rows * columns)):
                initializer.external_data.add(key=key, value=str(value))
            for _ in range(rows // len(block)):
                data.write(block.data)
            output = "y" if layer == LAYERS - 1 else f"h{layer}"
            graph.node.append(helper.make_node("MatMul", [tensor, f"w{layer}"], [output], name=f"matmul_{layer}"))
            tensor = output
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "large.onnx").write_bytes(model.SerializeToString())
    return folder / "large.onnx"


def noise(width):
    rng = np.random.default_rng(1)
    return [Sample(name, {"x": rng.standard_normal((1, width)).astype(np.float32)}) for name in ("one", "two")]


def quantized(model, mode, samples, folder):
    """Return the artifact of a mode; all of the model's nodes are quantized."""
    folder.mkdir()
    given = {"model": samples}
    artifact = quantize(model.graphs, mode, given, given, RunDirectory(folder), threads=2).artifacts["model"]
    assert set(artifact.quantized_nodes) == {f"matmul_{layer}" for layer in range(LAYERS)}
    return artifact


def relative_error(model, artifact, samples, folder):
    """Return that of the outputs, as the stage finds it."""
    items = [EvaluationSample(sample) for sample in samples]
    config = EvaluationConfig(kind=EvaluationKind.tensors)
    found = evaluate(model, {"model": artifact}, items, config, RunDirectory(folder), RunLog(), seed=0)
    return found.metrics["relative_error"]["quantized"]


def test_a_model_above_two_gigabytes_goes_through_every_stage(large_model, settings, tmp_path):
    samples = noise(WIDTH)
    model = load(OnnxFile("onnx", str(large_model)))
    [source] = model.graphs.values()
    assert source.size_bytes > 2 * GIB
    inspection = inspect_graph(source, samples[0], CalibrationKind.arrays, threads=2)
    assert inspection.parameters == LAYERS * WIDTH * WIDE
    artifact = quantized(model, settings("dynamic"), samples, tmp_path / "run")
    assert artifact.size_bytes < 0.3 * source.size_bytes
    assert relative_error(model, artifact, samples, tmp_path / "run") < 0.1
    measured = benchmark_graph(source.path, artifact.path, samples, min_pairs=1, min_seconds=0, rounds=1, threads=2)
    assert measured.baseline_peak_bytes > 2 * GIB > measured.quantized_peak_bytes


@pytest.fixture
def message_limit(monkeypatch):
    """Let 8 MB be what 2 GB are: no message of a model may be larger, and ONNX and ONNX Runtime take nothing else in memory."""
    limit, serialize = 8_000_000, onnx.ModelProto.SerializeToString

    def serialize_or_refuse(model, **options):
        if model.ByteSize() > limit:
            raise EncodeError("Failed to serialize proto")
        return serialize(model, **options)

    monkeypatch.setattr(onnx.ModelProto, "SerializeToString", serialize_or_refuse)
    monkeypatch.setattr(large_models, "SERIALIZED_LIMIT_BYTES", 0.95 * limit)
    return limit


@pytest.mark.parametrize("preprocess", [True, False])
@pytest.mark.parametrize(("name", "share"), [("dynamic", 0.3), ("static", 0.3), ("weight_only", 0.3), ("fp16", 0.51)])
def test_no_mode_asks_for_a_message_of_the_whole_model(message_limit, settings, tmp_path, name, share, preprocess):
    samples = noise(WIDTH // 16)
    model = load(OnnxFile("onnx", str(write_chain(tmp_path, WIDTH // 16, WIDE // 16))))
    [source] = model.graphs.values()
    assert source.size_bytes > message_limit
    with pytest.raises(EncodeError):
        source.model.SerializeToString()
    artifact = quantized(model, settings(name, preprocess=preprocess), samples, tmp_path / "run")
    assert artifact.size_bytes < share * source.size_bytes
    assert relative_error(model, artifact, samples, tmp_path / "run") < 0.1
