"""Small graphs, samples of different lengths, and a reference that keeps every intermediate tensor."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from pipeline.sample import Sample

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[1, 4, T] x, int64[1] length) => (float[1, 6, U] y)
<float[6, 4, 3] w = {0}, float[6] b = {0.1, -0.2, 0.3, -0.4, 0.5, -0.6},
 int64[3] shape = {1, 6, -1}, float zero = {0}, float six = {6}>
{
    c = Conv <pads = [1, 1]> (x, w, b)
    leaky = LeakyRelu <alpha = 0.1> (c)
    t = Transpose <perm = [0, 2, 1]> (leaky)
    back = Reshape (t, shape)
    r = Relu (back)
    clipped = Clip (r, zero, six)
    s = Sigmoid (back)
    m = Mul (s, back)
    y = Add (m, clipped)
}
"""


@pytest.fixture
def graph() -> onnx.ModelProto:
    model = parser.parse_model(GRAPH)
    weight = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
    weight_proto = next(initializer for initializer in model.graph.initializer if initializer.name == "w")
    weight_proto.CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def make_samples():
    return _make_samples


@pytest.fixture
def samples() -> list[Sample]:
    return _make_samples(24)


@pytest.fixture
def every_value():
    return _every_value


def _make_samples(number: int, seed: int = 0, shortest: int = 500, longest: int = 3000) -> list[Sample]:
    """Samples of different lengths and loudness, heavy in the tails as speech is."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(number):
        length = int(rng.integers(shortest, longest))
        x = rng.uniform(0.5, 2) * rng.standard_t(5, (1, 4, length)).astype(np.float32)
        samples.append(Sample(f"utterance-{index}", {"x": x.astype(np.float32), "length": np.array([length])}))
    return samples


def _every_value(model: onnx.ModelProto, samples: Sequence[Sample], tensors: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """The reference: all values of all tensors, one flat array a sample."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in outside)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {value.name for value in model.graph.input}
    fetched = [name for name in tensors if name not in inputs]
    values: dict[str, list[np.ndarray]] = {name: [] for name in tensors}
    for sample in samples:
        arrays = dict(zip(fetched, session.run(fetched, sample.inputs), strict=True))
        for name in tensors:
            values[name].append(arrays.get(name, sample.inputs.get(name)).ravel().copy())
    return values
