"""What the page of one run shows of size, speed, and where the time goes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.record.results import Inspection
from pipeline.report.html import plots
from pipeline.report.html.bar_chart import bar_chart
from pipeline.report.html.render import mib, ms
from pipeline.report.schema import Report
from pipeline.report.terminal import format_number, shares_words

SHOWN_OPS = 8  # in the picture
TABLE_OPS = 14


@dataclass(frozen=True)
class SpeedView:
    """Size and speed of a graph.

    Rows are texts, as the page shows them.

    Attributes:
        graph: its role.
        file: the artifact.
        sha256: of the artifact.
        rows: what, which, fp32, quantized, share of fp32's.
        pictures: of the speed-up, and of the latency at each length.
    """

    graph: str
    file: str
    sha256: str
    rows: list[tuple[str, str, str, str, str]]
    pictures: list[Markup]


@dataclass(frozen=True)
class TimeView:
    """Where the time of a graph goes.

    Times are those of the benchmark, shares those of ONNX Runtime's profiler.

    Attributes:
        graph: its role.
        picture: time by operator.
        paired: whether both models are in the picture.
        seen: what the graph is made of.
        rows: operator, ms in fp32, ms in the quantized model.
        trace: the file of the Chrome trace of both.
    """

    graph: str
    picture: Markup
    paired: bool
    seen: Inspection | None
    rows: list[tuple[str, str, str]]
    trace: str | None


def speed(report: Report) -> list[SpeedView]:
    """Return size and speed of each graph: rows of a table, and pictures of speed-up and latency per length."""
    found: list[SpeedView] = []
    for artifact in report.artifacts or []:
        graph, before, after = artifact.graph, artifact.baseline_bytes, artifact.bytes
        measured = (report.benchmark or {}).get(graph)
        rows = [("Size", "", mib(before), mib(after), _share(after, before))]
        for title, shares in (("Weights", artifact.weights), ("Multiplications", artifact.multiplications or {})):
            rows += [(title, shares_words(shares), "", "", "")] if shares else []
        pictures: list[Markup] = []
        if measured is not None:
            rows += _latency_rows(measured)
            pictures = _speed_pictures(graph, measured, len(found))
        found.append(SpeedView(graph, artifact.file, artifact.sha256, rows, pictures))
    return found


def time_by_op(report: Report) -> list[TimeView]:
    """Return where the time of each graph goes, by operator: in both models where both were profiled, else in fp32."""
    found: list[TimeView] = []
    inspected, timed = report.inspect or {}, report.benchmark or {}
    for number_, graph in enumerate(dict.fromkeys((*inspected, *timed))):
        seen, measured = inspected.get(graph), timed.get(graph)
        ops = None if measured is None else measured.op_times
        shares = {} if seen is None else {op: 100 * share for op, share in seen.time_share.items()}
        before = ops.baseline_ms if ops else shares
        after = ops.quantized_ms if ops else {}
        if not before:
            continue
        unit = f"ms of one inference, sample {ops.sample}" if ops else "% of the time of one inference"
        names = sorted({*before, *after}, key=lambda op: -max(before.get(op, 0.0), after.get(op, 0.0)))
        shown, rest = names[:SHOWN_OPS], names[SHOWN_OPS:]
        labels = [*shown, f"{len(rest)} others"] if rest else shown
        columns = [
            [*(side.get(op, 0.0) for op in shown), *([sum(side.get(op, 0.0) for op in rest)] if rest else [])]
            for side in (before, after)
        ]
        lead = ", ".join(f"{label} {value:.3g}" for label, value in list(zip(labels, columns[0], strict=True))[:3])
        description = f"Time of {graph} by operator, in {unit}; fp32: {lead}."
        name = f"ops-{number_}"
        if after:
            picture = plots.pairs(labels, columns[0], columns[1], unit, name, description)
        else:
            picture = bar_chart(labels, columns[0], unit, name, description)
        rows = _op_rows(names, before, after) if ops else []
        found.append(TimeView(graph, picture, bool(after), seen, rows, ops.trace if ops else None))
    return found


def _op_rows(names: Sequence[str], before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return operator, ms in fp32 and in the quantized model, the smaller ones as one row, and all of them as the last."""
    rest = names[TABLE_OPS:] if len(names) > TABLE_OPS + 1 else []
    rows: list[tuple[str, Sequence[str]]] = [(op, [op]) for op in names[: len(names) - len(rest)]]
    rows += [(f"{len(rest)} others", rest)] if rest else []
    rows.append(("all", names))

    def shown(times: Mapping[str, float], ops: Sequence[str]) -> str:
        total = sum(times[op] for op in ops if op in times)
        return "–" if not any(op in times for op in ops) else "< 0.01" if total < 0.005 else f"{total:.2f}"

    return [(label, shown(before, ops), shown(after, ops)) for label, ops in rows]


def _share(after: float, before: float) -> str:
    return f"{100 * after / before:.0f} %" if before else ""


def _latency_rows(measured: GraphBenchmark) -> list[tuple[str, str, str, str, str]]:
    slow, fast = measured.baseline_ms, measured.quantized_ms
    rows = [
        ("Latency", label, ms(before), ms(after), _share(after, before))
        for label, before, after in (
            ("median", slow.p50, fast.p50), ("90th percentile", slow.p90, fast.p90), ("99th percentile", slow.p99, fast.p99),
        )
    ]  # fmt: skip
    for other in measured.other_threads:
        before, after = other.baseline_ms.p50, other.quantized_ms.p50
        rows.append(("Latency", f"median, {other.threads} threads", ms(before), ms(after), _share(after, before)))
    if measured.rtf is not None and measured.baseline_rtf is not None:
        before, after = measured.baseline_rtf, measured.rtf
        rows.append(
            (
                "Real-time factor",
                "below 1 is faster than speech",
                format_number(before),
                format_number(after),
                _share(after, before),
            )
        )
    for label, before, after in (
        ("Time to load", measured.baseline_load_ms, measured.quantized_load_ms),
        ("First inference", measured.baseline_first_run_ms, measured.quantized_first_run_ms),
    ):
        rows.append((label, "", ms(before), ms(after), _share(after, before)))
    before, after = measured.baseline_peak_bytes, measured.quantized_peak_bytes
    runtime = measured.runtime_peak_bytes
    note = f"of which {mib(runtime)} without any model" if runtime else ""
    rows.append(("Peak memory of the process", note, mib(before), mib(after), _share(after, before)))
    return rows


def _speed_pictures(graph: str, measured: GraphBenchmark, number_: int) -> list[Markup]:
    others = measured.other_threads
    own = f"{measured.threads} threads" if measured.threads > 1 else "1 thread" if others else "quantized"
    rows = [plots.speedup_range(own, measured.speedup)]
    rows += [plots.speedup_range(f"{other.threads} threads", other.speedup) for other in others]
    if measured.self_check is not None:
        rows.append(plots.speedup_range("fp32 against itself", measured.self_check))
    told = "; ".join(f"{row.label} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows)
    pictures = [
        plots.speedups(rows, f"speedup-{number_}", f"Speed of {graph} in multiples of fp32’s, with 95 % intervals: {told}.")
    ]
    lengths = measured.lengths
    labels = [f"{name}, {one.audio_seconds:.1f} s" if one.audio_seconds else name for name, one in lengths.items()]
    before, after = [one.baseline_ms for one in lengths.values()], [one.quantized_ms for one in lengths.values()]
    if lengths:
        told = "; ".join(f"{label}: {a:.3g} and {b:.3g}" for label, a, b in zip(labels, before, after, strict=True))
        description = f"Median latency of {graph} in ms by length of the input, fp32 and quantized: {told}."
        pictures.append(plots.pairs(labels, before, after, "median latency, ms", f"lengths-{number_}", description))
    return pictures
