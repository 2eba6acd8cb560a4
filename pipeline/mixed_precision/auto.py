"""`mode=auto`: a search for the precision of each node, within a limit on loss, speed or size."""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from pipeline.calibration.derived_tensors import quantizable_tensors
from pipeline.calibration.infinite_tensors import infinite_tensors
from pipeline.calibration.statistics_cache import cached_statistics
from pipeline.config.choices import ModeKind, RangeMethod
from pipeline.config.mode_settings import Algorithms, AutoConfig, StaticConfig, with_settings_of
from pipeline.config.settings import EvaluationConfig
from pipeline.data.calibration_set import CalibrationSet
from pipeline.data.datasets import EvaluationSample
from pipeline.data.evaluation_set import EvaluationSet
from pipeline.errors import ConfigError
from pipeline.evaluate.loss import LossEvaluator
from pipeline.graph.prepare import PreparedGraph
from pipeline.graph.session import infer, open_session
from pipeline.graph.shape_inference import with_shapes
from pipeline.graph.shorten_samples import cropped
from pipeline.graph.source_graph import SourceGraph
from pipeline.metrics.metric_registry import proxy_of
from pipeline.mixed_precision.candidate_builder import Builder, Measured, most_integer
from pipeline.mixed_precision.candidate_search import CandidateSearch, TrialContext
from pipeline.mixed_precision.candidates import Budget, Candidate, holds, keeps_quality, worth
from pipeline.mixed_precision.cost_model import KernelSaving, KernelSavings, kernel_savings, kernel_times
from pipeline.mixed_precision.default_budget import budget_of
from pipeline.mixed_precision.greedy_knapsack import front_to_back, path_of
from pipeline.mixed_precision.precision_groups import groups_of, plan_of
from pipeline.mixed_precision.search_report import answer, rows, warnings_of
from pipeline.mixed_precision.sensitivity import sensitivities
from pipeline.models.loaded_model import LoadedModel
from pipeline.optimize.around_quantization import layouts_for, opened
from pipeline.optimize.engine import Rewritten
from pipeline.ptq.algorithms import fold
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.silent_tensors import note_on_silence
from pipeline.quantize.static_matmul_scales import nodes_with_fixed_scales
from pipeline.record.progress_bars import ProgressBars
from pipeline.record.results import Kept, MeasuredLoss
from pipeline.sample import Sample

log = logging.getLogger(__name__)

# Tried where the user names no method: a vocoder's hiss asks for narrower ranges than a recogniser's outliers.
METHODS = (
    (RangeMethod.minmax, 100.0), (RangeMethod.percentile, 99.99), (RangeMethod.percentile, 99.9), (RangeMethod.mse, 100.0),
)  # fmt: skip
SAMPLES = 24  # of the evaluation set, that candidates are measured on
SAMPLES_IN_STEPS = 100  # where the metric moves in steps, of a word or a class
LONG_SECONDS = 0.5  # of one inference
PROBE_SHARE, PROBE_LEAST = 0.1, 32  # of a sample's length, and positions, that each node is measured on
CALIBRATION_SHARE, CALIBRATION_LEAST = 0.33, 128
NODES_SHARE = 0.6  # of the time, after which nodes that have not been measured stay float
CONFIRMED = 4  # candidates at most that are checked on the whole evaluation set


@dataclass(frozen=True)
class SearchInputs:
    """What a search needs of the run.

    Attributes:
        model: the original.
        calibration: what its graphs are calibrated on, and what single nodes are measured on.
        evaluation_set: its selection part is what candidates are measured on.
        evaluation: what quality means.
        seed: of noise.
        progress: where to show what is done now.
    """

    model: LoadedModel
    calibration: CalibrationSet
    evaluation_set: EvaluationSet
    evaluation: EvaluationConfig
    seed: int
    progress: ProgressBars

    @property
    def selection(self) -> list[EvaluationSample]:
        """The samples that candidates are measured on.

        Raises:
            ConfigError: there is a single one, which the report would then be of as well.
        """
        if not self.evaluation_set.is_split:
            raise ConfigError(
                "evaluation.path: one sample, but mode=auto chooses on some samples and reports on others: give two at least."
            )
        return self.evaluation_set.selection.samples

    def evaluator(self, graph: str, metric: str, items: Sequence[EvaluationSample]) -> LossEvaluator:
        """Return what scores changes of a graph."""
        return LossEvaluator(self.model, graph, items, self.evaluation, metric, seed=self.seed)

    def statistics_of(self, samples: Sequence[Sample], without: Collection[str]) -> Measured:
        """Return the function that collects statistics of a graph on samples, of all but some tensors."""
        return lambda model: cached_statistics(model, samples, without=without, threads=self.model.threads, seed=self.seed)


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        model: the quantized graph.
        plan: which node became what, and why the others did not.
        rewritten: the float rewrites that were kept and refused.
        report: the report's `search.<graph>`.
        warnings: what a user must know first.
    """

    model: onnx.ModelProto
    plan: Plan
    rewritten: Rewritten | None
    report: dict[str, Any]
    warnings: tuple[str, ...]


def search(source: SourceGraph, prepared: PreparedGraph, mode: AutoConfig, inputs: SearchInputs, *, threads: int) -> Found:
    """Find the precision of each node of a graph.

    Args:
        source: the graph as loaded.
        prepared: the graph as any quantizer gets it; it may be changed.
        mode: the settings.
        inputs: the model and its data.
        threads: intra-op threads that the model will run with.

    Raises:
        ConfigError: a setting means nothing in this graph, or the metric cannot be computed.
    """
    with inputs.progress.status(f"search {source.name}", mode.seconds) as tell:
        return _search(source, prepared, mode, inputs, threads, tell)


def _search(
    source: SourceGraph,
    prepared: PreparedGraph,
    mode: AutoConfig,
    inputs: SearchInputs,
    threads: int,
    tell: Callable[[str], None],
) -> Found:
    start = time.monotonic()
    deadline = start + mode.seconds
    budget, selection = budget_of(mode, inputs.evaluation, inputs.model.adapter, source.name), inputs.selection
    fine = proxy_of(budget.metric)
    samples = mode.samples or (SAMPLES if fine == budget.metric else SAMPLES_IN_STEPS)
    rewritten = None
    given = inputs.calibration[source.name]
    if mode.optimize:
        tell("rewriting float operators")
        rewritten = opened(prepared, mode, given[:3], threads)
        prepared = replace(prepared, model=with_shapes(rewritten.model))
    fold(prepared.model, Algorithms(fold_batch_norm=True))
    static = _static(mode)
    calibration = cropped(source.model, given, CALIBRATION_SHARE, CALIBRATION_LEAST, threads)
    infinite = infinite_tensors(prepared.model, quantizable_tensors(prepared.model), calibration, threads=threads)
    groups, fixed = groups_of(prepared, static, infinite)
    tell("calibrating")
    builder = Builder(prepared.model, groups, static, calibration, inputs.statistics_of(calibration, infinite), threads=threads)
    groups = list(builder.groups)  # without integers for tensors that calibration has seen nothing of
    utterances = sorted(inputs.calibration.entry, key=lambda sample: sample.size)[: 2 * mode.probes][-mode.probes :]
    probes = cropped(inputs.model.entry.model, utterances, PROBE_SHARE, PROBE_LEAST, threads)
    probe_evaluator = inputs.evaluator(source.name, fine, [EvaluationSample(sample) for sample in probes])
    evaluator = inputs.evaluator(source.name, budget.metric, selection[:samples])
    timed = [_typical([call.sample for calls in evaluator.calls for call in calls], source, threads)]
    tell("choosing how ranges follow")
    _use_best_method(builder, probe_evaluator, mode)
    tell("measuring what each node gains")
    gained = kernel_savings(builder, timed[0], threads=threads, layouts=layouts_for(mode))
    utilities = _utilities(gained, kernel_times(builder.model, timed[0], threads).all, source, budget)
    best_case = {key: max(found[key] for found in utilities) for key in utilities[0]}
    worthwhile = sorted((key for key, utility in best_case.items() if utility > 0), key=lambda key: -best_case[key])
    tell("measuring what each node loses")
    until = time.monotonic() + NODES_SHARE * (deadline - time.monotonic())
    losses = sensitivities(builder, probe_evaluator, worthwhile, threads, until=until)
    paths = [path_of(groups, losses, found) for found in utilities]
    paths.append(front_to_back(groups, paths[-1]))
    tell("measuring candidates")
    trials = TrialContext(source.model, source.size_bytes, builder, evaluator, timed, threads, layouts_for(mode), deadline)
    found = CandidateSearch(trials, paths, budget)
    best, met = found.run()
    tell("checking the choice, in its layout, on the whole selection part")
    whole = inputs.evaluator(source.name, budget.metric, selection) if len(selection) > samples else evaluator
    best, met, measured = _confirmed(best, found, trials, whole, budget, met=met)
    candidates = found.candidates
    chosen = trials.graph_of(best)
    nodes = rows(builder, groups, fixed, best, losses, gained, fine, nodes_with_fixed_scales(chosen))
    report = answer(best, candidates, budget, met=met) | {
        "selection_loss": dataclasses.asdict(measured),
        "node_metric": fine,
        "seconds": round(time.monotonic() - start, 1),
        "stopped_early": trials.out_of_time,
        "method": builder.static.method.name,
        "percentile": builder.static.percentile if builder.static.method is RangeMethod.percentile else None,
        "nodes": nodes,
    }
    plan = plan_of(groups, best.choice)
    plan.kept = [Kept(row["node"], row["reason"]) for row in nodes if row["precision"] == "fp32"]
    silence = [f"{source.name}: {note_on_silence(builder.silent)}"] if builder.silent else []
    return Found(chosen, plan, rewritten, report, (*warnings_of(source.name, best, met, budget, candidates), *silence))


def _static(mode: AutoConfig) -> StaticConfig:
    """Return the settings of the quantizer that makes candidates."""
    return with_settings_of(
        mode,
        StaticConfig,
        kind=ModeKind.static,
        method=mode.method or RangeMethod.minmax,
        dynamic_op_types=[],  # which operators get which precision is what the search decides
        weight_only_op_types=[],
        min_channels=1,  # the search measures what a narrow Conv gains
        fold_batch_norm=False,
        cross_layer_equalization=False,
    )


def _confirmed(
    best: Candidate, found: CandidateSearch, trials: TrialContext, evaluator: LossEvaluator, budget: Budget, *, met: bool
) -> tuple[Candidate, bool, MeasuredLoss]:
    """Return the best candidate that keeps to the budget on the whole selection part, and its loss there.

    Where none does, the one that was best on fewer samples, and False. It is the laid-out graph that is scored: what ONNX
    Runtime's optimizer makes of it is part of the answer. Candidates get the loss that they have here.
    """
    allowed = sorted((c for c in found.candidates if c.measured and holds(c, budget)), key=lambda c: -worth(c, budget))
    others = [c for c in allowed if c is not best and c.loss <= best.loss] if met else []
    first: tuple[Candidate, MeasuredLoss] | None = None
    for candidate in [best, *others][:CONFIRMED]:
        loss = evaluator.loss(trials.graph_of(candidate), with_interval=True)
        whole = replace(candidate, loss=loss.loss, length_change=loss.length_change)
        found.keep(whole)
        measured = loss.measured or MeasuredLoss(budget.metric, loss.loss, None, None, len(evaluator.items))
        log.info("%s: %s %.4g on %d samples", candidate.label, budget.metric, whole.loss, len(evaluator.items))
        if met and keeps_quality(whole, budget):
            return whole, True, measured
        first = first or (whole, measured)
    assert first is not None
    return first[0], False, first[1]


def _use_best_method(builder: Builder, evaluator: LossEvaluator, mode: AutoConfig) -> None:
    """Let ranges follow by the method that loses least with every node quantized, or by the one that the user names."""
    if mode.method is not None:
        builder.use(mode.method, mode.percentile)
        return
    everything = most_integer(builder.groups)
    losses = []
    for method, percentile in METHODS:
        builder.use(method, percentile)
        losses.append(evaluator.loss(builder.build(everything, rounding=False)).loss)
        log.info("ranges by %s %g: %.4g with every node quantized", method.name, percentile, losses[-1])
    builder.use(*METHODS[int(np.argmin(losses))])


def _utilities(
    gained: KernelSavings, total_ms: float, source: SourceGraph, budget: Budget
) -> tuple[dict[tuple[str, Precision], float], ...]:
    """Return what each group's gain is worth, among float neighbours and among integers.

    It is its share of the float graph's time, and of its bytes by their weight. Where only the size is limited, bytes alone
    count.
    """
    bytes_alone = budget.max_bytes is not None and budget.max_loss is None and budget.min_speedup is None
    size_weight = 1.0 if bytes_alone else budget.size_weight

    def worth_of(gain: KernelSaving, ms: float) -> float:
        return (0.0 if bytes_alone else ms / total_ms) + size_weight * gain.bytes_saved / source.size_bytes

    return (
        {key: worth_of(gain, gain.ms) for key, gain in gained.items()},
        {key: worth_of(gain, gain.ms_among_integers) for key, gain in gained.items()},
    )


def _typical(samples: Sequence[Sample], source: SourceGraph, threads: int) -> Sample:
    """Return the sample of median size, or the smallest where that takes long: it is run thousands of times."""
    ordered = sorted(samples, key=lambda sample: sample.size)
    middle, session = ordered[len(ordered) // 2], open_session(source.path, threads)
    infer(session, middle)
    start = time.perf_counter()
    infer(session, middle)
    return middle if time.perf_counter() - start < LONG_SECONDS else ordered[0]
