"""The doctor stage: what a model is, whether its front end fits the data, what each mode would gain, how to bring data.

It makes no artifact: what it tries goes to a folder that is gone afterwards.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx

from pipeline.config.choices import CalibrationKind, ModeKind
from pipeline.config.mode_settings import AnyModeConfig, DynamicConfig, Fp16Config, StaticConfig, WeightOnlyConfig
from pipeline.data.array_script import SCRIPT_FILE, array_script
from pipeline.errors import PipelineError
from pipeline.evaluate.kinds_of_scorer import scorer_of
from pipeline.evaluate.sample_scores import summarize
from pipeline.graph.source_graph import SourceGraph
from pipeline.measure.relative_speed import speedups
from pipeline.metrics.metric_registry import METRICS, leading_metrics, metrics_of
from pipeline.models.model_kind import model_kind
from pipeline.quantize.mode_advice import multiplies
from pipeline.record.diagnosis import Diagnosis, GraphDiagnosis, ModeTrial
from pipeline.record.run_directory import RunDirectory
from pipeline.sample import Sample
from pipeline.stages.context import RunContext
from pipeline.stages.quantize import quantize

TRIED: tuple[tuple[ModeKind, Callable[..., AnyModeConfig]], ...] = (  # auto and optimize take minutes
    (ModeKind.static, StaticConfig), (ModeKind.dynamic, DynamicConfig), (ModeKind.weight_only, WeightOnlyConfig),
    (ModeKind.fp16, Fp16Config),
)  # fmt: skip
TRIAL_SECONDS = 0.5  # of timing, for each mode
CALIBRATED_ON = 4  # samples: ranges decide over quality, not over speed
SCORED = 16  # samples that fp32 itself is scored on
SMALL_SHARE = 0.01  # of the time: not worth a line


def run(context: RunContext) -> Diagnosis:
    """Examine every graph of the model, and write make_calib.py."""
    loaded, inspected = context.loaded, context.inspection
    assert inspected is not None
    entry = loaded.entry
    kind = model_kind(Path(entry.path))
    front_end, fits = _front_end(context)
    graphs = {}
    for name, source in loaded.graphs.items():
        times = inspected[name].time_share
        floats = {op: share for op, share in times.items() if not multiplies(op) and share >= SMALL_SHARE}
        graphs[name] = GraphDiagnosis(loaded.adapter.fed_back(source.model.graph), _trials(context, source), floats)
    described = inspected.get(entry.name)
    if described is not None:
        states = graphs[entry.name].states if described.advice_on_states else {}
        cut = any(getattr(loaded.adapter, key, None) is not None for key in ("chunk", "hop", "chunk_axis"))
        script = array_script(loaded.adapter.name, described.inputs, states, cut=cut)
        context.directory.write_text(SCRIPT_FILE, script)
    return Diagnosis(kind.model, kind.because, front_end, fits, graphs, SCRIPT_FILE)


def _front_end(context: RunContext) -> tuple[str, bool | None]:
    """Return how well fp32 itself does against the truth, and whether that is as one would expect; None: not known."""
    config, adapter, loaded = context.config, context.loaded.adapter, context.loaded
    if config.evaluation.path is None and adapter.evaluation_path is None:
        return "not known: without evaluation.path there are no samples but noise", None
    known = metrics_of(config.evaluation.kind)
    wanted = [name for name in leading_metrics() if name in known and METRICS[name].against_truth]
    items = context.evaluation_set.report.first(SCORED)
    scorer = scorer_of(adapter, loaded.entry, config.evaluation, context.run_log, loaded.threads)
    scored = []
    for number, item in enumerate(items):
        outputs = adapter.infer(item.sample, loaded.originals.runner([config.seed, number]))
        scored.append(scorer.score(item, outputs, outputs))
    found = summarize(wanted, scored, scorer.totals()) if wanted else {}
    name = next((name for name in wanted if name in found), None)
    if name is None:
        return "not known: the evaluation set holds no truth (texts, recordings or labels) to score fp32 against", None
    value, unit, expected = found[name]["baseline"], METRICS[name].unit, METRICS[name].expected
    told = f"{name} of fp32 itself is {value:.3g}{f' {unit}' if unit else ''} on {len(items)} samples"
    if expected is None:
        return told, None
    fine, bad = expected
    if value <= fine:
        return f"fits: {told}", True
    if value < bad:
        return f"may not fit: {told}, more than the {fine:g} that one would expect", None
    return (
        f"does not fit: {told}, from {bad:g} on it is not what the model was trained for: check sample rate, features, "
        "normalisation, tokens and language before anything else",
        False,
    )


def _trials(context: RunContext, source: SourceGraph) -> list[ModeTrial]:
    """Return what each mode gains on a graph, quickly: speed on a probe, size, or why it does not work."""
    name, config = source.name, context.config
    probes = context.evaluation_set.selection.probes(name)
    real = config.calibration.kind is not CalibrationKind.random
    data: list[Sample] = list(context.calibration_set[name])[:CALIBRATED_ON] if real else probes
    trials: list[ModeTrial] = []
    models: dict[str, onnx.ModelProto] = {}
    for kind, settings in TRIED:
        with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
            mode = settings(kind=kind, name=kind.value)
            try:
                made = quantize(
                    {name: source}, mode, {name: data}, {name: probes}, RunDirectory(Path(folder)),
                    threads=config.runtime.threads, seed=config.seed,
                )  # fmt: skip
            except PipelineError as error:
                trials.append(ModeTrial(kind.value, why_not=str(error)))
                continue
            artifact = made.artifacts[name]
            models[kind.value] = onnx.load(artifact.path)
            trials.append(ModeTrial(kind.value, size_ratio=artifact.size_bytes / artifact.baseline_bytes))
    timed = speedups(source.model, models, probes[:1], threads=config.runtime.threads, seconds=TRIAL_SECONDS) if models else {}
    return [
        ModeTrial(one.mode, timed[one.mode], one.size_ratio) if one.mode in timed else one
        for one in sorted(trials, key=lambda one: -timed.get(one.mode, 0.0))
    ]
