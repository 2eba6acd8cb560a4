"""Outputs that a caller feeds back as inputs of the next call: states and caches of streaming models."""

import re

import onnx

DIRECTIONS = frozenset(
    {"in", "input", "inputs", "out", "output", "outputs", "new", "next", "past", "present", "prev", "previous", "cur",
     "current", "old", "init", "initial", "last", "final", "r", "n", "t", "updated"}
)  # fmt: skip


def states_of(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the outputs that are fed back, and the input that each becomes.

    They are told by what they are called and by their types and shapes: `new_cached_key_0` becomes `cached_key_0`,
    `present.0.key` becomes `past_key_values.0.key`, `stateN` becomes `state`, `hn` becomes `h0`. The first input is what a
    model hears, and is not a state.
    """
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants][1:]
    found: dict[str, str] = {}
    for key in (_words, _without_ends):
        for output in graph.output:
            free = [value for value in inputs if value.name not in found.values()]
            words = key(output.name)
            fitting = [value for value in free if words and key(value.name) == words and _fits(output, value)]
            if output.name not in found and len(fitting) == 1 and output.name != fitting[0].name:
                found[output.name] = fitting[0].name
    return {value.name: found[value.name] for value in graph.output if value.name in found}


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a name but for those that say which way it goes."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("key_values", ""))
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word]
    return tuple(word for word in words if word not in DIRECTIONS)


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
