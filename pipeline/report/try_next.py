"""What to try after a run: at most two commands that most likely improve it, each with its reason, ready to paste."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from pipeline.config.choices import CalibrationKind, ModeKind
from pipeline.config.mode_settings import MODE_SCHEMAS, AutoConfig, StaticConfig, WeightOnlyConfig
from pipeline.config.settings import RunConfig
from pipeline.measure.benchmark_result import GraphBenchmark, factor
from pipeline.metrics.metric_registry import METRICS
from pipeline.quantize.mode_advice import NOT_SURE, WORTH_RANGES, convolution_share
from pipeline.record.results import LimitCheck, Outcome
from pipeline.report.schema import Report, Suggestion
from pipeline.report.verdict import AS_FAST, quality_outcome
from pipeline.shell_words import shell_line

CALIBRATED = ("static", "auto")
BENCHMARKS = ("benchmark.seconds", "benchmark.runs", "benchmark.rounds")
MOST = 2  # suggestions: more are not read
MANY_FLOATS = 0.4  # of the quantized model's time in operators that int8 does not touch
STEEP_DB = 3.0  # fall of the signal-to-noise ratio at one node that is worth naming
SILENT_DB = 60.0  # what lies below is no loss: weights of int16 alone give 90
USELESS_PERCENT = 80.0  # of words wrong in fp32
ROOM = 0.7  # of a limit, asked for instead of all of it: the report part is not the selection part
INTEGER_OR_PRODUCT = ("QLinear", "Integer", "Quantize", "NBits", "QGemm", "QAttention", "Conv", "MatMul", "Gemm", "LSTM", "GRU")


def suggestions(report: Report, config: RunConfig, overrides: Sequence[str], program: str) -> list[Suggestion]:
    """Return what to try next, the most promising first.

    Args:
        report: of a finished run.
        config: its settings.
        overrides: the settings that were given on the command line, as Hydra takes them.
        program: how the command begins, such as `python run.py`.
    """
    line = CommandLine(program, overrides)
    found: dict[str, Suggestion] = {}
    for command, reason in _ideas(report, config, line):
        found.setdefault(command, Suggestion(command, reason))
    own = line.with_settings()
    return [one for one in found.values() if one.command != own][:MOST]


class CommandLine:
    """The command of a run, and variants of it."""

    def __init__(self, program: str, overrides: Sequence[str]) -> None:
        """Take the command as it was given."""
        self._program, self._overrides = program, list(overrides)

    def with_settings(self, *settings: str, without: Iterable[str] = ()) -> str:
        """Return the command with further settings in the place of those of the same names, and without some.

        Another mode keeps only those settings of `mode` that it has, too.
        """
        kept = list(self._overrides)
        if mode := next((value.removeprefix("mode=") for value in settings if value.startswith("mode=")), None):
            known = {field.name for field in fields(MODE_SCHEMAS[ModeKind[mode]])}
            kept = [one for one in kept if not _of_mode(one) or _key(one).removeprefix("mode.") in known]
            if mode not in CALIBRATED:  # which would refuse them: nothing reads them
                kept = [one for one in kept if _key(one).partition(".")[0] != "calibration"]
        gone = {*without, *map(_key, settings)}
        return self._joined([*(one for one in kept if _key(one) not in gone), *settings])

    def doctor(self) -> str:
        """Return the command that examines the model of this run."""
        kept = [one for one in self._overrides if _key(one).partition(".")[0] in ("model", "calibration", "evaluation")]
        return self._joined(["doctor", *kept])

    def has(self, key: str) -> bool:
        """Whether a setting was given."""
        return any(_key(one) == key for one in self._overrides)

    def _joined(self, words: Sequence[str]) -> str:
        return f"{self._program} {shell_line(words)}"


def _ideas(report: Report, config: RunConfig, line: CommandLine) -> Iterator[tuple[str, str]]:
    """Yield commands and reasons, the most promising first."""
    parts = report.samples
    whole = parts is not None and parts.selection == parts.report  # of one sample: a search would choose on what is reported
    real = config.calibration.kind is not CalibrationKind.random and not whole
    outcome = quality_outcome(report)
    if report.artifacts is None:
        yield from _after_inspection(report, config, line)
        return
    if (useless := _useless(report)) is not None:
        yield line.doctor(), useless
    if report.evaluation is not None and outcome is Outcome.unmeasured:
        yield (
            line.doctor(),
            "quality was measured on noise, which says nothing of speech; this writes make_calib.py, which turns your data "
            "into arrays for calibration.path and evaluation.path",
        )
    if outcome is Outcome.beyond:
        yield from _to_keep_quality(report, config, line, real=real)
    yield from _to_be_faster(report, config, line, real=real)
    if outcome is Outcome.undecided and line.has("evaluation.samples"):
        yield (
            line.with_settings(without=["evaluation.samples"]),
            "the interval of the loss holds the limit: more samples decide it",
        )
    if outcome is not Outcome.beyond:
        yield from _to_go_on(report, config, line, real=real)


def _after_inspection(report: Report, config: RunConfig, line: CommandLine) -> Iterator[tuple[str, str]]:
    """Yield the mode that has measured best, or is advised, where a run has inspected and no more."""
    real = config.calibration.kind is not CalibrationKind.random
    for graph, one in (report.doctor.graphs if report.doctor else {}).items():
        tried = [trial for trial in one.trials if trial.speedup is not None and (real or trial.mode not in CALIBRATED)]
        best = max(tried, key=lambda trial: trial.speedup or 0.0, default=None)
        if best is not None and best.speedup is not None and best.speedup > 1 + AS_FAST:
            told = f"{graph}: about {best.speedup:.2f} times as fast as fp32 in a quick trial; this measures quality, too"
            yield line.with_settings(f"mode={best.mode}", without=["stages"]), told
            return
    for graph, found in (report.inspect or {}).items():
        if found.advised_mode != NOT_SURE and "quantize" not in config.stages:
            searches = config.mode.kind is ModeKind.auto and found.advised_mode in CALIBRATED  # and keeps what int8 would ruin
            mode = ModeKind.auto.name if searches else found.advised_mode
            yield line.with_settings(f"mode={mode}", without=["stages"]), f"{graph}: {found.reasons[-1]}"
            return


def _to_keep_quality(report: Report, config: RunConfig, line: CommandLine, *, real: bool) -> Iterator[tuple[str, str]]:
    assert report.evaluation is not None
    broken = next(check for check in report.evaluation.limits if check.outcome == Outcome.beyond)
    match config.mode:
        case AutoConfig():
            if (enough := _enough_seconds(report)) is not None:
                yield line.with_settings(f"mode.seconds={enough}"), "the search ran out of time"
            elif broken.metric in METRICS:
                yield (
                    line.with_settings(f"mode.metric={broken.metric}", f"mode.max_loss={ROOM * broken.limit:.3g}"),
                    f"{_told(broken)} on samples that the search has not seen: a lower limit leaves room for that",
                )
            return
        case WeightOnlyConfig(bits=bits) if bits < 8:
            yield line.with_settings("mode.bits=8"), f"{_told(broken)} with weights of {bits} bits"
        case _:
            pass
    if real:
        yield line.with_settings("mode=auto"), f"{_told(broken)}; a search keeps nodes float until the loss is within the limit"
    else:
        yield (
            line.doctor(),
            "the ranges come from noise; this writes make_calib.py, which turns your data into calibration.path",
        )
    if isinstance(config.mode, StaticConfig) and not config.mode.nodes_to_exclude and (steep := _steepest(report)):
        names, falls = zip(*steep, strict=True)
        quoted = ",".join("'" + name.replace("'", "\\'") + "'" for name in names)
        fall = ", ".join(f"{value:.0f}" for value in falls)
        yield (
            line.with_settings(f"mode.nodes_to_exclude=[{quoted}]"),
            f"at these nodes the signal-to-noise ratio falls most: by {fall} dB",
        )


def _to_be_faster(report: Report, config: RunConfig, line: CommandLine, *, real: bool) -> Iterator[tuple[str, str]]:
    timed = list((report.benchmark or {}).values())
    if slower := [one for one in timed if one.verdict == "slower"]:
        speed = f"this is {slower[0].speedup.median:.2f} times as fast as fp32"
        match config.mode.kind:
            case ModeKind.fp16 | ModeKind.weight_only:
                mode = "static" if real else "dynamic"
                yield (
                    line.with_settings(f"mode={mode}"),
                    f"{speed}: {config.mode.kind.value} computes in float; integer kernels are faster",
                )
            case ModeKind.static | ModeKind.dynamic if real:
                yield line.with_settings("mode=auto"), f"{speed}; a search quantizes only what is measured to be faster"
            case ModeKind.static | ModeKind.dynamic:
                yield line.with_settings("mode=optimize"), f"{speed}; rewrites of float operators need no integers to be faster"
            case _:
                pass
    unsure = next((one for one in timed if _undecided(one) or (one.verdict == "slower" and one.warnings)), None)
    if unsure is not None and not line.has("benchmark"):
        found = unsure.speedup
        yield (
            line.with_settings("benchmark=full", without=BENCHMARKS),
            f"the speed-up lies between {factor(found.low)} and {factor(found.high)}: longer timing decides",
        )


def _to_go_on(report: Report, config: RunConfig, line: CommandLine, *, real: bool) -> Iterator[tuple[str, str]]:
    """Yield what may gain more where quality is no hindrance."""
    kind = config.mode.kind
    shares = [convolution_share(found.time_share) for found in (report.inspect or {}).values()]
    if kind is ModeKind.dynamic and real and shares and max(shares) >= WORTH_RANGES:
        share = f"{100 * max(shares):.0f} % of the time of fp32 is in convolutions"
        yield line.with_settings("mode=static"), f"{share}, which gain from int8 only with static ranges"
    floats = max((_float_share(one) for one in (report.benchmark or {}).values()), default=0.0)
    if kind in (ModeKind.static, ModeKind.dynamic) and not config.mode.optimize and floats >= MANY_FLOATS:
        yield (
            line.with_settings("mode.optimize=true"),
            f"{100 * floats:.0f} % of the quantized model's time is in operators that stay float; rewrites may speed them up",
        )
    if kind is ModeKind.static and real:
        used = next((check for check in _limits(report) if check.decides and check.loss is not None), None)
        if used is not None and used.outcome == Outcome.within and used.loss is not None and used.metric in METRICS:
            spent = f"{used.metric} is {max(used.loss, 0.0):.3g} of the {used.limit:g} that the limit allows"
            yield line.with_settings("mode=auto"), f"{spent}; a search looks for the fastest mixture within it"
    if (enough := _enough_seconds(report)) is not None:
        yield (
            line.with_settings(f"mode.seconds={enough}"),
            "the search ran out of time; with more, it may find a faster mixture within the limit",
        )
    if kind is ModeKind.optimize:
        mode = "auto" if real else "dynamic"
        yield line.with_settings(f"mode={mode}"), "this is float only: int8 makes the file smaller, and its products faster"


def _enough_seconds(report: Report) -> int | None:
    """Return how long a search needs that ran out of time; None where none did."""
    return max((one.enough_seconds for one in (report.search or {}).values() if one.enough_seconds), default=None)


def _told(check: LimitCheck) -> str:
    loss = "unbounded" if check.loss is None else f"{check.loss:.3g}"
    return f"{check.metric} is {loss}, beyond the limit of {check.limit:g}"


def _limits(report: Report) -> list[LimitCheck]:
    return [] if report.evaluation is None else report.evaluation.limits


def _useless(report: Report) -> str | None:
    """Return that fp32 itself recognises next to nothing."""
    for name, metric in ({} if report.evaluation is None else report.evaluation.metrics).items():
        if name in METRICS and METRICS[name].is_error_rate and (metric.baseline or 0.0) >= USELESS_PERCENT:
            return (
                f"fp32 itself has a {name} of {metric.baseline:.0f}: its front end or its texts do not fit; this looks for why"
            )
    return None


def _undecided(measured: GraphBenchmark) -> bool:
    wide = measured.speedup.low < 1 - AS_FAST or measured.speedup.high > 1 + AS_FAST
    return measured.verdict == "same" and wide


def _float_share(measured: GraphBenchmark) -> float:
    """Return the share of the quantized model's time in operators that no mode makes integers of."""
    times = {} if measured.op_times is None else measured.op_times.quantized_ms
    total = sum(times.values())
    return (
        sum(spent for op, spent in times.items() if not any(name in op for name in INTEGER_OR_PRODUCT)) / total
        if total
        else 0.0
    )


def _steepest(report: Report, count: int = 3) -> list[tuple[str, float]]:
    """Return the quantized nodes at which the signal-to-noise ratio falls most from one node to the next: name, fall in dB."""
    artifacts = report.artifacts or []
    if report.evaluation is None or len(artifacts) != 1:
        return []
    [artifact] = artifacts
    falls = []
    before: float | None = None
    for error in report.evaluation.node_errors.get(artifact.graph, []):
        if error.sqnr_db is None:
            continue
        fall = 0.0 if before is None else min(before, SILENT_DB) - error.sqnr_db
        if error.node in artifact.quantized_nodes and fall > STEEP_DB:
            falls.append((error.node, fall))
        before = error.sqnr_db
    return sorted(falls, key=lambda pair: -pair[1])[:count]


def _of_mode(override: str) -> bool:
    return _key(override).partition(".")[0] in ("mode", "graph_modes")


def _key(override: str) -> str:
    """Return the setting of an override: `mode.bits` of `+mode.bits=4`; a group of another package by that package."""
    name = re.sub(r"^[~+]+", "", override.partition("=")[0])
    return name.partition("@")[2] or name
