"""The rewrites of `pipeline.optimize.engine` around a quantizer: operators before it, layouts after it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import onnx

from pipeline.config.mode_settings import AnyModeConfig, AutoConfig, StaticConfig
from pipeline.graph.graph_editor import Graph
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.shorten_samples import shorten
from pipeline.measure.relative_speed import speedups
from pipeline.measure.timing_place import HERE, Place
from pipeline.optimize.engine import Rewritten, apply
from pipeline.optimize.layouts import first_form
from pipeline.optimize.outcome import Refusal
from pipeline.optimize.rewrite_registry import LAYOUTS, OPERATORS, REWRITES, Rewrite, check_names
from pipeline.optimize.rules import merge_views
from pipeline.own_time import own_time
from pipeline.sample import Sample

log = logging.getLogger(__name__)

OPENING = ("conv_transpose_to_conv", "conv1x1_to_matmul")  # rewrites that open nodes to a (better) integer kernel
OPENING_MAY_COST = 0.97  # of the float speed
FOR_FLOAT = 0.5  # of the time, at most, for rewrites that open nothing: on a busy machine they take long to be told from noise
OPENING_SECONDS = 1.0  # of timing, for each graph


def with_merged_views(prepared: PreparedGraph, name: str) -> PreparedGraph:
    """Return the graph with one operator, or none, where several only change axes: the same bits, in every mode."""
    graph = Graph(prepared.model)
    if isinstance(found := merge_views.rewrite(graph), Refusal):
        return prepared
    before = {node.name for node in prepared.model.graph.node}
    model = with_shapes(graph.finish())
    note = f"{name}: operators that only change axes were merged: {found.count} fewer."
    gone = before - {node.name for node in model.graph.node}
    return replace(prepared, model=model, notes=(*prepared.notes, note), folded=prepared.folded | gone)


def in_float(
    prepared: PreparedGraph, mode: AnyModeConfig, probes: Sequence[Sample], threads: int, place: Place = HERE
) -> Rewritten:
    """Return the graph with fast float operators; where Q/DQ pairs follow, in the layout that it has already."""
    check_names(mode.rewrites, "mode.rewrites")
    fitting = OPERATORS if isinstance(mode, StaticConfig) else REWRITES
    return apply(prepared.model, probes, threads=threads, only=_names(fitting, mode), assume=mode.assume, place=place)


def laid_out(
    model: onnx.ModelProto, before: Rewritten, mode: StaticConfig, probes: Sequence[Sample], threads: int, place: Place = HERE
) -> tuple[onnx.ModelProto, Rewritten]:
    """Return a quantized graph in the layouts that are faster, and the rewrites before and after quantization."""
    done = apply(model, probes, threads=threads, only=layouts_for(mode), place=place)
    applied, rejected = (*before.applied, *done.applied), (*before.rejected, *done.rejected)
    return done.model, Rewritten(done.model, applied, rejected)


def _names(rewrites: Sequence[Rewrite], mode: AnyModeConfig) -> list[str]:
    return [rewrite.name for rewrite in rewrites if not mode.rewrites or rewrite.name in mode.rewrites]


def opened(
    prepared: PreparedGraph,
    mode: AutoConfig,
    probes: Sequence[Sample],
    threads: int,
    *,
    until: float = math.inf,
    place: Place = HERE,
) -> Rewritten:
    """Return the graph with faster float operators, and with operators that integer kernels exist for, at little or no cost.

    Layouts come after quantization, which decides which nodes stay float.

    Args:
        prepared: the graph.
        mode: which rewrites are allowed.
        probes: real inputs.
        threads: intra-op threads.
        until: on the clock of `own_time`: rewrites that are not tried by then are left out.
        place: where they are timed.
    """
    check_names(mode.rewrites, "mode.rewrites")
    wanted = _names(OPERATORS, mode)
    plain = [name for name in wanted if name not in OPENING]
    left = None if until == math.inf else FOR_FLOAT * max(until - own_time(), 0.0)
    rewritten = apply(prepared.model, probes, threads=threads, only=plain, assume=mode.assume, max_seconds=left, place=place)
    shortest = shorten(prepared.model, sorted(probes, key=lambda sample: sample.size)[:1], threads)
    for rewrite in (rewrite for rewrite in OPERATORS if rewrite.name in OPENING and rewrite.name in wanted):
        graph = Graph(with_shapes(rewritten.model))
        if own_time() >= until or isinstance(rewrite.apply(graph), Refusal):
            continue
        model = graph.finish()
        before, opened = (first_form(form, layouts_for(mode)) for form in (rewritten.model, model))
        found = speedups(
            before, {"opened": opened}, shortest, threads=threads, seconds=OPENING_SECONDS, until=until, place=place
        )
        log.info("%s: %.2f times the speed of float without", rewrite.name, found["opened"])
        if found["opened"] >= OPENING_MAY_COST:
            rewritten = replace(rewritten, model=model)
    return rewritten


def notes_on_assumptions(graph: str, rewritten: Rewritten) -> list[str]:
    """Return a sentence for each rewrite that rests on an assumption about the inputs of a graph."""
    return [
        f"{graph}: {applied.name} (places: {applied.assumed_sites}) assumes that {applied.assumption} (mode.assume=true)."
        for applied in rewritten.applied
        if applied.assumed_sites
    ]


def layouts_for(mode: AnyModeConfig) -> list[str]:
    """Return the names of the rewrites that may give nodes another layout."""
    return _names(LAYOUTS, mode) if mode.optimize else []
