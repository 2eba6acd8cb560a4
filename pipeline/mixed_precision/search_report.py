"""The answer of a search, for the report and the page: what was tried, what was chosen, and why each node is what it is."""

from collections.abc import Collection, Sequence
from typing import Any

from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.metrics.metric_registry import METRICS
from pipeline.mixed_precision.candidate_builder import Builder
from pipeline.mixed_precision.candidates import Budget, Candidate, holds, on_front
from pipeline.mixed_precision.cost_model import KernelSavings
from pipeline.mixed_precision.decision_reasons import why_chosen, why_float
from pipeline.mixed_precision.precision_groups import STORED, Group, in_integers
from pipeline.mixed_precision.sensitivity import Losses
from pipeline.quantize.plan import Plan, Precision
from pipeline.record.results import Kept

UNMEASURED = "there was no time to measure what int8 gains and costs"
LIMITS = ("max_loss", "min_speedup", "max_bytes", "max_length_change")


def answer(best: Candidate, candidates: Sequence[Candidate], budget: Budget, *, met: bool | None) -> dict[str, Any]:
    """Return what was asked for, what was tried, and what was chosen; `met` is None where that is not known."""
    return {
        "metric": budget.metric,
        "unit": METRICS[budget.metric].unit,
        "asked": list(budget.asked),
        "budget": {key: getattr(budget, key) for key in LIMITS if getattr(budget, key) is not None},
        "met": met,
        "chosen": candidates.index(best),
        "candidates": [
            {
                "index": index, "label": c.label, "loss": c.loss, "speedup": c.speedup, "bytes": c.bytes,
                "measured": c.measured, "scored": c.scored, "on_front": on_front(c, candidates), "layout": list(c.layout),
                "meets_budget": c.measured and holds(c, budget), "int8_groups": len(in_integers(c.choice)),
                "samples": c.samples,
            }
            for index, c in enumerate(candidates)
        ],
    }  # fmt: skip


def rows(
    builder: Builder,
    fixed: Sequence[Kept],
    best: Candidate,
    losses: Losses,
    gained: KernelSavings,
    metric: str,
    plan: Plan,
    fixed_scales: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the table of nodes: what each has become, why, and what that loses and gains alone.

    `fixed_scales` names the products that have got scales from calibration in the end.
    """
    by_node = {node: group for group in builder.groups for node in group.nodes}
    kept = {entry.node: entry.reason for entry in fixed}
    rows = []
    for node in (node for scope in graphs_of(builder.model.graph) for node in scope.node):
        group, alone = by_node.get(node.name), plan.precisions.get(node.name)
        if group is None or (alone is not None and group.name not in best.choice):
            if alone is not None or node.name in kept:
                reason = kept[node.name] if alone is None else "it computes in float; its weight is stored, which costs no time"
                rows.append(
                    {"node": node.name, "op": node.op_type, "precision": alone.value if alone else "fp32", "reason": reason,
                     "loss": None, "gain_ms": None, "bytes_saved": None}
                )  # fmt: skip
            continue
        precision = best.choice.get(group.name)
        in_float = precision is None or (precision in STORED and not STORED.issuperset(group.precisions))
        shown = _nearest(group, losses, gained) if in_float or precision is None else precision
        loss, gain = losses.get((group.name, shown)), gained.get((group.name, shown))
        scale = ", with a scale from calibration" if node.name in fixed_scales else ""
        stored = "" if precision is None else "; its weight is stored, which costs no time"
        reason = (
            (UNMEASURED if precision is None else "part of a graph that was measured as a whole") if gain is None
            else f"{why_float(shown, gain, loss, metric)}{stored}" if in_float
            else f"{why_chosen(gain, loss, metric)}{scale}"
        )  # fmt: skip
        rows.append(
            {"node": node.name, "op": node.op_type, "precision": precision.value if precision else "fp32", "reason": reason,
             "loss": loss, "gain_ms": gain and gain.ms, "bytes_saved": gain and gain.bytes_saved}
        )  # fmt: skip
    return rows


def _nearest(group: Group, losses: Losses, gained: KernelSavings) -> Precision:
    """Return the precision that a group which stayed float was nearest to: the best bargain, or the least slow."""
    possible = [p for p in group.precisions if p not in STORED] or group.precisions
    measured = [p for p in possible if (group.name, p) in losses]
    if not measured:
        known = [p for p in possible if (group.name, p) in gained] or possible[:1]
        return max(known, key=lambda p: gained[group.name, p].ms if (group.name, p) in gained else 0.0)
    return min(measured, key=lambda p: losses[group.name, p] / max(gained[group.name, p].ms, 1e-6))


def unmeasured(
    groups: Sequence[Group], gained: KernelSavings, worthwhile: Sequence[tuple[str, Precision]], losses: Losses
) -> list[str]:
    """Return what there was no time to measure of single groups, in words.

    Args:
        groups: all of them.
        gained: what is known of what they gain.
        worthwhile: those whose loss is wanted.
        losses: what is known of these.
    """
    wanted = {"gain": {group.name for group in groups}, "lose": {group for group, _ in worthwhile}}
    known = {"gain": {group for group, _ in gained}, "lose": {group for group, _ in losses}}
    missing = {what: len(names - known[what]) for what, names in wanted.items()}
    return [f"what {count} of {len(wanted[what])} groups {what}" for what, count in missing.items() if count]


def warnings_of(
    graph: str, best: Candidate, met: bool | None, budget: Budget, candidates: Sequence[Candidate], stopped: str | None = None
) -> list[str]:
    """Return what a user must know first: a budget that nothing meets, that the search ended early, that nothing became int8.

    Args:
        graph: its name.
        best: what was chosen.
        met: whether it keeps to the budget; None: that is not known.
        budget: what was asked for.
        candidates: what was tried.
        stopped: why the search ended early, in a sentence; None: it did not.
    """
    found = []
    if met is False:
        asked = ", ".join(
            f"{name} {limit:g}"
            for name, limit in (
                (f"{budget.metric} +", budget.max_loss), ("speed-up", budget.min_speedup), ("bytes", budget.max_bytes),
            )
            if limit is not None
        )  # fmt: skip
        found.append(
            f"{graph}: NOTHING MEETS THE BUDGET ({asked}) among {len(candidates)} candidates; this is the closest: "
            f"{budget.metric} {best.loss:+.4g}, {_speed(best)}, {best.bytes:,} bytes."
        )
    if stopped is not None:
        found.append(f"{graph}: the search {'was ' if stopped.startswith('interrupted') else ''}{stopped}")
    if not in_integers(best.choice):
        why = (
            "nothing that was measured by then keeps to the budget"
            if stopped
            else "nothing was worth its loss within the budget"
        )
        found.append(
            f"{graph}: no node became int8: {why}. The graph stays float."
            if not (best.choice or best.constants)
            else f"{graph}: no node computes in integers{f': {why}' if stopped else ''}. Its weights are stored as integers."
        )
    return found


def _speed(candidate: Candidate) -> str:
    return "not timed" if candidate.speedup is None else f"{candidate.speedup:.2f} times as fast"
