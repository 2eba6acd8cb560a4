"""Names of inner tensors: short where they take a good part of a file, and never those that clients and settings use."""

import numpy as np
import onnx
import pytest

from pipeline.graph.session import infer, open_session
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.quantize import short_names
from pipeline.quantize.short_names import restore_names, shorten_names
from pipeline.sample import Sample

LONG = "encoder_layers_0_self_attention_linear_projection_output_0"
NET = f"""net (float[1, 8] x, bool first) => (float[1, 8] y) {{
    [scale] {LONG} = Mul (x, the_weight_of_the_first_layer)
    [shift] {LONG}_1 = Add ({LONG}, {LONG})
    [branch] y = If (first) <
        then_branch = t () => (float[1, 8] {LONG}_3) {{ [inner] {LONG}_3 = Mul ({LONG}_1, the_weight_of_the_first_layer) }},
        else_branch = f () => (float[1, 8] {LONG}_4) {{ [as_is] {LONG}_4 = Identity ({LONG}_1) }}>
}}"""


@pytest.fixture
def net(build, make_weight):
    return build(NET, the_weight_of_the_first_layer=make_weight(1, 8))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    """Let files of these tests count, which have less than a kB."""
    monkeypatch.setattr(short_names, "LEAST_BYTES", 100)


def copy_of(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


def run(model, first):
    sample = Sample("s", {"x": np.ones((1, 8), np.float32), "first": np.array(first)})
    return infer(open_session(model), sample)["y"]


def test_inner_tensors_get_short_names_and_the_graph_computes_what_it_did(net):
    short = copy_of(net)
    saved = shorten_names(short, net)
    assert saved == pytest.approx(1 - short.ByteSize() / net.ByteSize())
    assert saved > 0.4
    onnx.checker.check_model(short, full_check=True)
    for first in (True, False):
        np.testing.assert_array_equal(run(short, first), run(net, first))
    names = {name for graph in graphs_of(short.graph) for node in graph.node for name in node.output}
    assert max(map(len, names)) == 1


def test_nodes_inputs_and_outputs_keep_their_names(net):
    short = copy_of(net)
    shorten_names(short, net)
    for part in (lambda g: g.input, lambda g: g.output):
        assert [value.name for value in part(short.graph)] == [value.name for value in part(net.graph)]
    nodes = [[node.name for graph in graphs_of(model.graph) for node in graph.node] for model in (short, net)]
    assert nodes[0] == nodes[1] == ["scale", "shift", "branch", "inner", "as_is"]


def test_no_short_name_is_that_of_an_input(build):
    nodes = f"{LONG} = Add (a, b) {LONG}_2 = Mul ({LONG}, a) c = Mul ({LONG}_2, a)"
    model = build(f"net (float[4] a, float[4] b) => (float[4] c) {{ {nodes} }}")
    assert shorten_names(model, copy_of(model)) > 0
    assert [node.output[0] for node in model.graph.node] == ["d", "e", "c"]


def test_in_a_file_that_is_mostly_weights_names_stay(build, make_weight):
    model = build(NET.replace("8", "40000"), the_weight_of_the_first_layer=make_weight(1, 40000))
    before = model.SerializeToString()
    assert shorten_names(model, copy_of(model)) == 0.0
    assert model.SerializeToString() == before


def test_a_file_of_a_few_kilobytes_keeps_its_names(net, monkeypatch):
    monkeypatch.undo()
    short = copy_of(net)
    assert shorten_names(short, net) == 0.0
    assert short == net


def test_what_was_added_gets_a_name_too_and_all_others_are_found_again(net):
    """The original names a tensor `f`, which is the short name that an added tensor gets."""
    net.graph.node[0].output[0] = net.graph.node[1].input[0] = net.graph.node[1].input[1] = "f"
    quantized = copy_of(net)
    quantized.graph.node[0].output[0] = "f_before_it_was_rounded"
    quantized.graph.node.insert(1, onnx.helper.make_node("Identity", ["f_before_it_was_rounded"], ["f"], name="rounding"))
    short = copy_of(quantized)
    assert shorten_names(short, net) > 0
    assert short.graph.node[0].output[0] == "f", "else this test says nothing"
    restore_names(short, net)
    for before, after in zip(quantized.graph.node, short.graph.node, strict=True):
        shared = [name for name in before.output if name != "f_before_it_was_rounded"]
        assert [name for name in after.output if name in shared] == shared, before.name
    np.testing.assert_array_equal(run(short, first=True), run(net, first=True))


def test_notes_on_the_ranges_of_tensors_speak_of_them_by_their_new_names(net):
    note = net.graph.quantization_annotation.add(tensor_name=LONG)
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="the_weight_of_the_first_layer")
    short = copy_of(net)
    shorten_names(short, net)
    [renamed] = short.graph.quantization_annotation
    assert renamed.tensor_name == short.graph.node[0].output[0]
    assert renamed.quant_parameter_tensor_names[0].value == short.graph.initializer[0].name


def test_a_graph_with_functions_of_its_own_keeps_its_names(net):
    net.functions.add(name="f", domain="own")
    short = copy_of(net)
    assert shorten_names(short, net) == 0.0
    assert short == net


def test_a_graph_with_its_own_names_keeps_them(net):
    same = copy_of(net)
    restore_names(same, net)
    assert same == net
