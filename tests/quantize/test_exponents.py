"""A layer whose output is an exponent computes in float in `mode=static`: its rounding error would be a factor."""

import numpy as np
import pytest

from pipeline.config.choices import IntegerType
from pipeline.graph.prepare import prepare
from pipeline.quantize.exponents import layers_of_exponents
from pipeline.stages.quantize import needed_opset, plan_for

HEAD = """g (float[1, 32, t] x) => (float[1, 16, t] y) {{
    [body] h = Conv <pads = [1, 1]> (x, w_body)
    [head] p = Conv (h, w_head)
    logs, phase = Split <axis = 1> (p)
    {middle}
    wave = Sin (phase)
    y = Mul (m, wave)
}}"""
MIDDLES = {
    "the logarithm of a spectrum": ("m = Exp (logs)", {"head"}),
    "limited and weighed": ("scaled = Mul (logs, half) e = Exp (scaled) m = Clip (e, zero, most)", {"head"}),
    "Softplus": ("e = Exp (logs) one_more = Add (e, half) m = Log (one_more)", set()),
    "a logistic function": ("n = Neg (logs) e = Exp (n) one_more = Add (e, half) m = Div (half, one_more)", set()),
    "no exponent": ("m = Relu (logs)", set()),
}


@pytest.fixture
def head(build, make_weight):
    """Return a function: the operators between the head and the product -> the graph."""

    def make(middle):
        constants = {"half": np.float32(0.5), "zero": np.float32(0), "most": np.float32(9)}
        used = {name: value for name, value in constants.items() if name in middle}
        return build(HEAD.format(middle=middle), w_body=make_weight(32, 32, 3), w_head=make_weight(32, 32, 1), **used)

    return make


@pytest.mark.parametrize("name", MIDDLES)
def test_what_becomes_the_exponent_of_a_factor_is_found(head, name):
    middle, expected = MIDDLES[name]
    assert layers_of_exponents(head(middle).graph) == expected


def test_the_head_stores_its_weight_and_computes_in_float_unless_it_is_asked_for(head, source_of, settings):
    source = source_of(head(MIDDLES["the logarithm of a spectrum"][0]))

    def planned(**changes):
        mode = settings("static", **changes)
        plan = plan_for(prepare(source, opset=None, needed_opset=needed_opset(mode), preprocess=True), mode)
        return {name: precision.value for name, precision in plan.precisions.items()}

    static, stored = "int8, static ranges", "int8 weight, float computation"
    assert planned() == {"body": static, "head": stored}
    assert planned(nodes_to_quantize=["body", "head"]) == {"body": static, "head": static}
    assert planned(activation_type=IntegerType.uint16) == {"body": static, "head": static}  # 16 bits are fine enough
