"""Declared shapes that the operators contradict are dropped; what agrees with them, or is finer, stays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.graph.declared_shapes import drop_contradicted_shapes

TEXT = """g (float[1, 16, T] x) => (float[1, T, 8] y) {
    r = Relu (x)
    t = Transpose <perm = [0, 2, 1]> (r)
    y = MatMul (t, w)
}"""


@pytest.fixture
def declared(build, make_weight):
    """Return a function: declared shapes by tensor -> what is left of them."""

    def check(**shapes):
        model = build(TEXT, w=make_weight(16, 8))
        outputs = {value.name: value for value in model.graph.output}
        for name, shape in shapes.items():
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            if name in outputs:
                outputs[name].CopyFrom(value)
            else:
                model.graph.value_info.append(value)
        drop_contradicted_shapes(model)
        onnx.checker.check_model(model)
        left = {}
        for value in (*model.graph.value_info, *model.graph.output):
            tensor = value.type.tensor_type
            sizes = [dim.dim_value or dim.dim_param or None for dim in tensor.shape.dim]
            left[value.name] = sizes if tensor.HasField("shape") else None
        return {name: left[name] for name in shapes}

    return check


def test_a_length_that_was_frozen_gives_way_to_that_of_the_input(declared):
    assert declared(y=[1, 100, 8], r=[1, 16, 100]) == {"y": [1, None, 8], "r": [1, 16, None]}


def test_a_shape_of_another_rank_is_dropped(declared):
    assert declared(r=[1, 16]) == {"r": None}


def test_a_size_that_the_operators_make_otherwise_is_dropped(declared):
    assert declared(y=[1, "T", 9], t=[1, "T", 16]) == {"y": [1, "T", None], "t": [1, "T", 16]}


def test_what_the_inference_does_not_know_stays(build):
    text = "g (float[1, n] x, int64[2] to) => (float[1, 7] y) { y = Reshape (x, to) }"
    model = build(text)
    before = model.SerializeToString()
    drop_contradicted_shapes(model)
    assert model.SerializeToString() == before


def test_a_graph_with_wrong_shapes_is_quantized_and_right(
    tmp_path, build, make_weight, write_arrays, run_quickly, users_model, users_data
):
    model = build(TEXT.replace("float[1, T, 8] y", "float[1, 100, 8] y"), w=make_weight(16, 8))
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 16]))
    onnx.save(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    for name in ("calib", "eval"):
        arrays = {f"{name}{n}": {"x": rng.standard_normal((1, 16, n)).astype(np.float32)} for n in (40, 60, 90)}
        write_arrays(tmp_path / f"{name}.npz", arrays)
    arguments = ("mode=dynamic", "mode.optimize=true", "stages=[load,inspect,quantize,evaluate]")
    report = run_quickly(*users_model, *users_data, *arguments).succeeded().report
    assert report["evaluation"]["metrics"]["sqnr_db"]["quantized"] > 30
