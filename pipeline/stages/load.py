"""The load stage: find the graphs of a model, hash them, and check that they can be worked on at all."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx.external_data_helper import load_external_data_for_model

from pipeline.data.download import OnProgress, cache_directory, download
from pipeline.errors import ModelError
from pipeline.graph.fixed_inputs import fix_inputs
from pipeline.graph.session import open_session
from pipeline.graph.source_graph import SourceGraph, external_files
from pipeline.models.model_files import ModelFiles
from pipeline.models.onnx_file import OnnxFile
from pipeline.models.speech_model import SpeechModel
from pipeline.paths import resolve_path, sha256_of

QUANTIZED_OPS = frozenset(
    {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger",
        "ConvInteger", "MatMulNBits", "QGemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
        "QAttention", "GatherBlockQuantized",
    }
)  # fmt: skip


def fetch(model: SpeechModel, on_progress: OnProgress) -> tuple[SpeechModel, Path]:
    """Download a model whose `url` is set; return it with the place in the cache that it is at, and the file.

    Raises:
        ConfigError: the address or the hash is none.
        DataError: the file cannot be had, or is another one than `sha256` says.
    """
    assert isinstance(model, ModelFiles) and model.url is not None
    got = download(model.url, model.sha256, cache_directory(), on_progress)
    place = {"dir": str(got.folder)} if got.folder is not None else {"path": str(got.file), "dir": None}
    return cast(SpeechModel, dataclasses.replace(model, **place)), got.file


def load(model: SpeechModel) -> dict[str, SourceGraph]:
    """Load every graph that a mode applies to.

    Raises:
        ModelError: a file is missing, corrupt, refused by ONNX Runtime, or already quantized, or the files of the model
            contradict each other.
    """
    fixed = model.fixed_inputs if isinstance(model, OnnxFile) else None
    loaded = {name: load_graph(name, path, fixed=fixed) for name, path in model.graphs.items()}
    model.check()
    return loaded


def load_companion(name: str, path: str) -> SourceGraph:
    """Load a graph that is only run; it may be quantized.

    Raises:
        ModelError: the file is missing, corrupt, or refused by ONNX Runtime.
    """
    return load_graph(name, path, quantizable=False)


def load_graph(name: str, path: str, *, quantizable: bool = True, fixed: Mapping[str, float] | None = None) -> SourceGraph:
    """Load one graph.

    Args:
        name: its role.
        path: the file, as configured.
        quantizable: refuse a graph that is quantized already.
        fixed: inputs that become constants, and their values.

    Raises:
        ModelError: the file is missing, corrupt, refused by ONNX Runtime, or already quantized, or has no such input to fix.
    """
    file = resolve_path(path)
    if not file.is_file():
        near = sorted(other.name for other in file.parent.glob("*.onnx")) if file.parent.is_dir() else []
        hint = f" {file.parent} holds {', '.join(near)}." if near else ""
        raise ModelError(f"model.path: there is no file {file}.{hint}")
    try:
        proto = onnx.load(file, load_external_data=False)
        files = [file, *external_files(proto, file.parent)]  # loading the weights makes the graph forget where they were
        load_external_data_for_model(proto, str(file.parent))
        _leave_open(proto.graph)
    except (DecodeError, ValueError, onnx.checker.ValidationError, OSError) as error:
        raise ModelError(f"model.path: {file} is no ONNX model, or its weights are missing: {error}") from error
    if not proto.graph.node:
        raise ModelError(f"model.path: {file} is no ONNX model: it holds no operator ({file.stat().st_size} bytes).")
    if quantizable and (found := Counter(node.op_type for node in proto.graph.node if node.op_type in QUANTIZED_OPS)):
        counts = ", ".join(f"{count} {op}" for op, count in found.most_common(3))
        raise ModelError(f"model.path: {file} is already quantized ({counts}). Give the original fp32 model.")
    try:
        open_session(file, optimization="none")
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelError(f"model.path: ONNX Runtime {onnxruntime.__version__} cannot load {file}: {error}") from error
    size = sum(part.stat().st_size for part in files)
    return SourceGraph(name, file, sha256_of(*files), size, proto, fix_inputs(proto.graph, fixed or {}))


def _leave_open(graph: onnx.GraphProto) -> None:
    """Take away the sizes below zero by which some exporters (PaddlePaddle's) say that an axis may have any."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.ClearField("dim_value")
