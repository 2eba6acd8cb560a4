"""Artifacts: saved with the metadata of the original, checked to run before they get their name."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import assert_never

import numpy as np
import onnx

from pipeline.config.choices import IntegerType
from pipeline.config.mode_settings import (
    AnyModeConfig,
    AutoConfig,
    DynamicConfig,
    Fp16Config,
    OptimizeConfig,
    StaticConfig,
    WeightOnlyConfig,
)
from pipeline.config.model_name import is_shipped
from pipeline.errors import StageError
from pipeline.graph.input_defaults import put_defaults_back
from pipeline.graph.large_models import is_large, save_with_external_data
from pipeline.graph.module_paths import module_of
from pipeline.graph.prepare import without_shapes
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.runtime_versions import OLDEST, Needed, check_runtime, use_lowest_ir_version
from pipeline.graph.session import infer, open_session
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of, tensors_in
from pipeline.outside_errors import naming, unless_memory_is_used_up
from pipeline.paths import hash_files
from pipeline.quantize.plan import Plan
from pipeline.quantize.plan_check import check_plan
from pipeline.quantize.precision_labels import precision_labels, weight_shares
from pipeline.quantize.short_names import shorten_names
from pipeline.quantize.small_integers import store_integers
from pipeline.record.results import Kept, ProcessorFit
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample

INTEGER_WEIGHTS = frozenset(
    {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4,
     onnx.TensorProto.INT16, onnx.TensorProto.UINT16}
)  # fmt: skip

INTEGER_KERNELS = ("QLinear", "MatMulInteger", "ConvInteger", "DynamicQuantize", "MatMulNBits", "QGemm", "QAttention")
"""How the names of operators begin that compute with integers, as ONNX Runtime runs a graph."""


@dataclass(frozen=True)
class Artifact:
    """A quantized graph.

    Attributes:
        graph: its role, such as `acoustic`.
        path: the file.
        sha256: of the file and its external data.
        size_bytes: of the file and its external data.
        baseline_bytes: of the original.
        quantized_nodes: node name -> how it computes now.
        kept: nodes that could have been quantized and were not, with reasons.
        kernels: how ONNX Runtime runs it here: counts of integer operators, and of Q/DQ nodes that it could not fuse.
        modules: node name -> the module of the exporter's source that it lies in, where its name does not say so.
        weights: type -> its share of the values of all weights.
        needs: the oldest ONNX Runtime that it runs in.
        processors: for which processors it is right; None: not looked at.
        saved_by_names: what short names of inner tensors save, as a share of the file; 0: they have those of the original.
    """

    graph: str
    path: Path
    sha256: str
    size_bytes: int
    baseline_bytes: int
    quantized_nodes: dict[str, str]
    kept: tuple[Kept, ...]
    kernels: dict[str, int]
    modules: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    needs: Needed = field(default_factory=lambda: Needed(OLDEST, ""))
    processors: ProcessorFit | None = None
    saved_by_names: float = 0.0

    def published(self, directory: RunDirectory) -> "Artifact":
        """Return the artifact after it was moved to its place in the run's directory."""
        return replace(self, path=directory.publish(self.path))


def save_artifact(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    source: SourceGraph,
    plan: Plan,
    suffix: str,
    directory: RunDirectory,
    probe: Sample,
    *,
    external_data: bool | None,
    runtime: str | None = None,
    threads: int = 1,
    stem: str | None = None,
) -> Artifact:
    """Save a quantized graph in the run's staging place, and run it once.

    Metadata is copied from the original: sherpa-onnx refuses a model without it.

    Args:
        model: the quantized graph.
        original: the prepared float graph, which the plan is of.
        source: the graph as loaded.
        plan: what the report will say of each node.
        suffix: the type in the file's name.
        directory: of the run.
        probe: a sample.
        external_data: weights in a file beside the graph; None: only where it is too large without.
        runtime: the version of ONNX Runtime that must run it; None: this one.
        threads: intra-op threads that it is run with.
        stem: what the file's name begins with; None: the name of the graph.

    Raises:
        StageError: the graph is not what was planned, holds no weight of the type that its name promises, needs a newer ONNX
            Runtime than was asked for, does not run on the probe, is no valid ONNX file where the original is, or is too large
            for the one file that is asked for.
    """
    check_plan(model, original, plan)
    model = without_shapes(model)
    del model.metadata_props[:]
    model.metadata_props.extend(source.model.metadata_props)
    put_defaults_back(model.graph, source.defaults)
    _check_promise(model, suffix)
    labels, shares = precision_labels(model, plan), weight_shares(model)
    saved = 0.0
    if suffix != "fp32":
        store_integers(model)
        saved = shorten_names(model, source.model)
    use_lowest_ir_version(model)
    name = f"{stem or source.name}.{suffix}.onnx"
    needs = check_runtime(model, runtime, name)
    path = directory.staging(name)
    if external_data is False and is_large(model):
        raise StageError("mode.external_data: false, but the graph is larger than an ONNX file may be (2 GB); leave it out.")
    with naming(path):
        if external_data or is_large(model):
            written = save_with_external_data(model, path)
        else:
            onnx.save_model(model, path)
            written = [path]
    kernels = check_artifact(path, source, probe, threads)
    check_format(path, source)
    files, sha256 = hash_files(*written)
    return Artifact(
        source.name,
        path,
        sha256,
        sum(file.bytes for file in files),
        source.size_bytes,
        labels,
        tuple(plan.kept),
        kernels,
        _modules(source, [*plan.precisions, *(kept.node for kept in plan.kept)]),
        shares,
        needs,
        saved_by_names=saved,
    )


def _modules(source: SourceGraph, nodes: list[str]) -> dict[str, str]:
    found = {node: module_of(source.paths, node) for node in nodes}
    return {node: module for node, module in found.items() if module and not node.startswith(module)}


def check_artifact(path: Path, source: SourceGraph, probe: Sample, threads: int = 1) -> dict[str, int]:
    """Run an artifact once, and return how ONNX Runtime runs it: see `integer_kernels`.

    Raises:
        StageError: it does not load, does not run, gives other outputs than the original, or values that are not finite where
            the original's are.
        EndedError: ONNX Runtime ends the process that opens or runs it.
    """
    optimized = path.with_name(f"{path.name}.optimized")
    try:
        outputs = infer(open_session(path, threads, save_optimized=optimized, sample=probe), probe)
        kernels = integer_kernels(onnx.load(optimized, load_external_data=False))
    except EndedError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise StageError(
            f"{path.name} does not run on sample {probe.id!r}: {error}. Exclude the node that it names with "
            "mode.nodes_to_exclude, or quantize fewer operator types with mode.op_types."
        ) from error
    finally:
        optimized.unlink(missing_ok=True)
    broken = {name for name, array in outputs.items() if not _is_finite(array)}
    ranks = {name: array.ndim for name, array in outputs.items()}
    if not broken and ranks == _declared_ranks(source):
        return kernels
    original = infer(open_session(source.path, threads), probe)  # what a graph declares may be missing, or wrong
    if set(ranks) != set(original):
        raise StageError(f"{path.name} has the outputs {sorted(ranks)}, the original {sorted(original)}.")
    for name, array in original.items():
        if ranks[name] != array.ndim:
            raise StageError(f"{path.name}: the output {name!r} has {ranks[name]} axes, the original's {array.ndim}.")
        if name in broken and _is_finite(array):
            raise StageError(
                f"{path.name}: the output {name!r} holds NaN or Inf on sample {probe.id!r}, the original's does not. A value "
                "has left the range of the type; keep its node in fp32 with mode.nodes_to_exclude."
            )
    return kernels


def check_format(path: Path, source: SourceGraph) -> None:
    """Check that an artifact is as valid as its original: by ONNX's checker, with strict shape inference where that passes.

    Files are checked, not graphs in memory, which end at 2 GB.

    Raises:
        StageError: the checker refuses what it accepts of the original.
    """
    for full in (True, False):
        if (problem := _problem(path, full=full)) is None:
            return
        if _problem(source.path, full=full) is None:
            raise StageError(
                f"{path.name} is no valid ONNX file, which other tools would refuse, though the original is one: {problem}. "
                "Exclude the node that it names with mode.nodes_to_exclude; and please report this graph."
            )


def _problem(path: Path, *, full: bool) -> str | None:
    """Return what ONNX's checker has against a file, in one line; None: nothing."""
    try:
        onnx.checker.check_model(str(path), full_check=full)
    except Exception as error:  # ValidationError, InferenceError and what C++ raises share no base class
        unless_memory_is_used_up(error)
        return " ".join(str(error).split())[:400]
    return None


def integer_kernels(optimized: onnx.ModelProto) -> dict[str, int]:
    """Return what an optimised graph holds: counts of integer operators and of Q/DQ nodes that could not be fused."""
    counts = Counter(node.op_type for graph in graphs_of(optimized.graph) for node in graph.node)
    return {
        op_type: count
        for op_type, count in sorted(counts.items())
        if op_type.startswith(INTEGER_KERNELS) or op_type in ("QuantizeLinear", "DequantizeLinear")
    }


def _is_finite(array: np.ndarray) -> bool:
    return not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all())


def _declared_ranks(source: SourceGraph) -> dict[str, int | None]:
    """Return how many axes each output of a graph has, as declared; None where it is not declared."""
    outputs = {output.name: output.type.tensor_type for output in source.model.graph.output}
    return {name: len(tensor.shape.dim) if tensor.HasField("shape") else None for name, tensor in outputs.items()}


def _check_promise(model: onnx.ModelProto, suffix: str) -> None:
    if suffix == "fp32":  # mode=optimize promises no smaller type
        return
    types = {tensor.data_type for tensor in tensors_in(model)}
    promised = {onnx.TensorProto.FLOAT16} if suffix == "fp16" else INTEGER_WEIGHTS
    if types.isdisjoint(promised):
        raise StageError(
            f"nothing in the quantized graph is {suffix}: no node of the plan was changed by the quantizer. Choose other nodes "
            "with mode.nodes_to_quantize or other types with mode.op_types."
        )


def stems_of(sources: Mapping[str, SourceGraph]) -> dict[str, str]:
    """Return what the files of quantized graphs are called: as the user's own files are, else as the graph's role."""
    stems = {name: name if is_shipped(str(source.path)) else source.path.stem for name, source in sources.items()}
    return stems if len(set(stems.values())) == len(stems) else {name: name for name in sources}


def suffix_of(mode: AnyModeConfig) -> str:
    """Return the type in an artifact's name: `<graph>.<suffix>.onnx`."""
    match mode:
        case StaticConfig():
            return (mode.weight_type or IntegerType.int8).name.removeprefix("u")
        case DynamicConfig() | AutoConfig():
            return "int8"
        case WeightOnlyConfig():
            return f"int{mode.bits}"
        case Fp16Config():
            return "fp16"
        case OptimizeConfig():
            return "fp32"
        case _:
            assert_never(mode)
