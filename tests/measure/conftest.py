"""Models and samples that the tests of the benchmark time."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.sample import Sample

WIDTH = 160


@pytest.fixture(scope="session")
def matmul_chain():
    """Save `y = x @ W1 @ ... @ Wdepth`, x: float (frames, 160), with an element-wise op at the end; return the path."""

    def save(path, depth, op="Identity"):
        weights = np.random.default_rng(0).standard_normal((depth, WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
        nodes = [
            helper.make_node("MatMul", [f"t{k}" if k else "x", f"w{k}"], [f"t{k + 1}"], name=f"matmul_{k}")
            for k in range(depth)
        ]
        nodes.append(helper.make_node(op, [f"t{depth}"], ["y"], name="end"))
        inputs, outputs = (
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["frames", WIDTH])] for name in ("x", "y")
        )
        initializers = [numpy_helper.from_array(weight, f"w{k}") for k, weight in enumerate(weights)]
        graph = helper.make_graph(nodes, "chain", inputs, outputs, initializers)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
        return path

    return save


@pytest.fixture(scope="session")
def noise():
    """Return a maker of samples of so many frames."""

    def make(frames, name="x"):
        values = np.random.default_rng(frames).standard_normal((frames, WIDTH)).astype(np.float32)
        return Sample(f"frames-{frames}", {name: values})

    return make


@pytest.fixture(scope="session")
def chains(tmp_path_factory, matmul_chain):
    """Return the path of a chain of five products and of one of ten."""
    folder = tmp_path_factory.mktemp("chains")
    return matmul_chain(folder / "five.onnx", 5), matmul_chain(folder / "ten.onnx", 10)


@pytest.fixture
def temporary_directory(tmp_path, monkeypatch):
    """Let this test have the directory for temporary files, and so the machine's lock, to itself."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder
