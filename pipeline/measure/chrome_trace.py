"""Where the time of the original and of the quantized model goes, and one Chrome trace that shows both.

The trace opens in chrome://tracing and in Perfetto (ui.perfetto.dev): one inference of each model, as two processes that start
at the same time. The format: "Trace Event Format", Google, 2016.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from pipeline.measure.benchmark_result import LengthLatency, OpTimes
from pipeline.measure.ort_profile import profile_ops
from pipeline.measure.ort_trace import Event, inferences_of, read_events
from pipeline.measure.other_runtime import OtherRuntime
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

    Raises:
        StageError: a model does not run on the sample.
    """
    shares, events = [], {}
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        for role, model in (("fp32", baseline), (quantized.stem, quantized)):
            whole = Path(folder) / f"{role}.json"
            shares.append(profile_ops(model, sample, threads=threads, trace=whole, runtime=runtime).ops)
            events[role] = read_events(whole)
    trace.write_text(json.dumps(chrome_trace(events)), encoding="utf-8")
    before, after = (
        {op: share * latency_ms for op, share in ops.items()}
        for ops, latency_ms in zip(shares, (measured.baseline_ms, measured.quantized_ms), strict=True)
    )
    return OpTimes(sample.id, before, after, trace.name)


def chrome_trace(traces: dict[str, list[Event]]) -> dict[str, Any]:
    """Return one trace of the last inference in each of several traces of ONNX Runtime's profiler.

    Args:
        traces: name -> its events. Each becomes a process of that name, which starts at 0.
    """
    merged: list[Event] = []
    for process, (name, events) in enumerate(traces.items(), 1):
        last = inferences_of(events)[-1]
        merged.append({"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}})
        shown = [(last.event["name"], last.event), *((kernel.node, kernel.event) for kernel in last.kernels)]
        merged += [event | {"name": title, "pid": process, "ts": event["ts"] - last.event["ts"]} for title, event in shown]
    return {"traceEvents": merged, "displayTimeUnit": "ms"}
