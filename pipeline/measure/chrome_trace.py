"""Where the time of the original and of the quantized model goes, and one Chrome trace that shows both.

The trace opens in chrome://tracing and in Perfetto (ui.perfetto.dev): one inference of each model, as two processes that start
at the same time. The format: "Trace Event Format", Google, 2016.
"""

import json
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import PROFILES
from pipeline.cache.recall import Form, remembered
from pipeline.measure.benchmark_result import LengthLatency, OpTimes
from pipeline.measure.ort_profile import profile_ops
from pipeline.measure.ort_trace import Event, inferences_of, read_events
from pipeline.measure.other_runtime import OtherRuntime, own_runtime
from pipeline.quantize.mode_advice import STEADY, spread_of
from pipeline.sample import Sample


def op_times_of(
    baseline: Path,
    quantized: Path,
    sample: Sample,
    measured: LengthLatency,
    *,
    threads: int,
    trace: Path,
    runtime: OtherRuntime | None = None,
    baseline_sha256: str | None = None,
) -> OpTimes:
    """Profile both models on one sample, each in a process of its own, and write a Chrome trace of both.

    Args:
        baseline: the original ONNX file.
        quantized: the quantized one.
        sample: the inputs.
        measured: the latencies of that sample without a profiler, which the shares are taken of.
        threads: intra-op threads.
        trace: the file to write.
        runtime: the ONNX Runtime that they run in; None: that of this process.
        baseline_sha256: of the original's file and its external data: its profile is not made again for each artifact; None:
            it is.

    Raises:
        StageError: a model does not run on the sample.
    """

    def profiled(model: Path) -> _Profiled:
        with tempfile.TemporaryDirectory(prefix="trace-") as folder:
            whole = Path(folder) / "trace.json"
            profile = profile_ops(model, sample, threads=threads, trace=whole, runtime=runtime)
            return _Profiled(profile.ops, last_inference(read_events(whole)), spread_of(profile.halves) <= STEADY)

    if baseline_sha256 is not None and (runtime is None or runtime == own_runtime()):
        depends_on = (baseline_sha256, sample.digest, threads, platform.node())
        original = remembered(PROFILES, lambda: depends_on, FORM, lambda: profiled(baseline))
    else:
        original = profiled(baseline)
    changed = profiled(quantized)
    events = {"fp32": original.events, quantized.stem: changed.events}
    trace.write_text(json.dumps(chrome_trace(events)), encoding="utf-8")
    before, after = (
        {op: share * latency_ms for op, share in ops.items()}
        for ops, latency_ms in ((original.shares, measured.baseline_ms), (changed.shares, measured.quantized_ms))
    )
    return OpTimes(sample.id, before, after, trace.name)


@dataclass(frozen=True)
class _Profiled:
    """The profile of one model.

    Attributes:
        shares: operator type -> its share of the time.
        events: the last inference, see `last_inference`.
        is_steady: whether the machine was not busy with something else.
    """

    shares: dict[str, float]
    events: list[Event]
    is_steady: bool = True


FORM = Form[_Profiled](
    lambda found: Entry({"shares": found.shares, "events": found.events}) if found.is_steady else None,
    lambda entry: _Profiled({op: float(share) for op, share in entry.facts["shares"].items()}, list(entry.facts["events"])),
)


def last_inference(events: list[Event]) -> list[Event]:
    """Return the last inference in a trace of ONNX Runtime's profiler: itself, then its kernels, beginning at 0."""
    last = inferences_of(events)[-1]
    shown = [(last.event["name"], last.event), *((kernel.node, kernel.event) for kernel in last.kernels)]
    return [event | {"name": title, "ts": event["ts"] - last.event["ts"]} for title, event in shown]


def chrome_trace(inferences: dict[str, list[Event]]) -> dict[str, Any]:
    """Return one trace of several inferences.

    Args:
        inferences: name -> events of one, see `last_inference`. Each becomes a process of that name.
    """
    merged: list[Event] = []
    for process, (name, events) in enumerate(inferences.items(), 1):
        merged.append({"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}})
        merged += [event | {"pid": process} for event in events]
    return {"traceEvents": merged, "displayTimeUnit": "ms"}
