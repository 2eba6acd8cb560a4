"""Make a graph ready for a quantizer: unique node names, a new enough opset, constants folded, types of all tensors."""

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, version_converter

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import PREPARED
from pipeline.cache.recall import Form, remembered
from pipeline.errors import ModelError
from pipeline.graph.body_constants import constants_as_initializers
from pipeline.graph.inlined_branches import restore_names
from pipeline.graph.input_defaults import FREE_INPUTS
from pipeline.graph.large_models import (
    SMALL_BYTES,
    byte_size,
    bytes_of,
    is_large,
    put_weights_back,
    save_with_external_data,
    without_weights,
)
from pipeline.graph.model_digest import digest_of
from pipeline.graph.module_paths import Paths
from pipeline.graph.node_patterns import ensure_names
from pipeline.graph.noise_inputs import NORMAL, UNIFORM, random_nodes
from pipeline.graph.op_sets import LAYERS, RECURRENT_LAYERS
from pipeline.graph.opset import use_one_default_domain
from pipeline.graph.session import ORT_ERRORS, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.sparse_constants import make_dense
from pipeline.graph.subgraph_scopes import graphs_of, name_bodies, rename_in_bodies

# Fusions that would give a node another name or type than the user knows it by. ONNX Runtime does them again, where the
# result still allows it, when it loads the finished model.
RENAMING_OPTIMIZERS = ["MatMulAddFusion", "MatMulScaleFusion", "GemmSumFusion", "GemmTransposeFusion"]


HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class PreparedGraph:
    """A graph that a quantizer can work on.

    Attributes:
        model: the graph, with the types and shapes of its tensors as far as they can be inferred.
        notes: what was changed that a user should know.
        folded: names of nodes of the source that preparation has removed.
        paths: node name -> the modules and the calls of functions that it lies in.
        keep_lengths: what decides the length of its outputs stays in float, everything upstream included.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...]
    folded: frozenset[str]
    paths: Paths = field(default_factory=dict)
    keep_lengths: bool = False


def prepare(
    source: SourceGraph, *, opset: int | None, needed_opset: int, preprocess: bool, weights_shrink: bool = True
) -> PreparedGraph:
    """Return a copy of the graph that is ready to be quantized; the source stays as it is.

    Args:
        source: the graph as loaded.
        opset: convert to this one; None: only where `needed_opset` is newer.
        needed_opset: what the mode cannot do without.
        preprocess: fold constants and remove identities.
        weights_shrink: weights become integers, or half precision, so that folding may store them as float meanwhile.

    Raises:
        ModelError: the graph cannot be converted, or `opset` is too old for the mode.
    """

    def depends_on() -> tuple[object, ...]:
        return source.name, digest_of(source.model), opset, needed_opset, preprocess, weights_shrink

    form = Form(_entry_of, lambda entry: _prepared_of(entry, source))
    return remembered(PREPARED, depends_on, form, lambda: _made_ready(source, opset, needed_opset, preprocess, weights_shrink))


def _entry_of(prepared: PreparedGraph) -> Entry | None:
    if is_large(prepared.model):
        return None
    content = np.frombuffer(prepared.model.SerializeToString(), np.uint8)
    return Entry({"notes": prepared.notes, "folded": sorted(prepared.folded)}, {"model": content})


def _prepared_of(entry: Entry, source: SourceGraph) -> PreparedGraph:
    model = onnx.ModelProto.FromString(entry.arrays["model"].tobytes())
    notes, folded = tuple(entry.facts["notes"]), frozenset(entry.facts["folded"])
    return PreparedGraph(model, notes, folded, source.paths, source.keep_lengths)


def _made_ready(
    source: SourceGraph, opset: int | None, needed_opset: int, preprocess: bool, weights_shrink: bool
) -> PreparedGraph:
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    ensure_names(model)
    name_bodies(model.graph)
    rename_in_bodies(model.graph)
    make_dense(model.graph)
    names = {node.name for node in model.graph.node}
    notes: list[str] = []
    if opset is not None and opset < needed_opset:
        raise ModelError(f"mode.opset: {opset}, but this mode needs {needed_opset}; set it to {needed_opset} or more.")
    wanted = opset or max(source.opset, needed_opset)
    if wanted != source.opset:
        model = _convert(model, source, wanted, "mode.opset" if opset is not None else None)
        notes.append(f"{source.name}: converted from opset {source.opset} to {wanted}, which this mode needs.")
    if preprocess:
        constants_as_initializers(model.graph)
        model = _fold(model, source, weights_shrink)
    ensure_names(model)
    left = {node.name for node in model.graph.node}
    return PreparedGraph(_typed(with_shapes(model)), tuple(notes), frozenset(names - left), source.paths, source.keep_lengths)


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph, in which float tensors behind operators of other domains have the types that ONNX Runtime gives them.

    ONNX's inference knows its own operators only, and a tensor of an unknown type would stay as it is.
    """
    graph = model.graph
    known = {value.name for value in (*graph.input, *graph.value_info, *graph.output) if value.type.WhichOneof("value")}
    unknown = [name for node in graph.node for name in node.output if name and name not in known]
    if not unknown or not any(node.domain for node in graph.node):
        return model
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in unknown)
    try:
        outputs = open_session(exposed, optimization="none").get_outputs()
    except ORT_ERRORS:  # what is wrong with the graph is said where it is used
        return model
    for value in outputs[len(graph.output) :]:
        if value.type == "tensor(float)":  # without a shape ONNX Runtime gives an empty one, as that of a scalar
            shape = [length if isinstance(length, int) else None for length in value.shape] or None
            graph.value_info.append(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
    return model


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as it is saved: without inferred types and shapes, except where it draws noise.

    ONNX Runtime infers the shapes itself. The names that ONNX's inference gives to unknown lengths, which it does not use,
    make it plan memory and fuse operators otherwise: a conformer of 5 layers runs 1.03 times as fast without them, its int8
    form 1.09 times (SkipLayerNormalization is slower here than its parts). The noise that a graph draws keeps its type, which
    `pipeline.graph.noise_inputs` asks for, and which ONNX's inference cannot find behind integer operators.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    random = [node for node in bare.graph.node if node.op_type in (*NORMAL, *UNIFORM)]
    noise = {tensor for node in random for tensor in (*node.input, *node.output)}
    kept = [value for value in bare.graph.value_info if value.name in noise]
    del bare.graph.value_info[:]
    bare.graph.value_info.extend(kept)
    return bare


def _convert(model: onnx.ModelProto, source: SourceGraph, opset: int, key: str | None) -> onnx.ModelProto:
    """Return the graph in another opset.

    Args:
        model: the graph.
        source: that it is of.
        opset: the opset.
        key: the setting that asks for it; None: the mode itself.

    Raises:
        ModelError: it cannot be converted, or ONNX Runtime cannot run what comes out.
    """
    converted = _converted(model, source, opset)
    if (problem := _refusal(converted)) is None:
        return converted
    between = range(opset - 1, source.opset, -1) if opset > source.opset else range(opset + 1, source.opset)
    newest = next((other for other in between if _refusal(_converted(model, source, other)) is None), source.opset)
    raise ModelError(
        f"{key or 'mode.name'}: ONNX Runtime {onnxruntime.__version__} cannot run {source.path} in opset {opset}: {problem} "
        + (f"Set mode.opset to {newest}, the nearest that works." if key else f"The model is of opset {source.opset}.")
    )


def _refusal(model: onnx.ModelProto) -> str | None:
    """Return why ONNX Runtime refuses a graph, in its words; None where it loads."""
    try:
        open_session(model, optimization="none")
    except ORT_ERRORS as error:
        return f"{str(error).rstrip('. ')}."
    return None


def _converted(model: onnx.ModelProto, source: SourceGraph, opset: int) -> onnx.ModelProto:
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


def _fold(model: onnx.ModelProto, source: SourceGraph, weights_shrink: bool) -> onnx.ModelProto:
    """Return the graph with its constants folded, without what would make it larger.

    A weight that several nodes read is stored once more for each that ONNX Runtime folds it into: a transposed copy of an
    embedding, a weight for each of two batch normalizations, one in each branch of an If. A table that a few numbers describe
    (zeros, positions) is stored whole. ONNX Runtime folds all of that again when it loads the model. A weight that is stored in
    half precision and cast is folded all the same where it will shrink again.

    Raises:
        ModelError: ONNX Runtime cannot fold constants of this graph.
    """
    try:
        folded = _folded(model)
        if byte_size(folded) <= byte_size(model) + SMALL_BYTES:
            return folded
        without = _folded(model, _growing(model, folded, weights_shrink))
    except ORT_ERRORS as error:
        raise ModelError(
            f"{source.path}: ONNX Runtime {onnxruntime.__version__} cannot fold its constants: {error}. With "
            "mode.preprocess=false the graph stays as exported."
        ) from error
    return min(folded, without, key=byte_size)


def _growing(model: onnx.ModelProto, folded: onnx.ModelProto, weights_shrink: bool) -> set[str]:
    """Return the constants of a graph whose folding makes it larger: those that several nodes read, and what tables come of."""
    readers: Counter[str] = Counter()
    makers: dict[str, onnx.NodeProto] = {}
    weights: set[str] = set()
    for scope in graphs_of(model.graph):
        for node in scope.node:
            readers.update(set(node.input))
            makers.update(dict.fromkeys(node.output, node))
            weights.update(node.input[1:3] if node.op_type in RECURRENT_LAYERS else ())
            weights.update(node.input[1:2] if node.op_type in LAYERS else ())
    constants = initializers_of(model)
    growing = {name for name, tensor in constants.items() if readers[name] > 1 and bytes_of(tensor) >= SMALL_BYTES}
    stored = [tensor for scope in graphs_of(folded.graph) for tensor in scope.initializer]
    left = {tensor.name for tensor in stored}
    tables = [tensor for tensor in stored if tensor.name in makers and bytes_of(tensor) >= SMALL_BYTES]
    behind = {tensor.name: _constants_behind(tensor.name, makers) & constants.keys() for tensor in tables}
    made = Counter(name for names in behind.values() for name in names)
    for tensor in tables:
        sources = behind[tensor.name]
        # what is gone afterwards, and nothing else comes of: v of a weight that is v g / |v|
        freed = {name for name in sources if name not in left and made[name] == 1}
        shrinks = weights_shrink and tensor.name in weights
        before = sum(
            bytes_of(constants[name]) * (2 if shrinks and constants[name].data_type in HALVES else 1) for name in freed
        )
        if bytes_of(tensor) <= before + SMALL_BYTES:
            growing -= freed
        else:
            growing |= sources
    return growing


def _constants_behind(tensor: str, makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Return the tensors without a maker that a tensor is computed from."""
    found, waiting = set(), [tensor]
    while waiting:
        name = waiting.pop()
        if name in makers:
            waiting.extend(makers[name].input)
        else:
            found.add(name)
    return found


def _folded(model: onnx.ModelProto, variable: Collection[str] = ()) -> onnx.ModelProto:
    """Let ONNX Runtime fold constants and remove what computes nothing, staying within standard ONNX operators.

    Args:
        model: the graph. It is not changed.
        variable: constants that nothing is folded into: ONNX Runtime gets them as inputs with a default.
    """
    given = model
    if variable:
        given = onnx.ModelProto()
        given.CopyFrom(model)
        given.ir_version = max(given.ir_version, FREE_INPUTS)
        given.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
            if tensor.name in variable
        )
    # It would remove a Dropout that is told to drop as well.
    drops = any(node.op_type == "Dropout" for node in random_nodes(model.graph))
    off = [*RENAMING_OPTIMIZERS, *(["EliminateDropout"] if drops else [])]
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        # ONNX Runtime refers to the file of weights from the graph that it writes, which therefore lies beside it
        file = save_with_external_data(given, Path(folder) / "model.onnx")[0] if is_large(given) else given
        open_session(file, save_optimized=optimized, optimization="basic", without=off)
        folded = onnx.load(optimized)
    if variable:
        inputs = [value for value in folded.graph.input if value.name not in variable]
        del folded.graph.input[:]
        folded.graph.input.extend(inputs)
    use_one_default_domain(folded)
    used = {node.domain for scope in graphs_of(folded.graph) for node in scope.node} | {""}
    kept = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    restore_names(folded, model)
    return folded


def initializers_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the constants of a graph, by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}
