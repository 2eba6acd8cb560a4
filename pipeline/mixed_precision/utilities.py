"""What a gain in time and in bytes is worth."""

from pipeline.graph.source_graph import SourceGraph
from pipeline.mixed_precision.candidates import Budget
from pipeline.mixed_precision.cost_model import KernelSaving, KernelSavings
from pipeline.quantize.plan import Precision


def utilities_of(
    gained: KernelSavings, total_ms: float, source: SourceGraph, budget: Budget
) -> tuple[dict[tuple[str, Precision], float], ...]:
    """Return what each group's gain is worth, among float neighbours and among integers.

    It is its share of the float graph's time, and of its bytes by their weight. Where only the size is limited, bytes alone
    count; where it is limited beside something else, what they alone are worth comes third: a node that gains bytes and no time
    may be what makes the file small enough.
    """
    bytes_alone = budget.max_bytes is not None and budget.max_loss is None and budget.min_speedup is None

    def worth_of(gain: KernelSaving, ms: float) -> float:
        return ms / total_ms + budget.size_weight * gain.bytes_saved / source.size_bytes

    by_bytes = {key: gain.bytes_saved / source.size_bytes for key, gain in gained.items()}
    if bytes_alone:
        return (by_bytes, by_bytes)
    return (
        {key: worth_of(gain, gain.ms) for key, gain in gained.items()},
        {key: worth_of(gain, gain.ms_among_integers) for key, gain in gained.items()},
        *((by_bytes,) if budget.max_bytes is not None else ()),
    )
