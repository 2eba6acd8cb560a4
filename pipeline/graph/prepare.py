"""Make a graph ready for a quantizer: unique node names, a new enough opset, constants folded, types of all tensors."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import version_converter

from pipeline.errors import ModelError
from pipeline.graph.large_models import is_large, put_weights_back, save_with_external_data, without_weights
from pipeline.graph.node_patterns import ensure_names
from pipeline.graph.noise_inputs import NORMAL, UNIFORM
from pipeline.graph.opset import opset_of
from pipeline.graph.session import open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.source_graph import SourceGraph

# Fusions that would give a node another name or type than the user knows it by. ONNX Runtime does them again, where the
# result still allows it, when it loads the finished model.
RENAMING_OPTIMIZERS = ["MatMulAddFusion", "MatMulScaleFusion", "GemmSumFusion", "GemmTransposeFusion"]


@dataclass(frozen=True)
class PreparedGraph:
    """A graph that a quantizer can work on.

    Attributes:
        model: the graph, with the types and shapes of its tensors as far as they can be inferred.
        notes: what was changed that a user should know.
        folded: names of nodes of the source that preparation has removed.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...]
    folded: frozenset[str]


def prepare(source: SourceGraph, *, opset: int | None, needed_opset: int, preprocess: bool) -> PreparedGraph:
    """Return a copy of the graph that is ready to be quantized; the source stays as it is.

    Args:
        source: the graph as loaded.
        opset: convert to this one; None: only where `needed_opset` is newer.
        needed_opset: what the mode cannot do without.
        preprocess: fold constants and remove identities.

    Raises:
        ModelError: the graph cannot be converted, or `opset` is too old for the mode.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    ensure_names(model)
    names = {node.name for node in model.graph.node}
    notes: list[str] = []
    if opset is not None and opset < needed_opset:
        raise ModelError(f"mode.opset: {opset}, but this mode needs {needed_opset}; set it to {needed_opset} or more.")
    wanted = opset or max(source.opset, needed_opset)
    if wanted != source.opset:
        model = _convert(model, source, wanted)
        notes.append(f"{source.name}: converted from opset {source.opset} to {wanted}, which this mode needs.")
    if preprocess:
        model = _fold(model)
    ensure_names(model)
    return PreparedGraph(with_shapes(model), tuple(notes), frozenset(names - {node.name for node in model.graph.node}))


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as it is saved: without inferred types and shapes, except where it draws noise.

    ONNX Runtime infers the shapes itself. The names that ONNX's inference gives to unknown lengths, which it does not use,
    make it plan memory and fuse operators otherwise: a conformer of 5 layers runs 1.03 times as fast without them, its int8
    form 1.09 times (SkipLayerNormalization is slower here than its parts). The noise that a graph draws must keep its rank,
    which `pipeline.graph.noise_inputs` asks for.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    random = [node for node in bare.graph.node if node.op_type in (*NORMAL, *UNIFORM)]
    noise = {tensor for node in random for tensor in (*node.input, *node.output)}
    kept = [value for value in bare.graph.value_info if value.name in noise]
    del bare.graph.value_info[:]
    bare.graph.value_info.extend(kept)
    return bare


def _convert(model: onnx.ModelProto, source: SourceGraph, opset: int) -> onnx.ModelProto:
    large = is_large(model)
    try:
        converted = version_converter.convert_version(without_weights(model) if large else model, opset)
    except Exception as error:  # the converter's C++ exceptions are raised as RuntimeError or as its own type
        raise ModelError(
            f"{source.path}: opset {source.opset} cannot be converted to {opset} ({error}). Export the model again with opset "
            f"{opset} or later."
        ) from error
    if large:
        put_weights_back(converted, model)
    ensure_names(converted)
    return converted


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let ONNX Runtime fold constants and remove what computes nothing, staying within standard ONNX operators."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        # ONNX Runtime refers to the file of weights from the graph that it writes, which therefore lies beside it
        given = save_with_external_data(model, Path(folder)) if is_large(model) else model
        open_session(given, save_optimized=optimized, optimization="basic", without=RENAMING_OPTIMIZERS)
        folded = onnx.load(optimized)
    used = {node.domain for node in folded.graph.node} | {""}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    assert opset_of(folded) == opset_of(model)
    return folded


def initializers_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the constants of a graph, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}
