"""How many operators a model has, before a library has read it.

protobuf needs up to a hundred times the size of a file that is made for it: an operator of two bytes is one that is allowed. So
a file is walked along its fields, as protobuf's encoding has them (https://protobuf.dev/programming-guides/encoding/), and
nothing of it is kept. What the walk makes no sense of, the library refuses afterwards.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ModelError

MOST_OPERATORS = 2_000_000  # twenty times what `limits.nodes` allows where nothing is set
VARINT, EIGHT, BYTES, GROUP, END, FOUR = range(6)  # how a field is encoded
MODEL_GRAPH, MODEL_FUNCTION = 7, 25  # the numbers of fields in onnx.proto
GRAPH_NODE, FUNCTION_NODE = 1, 7
NODE_ATTRIBUTE, ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 5, 6, 11
LEAST_BYTES = 2  # of an operator
DEPTH = 100  # of messages in messages, beyond which protobuf refuses a file

Field = tuple[int, int, int]
"""A field's number, and where its contents begin and end."""


class _DamagedError(Exception):
    """What stands here is not protobuf's encoding."""


class _EnoughError(Exception):
    """There are more operators."""


def refuse_too_many(file: Path) -> None:
    """Refuse a model that no limit allows, before it is read.

    Raises:
        ModelError: it has more than `MOST_OPERATORS` operators.
        OSError: the file cannot be read.
    """
    if has_more_operators(file, MOST_OPERATORS):
        raise ModelError(
            f"limits.nodes: {file} has more than {MOST_OPERATORS} operators, which is beyond what any limits.nodes lets in. "
            "Export the model without unrolled loops."
        )


def has_more_operators(file: Path, most: int) -> bool:
    """Say whether a model has more operators than so many, those of bodies and of functions included, without reading it.

    Args:
        file: of a model, or of anything else.
        most: operators.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        if size <= most * LEAST_BYTES:
            return False
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Count(data, most).exceeds(size)


class _Count:
    def __init__(self, data: mmap.mmap, most: int) -> None:
        self._data, self._left = data, most

    def exceeds(self, size: int) -> bool:
        """Walk along a model, until there are more operators than so many."""
        try:
            for number, place, end in self._fields(0, size):
                if number == MODEL_GRAPH:
                    self._scope(place, end, GRAPH_NODE, DEPTH)
                elif number == MODEL_FUNCTION:
                    self._scope(place, end, FUNCTION_NODE, DEPTH)
        except _EnoughError:
            return True
        except (_DamagedError, IndexError):
            pass
        return False

    def _scope(self, place: int, end: int, field: int, depth: int) -> None:
        """Count the operators of a graph or of a function, then those in their bodies."""
        nodes = []
        for number, start, stop in self._fields(place, end):
            if number == field:
                self._left -= 1
                if self._left < 0:
                    raise _EnoughError
                nodes.append((start, stop))
        if depth and sum(stop - start for start, stop in nodes) > self._left * LEAST_BYTES:  # bodies may hold so many
            for start, stop in nodes:
                self._bodies(start, stop, depth - 1)

    def _bodies(self, place: int, end: int, depth: int) -> None:
        for number, start, stop in self._fields(place, end):
            if number == NODE_ATTRIBUTE:
                for inner, first, last in self._fields(start, stop):
                    if inner in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                        self._scope(first, last, GRAPH_NODE, depth)

    def _fields(self, place: int, end: int) -> Iterator[Field]:
        """Yield the fields of a message that hold bytes; the others are passed over."""
        data = self._data
        while place < end:
            tag = data[place]
            place += 1
            if tag > 127:
                tag, place = self._varint(place - 1)
            kind = tag & 7
            if kind == BYTES:
                size = data[place]
                place += 1
                if size > 127:
                    size, place = self._varint(place - 1)
                if place + size > end:
                    raise _DamagedError
                yield tag >> 3, place, place + size
                place += size
            elif kind == VARINT:
                _, place = self._varint(place)
            elif kind in (EIGHT, FOUR):
                place += 8 if kind == EIGHT else 4
            elif kind not in (GROUP, END):  # the fields of a group stand between its two tags; onnx.proto has none
                raise _DamagedError

    def _varint(self, place: int) -> tuple[int, int]:
        """Return a number of any length, and where it ends."""
        value = shift = 0
        while True:
            byte = self._data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
            shift += 7
            if shift > 63:
                raise _DamagedError
