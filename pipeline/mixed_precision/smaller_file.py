"""What the choice of a search leaves in float, stored as integers: a smaller file that is as fast.

ONNX Runtime restores such weights when it opens the file (`pipeline/quantize/weight_storage.py`), so that all kernels are those
of before. As int8 they may cost more than the budget leaves: then the largest that it does leave room for are int8, and the
others int16, whose rounding is 256 times as fine. Weights of groups come first, then what no group has
(`pipeline/quantize/stored_constants.py`).
"""

import itertools
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import onnx

from pipeline.config.mode_settings import StaticConfig
from pipeline.evaluate.loss import Allowed
from pipeline.graph.large_models import byte_size
from pipeline.graph.node_patterns import check_op_types, match_nodes
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.prepare import PreparedGraph, initializers_of, without_shapes
from pipeline.graph.shape_deciding import length_deciding_nodes
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, keeps_quality
from pipeline.mixed_precision.precision_groups import STORED, Choice, Group
from pipeline.mixed_precision.time_limit import OutOfTimeError
from pipeline.quantize.plan import Precision
from pipeline.quantize.static import static_types
from pipeline.quantize.stored_constants import Saved, bytes_saved, storable_constants, store_chosen

log = logging.getLogger(__name__)

WORTHWHILE = 0.02  # of the file, that is to be saved: less is not worth the loss
TRIED = 6  # numbers of weights that are int8, at most


@dataclass(frozen=True)
class Item:
    """What may be stored.

    Attributes:
        name: of a group or of a constant.
        in_group: which of these it is.
        saved: what each precision saves, in bytes; int8 is among them.
    """

    name: str
    in_group: bool
    saved: Saved


def smaller_file(
    best: Candidate, found: CandidateSearch, trials: TrialContext, budget: Budget, prepared: PreparedGraph
) -> Candidate:
    """Return a choice with the weights of what it leaves in float stored; itself where that saves little.

    As int8, as far as the budget allows and there is time to measure it; else as int16, whose loss is taken for that of the
    choice: whoever takes it measures it.

    Args:
        best: the choice, which keeps to the budget.
        found: the search; it gets the new candidates.
        trials: what they are measured with.
        budget: what is asked for; without a limit on the loss, nothing is stored.
        prepared: the graph that the choice is of, before it was rewritten.
    """
    items = [] if budget.max_loss is None else _items(trials.builder, best.choice, prepared)
    if sum(item.saved[Precision.weight_int8] for item in items) < WORTHWHILE * best.bytes:
        return best

    def with_int8(count: int) -> Candidate:
        """Return the choice with so many of the items as int8, and the others as int16."""
        finer = [item for item in items[count:] if Precision.weight_int16 in item.saved]
        stored = [(item, Precision.weight_int8) for item in items[:count]]
        stored += [(item, Precision.weight_int16) for item in finer]
        choice = {**best.choice, **{item.name: precision for item, precision in stored if item.in_group}}
        constants = {item.name: precision for item, precision in stored if not item.in_group}
        model = trials.builder.build(choice, rounding=best.rounded)
        store_chosen(model, constants, trials.builder.model)
        size = byte_size(without_shapes(model))
        label = ", ".join([best.label, *_in_words(items[:count], "int8"), *_in_words(finer, "int16")])
        return replace(
            best, label=label, choice=choice, constants=constants, bytes=size, size_ratio=size / trials.original_bytes
        )

    def scored(candidate: Candidate) -> Candidate:
        limits = Allowed(budget.max_loss, budget.max_length_change)
        verdict = trials.evaluator.loss(trials.graph_of(candidate), allowed=limits)
        log.info("%s: %s %.4g, %.2f of the size", candidate.label, budget.metric, verdict.loss, candidate.size_ratio)
        return replace(candidate, loss=verdict.loss, length_change=verdict.length_change, samples=verdict.samples)

    smallest, weights = with_int8(0), sum(item.in_group for item in items)
    low, high, count = 0, len(items) + 1, len(items)
    for number in range(TRIED):
        try:
            trials.limit.check()
            tried = scored(with_int8(count))
        except OutOfTimeError:
            break
        found.keep(tried)
        if keeps_quality(tried, budget):
            low, smallest = count, tried
        else:
            high = count
        if high - low <= 1:
            break
        count = weights if number == 0 and 0 < weights < high else _between(low, high, items)
    if low == 0:
        found.keep(smallest)
    return smallest


def _in_words(items: Sequence[Item], kind: str) -> list[str]:
    groups = sum(item.in_group for item in items)
    others = len(items) - groups
    words = [f"the weights of float groups ({groups}) stored as {kind}"] if groups else []
    return words + ([f"other constants ({others}) stored as {kind}"] if others else [])


def _between(low: int, high: int, items: Sequence[Item]) -> int:
    """Return the count between two others that halves the bytes which int8 saves beyond int16."""
    saved = [item.saved for item in items[low : high - 1]]
    more = [each[Precision.weight_int8] - each.get(Precision.weight_int16, 0) for each in saved]
    sums = itertools.accumulate(more)
    return low + next((number for number, done in enumerate(sums, start=1) if 2 * done >= sum(more)), 1)


def _items(builder: Builder, choice: Choice, prepared: PreparedGraph) -> list[Item]:
    """Return what a choice leaves in float: weights of groups, and then constants, the largest first of each."""
    constants = constants_beside(builder.model, builder.groups, choice, builder.static, prepared)
    weights = _bytes_saved(builder, choice)
    return [
        Item(name, saved is weights, each)
        for saved in (weights, constants)
        for name, each in sorted(saved.items(), key=lambda entry: -entry[1][Precision.weight_int8])
    ]


def _bytes_saved(builder: Builder, choice: Choice) -> dict[str, Saved]:
    """Return what each group of the outermost graph that computes in float saves with its weight stored, where it does."""
    constants = initializers_of(builder.model)
    found: dict[str, Saved] = {}
    for group in builder.groups:
        if group.name in choice or not group.weight or not _is_storable(group):
            continue
        dims = constants[group.weight].dims
        saved = bytes_saved(dims, max(dims))
        if Precision.weight_int8 in saved:
            found[group.name] = saved
    return found


def constants_beside(
    model: onnx.ModelProto, groups: Collection[Group], choice: Choice, static: StaticConfig, prepared: PreparedGraph
) -> dict[str, Saved]:
    """Return the constants that may be stored beside the weights of a choice, and what each saves.

    Not what an integer node reads, nor what decides shapes or lengths, nor what settings keep from a search.

    Args:
        model: the float graph that the choice is of; no two tensors of it have one name.
        groups: what a search decides on.
        choice: what it has chosen: the weights of these groups, and of those of the outermost graph that can be stored as a
            group, are not among the constants. What lies in bodies and is not chosen, is.
        static: the settings that name nodes and types.
        prepared: knows whether lengths are to be kept, and the modules that nodes lie in.
    """
    return storable_constants(
        model,
        integer={
            node for group in groups if choice.get(group.name, Precision.weight_int8) not in STORED for node in group.nodes
        },
        weights_of={node for group in groups if group.name in choice or _is_storable(group) for node in group.nodes},
        kept=_kept(model, static, prepared),
    )


def _is_storable(group: Group) -> bool:
    return bool(group.weight) and Precision.weight_int8 in group.precisions


def _kept(model: onnx.ModelProto, static: StaticConfig, prepared: PreparedGraph) -> set[str]:
    """Return the nodes that read no integers: settings keep them as they are, or lengths follow from them."""
    scopes = list(graphs_of(model.graph))
    nodes = [node for scope in scopes for node in scope.node]
    names = {node.name for node in nodes}
    kept = length_deciding_nodes(model.graph) if prepared.keep_lengths else set()
    kept |= match_nodes(static.nodes_to_exclude, names, "mode.nodes_to_exclude", prepared.paths)
    if static.nodes_to_quantize:
        kept |= names - match_nodes(static.nodes_to_quantize, names, "mode.nodes_to_quantize", prepared.paths)
    wanted = set(check_op_types(static.op_types, static_types(static.format), (), "mode.op_types"))
    return kept if wanted >= STORABLE else kept | {node.name for node in nodes if node.op_type not in wanted}
