"""The evaluate stage: the quantized model beside the original on the reported part of the evaluation set."""

import logging
from dataclasses import replace

import onnx

from pipeline.config.mode_settings import AutoConfig, StaticConfig
from pipeline.errors import PipelineError
from pipeline.evaluate.broken_speech import broken_limits_of
from pipeline.evaluate.by_length import hidden_loss
from pipeline.evaluate.evaluation import Evaluation, evaluate
from pipeline.evaluate.node_errors import errors_along
from pipeline.evaluate.quality_limits import LENGTH_CHANGE, ON_NOISE, Limit, check_limit, limits_of
from pipeline.evaluate.uncertainty import ERROR_COUNTS
from pipeline.graph.exact_products import with_uint8_weights
from pipeline.metrics.metric_registry import METRICS
from pipeline.models.stepwise_model import StepwiseModel
from pipeline.quantize.artifact import Artifact
from pipeline.quantize.short_names import restore_names
from pipeline.record.results import LimitCheck, MeasuredLoss, NodeError
from pipeline.stages.context import RunContext
from pipeline.stages.kept_results import evaluated_before

log = logging.getLogger(__name__)

USELESS_PERCENT = 80.0  # of words or characters wrong in fp32: wrong features, tokens or language


def run(context: RunContext) -> Evaluation:
    """Score the model, and measure the error of every node where that is asked for."""
    return evaluated_before(context, lambda: _evaluated(context))


def _evaluated(context: RunContext) -> Evaluation:
    config, searches = context.config, context.result.searches
    items = context.evaluation_set.report.samples
    asked = {name: mode.max_loss if isinstance(mode := config.mode_of(name), AutoConfig) else None for name in context.loaded}
    graphs = {name: searches.get(name) for name in context.result.artifacts}
    limits = limits_of(config.evaluation, context.loaded.adapter, graphs, asked)
    with context.progress.bar("evaluate", len(items)) as advance:
        found = evaluate(
            context.loaded, context.result.artifacts, items, config.evaluation, context.directory, context.run_log,
            seed=config.seed, losses_in={*(search["metric"] for search in searches.values()), *(one.metric for one in limits)},
            on_sample=advance,
        )  # fmt: skip
    adapter = context.loaded.adapter
    if found.steps and isinstance(adapter, StepwiseModel) and (start := adapter.start_words(items[0].sample)):
        context.run_log.note(f"sequences start with the states {start}.")
    if not any(_useless(name, found) for name in found.metrics) and (hidden := hidden_loss(found.per_sample, found.by_length)):
        context.run_log.warn(hidden)
    _check_budgets(context, found)
    _check_fp32(context, found)
    broken, warning = broken_limits_of(found.per_sample)
    if warning:
        context.run_log.warn_first(warning)
    found = replace(found, limits=[*_checked(context, limits, found), *broken])
    if not config.evaluation.node_samples:
        return found
    errors = {name: _node_errors(context, artifact) for name, artifact in context.result.artifacts.items()}
    return replace(found, node_errors=errors)


def _checked(context: RunContext, limits: list[Limit], found: Evaluation) -> list[LimitCheck]:
    """Return where the losses lie beside the limits; those of a metric that cannot break the verdict only where they count."""
    on_noise = context.config.evaluation.path is None and context.loaded.adapter.evaluation_path is None
    checks = []
    for limit in limits:
        loss = found.losses.get(limit.metric)
        if limit.metric == LENGTH_CHANGE:
            loss = MeasuredLoss(LENGTH_CHANGE, found.length_change, None, None, found.samples)
        if not limit.decides and (loss is None or _useless(limit.metric, found)):
            continue
        checks.append(check_limit(limit, None if on_noise else loss, ON_NOISE if on_noise else ""))
    return checks


def _useless(name: str, found: Evaluation) -> bool:
    """Whether fp32 itself recognises next to nothing."""
    counted = name in found.metrics and METRICS[name].aggregate in ERROR_COUNTS
    return counted and found.metrics[name]["baseline"] >= USELESS_PERCENT


def _check_budgets(context: RunContext, found: Evaluation) -> None:
    """Warn, before all else, where the reported part breaks a budget that the selection part kept."""
    for graph, search in context.result.searches.items():
        loss, budget, metric = found.losses.get(search["metric"]), search["budget"], search["metric"]
        if not search["met"] or loss is None:
            continue
        problems = []
        if (limit := budget.get("max_loss")) is not None and loss.value > limit:
            ends = "" if loss.low is None else f" ({loss.low:.4g} to {loss.high:.4g})"
            problems.append(f"{metric} is {loss.value:+.4g}{ends} worse than fp32, above the limit of {limit:g}")
        if (limit := budget.get("max_length_change")) is not None and found.length_change > limit:
            problems.append(f"a length changes by {100 * found.length_change:.1f} %, above the limit of {100 * limit:g} %")
        if problems:
            context.run_log.warn_first(
                f"{graph}: on the {loss.samples} samples that are reported, {' and '.join(problems)}, which the samples "
                "of the search kept. Lower mode.max_loss, or give more evaluation samples."
            )


def _check_fp32(context: RunContext, found: Evaluation) -> None:
    """Warn, before anything is said of integers, where the original itself recognises next to nothing."""
    for name, metric in found.metrics.items():
        if _useless(name, found):
            context.run_log.warn_first(
                f"{name}: fp32's own is {metric['baseline']:.0f} %, so that nothing follows for the quantized model. Check "
                "that tokens.txt, the features (model.features), the language and the texts of evaluation.path are the model's."
            )


def _node_errors(context: RunContext, artifact: Artifact) -> list[NodeError]:
    config, mode = context.config, context.config.mode_of(artifact.graph)
    rescaled = isinstance(mode, StaticConfig) and (mode.cross_layer_equalization or mode.smooth_quant)
    original = context.loaded.graphs[artifact.graph].model
    try:
        quantized = onnx.load(artifact.path)
        restore_names(quantized, original)
        return errors_along(
            original,
            with_uint8_weights(quantized) if context.loaded.exact_products else quantized,
            context.evaluation_set.report[artifact.graph][: config.evaluation.node_samples],
            seed=config.seed,
            threads=config.runtime.threads,
            rescaled=isinstance(mode, AutoConfig) or rescaled,
        )
    except (
        Exception
    ) as error:  # it explains the result, and is not part of it: no fault of it may end a run that has done its work
        log.debug("the error along the graph", exc_info=True)
        known = isinstance(error, PipelineError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        context.run_log.warn(f"{artifact.graph}: the error along the graph was not measured: {reason}")
        return []
