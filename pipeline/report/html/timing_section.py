"""What the page of one run shows of size, speed, and where the time goes."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.measure.benchmark_result import GraphBenchmark, factor
from pipeline.record.results import Inspection
from pipeline.report.html import plots
from pipeline.report.html.bar_chart import bar_chart
from pipeline.report.html.language import said, tr
from pipeline.report.html.render import mib, ms
from pipeline.report.op_families import Family, families
from pipeline.report.schema import Report
from pipeline.report.terminal import SLOW_LOAD, format_number, knows_p99, loads_slowly, shares_words

SHOWN_FAMILIES = 8  # in the picture
TABLE_FAMILIES = 12


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
class FamilyRow:
    """A family of operators in the table; `members` is empty where it is one operator of that name, in both models."""

    label: str
    members: str
    before: str
    after: str


@dataclass(frozen=True)
class TimeView:
    """Where the time of a graph goes.

    Times are those of the benchmark, shares those of ONNX Runtime's profiler.

    Attributes:
        graph: its role.
        picture: time by family of operators.
        paired: whether both models are in the picture.
        seen: what the graph is made of.
        rows: of the families.
        trace: the file of the Chrome trace of both.
    """

    graph: str
    picture: Markup
    paired: bool
    seen: Inspection | None
    rows: list[FamilyRow]
    trace: str | None


def speed(report: Report) -> list[SpeedView]:
    """Return size and speed of each graph: rows of a table, and pictures of speed-up and latency per length."""
    found: list[SpeedView] = []
    for artifact in report.artifacts or []:
        graph, before, after = artifact.graph, artifact.baseline_bytes, artifact.bytes
        measured = (report.benchmark or {}).get(graph)
        rows = [(tr("Size"), "", mib(before), mib(after), _share(after, before))]
        for title, shares in ((tr("Weights"), artifact.weights), (tr("Multiplications"), artifact.multiplications or {})):
            rows += [(title, shares_words(shares, said, tr("; ")), "", "", "")] if shares else []
        pictures: list[Markup] = []
        if measured is not None:
            rows += _latency_rows(measured)
            pictures = _speed_pictures(graph, measured, len(found))
        found.append(SpeedView(graph, artifact.file, artifact.sha256, rows, pictures))
    return found


def time_by_op(report: Report) -> list[TimeView]:
    """Return where the time of each graph goes, by families of operators: in both models where both were profiled."""
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
        unit = tr("ms of one inference, sample {sample}", sample=ops.sample) if ops else tr("% of the time of one inference")
        all_of_it = families(before, after)
        shown, rest = all_of_it[:SHOWN_FAMILIES], all_of_it[SHOWN_FAMILIES:]
        bars = [(tr(family.title), family.before, family.after) for family in shown]
        if rest:
            bars.append((_others(len(rest)), sum(f.before for f in rest), sum(f.after for f in rest)))
        labels, columns = [bar[0] for bar in bars], ([bar[1] for bar in bars], [bar[2] for bar in bars])
        lead = ", ".join(f"{label} {value:.3g}" for label, value in list(zip(labels, columns[0], strict=True))[:3])
        description = tr("Time of {graph} by family of operators, in {unit}; fp32: {lead}.", graph=graph, unit=unit, lead=lead)
        name = f"ops-{number_}"
        if after:
            picture = plots.pairs(labels, columns[0], columns[1], unit, name, description)
        else:
            picture = bar_chart(labels, columns[0], unit, name, description)
        rows = _family_rows(all_of_it) if ops else []
        found.append(TimeView(graph, picture, bool(after), seen, rows, ops.trace if ops else None))
    return found


def _family_rows(found: Sequence[Family]) -> list[FamilyRow]:
    """Return the families, the smaller ones as one row, and all of them as the last."""
    split = TABLE_FAMILIES if len(found) > TABLE_FAMILIES + 1 else len(found)
    rows = [_family_row(tr(family.title), _members(family), [family]) for family in found[:split]]
    rest = found[split:]
    if rest:
        names = ", ".join(dict.fromkeys(op for family in rest for op in (*family.baseline, *family.quantized)))
        rows.append(_family_row(_others(len(rest)), names, rest))
    return [*rows, _family_row(tr("all"), "", found)]


def _family_row(label: str, members: str, of: Sequence[Family]) -> FamilyRow:
    def shown(there: bool, total: float) -> str:
        return "–" if not there else "< 0.01" if total < 0.005 else f"{total:.2f}"

    before = shown(any(family.baseline for family in of), sum(family.before for family in of))
    after = shown(any(family.quantized for family in of), sum(family.after for family in of))
    return FamilyRow(label, members, before, after)


def _members(family: Family) -> str:
    """Return the operators of a family with their times, where there are others than the one that it is named after."""
    if {*family.baseline, *family.quantized} == {family.name}:
        return ""
    sides = (("fp32", family.baseline), (tr("quantized"), family.quantized))
    told = [(side, ", ".join(f"{op} {value:.2f}" for op, value in times.items() if value >= 0.005)) for side, times in sides]
    return "; ".join(f"{side}: {ops}" for side, ops in told if ops)


def _others(count: int) -> str:
    return tr("{count} others", count=count)


def _share(after: float, before: float) -> str:
    return f"{100 * after / before:.0f} %" if before else ""


def _latency_rows(measured: GraphBenchmark) -> list[tuple[str, str, str, str, str]]:
    slow, fast = measured.baseline_ms, measured.quantized_ms
    rows = [
        (tr("Latency"), label, ms(before), ms(after), _share(after, before))
        for label, before, after in (
            (tr("median"), slow.p50, fast.p50),
            (tr("90th percentile"), slow.p90, fast.p90),
            *([(tr("99th percentile"), slow.p99, fast.p99)] if knows_p99(measured) else []),
        )
    ]
    for other in measured.other_threads:
        before, after = other.baseline_ms.p50, other.quantized_ms.p50
        label = tr("median, {count} threads", count=other.threads)
        rows.append((tr("Latency"), label, ms(before), ms(after), _share(after, before)))
    if measured.rtf is not None and measured.baseline_rtf is not None:
        before, after = measured.baseline_rtf, measured.rtf
        rows.append(
            (
                tr("Real-time factor"),
                tr("below 1 is faster than speech"),
                format_number(before),
                format_number(after),
                _share(after, before),
            )
        )
    slow_load = tr(SLOW_LOAD) if loads_slowly(measured) else ""
    for label, note, before, after in (
        (tr("Time to load"), slow_load, measured.baseline_load_ms, measured.quantized_load_ms),
        (tr("First inference"), "", measured.baseline_first_run_ms, measured.quantized_first_run_ms),
    ):
        rows.append((label, note, ms(before), ms(after), _share(after, before)))
    before, after = measured.baseline_peak_bytes, measured.quantized_peak_bytes
    runtime = measured.runtime_peak_bytes
    note = tr("of which {size} without any model", size=mib(runtime)) if runtime else ""
    rows.append((tr("Peak memory of the process"), note, mib(before), mib(after), _share(after, before)))
    return rows


def _speed_pictures(graph: str, measured: GraphBenchmark, number_: int) -> list[Markup]:
    others = measured.other_threads
    own = _threads(measured.threads) if measured.threads > 1 or others else tr("quantized")
    rows = [plots.speedup_range(own, measured.speedup)]
    rows += [plots.speedup_range(_threads(other.threads), other.speedup) for other in others]
    if measured.self_check is not None:
        rows.append(plots.speedup_range(tr("fp32 against itself"), measured.self_check))
    told = "; ".join(
        tr("{label} {value} ({low} to {high})", label=row.label, value=f"{row.value:.2f}", low=factor(row.low),
           high=factor(row.high))
        for row in rows
    )  # fmt: skip
    description = tr("Speed of {graph} in multiples of fp32’s, with 95 % intervals: {told}.", graph=graph, told=told)
    pictures = [plots.speedups(rows, f"speedup-{number_}", description)]
    lengths = measured.lengths
    labels = [f"{tr(name)}, {one.audio_seconds:.1f} s" if one.audio_seconds else tr(name) for name, one in lengths.items()]
    before, after = [one.baseline_ms for one in lengths.values()], [one.quantized_ms for one in lengths.values()]
    if lengths:
        told = "; ".join(f"{label}: {a:.3g}, {b:.3g}" for label, a, b in zip(labels, before, after, strict=True))
        description = tr(
            "Median latency of {graph} in ms by length of the input, fp32 and quantized: {told}.", graph=graph, told=told
        )
        pictures.append(plots.pairs(labels, before, after, tr("median latency, ms"), f"lengths-{number_}", description))
    return pictures


def _threads(count: int) -> str:
    return tr("1 thread") if count == 1 else tr("{count} threads", count=count)
