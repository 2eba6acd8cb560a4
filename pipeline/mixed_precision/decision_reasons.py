"""Why a search has given a node its precision, in words that need no knowledge of the search; with units."""

from pipeline.metrics.metric_registry import METRICS
from pipeline.mixed_precision.cost_model import KernelSaving
from pipeline.quantize.plan import Precision


def why_chosen(gain: KernelSaving, loss: float | None, metric: str) -> str:
    """Return why a group became integers.

    Args:
        gain: what it saves alone.
        loss: what it loses alone; None: not measured.
        metric: what losses of single groups are measured in.
    """
    cost = _cost(loss, metric)
    if gain.ms > 0:
        return f"alone it is {gain.ms:.3g} ms faster and {_size(gain.bytes_saved)}; {cost}"
    if gain.ms_among_integers > 0:
        return (
            f"between int8 neighbours, where nothing is converted, it is {gain.ms_among_integers:.3g} ms faster and "
            f"{_size(gain.bytes_saved)}; {cost}"
        )
    return f"it is not faster, but {_size(gain.bytes_saved)}; {cost}"


def why_float(precision: Precision, gain: KernelSaving, loss: float | None, metric: str) -> str:
    """Return why a group stayed float, for the precision that it was nearest to; the arguments are those of `why_chosen`."""
    if gain.ms <= 0:
        slower = f"{-gain.ms:.3g} ms slower than as float" if gain.ms < 0 else "as fast as float"
        return f"as {precision.value} it would be {slower}"
    would = f"as {precision.value} it would be {gain.ms:.3g} ms faster"
    if loss is None:
        return f"{would}; there was no time to measure what that costs"
    return f"{would}, but {_cost(loss, metric)}: other nodes gain more for that"


def _cost(loss: float | None, metric: str) -> str:
    if loss is None:
        return "what that costs in quality alone was not measured"
    unit = METRICS[metric].unit
    changed = f"{metric} gets {'worse' if loss >= 0 else 'better'} by {abs(loss):.3g}"
    return f"{changed}{f' {unit}' if unit else ''}" if loss else f"{metric} does not change"


def _size(saved: int) -> str:
    return f"{abs(saved) / 1024:,.1f} KiB {'smaller' if saved >= 0 else 'larger'}"
