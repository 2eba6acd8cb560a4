"""A graph of a model as it was found: read once, hashed once, and checked."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import load_external_data_for_model

from pipeline.errors import ModelError
from pipeline.graph.declared_shapes import drop_contradicted_shapes
from pipeline.graph.fixed_inputs import fix_inputs
from pipeline.graph.input_defaults import split_defaults
from pipeline.graph.local_functions import inline_functions, operators_when_inlined
from pipeline.graph.module_paths import Paths, module_paths
from pipeline.graph.noise_inputs import NoisyGraph, expand_bernoulli, with_noise_inputs
from pipeline.graph.opset import opset_of, use_one_default_domain
from pipeline.graph.rehearsal import SHAPES, EndedError, rehearse
from pipeline.graph.session import open_session, rehearse_model
from pipeline.graph.subgraph_scopes import graphs_of, rename_in_bodies, tensors_in
from pipeline.limits import MEGABYTE, limits
from pipeline.operator_count import MOST_OPERATORS, refuse_too_many
from pipeline.paths import HashedFile, hash_files, near_files, resolve_path

QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger",
        "ConvInteger", "MatMulNBits", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
        "QAttention", "GatherBlockQuantized",
    }
)  # fmt: skip


@dataclass(frozen=True)
class SourceGraph:
    """One graph of the model, as it was found.

    Attributes:
        name: its role, such as `acoustic`.
        path: the file, absolute.
        files: the file and its external data, each with its hash.
        sha256: of the contents of all of them.
        model: the parsed graph, with local functions inlined and with a name for each node.
        fixed: inputs that it takes but ignores, since they are always the same, and their values.
        defaults: optional inputs, and the values that they have where a caller gives none.
        paths: node name -> the modules and the calls of functions that it lies in.
        keep_lengths: what decides the length of its outputs stays in float, everything upstream included.
    """

    name: str
    path: Path
    files: tuple[HashedFile, ...]
    sha256: str
    model: onnx.ModelProto
    fixed: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    defaults: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    paths: Paths = field(default_factory=dict)
    keep_lengths: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of the file and of its external data."""
        return sum(file.bytes for file in self.files)

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return opset_of(self.model)

    @cached_property
    def noisy(self) -> NoisyGraph:
        """The graph with the noise that it draws as inputs."""
        return with_noise_inputs(self.model)


def load_graph(name: str, path: str, *, quantizable: bool = True, fixed: Mapping[str, float] | None = None) -> SourceGraph:
    """Load one graph.

    Args:
        name: its role.
        path: the file, as configured.
        quantizable: refuse a graph that is quantized already.
        fixed: inputs that become constants, and their values.

    Raises:
        ModelError: the file is missing, corrupt, too large, refused by ONNX Runtime, or already quantized, or has too many
            operators, or no such input to fix; or ONNX Runtime ends the process that opens it.
    """
    file = resolve_path(path)
    if not file.is_file():
        raise ModelError(f"model.path: file not found: {file}.{near_files(file, '*.onnx')}")
    _check_size(file, [file])
    try:
        refuse_too_many(file)
        proto = onnx.load(file, load_external_data=False)
        _check_nodes(file, proto)
        rehearse(str(file), 1, optimization=SHAPES)
        paths = [file, *external_files(proto, file.parent)]  # loading the weights makes the graph forget where they were
        _check_size(file, paths)
        load_external_data_for_model(proto, str(file.parent))
        _read_all_texts(proto)
    except UnicodeDecodeError as error:
        raise ModelError(f"model.path: {file} holds a name or text that is not UTF-8 ({error}). Export it again.") from error
    except (DecodeError, ValueError, onnx.checker.ValidationError, OSError) as error:
        raise ModelError(f"model.path: {file} is not an ONNX model, or its weights are missing: {error}") from error
    if not proto.graph.node:
        raise ModelError(f"model.path: {file} is not an ONNX model: it holds no operator ({file.stat().st_size} bytes).")
    if quantizable and (found := Counter(node.op_type for node in proto.graph.node if node.op_type in QUANTIZED_OPS)):
        counts = ", ".join(f"{count} {op}" for op, count in found.most_common(3))
        raise ModelError(f"model.path: {file} is already quantized ({counts}). Give the original fp32 model.")
    try:
        if not rehearse_model(file, optimization="none"):  # where it could not be opened, this process gets the error
            open_session(file, optimization="none")
        rehearse_model(file)  # with all optimizers, as every later session has it
    except EndedError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelError(
            f"model.path: ONNX Runtime {onnxruntime.__version__} cannot load {file}: {error}{_older_opset(str(error))}"
        ) from error
    _keep_constants_once(file, proto.graph)
    _drop_negative_dims(proto.graph)
    drop_contradicted_shapes(proto)
    files, sha256 = hash_files(*paths)
    use_one_default_domain(proto)
    calls = inline_functions(proto)
    rename_in_bodies(proto.graph)
    expand_bernoulli(proto)
    defaults = split_defaults(proto)
    values = fix_inputs(proto.graph, fixed or {})
    return SourceGraph(name, file, files, sha256, proto, values, defaults, module_paths(proto, calls))


def _check_size(model: Path, files: Sequence[Path]) -> None:
    size = sum(file.stat().st_size for file in files)
    if size > limits().model_mb * MEGABYTE:
        raise ModelError(
            f"limits.model_mb: {limits().model_mb}, but {model} has {-(-size // MEGABYTE)} MB with its weights. Raise the "
            "limit if the machine has several times as much memory."
        )


def _check_nodes(file: Path, model: onnx.ModelProto) -> None:
    """Refuse a graph that would be optimised for so long that nobody would wait for it."""
    nodes = sum(len(scope.node) for scope in graphs_of(model.graph))
    called, wait = "", ""
    if model.functions and nodes <= limits().nodes:  # what calls stand for comes in their place
        nodes = operators_when_inlined(model, MOST_OPERATORS + 1)
        called = ", once each call of a function is what the function holds"
    if nodes > limits().nodes:
        if nodes <= MOST_OPERATORS:
            wait = f", or wait: limits.nodes={nodes}, with a limits.opening_seconds that is long enough"
        raise ModelError(
            f"limits.nodes: {limits().nodes}, but {file} has {nodes} operators{'' if wait else ' or more'}{called}. ONNX "
            "Runtime's optimisers take a time that grows faster than their number: more than a minute at a hundred thousand. "
            f"Export the model without unrolled loops{wait}."
        )


def _read_all_texts(message: Message) -> None:
    """Read every text of a message, and of those in it; protobuf gives bytes, or an error, where one is not UTF-8."""
    for entry, value in message.ListFields():
        if isinstance(value, Message):
            _read_all_texts(value)
        elif entry.message_type is not None:
            for part in value:
                _read_all_texts(part)
        elif entry.type == FieldDescriptor.TYPE_STRING:
            for text in [value] if isinstance(value, str | bytes) else value:
                if isinstance(text, bytes):
                    text.decode("utf-8")


def _keep_constants_once(file: Path, graph: onnx.GraphProto) -> None:
    """Drop constants that are there twice, in place; ONNX Runtime takes them, and what converts graphs does not.

    Raises:
        ModelError: two constants of one name differ; which one counts, the format does not say.
    """
    for scope in graphs_of(graph):
        known: dict[str, onnx.TensorProto] = {}
        for tensor in scope.initializer:
            if known.setdefault(tensor.name, tensor) != tensor:
                raise ModelError(
                    f"model.path: {file} holds two different constants of the name {tensor.name!r}. Export it again."
                )
        if len(known) < len(scope.initializer):
            first = {tensor.name: place for place, tensor in reversed(list(enumerate(scope.initializer)))}
            for place in reversed(range(len(scope.initializer))):
                if first[scope.initializer[place].name] != place:
                    del scope.initializer[place]


def external_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the files beside a model that hold its weights, those of bodies and Constant nodes too, each once.

    Raises:
        ModelError: a file would not lie in the folder. What a link there leads to is its owner's choice.
    """
    names = {
        PurePosixPath(entry.value).as_posix()
        for tensor in tensors_in(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if ".." in PurePosixPath(name.replace("\\", "/")).parts or PurePosixPath(name).is_absolute():
            raise ModelError(f"model.path: weights in {name!r}, outside of the model's directory {folder}, are not read.")
    return [folder / name for name in sorted(names)]


def hash_of_graph(path: str) -> str:
    """Return the SHA-256 of a graph's file and of its external data, as `SourceGraph.sha256`, without loading it.

    Raises:
        OSError, DecodeError: the file is missing or no ONNX model.
        ModelError: it is too large, or its weights lie elsewhere.
    """
    file = resolve_path(path)
    _check_size(file, [file])
    refuse_too_many(file)
    return hash_files(file, *external_files(onnx.load(file, load_external_data=False), file.parent))[1]


def _older_opset(said: str) -> str:
    """Return what to do where ONNX Runtime lacks an operator's newest version only: RandomNormalLike(22), for example."""
    found = re.search(r"implementation for (\w+)\((\d+)\)", said)
    if found is None:
        return ""
    before = int(found[2]) - 1
    if before < 1 or not onnx.defs.has(found[1]) or not onnx.defs.has(found[1], before):
        return ""
    return f". Export the model with opset {before} or an older one, which has an older {found[1]}."


def _drop_negative_dims(graph: onnx.GraphProto) -> None:
    """Remove the negative sizes by which some exporters (PaddlePaddle's) mark a dynamic axis."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.ClearField("dim_value")
