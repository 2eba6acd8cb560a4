"""The verdict on a run in the words of the terminal, of the page and of report.json: quality, speed and size.

Quality is said first: a fast model that has lost its voice is no success.
"""

from pipeline.evaluate.quality_limits import LENGTH_CHANGE, outcome_of
from pipeline.measure.benchmark_result import GraphBenchmark, factor
from pipeline.record.results import LimitCheck, Outcome
from pipeline.report.schema import Report, RunVerdict

VERDICT_ORDER = ("slower", "same", "faster")
"""What disappoints comes first."""
AS_FAST = 0.05  # an interval that ends this near to 1 is an answer, and not a lack of one
MIB = 1 << 20
INTEGER_RANGES = ("static ranges", "dynamic ranges")  # ends the name of a precision that is computed in integers


def speed_verdict(measured: GraphBenchmark, *, loud: bool = False) -> str:
    """Return the verdict on the speed of one graph: slower than fp32 is said as plainly as faster.

    Where the interval holds 1 the middle of it says nothing, so that the ends alone are named.
    """
    found = measured.speedup
    where = "" if measured.elsewhere is None else f", {measured.elsewhere}"
    where = where if measured.device is None else f", on {measured.device}"
    if measured.verdict != "same":
        lead = measured.verdict.upper() if loud else measured.verdict.capitalize()
        return f"{lead} than fp32: {found.median:.2f} times its speed{where}"
    near = found.low >= 1 - AS_FAST and found.high <= 1 + AS_FAST
    lead, other = ("As fast as fp32", "its speed") if near else ("Not decided", "fp32's speed")
    lead = lead.upper().replace("FP32", "fp32") if loud else lead
    return f"{lead}: between {factor(found.low)} and {factor(found.high)} times {other}{where}"


def quality_outcome(report: Report) -> Outcome | None:
    """Return what follows for quality from the limits; None where the report knows no limits: it is of an older version."""
    if report.evaluation is None:
        return Outcome.unmeasured
    return outcome_of(report.evaluation.limits) if report.evaluation.limits else None


def quality_verdict(report: Report, *, loud: bool = False) -> str | None:
    """Return the verdict on quality, with the limits that it rests on; None where the report knows no limits."""
    outcome = quality_outcome(report)
    if outcome is None:
        return None
    lead = outcome.value.upper() if loud else outcome.value.capitalize()
    return f"{lead}: {_reasons(report, outcome)}"


def size_verdict(report: Report) -> str | None:
    """Return what the files have come to, of all graphs together."""
    if not report.artifacts:
        return None
    now, before = (sum(getattr(one, key) for one in report.artifacts) for key in ("bytes", "baseline_bytes"))
    return f"{now / before:.2f} of fp32's size ({now / MIB:.2f} of {before / MIB:.2f} MiB)"


def integer_shares(report: Report) -> tuple[float, float | None] | None:
    """Return which share of the bytes of weights became integers, and of the multiplications, of all graphs together.

    The multiplications are None where they were not counted. None: there is no artifact with integer weights.
    """
    artifacts = report.artifacts or []
    whole = sum(one.baseline_bytes for one in artifacts)
    shares = [sum(share for kind, share in one.weights.items() if kind.startswith("int")) for one in artifacts]
    stored = sum(share * one.baseline_bytes for share, one in zip(shares, artifacts, strict=True)) / whole if whole else 0.0
    if not stored:
        return None
    macs = {graph: sum(found.macs.values()) for graph, found in (report.inspect or {}).items()}
    if any(one.multiplications is None for one in artifacts) or not (total := sum(macs.get(one.graph, 0) for one in artifacts)):
        return stored, None
    computed = 0.0
    for one in artifacts:
        in_integers = (share for kind, share in (one.multiplications or {}).items() if kind.endswith(INTEGER_RANGES))
        computed += sum(in_integers) * macs.get(one.graph, 0)
    return stored, computed / total


def integer_verdict(report: Report) -> str | None:
    """Return in words what became integers."""
    found = integer_shares(report)
    if found is None:
        return None
    stored, computed = found
    words = f"{100 * stored:.0f} % of the weights' bytes"
    return words if computed is None else f"{words}, {100 * computed:.0f} % of the multiplications"


def verdict_of(report: Report) -> RunVerdict | None:
    """Return the verdict on a run; None before anything was quantized."""
    if report.artifacts is None:
        return None
    timed = sorted((report.benchmark or {}).items(), key=lambda pair: VERDICT_ORDER.index(pair[1].verdict))
    speeds = []
    for graph, measured in timed:
        words = _lower(speed_verdict(measured))
        if measured.verdict != "same":
            words += f" ({factor(measured.speedup.low)} to {factor(measured.speedup.high)})"
        speeds.append(f"{graph}: {words}" if len(timed) > 1 else words)
    quality = quality_verdict(report)
    return RunVerdict(
        "; ".join(speeds) or "not measured",
        None if quality is None else _lower(quality),
        size_verdict(report),
        integer_verdict(report),
    )


def broken_limits(report: Report) -> str | None:
    """Return which limits of quality are broken, or that quality was not measured; None: neither."""
    outcome = quality_outcome(report)
    if outcome not in (Outcome.beyond, Outcome.unmeasured):
        return None
    return f"{outcome.value}: {_reasons(report, outcome)}"


def _reasons(report: Report, outcome: Outcome) -> str:
    if report.evaluation is None:
        return "the stage evaluate was not run" if all(stage.name != "evaluate" for stage in report.stages) else "not yet"
    limits = report.evaluation.limits
    named = [check for check in limits if check.outcome == outcome and (check.decides or outcome is Outcome.beyond)]
    if outcome is Outcome.unmeasured:
        return "; ".join(dict.fromkeys(check.why or "" for check in named))
    lengths_alone = [check for check in named if check.metric != LENGTH_CHANGE]
    return "; ".join(limit_words(check) for check in (lengths_alone if outcome is Outcome.within else named) or named)


def limit_words(check: LimitCheck) -> str:
    """Return what was measured of one limit, beside it."""
    if check.metric == LENGTH_CHANGE:
        return f"a length changes by {100 * (check.loss or 0.0):.1f} %, limit {100 * check.limit:g} %"
    unit = {"%": " points", "": ""}.get(check.unit, f" {check.unit}")
    limit = f"limit {check.limit:g}{unit}{', as asked' if check.asked else ''}"
    if check.loss is None:
        return f"{check.metric} is worse by more than a number can say (outputs of another length, or not finite), {limit}"
    lead = f"{'better' if check.loss < 0 else 'worse'} by {abs(check.loss):.3g}{unit}" if check.loss else "as good as fp32's"
    ends = ", of one sample"
    if check.low is not None and check.high is not None:  # the sum makes 0 of -0
        ends = f" ({check.low + 0.0:.3g} to {check.high + 0.0:.3g}{' worse' if check.loss <= 0 else ''})"
    return f"{check.metric} is {lead}{ends}, {limit}"


def _lower(words: str) -> str:
    return words[0].lower() + words[1:]
