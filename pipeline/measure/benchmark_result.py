"""What the benchmark measured: the report's `benchmark.<graph>`."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """What follows from the interval of the speed-up."""

    faster = "faster"
    slower = "slower"
    same = "same"


@dataclass(frozen=True)
class Percentiles:
    """Latency of one inference over all timed runs.

    Attributes:
        p50: median, in ms.
        p90: 90th percentile, in ms.
        p99: 99th percentile, in ms.
    """

    p50: float
    p90: float
    p99: float


MOST_FACTOR = 100.0  # beyond which the end of an interval says only that nothing is known


def factor(value: float) -> str:
    """Return how many times as fast something is, in words: an interval of a few rounds on a busy machine may have any ends."""
    return ">100" if value >= MOST_FACTOR else "<0.01" if value < 1 / MOST_FACTOR else f"{value:.2f}"


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the original: the paired ratios baseline / quantized.

    Attributes:
        median: of the ratios; above 1, the quantized model is faster.
        low: lower end of the 95 % interval.
        high: upper end.
    """

    median: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """`same` where the interval holds 1: then the data do not show which model is faster."""
        if self.low > 1.0:
            return Verdict.faster
        return Verdict.slower if self.high < 1.0 else Verdict.same


@dataclass(frozen=True)
class LengthLatency:
    """Latency at one input length.

    Attributes:
        sample: id of the sample.
        elements: number of values in its inputs.
        audio_seconds: length of its audio; None where the model neither reads nor produces audio.
        baseline_ms: median latency of the original.
        quantized_ms: median latency of the quantized model.
        speedup: median of the paired ratios.
    """

    sample: str
    elements: int
    audio_seconds: float | None
    baseline_ms: float
    quantized_ms: float
    speedup: float


@dataclass(frozen=True)
class OpTimes:
    """Where the time of one inference goes, by operator as ONNX Runtime runs it (fusions have names of their own).

    Shares come from ONNX Runtime's profiler, which slows small operators down; the times are those shares of the latency
    that was measured without it.

    Attributes:
        sample: id of the sample.
        baseline_ms: operator type -> ms of the original, largest first.
        quantized_ms: the same of the quantized model.
        trace: name of the Chrome trace of both, beside the report.
    """

    sample: str
    baseline_ms: dict[str, float]
    quantized_ms: dict[str, float]
    trace: str


@dataclass(frozen=True)
class GraphBenchmark:
    """One graph, original against quantized, on one number of threads.

    Attributes:
        threads: intra-op threads of both sessions.
        pairs: number of timed pairs.
        rounds: how often both sessions were built again.
        baseline_ms: latency of the original, all lengths together.
        quantized_ms: latency of the quantized model, likewise.
        speedup: how many times faster the quantized model is.
        verdict: faster, slower or same: from the interval of the speed-up.
        lengths: latency of the "short", "median" and "long" sample; "median" alone where all are of one length.
        rtf: real-time factor of the quantized model: the lengths' median latencies over their audio's time, below 1 is
            faster than real time; None where there is no audio.
        baseline_rtf: the original's.
        baseline_load_ms: median time to build a session of the original from its file, graph optimisation included.
        quantized_load_ms: the quantized model's.
        baseline_first_run_ms: median time of a session's first inference.
        quantized_first_run_ms: the quantized model's.
        baseline_peak_bytes: peak resident memory of a process that loads the original and runs the samples.
        quantized_peak_bytes: the quantized model's.
        runtime_peak_bytes: peak resident memory of the same process without a model: subtract it to get a model's own.
        self_check: speed-up of the original against itself, measured the same way; None unless asked for.
        measured: when another run measured it on this machine, whose figures these are (`benchmark.reuse=true`); None: this
            run has measured it.
        elsewhere: of a file for another family of processors: what was measured here says nothing of it; None for this one's.
        warnings: why the figures may be unreliable; empty on a quiet machine.
        op_times: where the time goes in both, where it was profiled.
        runtime: version of the ONNX Runtime that both ran in.
        device: what they ran on, where that was not this machine.
        other_threads: the same graph on the further numbers of threads that were asked for.
    """

    threads: int
    pairs: int
    rounds: int
    baseline_ms: Percentiles
    quantized_ms: Percentiles
    speedup: Speedup
    verdict: str
    lengths: dict[str, LengthLatency]
    rtf: float | None
    baseline_rtf: float | None
    baseline_load_ms: float
    quantized_load_ms: float
    baseline_first_run_ms: float
    quantized_first_run_ms: float
    baseline_peak_bytes: int
    quantized_peak_bytes: int
    runtime_peak_bytes: int | None = None
    self_check: Speedup | None = None
    warnings: list[str] = field(default_factory=list)
    op_times: OpTimes | None = None
    runtime: str = ""
    device: str | None = None
    other_threads: "list[GraphBenchmark]" = field(default_factory=list)
    elsewhere: str | None = None
    measured: str | None = None
