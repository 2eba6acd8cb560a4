"""What an entry depends on, as its name: a hash of contents, settings, versions and the processor.

An entry is never stale: whatever could change it leads to another name.
"""

import dataclasses
import hashlib
import os
import platform
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.kinds import Kind
from pipeline.processor import cpu_flags, cpu_name

LIBRARIES = (
    "onnx", "onnxruntime", "numpy", "scipy", "soundfile", "kaldi-native-fbank", "jiwer", "numba", "espeakng-loader",
    "protobuf", "speech-quantization-pipeline",
)  # fmt: skip


def key_of(kind: Kind, *parts: object) -> str:
    """Return the name of an entry, as hex digits.

    Args:
        kind: what it is.
        parts: all that it depends on beside code, versions and the processor: texts, numbers, arrays, settings (dataclasses),
            hashes, and what is made of them.

    Raises:
        TypeError: a part is of a type whose value has no one text.
    """
    digest = hashlib.sha256()
    for part in (kind.name, kind.version, code() if kind.of_code else "", surroundings(), *parts):
        _add(digest, part)
    return digest.hexdigest()


def _add(digest: Any, part: object) -> None:  # noqa: ANN401, PLR0912  what hashlib returns has no public type
    """Add a value: its type, its length, what it holds; so no two values add the same bytes."""

    def leaf(kind: str, content: bytes) -> None:
        digest.update(f"{kind}{len(content)}:".encode())
        digest.update(content)

    def branch(kind: str, items: list[object]) -> None:
        digest.update(f"{kind}{len(items)}[".encode())
        for item in items:
            _add(digest, item)

    match part:
        case None | bool():
            leaf("c", repr(part).encode())
        case Enum():
            leaf("e", f"{type(part).__name__}.{part.name}".encode())
        case int() | float():
            leaf("n", repr(part).encode())
        case str():
            leaf("s", part.encode("utf-8", "surrogatepass"))
        case bytes():
            leaf("b", part)
        case Path():
            leaf("p", os.fsencode(part))
        case np.ndarray() if not part.dtype.hasobject:
            leaf("a", f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        case np.ndarray():
            branch("o", [str(part.shape), *part.ravel().tolist()])
        case Mapping():
            branch("m", [pair for key in sorted(part, key=repr) for pair in (key, part[key])])
        case set() | frozenset():
            branch("f", sorted(part, key=repr))
        case list() | tuple():
            branch("l", list(part))
        case _ if dataclasses.is_dataclass(part) and not isinstance(part, type):
            given = [item for f in dataclasses.fields(part) if f.compare for item in (f.name, getattr(part, f.name))]
            branch("d", [type(part).__name__, *given])
        case _:
            raise TypeError(f"{type(part).__name__}: of two such values it is not known whether they are the same")


@cache
def surroundings() -> bytes:
    """Return a hash of versions, and of what bits depend on in this machine: its instructions, and how many cores it has."""
    digest = hashlib.sha256()
    versions = {name: _version(name) for name in LIBRARIES}
    _add(digest, [platform.python_version(), versions, platform.machine(), cpu_name(), cpu_flags(), os.cpu_count()])
    return digest.digest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def code() -> bytes:
    """Return a hash of our own code: every file of the package."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        _add(digest, path.relative_to(root).as_posix())
        _add(digest, path.read_bytes())
    return digest.digest()
