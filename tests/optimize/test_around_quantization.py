"""Before a search, operators are opened to integer kernels, whatever time faster float operators take."""

from types import SimpleNamespace

import numpy as np

from pipeline.config.mode_settings import AutoConfig
from pipeline.optimize import around_quantization
from pipeline.optimize.around_quantization import OPENING_MAY_COST, opened
from pipeline.optimize.engine import Rewritten
from pipeline.own_time import own_time
from pipeline.sample import Sample

UPSAMPLES = """net (float[1, 8, n] x) => (float[1, 8, m] y) {
    a = Relu (x)
    [up] y = ConvTranspose <strides = [2], pads = [1, 1]> (a, w)
}"""


def test_rewrites_that_open_nodes_are_tried_though_others_use_up_their_time(build, make_weight, monkeypatch):
    model = build(UPSAMPLES, w=make_weight(8, 8, 4))
    given = []

    def slow(graph, *_, max_seconds, **__):
        given.append(max_seconds)
        return Rewritten(graph, (), ())

    monkeypatch.setattr(around_quantization, "apply", slow)
    monkeypatch.setattr(around_quantization, "speedups", lambda *_, **__: {"opened": OPENING_MAY_COST})
    samples = [Sample("s", {"x": np.zeros((1, 8, 40), np.float32)})]
    found = opened(SimpleNamespace(model=model), AutoConfig(name="auto"), samples, 1, until=own_time() + 60.0)
    assert 0.0 < given[0] <= 30.0, "half of the time"
    assert {node.op_type for node in found.model.graph.node} >= {"Conv"}
    assert not any(node.op_type == "ConvTranspose" for node in found.model.graph.node)
