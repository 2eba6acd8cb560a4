"""Which version of ONNX Runtime a graph needs, and what a version allows to be written.

The tables were measured: small graphs of every IR version, opset, type and operator below were loaded and run in each release
on the Python package index from 1.15 to 1.32 (`benchmarks/runtimes.py --features`; docs/runtimes.md). A version is proven by
an inference: 1.22 loads a MatMulNBits of 8 bits, and fails at its first run.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from pipeline.errors import ConfigError, StageError
from pipeline.graph.attributes import int_attribute
from pipeline.graph.input_defaults import FREE_INPUTS
from pipeline.graph.opset import MICROSOFT, opset_of
from pipeline.graph.subgraph_scopes import graphs_of, tensors_in

Version = tuple[int, int]

OLDEST: Version = (1, 15)  # that was tried
NEWEST: Version = (1, 32)
IR_VERSIONS: dict[Version, int] = {(1, 15): 9, (1, 18): 10, (1, 23): 11, (1, 24): 13, (1, 32): 14}
"""From this version of ONNX Runtime on -> the newest IR version that it loads."""
OPSETS: dict[Version, int] = {
    (1, 15): 19, (1, 17): 20, (1, 18): 21, (1, 21): 22, (1, 23): 23, (1, 24): 25, (1, 25): 26, (1, 32): 28,
}  # fmt: skip
"""From this version of ONNX Runtime on -> the newest opset that it loads."""
MATMUL_N_BITS: dict[tuple[int, int], Version] = {(4, 0): (1, 16), (4, 4): (1, 17), (8, 4): (1, 22), (8, 0): (1, 23)}
"""Bits and accuracy level of MatMulNBits -> the first version that runs it; others: 1.24."""
SINCE: dict[str, Version] = {
    "DequantizeLinear": (1, 15), "DynamicQuantizeLSTM": (1, 15), "MatMulIntegerToFloat": (1, 15), "QLinearConv": (1, 15),
    "Range": (1, 15),
}  # fmt: skip
"""Operators of ONNX Runtime's own that this project writes -> the first version that was seen to run them."""
TYPES: dict[int, tuple[str, Version]] = {
    TensorProto.INT4: ("4-bit integers", (1, 19)),  # 1.18 loads opset 21, and has no kernel for them
    TensorProto.UINT4: ("4-bit integers", (1, 19)),
}
FAST_SINCE: dict[str, Version] = {"ConvInteger": (1, 31)}
"""Operators that take several times as long before this version: benchmarks/runtimes.py --models hifigan --modes dynamic."""
WRONG_ON_AMX = ((1, 21), (1, 24))
"""These versions and those between add wrong sums on processors with AMX, where the columns of a product of integers, of a
ConvInteger its frames, are no multiple of 16: findings/amx_sums_are_wrong_in_onnxruntime_1_21_to_1_24.sh."""
WIDE = (TensorProto.INT16, TensorProto.UINT16)
IR_OF_TYPES: dict[int, int] = {TensorProto.INT4: 10, TensorProto.UINT4: 10}


@dataclass(frozen=True)
class Needed:
    """The oldest ONNX Runtime that a graph runs in.

    Attributes:
        version: major and minor.
        because: what needs it.
        unknown: operators of other domains, of which no version is known.
    """

    version: Version
    because: str
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as `>= 1.17`."""
        return f">= {self.version[0]}.{self.version[1]}"


def parse_version(text: str, key: str) -> Version:
    """Return major and minor of a version such as `1.17.1`.

    Raises:
        ConfigError: it is none, or one that nothing is known of.
    """
    parts = text.split(".")
    allowed = f"from {_text(OLDEST)} to {_text(NEWEST)}, such as 1.17.1"
    if len(parts) not in (2, 3) or not all(part.isdigit() for part in parts):
        raise ConfigError(f"{key}: {text!r} is no version of ONNX Runtime; give one {allowed}.")
    version = (int(parts[0]), int(parts[1]))
    if not OLDEST <= version <= NEWEST:
        raise ConfigError(
            f"{key}: nothing is known of ONNX Runtime {text}; give a version {allowed}, or leave it out, and try the artifact "
            "there."
        )
    return version


def newest_opset(version: Version) -> int:
    """Return the newest opset that a version of ONNX Runtime loads."""
    return max(opset for since, opset in OPSETS.items() if since <= version)


def opset_for(asked: int | None, runtime: str | None, of_source: int) -> int | None:
    """Return the opset that a graph is converted to: the one that was asked for, or the newest that a runtime loads.

    Args:
        asked: `mode.opset`.
        runtime: `mode.runtime`.
        of_source: the opset of the graph.

    Returns:
        An opset; None: there is no need to convert.
    """
    if asked is not None or runtime is None:
        return asked
    newest = newest_opset(parse_version(runtime, "mode.runtime"))
    return newest if of_source > newest else None


def use_lowest_ir_version(model: onnx.ModelProto) -> None:
    """Lower the IR version of a graph to what its opsets and types need, in place; it is never raised.

    Programs that save a graph write the newest IR version that they know, whatever is in it, and an older ONNX Runtime
    refuses to load that.
    """
    needed = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    types = [IR_OF_TYPES.get(int(tensor.data_type), 0) for tensor in tensors_in(model)]
    functions = 8 if model.functions else 0
    model.ir_version = min(model.ir_version, max(needed, functions, FREE_INPUTS, *types))


def needed_runtime(model: onnx.ModelProto) -> Needed:
    """Return the oldest ONNX Runtime that runs a graph: by its IR version, opset, types and operators."""
    found = [
        (_first(IR_VERSIONS, model.ir_version), f"IR version {model.ir_version}"),
        (_first(OPSETS, opset_of(model)), f"opset {opset_of(model)}"),
        *_of_types(model),
    ]
    unknown: set[str] = set()
    for node in (node for graph in graphs_of(model.graph) for node in graph.node):
        if node.op_type == "MatMulNBits":
            bits, level = int_attribute(node, "bits", 4), int_attribute(node, "accuracy_level", 0)
            found.append((MATMUL_N_BITS.get((bits, level), (1, 24)), f"MatMulNBits of {bits} bits, accuracy level {level}"))
        elif node.domain == MICROSOFT and node.op_type in SINCE:
            found.append((SINCE[node.op_type], node.op_type))
        elif node.domain not in ("", "ai.onnx.ml"):
            unknown.add(node.op_type)
    version, because = max(found, key=lambda entry: entry[0])
    return Needed(version, because, tuple(sorted(unknown)))


def check_runtime(model: onnx.ModelProto, asked: str | None, file: str) -> Needed:
    """Return the ONNX Runtime that a graph needs, after checking that the one that was asked for is new enough.

    Raises:
        StageError: it is not; says what needs a newer one, and what to do.
    """
    needed = needed_runtime(model)
    if asked is not None and parse_version(asked, "mode.runtime") < needed.version:
        raise StageError(
            f"mode.runtime: {asked}, but {file} needs ONNX Runtime {needed}, because of {needed.because}. {_advice(needed)}"
        )
    return needed


def same_series(one: str, other: str) -> bool:
    """Whether two versions, such as 1.28.0 and 1.28.2, differ in the last number at most: kernels are the same then."""
    return one.split(".")[:2] == other.split(".")[:2]


def slower_elsewhere(op_types: Collection[str], measured_in: str) -> str | None:
    """Return what to know of a speed that older versions of ONNX Runtime do not reach.

    Args:
        op_types: the operators that the graph runs.
        measured_in: the version that it was timed in.

    Returns:
        A sentence; None: no such operator is known.
    """
    version = tuple(int(part) for part in measured_in.split(".")[:2])
    for op_type, since in FAST_SINCE.items():
        if op_type in op_types and version >= since:
            return (
                f"{op_type} takes several times as long in ONNX Runtime before {_text(since)}; speed was measured in "
                f"{measured_in}. To measure in the version of your client: benchmark.runtime=<version>."
            )
    return None


def wrong_on_amx(op_types: Collection[str], version: str) -> str | None:
    """Return a warning where a version of ONNX Runtime computes a graph wrongly on processors with AMX, else None.

    Args:
        op_types: the operators that the graph runs.
        version: of ONNX Runtime.
    """
    first, last = WRONG_ON_AMX
    if "ConvInteger" not in op_types or not first <= tuple(int(part) for part in version.split(".")[:2]) <= last:
        return None
    return (
        f"ONNX Runtime {version} adds wrong sums in ConvInteger on processors with AMX (Intel Xeon from Sapphire Rapids on), "
        f"without an error, as all from {_text(first)} to {_text(last)} do: use another version there, or mode=static."
    )


def _advice(needed: Needed) -> str:
    if needed.because.startswith("MatMulNBits"):
        return "mode.bits=4 runs from 1.16 on, mode.bits=8 mode.accuracy_level=4 from 1.22; mode=dynamic runs everywhere."
    if needed.because.startswith("opset"):
        return "Set mode.opset to an older one, or export the model again with an older opset."
    return "Use int8 or uint8 for mode.weight_type and mode.activation_type, or another mode."


def _of_types(model: onnx.ModelProto) -> Iterator[tuple[Version, str]]:
    for kind in {tensor.data_type for tensor in tensors_in(model)} & TYPES.keys():
        name, since = TYPES[kind]
        yield since, name
    quantizers = [node for graph in graphs_of(model.graph) for node in graph.node if node.op_type.endswith("quantizeLinear")]
    wide = {tensor.name for tensor in tensors_in(model) if tensor.data_type in WIDE}
    if any(node.domain == MICROSOFT and wide.intersection(node.input) for node in quantizers):
        yield (1, 17), "16-bit integers"


def _first(table: dict[Version, int], wanted: int) -> Version:
    return next((since for since, newest in table.items() if newest >= wanted), NEWEST)


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
