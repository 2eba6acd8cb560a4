"""The part of report.json about speed, memory and time to load: `benchmark`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LatencyPercentiles:
    """Latency of one inference over all timed runs, in ms."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class SpeedupInterval:
    """Median of the paired ratios fp32 / quantized, above 1 where quantized is faster, and its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class LatencyOfLength:
    """Latency at one input length: medians in ms; `audio_seconds` is None where the model makes or hears no audio."""

    sample: str
    elements: int
    audio_seconds: float | None
    baseline_ms: float
    quantized_ms: float
    speedup: float


@dataclass(frozen=True)
class TimeByOperator:
    """Time of one inference by operator type as ONNX Runtime runs it, in ms, and the file that holds the trace of both."""

    sample: str
    baseline_ms: dict[str, float]
    quantized_ms: dict[str, float]
    trace: str


@dataclass(frozen=True)
class BenchmarkReport:
    """One graph, original against quantized, on one number of threads.

    Attributes:
        threads: intra-op threads of both sessions.
        pairs: number of timed pairs.
        rounds: how often both sessions were built again.
        baseline_ms: latency of the original, all lengths together.
        quantized_ms: latency of the quantized model, likewise.
        speedup: how many times faster the quantized model is.
        verdict: faster, slower or same: what the interval of the speed-up allows one to say.
        lengths: short, median, long -> latency of that sample.
        rtf: real-time factor of the quantized model, below 1 is faster than real time; None where there is no audio.
        baseline_rtf: the original's.
        baseline_load_ms: median time to build a session of the original from its file.
        quantized_load_ms: the quantized model's.
        baseline_first_run_ms: median time of a session's first inference.
        quantized_first_run_ms: the quantized model's.
        baseline_peak_bytes: peak resident memory of a process that loads the original and runs the samples.
        quantized_peak_bytes: the quantized model's.
        runtime_peak_bytes: the same of a process without a model.
        self_check: speed-up of the original against itself, where it was asked for.
        warnings: why the numbers may not be trusted.
        op_times: where the time goes in both, where it was profiled.
        other_threads: the same graph on further numbers of threads.
    """

    threads: int
    pairs: int
    rounds: int
    baseline_ms: LatencyPercentiles
    quantized_ms: LatencyPercentiles
    speedup: SpeedupInterval
    verdict: str
    lengths: dict[str, LatencyOfLength]
    rtf: float | None
    baseline_rtf: float | None
    baseline_load_ms: float
    quantized_load_ms: float
    baseline_first_run_ms: float
    quantized_first_run_ms: float
    baseline_peak_bytes: int
    quantized_peak_bytes: int
    runtime_peak_bytes: int | None = None
    self_check: SpeedupInterval | None = None
    warnings: list[str] = field(default_factory=list)
    op_times: TimeByOperator | None = None
    other_threads: "list[BenchmarkReport]" = field(default_factory=list)
