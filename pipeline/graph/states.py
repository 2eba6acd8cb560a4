"""Outputs that a caller feeds back as inputs of the next call: states and caches of streaming models."""

import re
from collections.abc import Mapping

import onnx

DIRECTIONS = frozenset(
    {"in", "input", "inputs", "out", "output", "outputs", "new", "next", "past", "present", "prev", "previous", "cur",
     "current", "old", "init", "initial", "last", "final", "r", "n", "t", "updated"}
)  # fmt: skip

STEPS = frozenset({"past", "present", "prev", "previous", "next", "last", "old", "new", "cur", "current", "initial", "final"})


def states_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the outputs that are fed back, and the input that each becomes.

    They are told by what they are called and by their types and shapes: `new_cached_key_0` becomes `cached_key_0`,
    `present.0.key` becomes `past_key_values.0.key`, `stateN` becomes `state`, `hn` becomes `h0`. Where names tell nothing, an
    output and an input of one shape, which no other has, are a state (`state_like`). The first input is what a model hears, and
    is not a state.
    """
    inputs = _candidates(graph)
    found: dict[str, str] = {}
    for key in (_words, _without_ends):
        for output in graph.output:
            free = [value for value in inputs if value.name not in found.values()]
            words = key(output.name)
            fitting = [value for value in free if words and key(value.name) == words and _fits(output, value)]
            if output.name not in found and len(fitting) == 1 and output.name != fitting[0].name:
                found[output.name] = fitting[0].name
    alone = state_like(graph, found)
    found |= {
        outputs[0]: name for name, outputs in alone.items() if len(outputs) == 1 and list(alone.values()).count(outputs) == 1
    }
    return {value.name: found[value.name] for value in graph.output if value.name in found}


def state_like(graph: onnx.GraphProto, known: Mapping[str, str]) -> dict[str, list[str]]:
    """Return inputs that look like states though no name says so, and the outputs that each may be fed by.

    Such an input has three axes or more, all of fixed size, and an output of the same type and shape, not the first: what is
    heard, and what is told, is not fed back; nor is a vector, which may be a speaker or a style.

    Args:
        graph: the graph.
        known: states that are known: output -> input.
    """
    inputs = [value for value in _candidates(graph) if value.name not in known.values() and _is_fixed(value)]
    outputs = [value for value in graph.output[1:] if value.name not in known]
    found = {one.name: [other.name for other in outputs if _is_same(other, one)] for one in inputs}
    return {name: fitting for name, fitting in found.items() if fitting}


def _candidates(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants][1:]


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    return len(dims) >= 3 and all(dim.dim_value for dim in dims)


def _is_same(output: onnx.ValueInfoProto, given: onnx.ValueInfoProto) -> bool:
    """Return whether an output is known to be of an input's type and shape; the batch alone may be open."""
    made, taken = output.type.tensor_type, given.type.tensor_type
    sizes = [[dim.dim_value for dim in side.shape.dim] for side in (made, taken)]
    return (
        made.elem_type == taken.elem_type
        and len(sizes[0]) == len(sizes[1])
        and sizes[0][1:] == sizes[1][1:]
        and (sizes[0][0] in (0, sizes[1][0]))
    )


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name but for those that say which way it goes."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("key_values", ""))
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word]
    kept = tuple(word for word in words if word not in DIRECTIONS)
    return kept or (("",) if words and STEPS.issuperset(words) else ())  # past becomes present


def _without_ends(name: str) -> tuple[str, ...]:
    """Return the words of a name without the step that ends it: h0, hn and h_1 are all h."""
    words = [re.sub(r"(?<=[a-z])[0-9]+$|(?<=^[a-z])(?:n|t|in|out)$", "", word) for word in _words(name)]
    return tuple(word for word in words if word and not word.isdigit())


def _fits(output: onnx.ValueInfoProto, given: onnx.ValueInfoProto) -> bool:
    """Return whether an output's type and shape are an input's, as far as both are known; lengths may be open."""
    made, taken = output.type.tensor_type, given.type.tensor_type
    if made.elem_type and made.elem_type != taken.elem_type:
        return False
    if not (made.HasField("shape") and taken.HasField("shape")):
        return True
    dims = (made.shape.dim, taken.shape.dim)
    sizes = zip(*dims, strict=False)
    return len(dims[0]) == len(dims[1]) and all(a.dim_value == b.dim_value for a, b in sizes if a.dim_value and b.dim_value)
