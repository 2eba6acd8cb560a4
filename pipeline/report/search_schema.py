"""The part of report.json about a search for the precision of each node: `search`."""

from dataclasses import dataclass, field

from pipeline.record.results import MeasuredLoss
from pipeline.typed_json import LEFT_OUT


@dataclass(frozen=True)
class TriedCandidate:
    """One model that a search has considered.

    Attributes:
        index: its place in the order of trial.
        label: its name.
        loss: in the metric of the search: how much worse than fp32; None: infinitely, or not measured.
        speedup: times as fast as fp32, measured quickly and without an interval; None where it was not timed.
        bytes: of its file.
        measured: whether it was timed.
        scored: whether its loss was measured: a search that is interrupted early gives the first graph that it has built.
        on_front: whether no other one is better in everything.
        meets_budget: whether it was timed and keeps to all that was asked for.
        int8_groups: how many groups of nodes are integers.
        layout: names of the layout rewrites it was fastest with.
        samples: that its loss is of: fewer than of others where it was surely too much; None: not known.
    """

    index: int
    label: str
    loss: float | None
    speedup: float | None
    bytes: int
    measured: bool = False
    scored: bool = True
    on_front: bool = False
    meets_budget: bool | None = None
    int8_groups: int | None = None
    layout: list[str] = field(default_factory=list)
    samples: int | None = None


@dataclass(frozen=True)
class NodeDecision:
    """What became of a node in a search: its precision, why, and what that loses and gains alone; None: not measured."""

    node: str
    precision: str
    op: str = ""
    reason: str | None = None
    loss: float | None = None
    gain_ms: float | None = None
    bytes_saved: int | None = None


@dataclass(frozen=True)
class SearchReport:
    """What a search for the precision of each node was asked for, has tried, and has chosen.

    Attributes:
        metric: what losses are measured in.
        unit: of the metric.
        budget: name of the limit -> its value; what is not limited is None or absent.
        asked: names of the limits that the user gave; the others are the usual ones. None: not known.
        met: whether the chosen candidate keeps to the budget.
        chosen: the index of a candidate.
        candidates: all that were tried, in their order.
        nodes: what became of each node.
        node_metric: what losses of single nodes are measured in.
        seconds: how long the search took.
        stopped_early: whether it ran out of time, or was interrupted.
        stopped: what that cut off and what to do, in a sentence.
        enough_seconds: where it ran out of time, a value of `mode.seconds` that is enough.
        timed_on: the device that speed was measured on, and its ONNX Runtime; None: this machine.
        method: how ranges follow from calibration.
        percentile: of that method, where it has one.
        selection_loss: of the chosen candidate on the samples that it was chosen on.
        report_loss: of the chosen candidate on samples that the search has not seen.
    """

    metric: str
    unit: str = ""
    budget: dict[str, float | int | str | None] = field(default_factory=dict)
    asked: list[str] | None = None
    met: bool | None = None
    chosen: int | None = None
    candidates: list[TriedCandidate] = field(default_factory=list)
    nodes: list[NodeDecision] = field(default_factory=list)
    node_metric: str | None = None
    seconds: float | None = None
    stopped_early: bool | None = None
    stopped: str | None = field(default=None, metadata=LEFT_OUT)
    enough_seconds: int | None = field(default=None, metadata=LEFT_OUT)
    timed_on: str | None = field(default=None, metadata=LEFT_OUT)
    method: str | None = None
    percentile: float | None = None
    selection_loss: MeasuredLoss | None = field(default=None, metadata=LEFT_OUT)
    report_loss: MeasuredLoss | None = field(default=None, metadata=LEFT_OUT)
