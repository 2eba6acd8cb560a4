"""A rewrite that makes NaN of rows that are masked throughout is refused, though no probe has such a row."""

import numpy as np
import pytest
from small_graphs import graph_of
from test_engine import always

from pipeline.optimize import engine
from pipeline.optimize.equivalence import Reference
from pipeline.optimize.masked_rows import masks_with_infinity, with_all_masked
from pipeline.optimize.outcome import Refusal, Sites
from pipeline.optimize.rewrite_registry import Exactness, Rewrite
from pipeline.sample import Sample

ATTENTION = """(float[b,t,8] x, int64[b] lengths) => (float[b,t,8] y) {{
    scores = MatMul (x, w)
    s = Shape (scores)   frames = Gather (s, one)   positions = Range (zero, frames, one)
    column = Unsqueeze (lengths, axis)   valid = Less (positions, column)
    row = Unsqueeze (valid, axis)   masked = Not (row)
    turned = Transpose <perm = [0, 2, 1]> (x)
    products = MatMul (scores, turned)
    filled = Where (masked, infinite, products)
    p = Softmax (filled)
    {select}
    y = MatMul (z, x)
}}"""
SELECTED = "z = Where (masked, nothing, p)"
MULTIPLIED = "k = Cast <to = 1> (row)   z = Mul (p, k)"  # 0 * NaN is NaN
UNMASKED = "z = Identity (p)"  # the probe has no padding


@pytest.fixture
def attention(rng):
    weights = {
        "w": rng.standard_normal((8, 8), dtype=np.float32),
        "one": np.int64(1),
        "zero": np.int64(0),
        "axis": np.array([1], np.int64),
        "infinite": np.float32(-np.inf),
        "nothing": np.float32(0),
    }
    return lambda select: graph_of(ATTENTION.format(select=select), **weights)


@pytest.fixture
def probe(rng):
    """Return samples as a recogniser is evaluated on: one utterance each, without padding."""
    return [Sample(f"s{t}", {"x": rng.standard_normal((1, t, 8), dtype=np.float32), "lengths": np.array([t])}) for t in (9, 6)]


def test_a_product_in_the_place_of_a_selection_differs_where_all_is_masked(attention, probe):
    original = attention(SELECTED)
    assert masks_with_infinity(original) == {"valid": False}
    assert Reference(original, probe).difference(attention(MULTIPLIED)) == np.inf
    assert Reference(original, probe).difference(original) == 0


def test_a_graph_that_gives_nan_itself_where_all_is_masked_may_be_rewritten(attention, probe):
    assert Reference(attention(MULTIPLIED), probe).difference(attention(MULTIPLIED)) == 0
    assert Reference(attention(MULTIPLIED), probe).difference(attention(SELECTED)) == 0


def test_a_mask_that_is_not_needed_may_be_dropped(attention, probe):
    without = attention(UNMASKED)
    [softmax] = [node for node in without.graph.node if node.op_type == "Softmax"]
    softmax.input[0] = "products"
    assert Reference(attention(SELECTED), probe).difference(without) < 1e-4


def test_shapes_stay_where_all_is_masked(attention, probe):
    original = attention(SELECTED)
    [masked] = Reference(with_all_masked(original, {"valid": False}), probe[:1])._outputs
    assert masked["y"].shape == (1, 9, 8)
    assert not masked["y"].any()


def test_the_engine_refuses_such_a_rewrite(attention, probe, monkeypatch):
    def multiply(graph):
        found = [node for node in graph.nodes if node.op_type == "Where" and "nothing" in node.input]
        if not found:
            return Refusal("no selection")
        graph.remove(found[0])
        kept = graph.add_node("Cast", ["row"], like="kept", to=1)
        graph.add_node("Mul", ["p", kept], "z", name="z")
        return Sites(1)

    monkeypatch.setattr(engine, "REWRITES", (Rewrite("multiply", multiply, "a product", Exactness.bitwise),))
    found = engine.apply(attention(SELECTED), probe, measure=always)
    assert not found.applied
    assert "differs" in dict(found.rejected)["multiply"]
