"""Benchmark: is the quantized model faster than the original, by how much, and how sure is that?"""

import logging
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import MEMORY
from pipeline.cache.recall import Form, remembered
from pipeline.errors import StageError
from pipeline.graph.source_graph import hash_of_graph
from pipeline.measure.benchmark_result import GraphBenchmark, LengthLatency, OpTimes, Percentiles, Speedup, Verdict, factor
from pipeline.measure.child_process import machine_lock, run_child
from pipeline.measure.chrome_trace import op_times_of
from pipeline.measure.ort_profile import NodeProfile, Profile, profile_ops
from pipeline.measure.other_runtime import OtherRuntime, own_runtime
from pipeline.measure.paired_timing import Pair, Rounds, percentiles_of, speedup_of
from pipeline.sample import Sample

__all__ = [
    "GraphBenchmark",
    "LengthLatency",
    "NodeProfile",
    "OpTimes",
    "Percentiles",
    "Profile",
    "Speedup",
    "Verdict",
    "benchmark_graph",
    "profile_ops",
]

log = logging.getLogger(__name__)

BYTES = Form[int](Entry, lambda entry: int(entry.facts))
NOISY_WIDTH = 0.10  # of the interval, relative to the speed-up: beyond it, the machine was too busy


def benchmark_graph(
    baseline: Path,
    quantized: Path,
    samples: Sequence[Sample],
    *,
    threads: int = 1,
    min_pairs: int = 30,
    min_seconds: float = 3.0,
    warmup_seconds: float = 0.5,
    rounds: int = 6,
    interval: float = 0.0,
    audio_seconds: Sequence[float] | None = None,
    self_check: bool = False,
    seed: int = 0,
    trace: Path | None = None,
    runtime: OtherRuntime | None = None,
    on_step: Callable[[], None] = lambda: None,
    baseline_sha256: str | None = None,
) -> GraphBenchmark:
    """Time a quantized model against its original.

    The shortest, the median and the longest sample are run, all equally often. Waits for other benchmarks on this
    machine. Takes at least `min_seconds`, plus warm-up, plus loading each model `rounds` times and once more for
    memory, or the share of it that the rounds have which are timed; with `self_check`, nearly twice that.

    Args:
        baseline: the original ONNX file.
        quantized: the quantized one, with the same inputs.
        samples: inputs of both, of as many lengths as there are.
        threads: intra-op threads of both sessions.
        min_pairs: at least so many pairs are timed,
        min_seconds: and for at least so long.
        warmup_seconds: bound of each round's warm-up.
        rounds: how often both sessions are built again, at most.
        interval: end after fewer rounds where the interval of the speed-up is no wider than this share of it; 0: never.
        audio_seconds: length of the audio that each sample is or becomes, for the real-time factor.
        self_check: also time the original against itself: that interval should hold 1.
        seed: of the order of runs and of the bootstrap.
        trace: where to write a Chrome trace of both models; they are profiled where it is given.
        runtime: the ONNX Runtime that both run in; None: that of this process.
        on_step: called after each of the `steps_of` a benchmark; from another thread.
        baseline_sha256: of the original's file and its external data; None: it is computed where it is needed.

    Raises:
        StageError: no sample was given, or a model crashes, fails, or gives outputs that are not finite.
    """
    if not samples:
        raise StageError("The benchmark needs at least one sample, but got none.")
    chosen = pick_lengths(samples, audio_seconds)
    subset = [samples[index] for index in chosen.values()]
    allowed = Rounds(_rounds(rounds, min_pairs), interval)

    def child(task: str, what: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            name = f"The benchmark of {what}"
            return run_child(Path(folder), task, subset, name, runtime=runtime, on_step=on_step, threads=threads, **settings)

    def timed(other: Path) -> dict[str, Any]:
        return child(
            "time",
            f"{other.name} against {baseline.name}",
            baseline=str(baseline.resolve()),
            quantized=str(other.resolve()),
            min_pairs=min_pairs,
            min_seconds=min_seconds,
            warmup_seconds=warmup_seconds,
            rounds=allowed.most,
            interval=interval,
            seed=seed,
        )

    here = runtime is None or runtime == own_runtime()

    def peak_bytes(model: Path | None) -> int:
        """Measure the memory of a process; that of the original, and of one without a model, not again for each artifact."""
        if model == quantized or not here:
            return measured_peak(model)
        content = None if model is None else baseline_sha256 or hash_of_graph(str(model.resolve()))
        depends_on = (content, [sample.digest for sample in subset], threads, platform.release())
        return remembered(MEMORY, lambda: depends_on, BYTES, lambda: measured_peak(model))

    def measured_peak(model: Path | None) -> int:
        what = f"the memory of {model.name if model else 'a process without a model'}"
        peak = int(child("memory", what, model=str(model.resolve()) if model else None)["peak_bytes"])
        on_step()
        return peak

    with machine_lock(runtime):
        times = timed(quantized)
        check = timed(baseline) if self_check else None
        peaks = [peak_bytes(model) for model in (baseline, quantized, None)]

    pairs = [Pair(**pair) for pair in times["pairs"]]
    speedup = speedup_of(pairs, seed=seed, widened=allowed.widened)
    itself = [Pair(**pair) for pair in check["pairs"]] if check else []
    self_speedup = speedup_of(itself, seed=seed, widened=allowed.widened) if check else None
    seconds = [audio_seconds[index] for index in chosen.values()] if audio_seconds is not None else None
    heard_ms = 1000.0 * sum(seconds) if seconds is not None else 0.0
    lengths = {
        label: _latency(samples[index], seconds[at] if seconds else None, [p for p in pairs if p.sample == at])
        for at, (label, index) in enumerate(chosen.items())
    }
    op_times, notes = None, benchmark_warnings(speedup, self_speedup, times, threads)
    if trace is not None:
        label = "median" if "median" in lengths else "long"
        try:
            op_times = op_times_of(
                baseline,
                quantized,
                samples[chosen[label]],
                lengths[label],
                threads=threads,
                trace=trace,
                runtime=runtime,
                baseline_sha256=baseline_sha256,
            )
        except Exception as error:  # it explains the result: no fault of the profiler may end a run that has been timed
            log.debug("the profile", exc_info=True)
            notes.append(f"The time of each operator was not measured: {' '.join(str(error).split()) or type(error).__name__}")
        on_step()
    return GraphBenchmark(
        threads=threads,
        pairs=len(pairs),
        rounds=int(times["rounds"]),
        baseline_ms=percentiles_of([pair.baseline_ms for pair in pairs]),
        quantized_ms=percentiles_of([pair.quantized_ms for pair in pairs]),
        speedup=speedup,
        verdict=speedup.verdict.value,
        lengths=lengths,
        rtf=sum(latency.quantized_ms for latency in lengths.values()) / heard_ms if heard_ms else None,
        baseline_rtf=sum(latency.baseline_ms for latency in lengths.values()) / heard_ms if heard_ms else None,
        baseline_load_ms=median(times["load_ms"]["baseline"]),
        quantized_load_ms=median(times["load_ms"]["quantized"]),
        baseline_first_run_ms=median(times["first_run_ms"]["baseline"]),
        quantized_first_run_ms=median(times["first_run_ms"]["quantized"]),
        baseline_peak_bytes=peaks[0],
        quantized_peak_bytes=peaks[1],
        runtime_peak_bytes=peaks[2],
        self_check=self_speedup,
        warnings=notes,
        op_times=op_times,
        runtime=(runtime or own_runtime()).version,
        device=runtime.device.words if runtime is not None and runtime.device is not None else None,
    )


def steps_of(*, min_pairs: int, rounds: int, self_check: bool, trace: bool) -> int:
    """Return how many steps a benchmark has at most: each round of timing, three measurements of memory, and the profile."""
    return _rounds(rounds, min_pairs) * (1 + self_check) + 3 + trace


def _rounds(rounds: int, min_pairs: int) -> int:
    return max(1, min(rounds, min_pairs))


def pick_lengths(samples: Sequence[Sample], audio_seconds: Sequence[float] | None = None) -> dict[str, int]:
    """Return the index of the short, the median and the long sample, by audio length or else by the size of the inputs.

    Lengths that occur once are named once: samples of one length give "median" alone, of two "short" and "long".
    """
    sizes: Sequence[float] = audio_seconds if audio_seconds is not None else [sample.size for sample in samples]
    if len(sizes) != len(samples):
        raise StageError(f"The benchmark got {len(samples)} samples, but audio lengths of {len(sizes)}.")
    order = sorted(range(len(samples)), key=lambda index: sizes[index])
    short, middle, long = order[0], order[len(order) // 2], order[-1]
    if sizes[short] == sizes[long]:
        return {"median": middle}
    if sizes[middle] in (sizes[short], sizes[long]):
        return {"short": short, "long": long}
    return {"short": short, "median": middle, "long": long}


def _latency(sample: Sample, audio_seconds: float | None, pairs: Sequence[Pair]) -> LengthLatency:
    return LengthLatency(
        sample=sample.id,
        elements=sample.size,
        audio_seconds=audio_seconds,
        baseline_ms=median(pair.baseline_ms for pair in pairs),
        quantized_ms=median(pair.quantized_ms for pair in pairs),
        speedup=median(pair.ratio for pair in pairs),
    )


def benchmark_warnings(speedup: Speedup, self_check: Speedup | None, times: dict[str, Any], threads: int) -> list[str]:
    """Return why the figures may be unreliable."""
    found = []
    others, cores = times["others_cores"], int(times["cores"])
    if (
        others is not None and others > cores - 0.9 * threads
    ):  # a tenth of what it needs is lost to what any machine does in the background
        found.append(
            f"Other programs kept {others:.1f} of {cores} cores busy during the benchmark, which needed {threads}: "
            "latencies are too high; the speed-up is less affected, because it is paired."
        )
    width = (speedup.high - speedup.low) / speedup.median
    if width > NOISY_WIDTH:
        found.append(
            f"The interval of the speed-up, {factor(speedup.low)} to {factor(speedup.high)}, is too wide for a reliable "
            "figure: the machine was busy. Repeat it on a quiet machine, or with more benchmark.runs."
        )
    if self_check is not None and self_check.verdict is not Verdict.same:
        found.append(
            f"The original came out {self_check.median:.3f} times as fast as itself ({self_check.low:.3f} to "
            f"{self_check.high:.3f}): differences of that size are not reliable."
        )
    if 2 * int(times["warm_rounds"]) < int(times["rounds"]):
        found.append("The models still got faster when the time for warm-up was over: latencies may be too high.")
    return found
