r"""An entry as bytes: a header of JSON, then arrays as they lie in memory. Nothing in it could be executed.

    "speech-quantize 1\n"  8 bytes: length of the header  the header  the arrays, one after the other

The header: {"facts": any JSON, "arrays": [[name, type, shape], ...]}. A file, such as a graph, is an array of bytes.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.sample import Array

START = b"speech-quantize 1\n"
PLAIN = re.compile(r"[<>|=]?[biufc]\d{1,2}")  # types of numbers; no objects, texts or records


class NotPlainError(ValueError):
    """A value that cannot be kept: it holds more than numbers and JSON."""


@dataclass(frozen=True)
class Entry:
    """What is kept.

    Attributes:
        facts: what JSON can say; infinity and NaN are kept.
        arrays: name -> array.
    """

    facts: Any = None
    arrays: Mapping[str, Array] = field(default_factory=dict)


def packed(entry: Entry) -> bytes:
    """Return an entry as bytes.

    Raises:
        NotPlainError: it holds more than numbers and JSON.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in entry.arrays.items()}
    if others := [name for name, array in arrays.items() if not PLAIN.fullmatch(array.dtype.str)]:
        raise NotPlainError(f"{others[0]!r} is of type {arrays[others[0]].dtype}")
    parts = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    try:
        header = json.dumps({"facts": entry.facts, "arrays": parts}).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise NotPlainError(str(error)) from error
    return b"".join([START, len(header).to_bytes(8, "little"), header, *(array.tobytes() for array in arrays.values())])


def unpacked(content: memoryview) -> Entry:
    """Return what bytes hold; arrays are views of them, which cannot be written to.

    Raises:
        ValueError: they are not an entry.
    """
    begin = len(START) + 8
    if content[: len(START)] != START:
        raise ValueError("it does not begin as an entry does")
    end = begin + int.from_bytes(content[len(START) : begin], "little")
    try:
        header = json.loads(bytes(content[begin:end]))
        facts, parts = (
            header["facts"],
            [(str(name), str(kind), tuple(map(int, shape))) for name, kind, shape in header["arrays"]],
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    arrays: dict[str, Array] = {}
    for name, kind, shape in parts:
        if not PLAIN.fullmatch(kind) or any(size < 0 for size in shape):
            raise ValueError(f"{name!r} is no array of numbers")
        dtype = np.dtype(kind)
        size = math.prod(shape, start=dtype.itemsize)
        if end + size > len(content):
            raise ValueError("it ends early")
        arrays[name] = np.frombuffer(content[end : end + size], dtype).reshape(shape)
        end += size
    if end != len(content):
        raise ValueError("it goes on behind its end")
    return Entry(facts, arrays)
