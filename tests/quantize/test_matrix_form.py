"""Products by a constant, in whichever form, are quantized; a table and the product by it share their bytes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.config.choices import Target
from pipeline.graph.prepare import prepare
from pipeline.graph.session import infer, open_session
from pipeline.quantize.matrix_form import in_matrix_form
from pipeline.sample import Sample

WORDS, WIDTH = 300, 64


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def types(model):
    return [node.op_type for node in model.graph.node]


def sqnr_db(before, after):
    return 10 * np.log10((before**2).sum() / ((before - after) ** 2).sum())


LEFT = {
    "between two Transposes": (
        """g (float[1, n, 64] x) => (float[1, n, 300] y) {
            t = Transpose <perm = [0, 2, 1]> (x) [mm] p = MatMul (c, t) y = Transpose <perm = [0, 2, 1]> (p) }""",
        (1, 5, 64), (300, 64), ["MatMul"],
    ),
    "alone": ("g (float[1, 64, n] x) => (float[1, 300, n] y) { [mm] y = MatMul (c, x) }", (1, 64, 5), (300, 64),
              ["Transpose", "MatMul", "Transpose"]),
    "by a vector": ("g (float[64] x) => (float[300] y) { [mm] y = MatMul (c, x) }", (64,), (300, 64), ["MatMul"]),
    "Gemm": ("g (float[64, n] x) => (float[300, n] y) { [mm] y = Gemm <alpha = 0.5, beta = 2.0> (c, x, b) }",
             (64, 5), (300, 64), ["Transpose", "Gemm", "Transpose"]),
    "Gemm, both turned": ("g (float[n, 64] x) => (float[300, n] y) { [mm] y = Gemm <transA = 1, transB = 1> (c, x) }", (5, 64),
                          (64, 300), ["Gemm", "Transpose"]),
    "Einsum": ('g (float[2, n, 64] x) => (float[2, n, 300] y) { [mm] y = Einsum <equation = "btd,dv->btv"> (x, c) }',
               (2, 5, 64), (64, 300), ["MatMul"]),
    "Einsum, its constant first": (
        'g (float[2, 64, n] x) => (float[2, 300, n] y) { [mm] y = Einsum <equation = "vd,bdt->bvt"> (c, x) }', (2, 64, 5),
        (300, 64), ["Transpose", "MatMul", "Transpose"],
    ),
    "Einsum into heads": (
        'g (float[2, n, 64] x) => (float[2, n, 4, 16] y) { [mm] y = Einsum <equation = "btd,dhk->bthk"> (x, c) }', (2, 5, 64),
        (64, 4, 16 * 5), ["MatMul", "Reshape"],
    ),
    "Einsum out of heads": (
        'g (float[2, n, 4, 20] x) => (float[2, n, 64] y) { [mm] y = Einsum <equation = "bthk,hkd->btd"> (x, c) }',
        (2, 5, 4, 20), (4, 20, 64), ["Reshape", "MatMul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", LEFT)
def test_a_product_by_a_constant_becomes_one_that_every_mode_knows(build, source_of, written, settings, form):
    text, shape, of_constant, wanted = LEFT[form]
    weights = {"c": random(*of_constant) / 8} | ({"b": random(300, 1)} if "c, x, b" in text else {})
    model = build(text.replace("4, 16]", "4, 80]"), **weights)
    prepared = in_matrix_form(prepare(source_of(model), opset=None, needed_opset=13, preprocess=True), settings("dynamic"))
    assert types(prepared.model) == wanted
    sample = Sample("s", {"x": random(*shape, seed=1)})
    before = infer(open_session(model), sample)["y"]
    assert np.allclose(infer(open_session(prepared.model), sample)["y"], before, atol=1e-5)
    for mode in ("static", "dynamic", "weight_only"):
        artifact, graph, _ = written(model, settings(mode), sample)
        assert list(artifact.quantized_nodes) == ["mm"]
        assert artifact.weights["int8"] > 0.9
        assert sqnr_db(before, infer(open_session(graph), sample)["y"]) > 35


@pytest.mark.parametrize(
    "text",
    [
        "g (float[64, n] x) => (float[8, n] y) { [mm] y = MatMul (c, x) }",
        'g (float[n, 64] x) => (float[8, n] y) { [mm] y = Einsum <equation = "nd,vd->vn"> (x, c) }',
    ],
)
def test_a_small_constant_stays_where_it_is(build, source_of, settings, text):
    model = build(text, c=random(8, 64))
    prepared = prepare(source_of(model), opset=None, needed_opset=13, preprocess=True)
    assert in_matrix_form(prepared, settings("dynamic")) is prepared


TIED = {
    "the table turned": "w = Transpose <perm = [1, 0]> (table) [head] y = MatMul (x, w)",
    "the table on the left": """t = Transpose <perm = [1, 0]> (x) [head] p = MatMul (table, t)
                                y = Transpose <perm = [1, 0]> (p)""",
    "Gemm": "[head] y = Gemm <transB = 1> (x, table)",
}


def tied(build, head):
    text = f"g (int64[n] ids) => (float[n, {WORDS}] y) {{ [look_up] e = Gather (table, ids) x = Tanh (e) {TIED[head]} }}"
    return build(text, table=random(WORDS, WIDTH))


IDS = Sample("s", {"ids": np.array([3, 299, 0, 17, 3])})


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight_only"])
@pytest.mark.parametrize("head", TIED)
def test_a_table_and_the_product_by_it_read_one_int8_copy(build, written, settings, head, mode):
    model = tied(build, head)
    artifact, graph, _ = written(model, settings(mode), IDS)
    large = {tensor.name: tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= WORDS * WIDTH}
    assert large == {"table_int8": TensorProto.INT8}
    assert set(artifact.quantized_nodes) == {"look_up", "head"}
    before, after = (infer(open_session(each), IDS)["y"] for each in (model, graph))
    assert sqnr_db(before, after) > 33


def test_a_table_of_uint8_with_zero_points_means_the_same(build, written, settings):
    model = tied(build, "the table turned")
    for settings_of in ({"target": Target.x86_avx2}, {"per_channel": False}):
        _, graph, _ = written(model, settings("dynamic", **settings_of), IDS)
        assert sum(np.prod(tensor.dims) >= WORDS * WIDTH for tensor in graph.graph.initializer) == 1
        before, after = (infer(open_session(each), IDS)["y"] for each in (model, graph))
        assert sqnr_db(before, after) > 33


NORMED = f"""g (int64[n] ids) => (float[n, {WORDS}] y) {{
    [look_up] e = Gather (table, ids) [norm] x = LayerNormalization (e, gamma, beta)
    w = Transpose <perm = [1, 0]> (table) [head] y = MatMul (x, w)
}}"""


@pytest.mark.parametrize("changed", ["smooth_quant", "cross_layer_equalization"])
def test_outliers_are_not_moved_into_a_product_whose_bytes_are_also_a_table(build, written, settings, changed):
    gamma = np.ones(WIDTH, np.float32)
    gamma[:4] = 50.0
    model = build(NORMED, opset=17, table=random(WORDS, WIDTH), gamma=gamma, beta=random(WIDTH, seed=2))
    artifact, graph, _ = written(model, settings("static", dynamic_op_types=[], **{changed: True}), IDS)
    assert set(artifact.quantized_nodes) >= {"look_up", "head"}
    before, after = (infer(open_session(each), IDS)["y"] for each in (model, graph))
    assert sqnr_db(before, after) > 20


@pytest.mark.parametrize("excluded", ["look_up", "head"])
def test_a_table_whose_reader_is_excluded_stays_float_once(build, written, settings, excluded):
    text = f"""g (int64[n] ids) => (float[n, {WORDS}] y) {{
        [look_up] e = Gather (table, ids) [other] x = MatMul (e, v)
        w = Transpose <perm = [1, 0]> (table) [head] y = MatMul (x, w)
    }}"""
    model = build(text, table=random(WORDS, WIDTH), v=random(WIDTH, WIDTH) / 8)
    artifact, graph, _ = written(model, settings("dynamic", nodes_to_exclude=[excluded]), IDS)
    large = {tensor.name: tensor.data_type for tensor in graph.graph.initializer if np.prod(tensor.dims) >= WORDS * WIDTH}
    assert large == {"table": TensorProto.FLOAT}
    assert set(artifact.quantized_nodes) == {"other"}


def test_the_product_is_one_integer_kernel_when_the_file_is_loaded(build, written, settings, tmp_path):
    artifact, _, _ = written(tied(build, "the table on the left"), settings("dynamic"), IDS)
    open_session(artifact.path, save_optimized=tmp_path / "loaded.onnx")
    assert "DynamicQuantizeMatMul" in types(onnx.load(tmp_path / "loaded.onnx"))
