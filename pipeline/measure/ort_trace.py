"""What ONNX Runtime's profiler writes: a list of events, read as inferences and the kernels that each of them ran."""

import json
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Shape = tuple[int, ...]

KERNEL_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class Timed:
    """Something that took time.

    Attributes:
        event: as the profiler has written it.
    """

    event: Event

    @property
    def start_us(self) -> float:
        """When it began, in microseconds since the profiler's start."""
        return float(self.event["ts"])

    @property
    def spent_us(self) -> float:
        """How long it took, in microseconds: under the profiler, which slows it down."""
        return float(self.event["dur"])


@dataclass(frozen=True)
class Kernel(Timed):
    """One run of one node."""

    @property
    def node(self) -> str:
        """The name of the node; a fusion gives new ones where the graph was optimised."""
        return str(self.event["name"]).removesuffix(KERNEL_SUFFIX)

    @property
    def op_type(self) -> str:
        """The operator that ran, for example FusedConv."""
        return str(self.event["args"]["op_name"])

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Shapes of its inputs, without weights that ONNX Runtime has packed and inputs that are left out."""
        return _shapes(self.event["args"]["input_type_shape"])

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shapes of its outputs."""
        return _shapes(self.event["args"]["output_type_shape"])


@dataclass(frozen=True)
class Inference(Timed):
    """One run of the graph.

    Attributes:
        kernels: in the order in which they began.
    """

    kernels: list[Kernel] = field(default_factory=list)


def read_events(trace: Path) -> list[Event]:
    """Return the events of a file that the profiler has written."""
    events: list[Event] = json.loads(trace.read_text(encoding="utf-8"))
    return events


def inferences_of(events: Iterable[Event]) -> list[Inference]:
    """Return the inferences in a trace, in the order in which they ran. The first one also allocates memory."""
    ordered = sorted(events, key=lambda event: float(event["ts"]))
    found = [Inference(event) for event in ordered if event["name"] == "model_run"]
    starts = [inference.start_us for inference in found]
    for event in ordered:
        if event["cat"] == "Node" and event["name"].endswith(KERNEL_SUFFIX):
            found[bisect_right(starts, float(event["ts"])) - 1].kernels.append(Kernel(event))
    return found


def _shapes(typed: list[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in typed for shape in entry.values())
