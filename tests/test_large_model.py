"""A model above 2 GB, which no protobuf message can hold, goes through every stage."""

import gc

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from pipeline.config.choices import CalibrationKind
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluation_kind import EvaluationKind
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
    tile = np.random.default_rng(0).standard_normal((WIDTH, 64)).astype(np.float32) / np.float32(WIDTH**0.5)
    graph = onnx.GraphProto(name="large")
    tensor = "x"
    with (tmp_path / "large.data").open("wb") as data:
        for layer in range(LAYERS):
            down = layer % 2
            weight = np.tile(tile, (1, WIDE // 64)).T if down else np.tile(tile, (1, WIDE // 64))
            weight = np.ascontiguousarray(weight)
            initializer = graph.initializer.add(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=weight.shape)
            initializer.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.data"), ("offset", data.tell()), ("length", weight.nbytes)):
                initializer.external_data.add(key=key, value=str(value))
            data.write(weight.data)
            output = "y" if layer == LAYERS - 1 else f"h{layer}"
            graph.node.append(helper.make_node("MatMul", [tensor, f"w{layer}"], [output], name=f"matmul_{layer}"))
            tensor = output
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH]))
    graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "large.onnx").write_bytes(model.SerializeToString())
    yield tmp_path / "large.onnx"
    for file in tmp_path.rglob("*"):  # pytest would keep them
        if file.is_file():
            file.unlink()


def test_a_model_above_two_gigabytes_goes_through_every_stage(large_model, settings, tmp_path):
    rng = np.random.default_rng(1)
    samples = [Sample(name, {"x": rng.standard_normal((1, WIDTH)).astype(np.float32)}) for name in ("one", "two")]
    model = load(OnnxFile("onnx", str(large_model)))
    [source] = model.graphs.values()
    assert source.size_bytes > 2 * GIB
    inspection = inspect_graph(source, samples[0], CalibrationKind.arrays, threads=2)
    assert inspection.parameters == LAYERS * WIDTH * WIDE
    for name in ("dynamic", "static", "weight_only"):
        # Folding has nothing to do here, and writes the model once more: one mode shows that it can.
        mode = settings(name, preprocess=name == "dynamic")
        (tmp_path / name).mkdir()
        directory = RunDirectory(tmp_path / name)
        given = {"model": samples}
        artifact = quantize(model.graphs, mode, given, given, directory, threads=2).artifacts["model"]
        assert artifact.size_bytes < 0.3 * source.size_bytes
        assert set(artifact.quantized_nodes) == {f"matmul_{layer}" for layer in range(LAYERS)}
        if name == "dynamic":
            items = [EvaluationSample(sample) for sample in samples]
            config = EvaluationConfig(kind=EvaluationKind.tensors)
            found = evaluate(model, {"model": artifact}, items, config, directory, RunLog(), seed=0)
            assert found.metrics["relative_error"]["quantized"] < 0.1
            measured = benchmark_graph(source.path, artifact.path, samples, min_pairs=1, min_seconds=0, rounds=1, threads=2)
            assert measured.baseline_peak_bytes > 2 * GIB > measured.quantized_peak_bytes
        artifact.path.unlink()
        gc.collect()
