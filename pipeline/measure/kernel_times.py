"""The time of the kernels of one graph, under ONNX Runtime's profiler, in this process: here, or on a device."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.graph.session import infer, open_session
from pipeline.measure.ort_trace import inferences_of, read_events
from pipeline.sample import Sample

if TYPE_CHECKING:  # a device opens files, and has no onnx
    import onnx

RUNS, LONG_RUNS, LONG_SECONDS = 10, 4, 0.005  # of each graph; fewer where one takes so long that little disturbs it
CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput"})


@dataclass(frozen=True)
class Times:
    """The time of one inference, in milliseconds.

    Attributes:
        all: of all kernels.
        computing: without those that convert to integers and back.
    """

    all: float
    computing: float


def kernel_times(model: "onnx.ModelProto | Path", sample: Sample, threads: int) -> Times:
    """Return the time that the kernels of a graph take in one inference: the least of several."""
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        session = open_session(model, threads, profile=Path(folder) / "trace", sample=sample)
        infer(session, sample)
        start = time.perf_counter()
        infer(session, sample)
        for _ in range((RUNS if time.perf_counter() - start < LONG_SECONDS else LONG_RUNS) - 1):
            infer(session, sample)
        inferences = inferences_of(read_events(Path(session.end_profiling())))[1:]
    spent = [sum(kernel.spent_us for kernel in inference.kernels) for inference in inferences]
    computing = [
        sum(kernel.spent_us for kernel in inference.kernels if kernel.op_type not in CONVERSIONS) for inference in inferences
    ]
    return Times(min(spent) / 1000.0, min(computing) / 1000.0)
