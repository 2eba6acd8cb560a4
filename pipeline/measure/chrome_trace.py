"""Where the time of the original and of the quantized model goes, and one Chrome trace that shows both.

The trace opens in chrome://tracing and in Perfetto (ui.perfetto.dev): one inference of each model, as two processes that start
at the same moment. The format: "Trace Event Format", Google, 2016.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from pipeline.measure.benchmark_result import LengthLatency, OpTimes
from pipeline.measure.ort_profile import profile_ops
from pipeline.sample import Sample

Events = list[dict[str, Any]]


def op_times_of(
    baseline: Path, quantized: Path, sample: Sample, measured: LengthLatency, *, threads: int, trace: Path
) -> OpTimes:
    """Profile both models on one sample, each in a process of its own, and write a Chrome trace of both.

    Args:
        baseline: the original ONNX file.
        quantized: the quantized one.
        sample: the inputs.
        measured: the latencies of that sample without a profiler, which the shares are taken of.
        threads: intra-op threads.
        trace: the file to write.

    Raises:
        StageError: a model does not run on the sample.
    """
    shares, events = [], {}
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        for role, model in (("fp32", baseline), (quantized.stem, quantized)):
            whole = Path(folder) / f"{role}.json"
            shares.append(profile_ops(model, sample, threads=threads, trace=whole).ops)
            events[role] = json.loads(whole.read_text(encoding="utf-8"))
    trace.write_text(json.dumps(chrome_trace(events)), encoding="utf-8")
    before, after = (
        {op: share * latency_ms for op, share in ops.items()}
        for ops, latency_ms in zip(shares, (measured.baseline_ms, measured.quantized_ms), strict=True)
    )
    return OpTimes(sample.id, before, after, trace.name)


def chrome_trace(traces: dict[str, Events]) -> dict[str, Any]:
    """Return one trace of the last inference in each of several traces of ONNX Runtime's profiler.

    Args:
        traces: name -> its events. Each becomes a process of that name, which starts at 0.
    """
    merged: Events = []
    for process, (name, events) in enumerate(traces.items(), 1):
        start = max(float(event["ts"]) for event in events if event["name"] == "model_run")
        merged.append({"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}})
        for event in events:
            kernel = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
            if event["ts"] >= start and (kernel or event["name"] == "model_run"):
                shown = event["name"].removesuffix("_kernel_time")
                merged.append(event | {"name": shown, "pid": process, "ts": event["ts"] - start})
    return {"traceEvents": merged, "displayTimeUnit": "ms"}
