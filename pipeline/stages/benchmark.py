"""The benchmark stage: each quantized graph against its original, on samples of the reported part."""

import platform
from collections.abc import Sequence
from dataclasses import replace

from pipeline.graph.runtime_versions import slower_elsewhere, wrong_on_amx
from pipeline.graph.source_graph import SourceGraph
from pipeline.measure.benchmark_graph import benchmark_graph, steps_of
from pipeline.measure.benchmark_result import GraphBenchmark, Verdict
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.target import measured_elsewhere
from pipeline.quantize.user_notes import why_slower
from pipeline.sample import Sample, digests_of
from pipeline.stages.context import RunContext
from pipeline.stages.kept_results import timed_anew, timed_before

SPEECH_SAMPLES = 32  # that the lengths to be timed are chosen from


def run(context: RunContext) -> dict[str, GraphBenchmark]:
    """Time every artifact with every number of threads; the first is that of all stages."""
    with context.connected_runtime() as runtime:
        return _benchmarks(context, runtime)


def _benchmarks(context: RunContext, runtime: OtherRuntime) -> dict[str, GraphBenchmark]:
    config = context.config
    if runtime.note:
        context.run_log.warn(runtime.note)
    results = {}
    for name, artifact in context.result.artifacts.items():
        source = context.loaded.graphs[name]
        part = context.evaluation_set.report
        samples = [item.sample for item in part.first(SPEECH_SAMPLES)] if name == context.loaded.adapter.entry else []
        if not samples or any(context.loaded.adapter.steps(sample) is not None for sample in samples):
            samples = part[name][:SPEECH_SAMPLES]  # of sequences, steps whose states are filled
        first, *others = [_timed(context, runtime, source, artifact, samples, threads) for threads in config.thread_counts]
        elsewhere = None
        if runtime.device is None:
            elsewhere = measured_elsewhere(getattr(config.mode_of(name), "target", None))
        results[name] = replace(
            first, other_threads=[replace(other, elsewhere=elsewhere) for other in others], elsewhere=elsewhere
        )
        if (
            config.benchmark.runtime is None
            and runtime.device is None
            and (note := slower_elsewhere(artifact.kernels, runtime.version))
        ):
            context.run_log.warn(f"{name}: {note}")
        for version in sorted({runtime.version, getattr(config.mode_of(name), "runtime", None) or runtime.version}):
            if wrong := wrong_on_amx(artifact.kernels, version):
                context.run_log.warn(f"{name}: {wrong}")
        for measured in (first, *others):
            where = f"{name} on {measured.threads} threads" if measured is not first else name
            if measured.verdict == Verdict.slower:
                context.run_log.warn(f"{where}: slower than fp32: {why_slower(config.mode_of(name), artifact)}")
            for warning in measured.warnings:
                context.run_log.warn(f"{where}: {warning}")
    return results


def _timed(
    context: RunContext,
    runtime: OtherRuntime,
    source: SourceGraph,
    artifact: Artifact,
    samples: Sequence[Sample],
    threads: int,
) -> GraphBenchmark:
    config, name = context.config, artifact.graph
    settings = config.benchmark
    trace = context.directory.path / f"{name}.trace.json" if threads == config.runtime.threads else None
    title = f"benchmark {name}" + (f" on {threads} threads" if len(config.thread_counts) > 1 else "")
    steps = steps_of(min_pairs=settings.runs, rounds=settings.rounds, self_check=settings.self_check, trace=trace is not None)

    def timed() -> GraphBenchmark:
        with context.progress.bar(title, steps, "steps") as advance:
            return benchmark_graph(
                source.path,
                artifact.path,
                samples,
                threads=threads,
                min_pairs=settings.runs,
                min_seconds=settings.seconds,
                rounds=settings.rounds,
                interval=settings.interval,
                audio_seconds=_audio_seconds(context, source, samples),
                self_check=settings.self_check,
                seed=config.seed,
                trace=trace,
                runtime=runtime,
                on_step=advance,
                baseline_sha256=source.sha256,
            )

    if runtime.remote is not None:
        return timed()
    depends_on = (
        context.loaded.identity, artifact.graph, artifact.path.name, artifact.sha256, digests_of(samples), threads,
        replace(settings, threads=[], reuse=False), config.seed, runtime.version, runtime.python, platform.node(),
    )  # fmt: skip
    if not settings.reuse:
        return timed_anew(depends_on, trace, timed)
    found = timed_before(depends_on, trace, timed)
    if found.measured is not None:
        context.run_log.note(
            f"{name}: its speed was measured at {found.measured}, by another run on this machine (benchmark.reuse=true)."
        )
    return found


def _audio_seconds(context: RunContext, source: SourceGraph, samples: Sequence[Sample]) -> list[float] | None:
    """Return how long the audio of each sample is, where all tell."""
    run, seed = context.loaded.originals.runner, context.config.seed
    seconds = [
        context.loaded.adapter.audio_seconds(sample, run([seed, number])(source.name, sample))
        for number, sample in enumerate(samples)
    ]
    known = [value for value in seconds if value is not None]
    return known if len(known) == len(samples) else None
