"""Candidates beside their original: a graph that does twice the work is found to be slower."""

import numpy as np
import onnx

from pipeline.samples import Sample
from pipeline.search.latency import speedups


def test_a_graph_of_twice_the_products_is_slower_and_the_same_graph_is_not(build, make_weight):
    """The work of each is large beside what a call costs; the bounds are wide, since the machine may be busy."""
    weight = make_weight(256, 256)
    one = build("m (float[256, 256] x) => (float[256, 256] y) { y = MatMul (x, w) }", w=weight)
    four = build(
        "m (float[256, 256] x) => (float[256, 256] y) { a = MatMul (x, w) b = MatMul (a, w) c = MatMul (b, w) y = MatMul (c, w) }",
        w=weight,
    )
    sample = Sample("s", {"x": np.random.default_rng(0).standard_normal((256, 256), dtype=np.float32)})
    found = speedups(
        one, {"same": onnx.ModelProto.FromString(one.SerializeToString()), "four": four}, [sample], threads=1, seconds=0.3
    )
    assert found["four"] < 0.5 < found["same"]
