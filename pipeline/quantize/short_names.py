"""Short names for the tensors inside of a graph, where the exporter's take a good part of a small file.

A name such as `/encoder/layers.0/self_attn/Transpose_output_0` is written once by the node that makes it and once by each that
reads it: an eighth of a voice activity detector of 100 kB. Names of nodes stay, by which settings and reports speak of them,
and so do inputs and outputs, by which clients do. A tensor's short name follows from its place in the original, so that the
two files tell what it was.
"""

import itertools
import string
from collections.abc import Iterator, Mapping

import onnx

from pipeline.graph.large_models import byte_size
from pipeline.graph.subgraph_scopes import graphs_of

WORTHWHILE = 0.1  # of the file, that is to be saved
LEAST_BYTES = 4096  # that are to be saved: a file of a few kB is small in any case


def shorten_names(model: onnx.ModelProto, original: onnx.ModelProto) -> float:
    """Give the tensors inside of a graph short names, in place, where the file is smaller by a tenth or more for it.

    A name means the same tensor everywhere before and after: bodies of If, Loop and Scan read those of the graphs around them.

    Args:
        model: a graph made from another one.
        original: that one; its tensors have the first of the short names.

    Returns:
        What is saved, as a share of the file; 0: all names are what they were.
    """
    if model.functions:  # these have names of their own
        return 0.0
    outside, words = _outside(original) | _outside(model), _words()
    free = (word for word in words if word not in outside)
    found = _short_names(original, free)
    found |= {name: next(free) for name in dict.fromkeys(_names_in(model.graph)) if name not in found and name not in outside}
    size = byte_size(model)
    saved = sum(len(name.encode()) - len(found.get(name, name)) for name in _names_in(model.graph))
    if saved < max(WORTHWHILE * size, LEAST_BYTES):
        return 0.0
    _rename(model, found)
    return (size - byte_size(model)) / size


def restore_names(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Give tensors whose names `shorten_names` has shortened those of the original again, in place; others keep theirs."""
    outside = _outside(original)
    names = _short_names(original, (word for word in _words() if word not in outside))
    long = {word: name for name, word in names.items()}
    there = set(_names_in(model.graph)) - outside
    if len(there & names.keys()) < len(there & long.keys()):
        _rename(model, {name: f"{name}_added" for name in there & names.keys()} | long)  # an added one may have an old name


def _short_names(original: onnx.ModelProto, free: Iterator[str]) -> dict[str, str]:
    """Return a short name for each tensor inside of a graph, in the order in which it names them."""
    outside = _outside(original)
    inside = (name for name in dict.fromkeys(_names_in(original.graph)) if name not in outside)
    return dict(zip(inside, free, strict=False))


def _outside(model: onnx.ModelProto) -> set[str]:
    return {"", *(value.name for value in (*model.graph.input, *model.graph.output))}


def _rename(model: onnx.ModelProto, new: Mapping[str, str]) -> None:
    for graph in graphs_of(model.graph):
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new.get(name, name) for name in names]
        sparse = [entry.values for entry in graph.sparse_initializer]
        for entry in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse):
            entry.name = new.get(entry.name, entry.name)
        for note in graph.quantization_annotation:
            note.tensor_name = new.get(note.tensor_name, note.tensor_name)
            for pair in note.quant_parameter_tensor_names:
                pair.value = new.get(pair.value, pair.value)


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of tensors as often as they are written in a graph and its bodies."""
    for scope in graphs_of(graph):
        for node in scope.node:
            yield from node.input
            yield from node.output
        sparse = [entry.values for entry in scope.sparse_initializer]
        for entry in (*scope.input, *scope.output, *scope.value_info, *scope.initializer, *sparse):
            yield entry.name


def _words() -> Iterator[str]:
    """Yield a, b, ..., z, aa, ab, ...: letters of one case, so that no two names differ by that alone."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)
