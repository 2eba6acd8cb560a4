"""Models that tests/fuzz.py mutates by seeds, and what a run does with them."""

import contextlib
import os
import random
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.mutated_bytes import NUMBERS, REPO, TEXTS, mutated_bytes
from tests.mutated_settings import MODES, run_settings

BASES = ("conformer", "hifigan", "lstm", "matcha", "vocos")  # tests/exported
SHIPPED = ("vocoder/vocos.onnx", "asr/model.onnx")  # now and then: they are a hundred times as large
LIMITS = ("limits.opening_seconds=20", "limits.memory_mb=1500", "limits.sample_mb=100")


def mutated_model(seed: int) -> bytes:
    """Return a model with one to four changes: of bytes, of a kind that may break it, or of a kind that should not."""
    rng = random.Random(seed)
    if rng.random() < 0.02:
        path = REPO / "data" / "models" / rng.choice(SHIPPED)
    else:
        path = REPO / "tests" / "exported" / f"{rng.choice(BASES)}.onnx"
    if (kind := rng.random()) < 0.2:
        return mutated_bytes(path.read_bytes(), rng)
    model = onnx.load(path)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        with contextlib.suppress(ValueError, TypeError, IndexError, AttributeError):  # a change that protobuf does not take
            rng.choice(CHANGES if kind < 0.5 else WHOLE)(model, rng)
    return model.SerializeToString()


def _node(model, rng):
    return rng.choice(model.graph.node)


def change_operator(model, rng):
    """Let a node be of the type of another one, or of one that does not exist."""
    kinds = sorted({node.op_type for node in model.graph.node})
    _node(model, rng).op_type = rng.choice(
        [*kinds, *kinds, "Frobnicate", "Loop", "If", "Scan", "Reshape", "Div", "Gather", "Conv"]
    )


def change_input(model, rng):
    """Let a node read another tensor, one more or one less."""
    node, other = _node(model, rng), _node(model, rng)
    names = [*other.output, *other.input, *(tensor.name for tensor in model.graph.initializer), *TEXTS[:4]]
    place = rng.randrange(len(node.input) + 1)
    if place == len(node.input):
        node.input.append(rng.choice(names))
    elif rng.random() < 0.3:
        del node.input[place]
    else:
        node.input[place] = rng.choice(names)


def change_output(model, rng):
    """Let a node make another tensor."""
    node = _node(model, rng)
    node.output[rng.randrange(len(node.output))] = rng.choice([*_node(model, rng).output, *TEXTS])


def change_node_list(model, rng):
    """Remove, repeat or move a node."""
    nodes = list(model.graph.node)
    place = rng.randrange(len(nodes))
    match rng.randrange(3):
        case 0:
            del nodes[place]
        case 1:
            nodes.insert(rng.randrange(len(nodes)), nodes[place])
        case 2:
            nodes.insert(rng.randrange(len(nodes)), nodes.pop(place))
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def change_attribute(model, rng):
    """Give an attribute another value or type, or remove it."""
    node = rng.choice([node for node in model.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    match rng.randrange(6):
        case 0:
            node.attribute.remove(attribute)
        case 1:
            attribute.i = rng.choice(NUMBERS)
        case 2:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        case 3:
            attribute.ints.append(rng.choice(NUMBERS))
        case 4:
            attribute.f = rng.choice((float("nan"), float("inf"), -1e38, 0.0))
        case 5:
            attribute.type = rng.randrange(15)


def change_constant(model, rng):
    """Give a constant other dimensions, another type, other or fewer values, or remove it."""
    place = rng.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[place]
    match rng.randrange(7):
        case 0:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        case 1:
            tensor.dims.append(rng.choice(NUMBERS[:4]))
        case 2:
            tensor.data_type = rng.randrange(24)
        case 3:
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 4:
            del model.graph.initializer[place]
        case 5:
            values = numpy_helper.to_array(tensor).copy()
            bad = rng.choice((np.nan, np.inf, -1, 0, 1e30)) if values.dtype.kind == "f" else rng.choice(NUMBERS[:7])
            values.reshape(-1)[rng.randrange(max(values.size, 1)) :: rng.choice((1, 7))] = np.asarray(bad).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        case 6:
            tensor.name = rng.choice([*TEXTS, model.graph.initializer[0].name])


def change_value(model, rng):
    """Change what the graph says of an input or an output."""
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    kind = value.type.tensor_type
    match rng.randrange(5):
        case 0:
            kind.elem_type = rng.randrange(24)
        case 1:
            kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(NUMBERS)
        case 2:
            kind.shape.dim.add().dim_param = rng.choice(TEXTS)
        case 3:
            value.name = rng.choice([*TEXTS, *_node(model, rng).output])
        case 4:
            value.ClearField("type")


def change_header(model, rng):
    """Change versions, names and metadata."""
    match rng.randrange(5):
        case 0:
            model.opset_import[0].version = rng.choice([*NUMBERS, 7, 11, 13, 21, 25])
        case 1:
            model.ir_version = rng.choice([*NUMBERS, 3, 10])
        case 2:
            entry = model.metadata_props.add()
            entry.key, entry.value = rng.choice(("sample_rate", "model_type", "", "vocab_size")), rng.choice(TEXTS)
        case 3:
            _node(model, rng).name = rng.choice(TEXTS)
        case 4:
            _node(model, rng).domain = rng.choice(("com.microsoft", "evil", "ai.onnx.ml"))


CHANGES = (
    change_operator, change_input, change_output, change_node_list, change_attribute, change_attribute, change_constant,
    change_constant, change_value, change_header,
)  # fmt: skip


# What leaves a graph whole, so that it comes further than to ONNX Runtime's checks


def insert_operators(model, rng):
    """Put operators of one input between a node and what it reads."""
    place = rng.randrange(len(model.graph.node))
    node = model.graph.node[place]
    read = rng.choice([number for number, name in enumerate(node.input) if name])
    chain = rng.choice(CHAINS)
    names = [f"{node.input[read]}{rng.choice(ENDINGS)}{number}" for number in range(len(chain))]
    before = node.input[read]
    for number, (kind, attributes) in enumerate(chain):
        made = helper.make_node(kind, [before], [names[number]], name=rng.choice(("", names[number])), **attributes)
        model.graph.node.insert(place + number, made)
        before = names[number]
    model.graph.node[place + len(chain)].input[read] = before


def rename_tensor(model, rng):
    """Give a tensor another name, everywhere; such as one that a quantizer would give."""
    old = rng.choice([*_node(model, rng).output, *(tensor.name for tensor in model.graph.initializer)])
    new = rng.choice((*TEXTS[1:], *(f"{rng.choice(_node(model, rng).output)}{ending}" for ending in ENDINGS)))
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new if name == old else name
    graph = model.graph
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new if value.name == old else value.name


def fill_constant(model, rng):
    """Give a constant one value, or every seventh element of it."""
    tensor = rng.choice(model.graph.initializer)
    values = numpy_helper.to_array(tensor).copy()
    kinds = (0, 1, -1, np.nan, np.inf, -np.inf, 1e30, 1e-40, 65504.0, 70000.0) if values.dtype.kind == "f" else (0, 1, -1, 2)
    values.reshape(-1)[:: rng.choice((1, 1, 7))] = rng.choice(kinds)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def move_constant(model, rng):
    """Let a constant be an input with a default, the output of a Constant or an Identity, or be there twice."""
    place = rng.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[place]
    match rng.randrange(4):
        case 0:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        case 1:
            model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
            del model.graph.initializer[place]
        case 2:
            model.graph.node.insert(0, helper.make_node("Identity", [f"{tensor.name}_0"], [tensor.name]))
            tensor.name = f"{tensor.name}_0"
        case 3:
            model.graph.initializer.add().CopyFrom(tensor)


def change_type_of_constant(model, rng):
    """Keep a constant in another type, and cast it where it is read."""
    tensor = rng.choice(model.graph.initializer)
    values, name, kind = numpy_helper.to_array(tensor), tensor.name, tensor.data_type
    other = rng.choice((np.float16, np.float64, np.int8, np.int32))
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(np.nan_to_num(values).astype(other), f"{name}_kept"))
    model.graph.node.insert(0, helper.make_node("Cast", [f"{name}_kept"], [name], to=kind))


def change_ends(model, rng):
    """Declare further outputs, other axes, or less of what is inside."""
    graph = model.graph
    match rng.randrange(5):
        case 0:
            graph.output.add().name = rng.choice(_node(model, rng).output)
        case 1:
            del graph.value_info[:]
        case 2:
            for dim in rng.choice([*graph.input, *graph.output]).type.tensor_type.shape.dim:
                dim.dim_param = rng.choice(("n", "", "batch", TEXTS[4]))
        case 3:
            graph.output.add().CopyFrom(rng.choice([*graph.input, *graph.output]))
        case 4:
            graph.input.append(helper.make_tensor_value_info(rng.choice(TEXTS[1:]), rng.choice((1, 7, 8, 9, 10)), ["n", 3]))


def change_words(model, rng):
    """Change names and texts that mean nothing to the graph."""
    match rng.randrange(5):
        case 0:
            for node in model.graph.node:
                node.name = ""
        case 1:
            _node(model, rng).doc_string = rng.choice(TEXTS)
        case 2:
            model.graph.name = rng.choice(TEXTS)
        case 3:
            entry = _node(model, rng).metadata_props.add()
            entry.key, entry.value = rng.choice(("namespace", "pkg.torch.onnx.name_scopes", "")), rng.choice(TEXTS)
        case 4:
            model.opset_import[0].version = rng.choice((11, 13, 16, 17, 18, 19, 20, 21, 22))


def put_into_branches(model, rng):
    """Let a node be in the branches of an If."""
    place = rng.randrange(len(model.graph.node))
    node = type(model.graph.node[place])()
    node.CopyFrom(model.graph.node[place])
    ends = [onnx.ValueInfoProto(name=name) for name in node.output]
    branches = {name: helper.make_graph([node], name, [], ends) for name in ("then_branch", "else_branch")}
    model.graph.initializer.append(helper.make_tensor("condition", onnx.TensorProto.BOOL, [], [rng.random() < 0.5]))
    model.graph.node[place].CopyFrom(helper.make_node("If", ["condition"], node.output, **branches))


CHAINS = (
    (("Identity", {}),),
    (("Neg", {}), ("Neg", {})),
    (("Cast", {"to": 11}), ("Cast", {"to": 1})),
    (("Cast", {"to": 10}), ("Cast", {"to": 1})),
    (("Relu", {}), ("Sqrt", {})),
    (("Exp", {}), ("Log", {})),
    (("Reciprocal", {}),),
    (("Transpose", {}), ("Transpose", {})),
    (("Softmax", {"axis": -1}),),
    (("Dropout", {}),),
    (("Flatten", {"axis": 0}),),
    (("Tanh", {}), ("Sign", {}), ("Log", {})),
)
ENDINGS = ("_scale", "_zero_point", "_quantized", "_QuantizeLinear_Output", "_DequantizeLinear_Output", "_0", "")
WHOLE = (
    insert_operators, insert_operators, insert_operators, rename_tensor, rename_tensor, fill_constant, fill_constant,
    move_constant, change_type_of_constant, change_ends, change_words, put_into_branches,
)  # fmt: skip


def run_model(seed: int, folder: Path) -> None:
    """Load, inspect by its operators and quantize a mutated model, as a run does."""
    rng = random.Random(f"how {seed}")
    (folder / "model.onnx").write_bytes(mutated_model(seed))
    os.chdir(folder)
    stages = rng.choices(("[load,quantize]", "[load,quantize,evaluate]", "[load,inspect,quantize]"), (90, 6, 4))[0]
    run_settings(
        ["model=onnx", "model.path=model.onnx", f"mode={rng.choice(MODES)}", f"stages={stages}", *LIMITS,
         "evaluation.samples=2", "evaluation.node_samples=0"],
        folder,
    )  # fmt: skip
