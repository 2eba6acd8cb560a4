"""What the tests of the algorithms share: small graphs, samples, and one way to quantize."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.session import infer, open_session
from pipeline.quantize.calibrated_ranges import measured_ranges
from pipeline.quantize.static import plan_static, quantize_static, tensors_to_calibrate
from pipeline.sample import Sample

RESIDUAL_NET = """residual_net (float[1, 8, frames] x) => (float[1, 8, frames] y) {
    [first] a = Conv <pads = [1, 1]> (x, wa, ba)
    [leaky] b = LeakyRelu <alpha = 0.1> (a)
    [second] c = Conv <pads = [2, 2], dilations = [2]> (b, wb, bb)
    [add] d = Add (c, a)
    [relu] e = Relu (d)
    [up] f = ConvTranspose <pads = [1, 1]> (e, wc, bc)
    [tanh] y = Tanh (f)
}"""


def values(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture
def residual_net(build):
    """Return convolutions of very unequal channels, with a residual stream between them."""
    loud = np.geomspace(0.05, 5, 16, dtype=np.float32)
    weights = {
        "wa": values(16, 8, 3) * loud[:, None, None], "ba": values(16) * loud,
        "wb": values(16, 16, 3) * loud[:, None, None] / loud[:, None] / 16, "bb": values(16) * loud,
        "wc": values(16, 8, 3) / loud[:, None, None] / 40, "bc": values(8) / 10,
    }  # fmt: skip
    return inferred(build(RESIDUAL_NET, **weights))


def inferred(model):
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@pytest.fixture(scope="session")
def infer_shapes():
    """Return `inferred`."""
    return inferred


def samples_of(*shape, count=4, seed=7):
    return [Sample(f"s{k}", {"x": values(*shape[:-1], shape[-1] + k, seed=seed + k)}) for k in range(count)]


@pytest.fixture(scope="session")
def make_samples():
    """Return `samples_of`: samples of an input x whose last axis varies."""
    return samples_of


@pytest.fixture(scope="session")
def run():
    """Return a function: (graph, samples, names of tensors) -> those tensors, a list per sample."""

    def tensors(model, samples, names=None):
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        if names is not None:
            del shown.graph.output[:]
            shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = open_session(shown)
        return [list(infer(session, sample).values()) for sample in samples]

    return tensors


@pytest.fixture(scope="session")
def constant():
    """Return a function: (graph, name) -> the constant's values."""

    def of(model, name):
        return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)

    return of


@pytest.fixture
def static(settings, monkeypatch, tmp_path):
    """Return a function: (graph, samples, **settings) -> (plan, mode, ranges)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def make(model, samples, **changes):
        mode = settings("static", **({"op_types": ["Conv"], "min_channels": 1} | changes))
        plan = plan_static(PreparedGraph(model, (), frozenset()), mode)
        tensors = tensors_to_calibrate(model, plan, mode)
        return plan, mode, measured_ranges(model, samples, tensors, mode, threads=1, seed=0, on_sample=lambda _: None)

    return make


@pytest.fixture(scope="session")
def quantized():
    """Return a function: a copy of the graph, quantized as the pipeline does."""

    def make(model, plan, mode, ranges):
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        return quantize_static(copied, plan, mode, ranges)

    return make
