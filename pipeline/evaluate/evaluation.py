"""The evaluate stage: fp32 and quantized on the same inputs and the same noise, scored by the model's own metrics."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import soundfile

from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import EvaluationSample, audio_reader
from pipeline.errors import ConfigError, DataError, StageError, did_you_mean
from pipeline.evaluate import asr_scorer, audio_scorer, tensor_scorer, tts_scorer
from pipeline.evaluate.measured_loss import MeasuredLoss, measured_loss
from pipeline.evaluate.node_errors import NodeError
from pipeline.evaluate.sample_scores import SampleScores, Scorer, length_change, per_sample_entry, summarize, tensor_scores
from pipeline.evaluate.uncertainty import change_interval, sample_interval, worst_samples
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import SourceGraph
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.metric_registry import METRICS, metrics_of
from pipeline.metrics.tensor_metrics import TENSOR_METRICS
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.speech_model import Speaks, SpeechModel, TextToSpeech, Transcribes
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.sample import Outputs, Sample


@dataclass(frozen=True)
class Evaluation:
    """What the stage gives: the report's `evaluation`.

    Attributes:
        samples: how many were scored.
        metrics: name -> baseline, quantized, delta, unit, higher_is_better, version, samples (how many have it), and 95 %
            intervals over samples: `interval` of the quantized model's value, `delta_interval` of the paired difference from
            fp32's; None where not known.
        outputs: output name -> tensor metrics, means over samples.
        per_sample: id, scores and transcripts of each sample.
        worst: the metric that tells most of single samples, and the ids of the samples that are worst in it.
        noise: how both models came to see the same noise; None where the graph draws none.
        length_change: of the longest or shortest output relative to fp32's, at worst: 0.02 is 2 %.
        losses: metric -> how much worse than fp32, with its interval, of the metrics that a search was limited in.
        node_errors: graph name -> the error of each of its nodes, in their order; empty where it was not measured.
    """

    samples: int
    metrics: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, float]]
    per_sample: list[dict[str, Any]]
    worst: dict[str, Any] | None
    noise: str | None
    length_change: float = 0.0
    losses: dict[str, MeasuredLoss] = field(default_factory=dict)
    node_errors: dict[str, list[NodeError]] = field(default_factory=dict)


def check_evaluation(model: SpeechModel, config: EvaluationConfig) -> None:
    """Check, before anything runs, that the evaluation fits the model.

    Raises:
        ConfigError: the kind does not fit the model, or a metric does not exist or is not of this kind.
    """
    if config.kind not in model.evaluations:
        allowed = ", ".join(sorted(kind.name for kind in model.evaluations))
        raise ConfigError(f"evaluation.kind: {config.kind.name} does not fit the model {model.name}; allowed: {allowed}.")
    known = metrics_of(config.kind)
    for name in config.metrics:
        if name not in known:
            where = f" of evaluation={config.kind.name}" if name in METRICS else ""
            raise ConfigError(f"evaluation.metrics: {name!r} is no metric{where}.{did_you_mean(name, known)}")
    if config.labels is not None and config.kind is not EvaluationKind.tensors:
        raise ConfigError("evaluation.labels: classes are compared by evaluation=tensors only.")


def evaluate(
    model: LoadedModel,
    artifacts: Mapping[str, Artifact],
    items: Sequence[EvaluationSample],
    config: EvaluationConfig,
    directory: RunDirectory,
    run_log: RunLog,
    *,
    seed: int,
    losses_in: Collection[str] = (),
    on_sample: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Score a model with quantized graphs against the original.

    The whole model runs twice on each sample, once with its own graphs and once with those that were quantized in their
    place. Besides, each quantized graph is compared with its original on what the original model gives it.

    Args:
        model: the original.
        artifacts: graph name -> the quantized graph.
        items: the samples, with what is known about them.
        config: what to compare.
        directory: where audio goes.
        run_log: notes what was read.
        seed: of the noise that a stochastic graph gets.
        losses_in: metrics whose loss is wanted, reported or not.
        on_sample: called after each sample.

    Raises:
        DataError: a sample lacks what the metrics need.
        StageError: outputs cannot be compared.
    """
    scorer = scorer_of(model.adapter, model.entry, config, run_log, model.threads)
    pair = _Pair(model, artifacts)
    scored: list[SampleScores] = []
    by_output: list[dict[str, dict[str, float]]] = []
    for number, item in enumerate(items):
        baseline, quantized, fidelity = pair.run(item.sample, [seed, number])
        by_output.append(fidelity)
        scores = scorer.score(item, baseline, quantized)
        scores.fidelity = {**next(iter(fidelity.values())), **scores.fidelity}
        heard = scores.notes.pop("audio", None)
        if heard is not None and number < config.listen:
            _write_audio(directory, item.sample.id, pair.suffix, heard, _sample_rate(model.adapter, model.entry, config))
        scored.append(scores)
        on_sample()
    if isinstance(model.adapter, TextToSpeech):  # what made the audio and heard it
        run_log.read_hashed(*(file for name in model.adapter.companions for file in model[name].files))
    per_sample = [per_sample_entry(item, scores) for item, scores in zip(items, scored, strict=True)]
    metrics = _with_intervals(summarize(config.metrics, scored, scorer.totals()), per_sample)
    worst = worst_samples(per_sample)
    return Evaluation(
        samples=len(items),
        metrics=metrics,
        outputs=_mean_by_output(by_output),
        per_sample=per_sample,
        worst=None if worst is None else {"metric": worst[0], "samples": [sample["id"] for sample in worst[1]]},
        noise=pair.noise,
        length_change=pair.length_change,
        losses={name: found for name in losses_in if (found := measured_loss(name, scored, scorer.totals(), items))},
    )


class _Pair:
    """A model as it was and as it has become, run on the same samples and the same noise."""

    def __init__(self, model: LoadedModel, artifacts: Mapping[str, Artifact]) -> None:
        self._model = model.adapter
        self._artifacts = artifacts
        self._before = model.originals
        changed = {name: artifact.path for name, artifact in artifacts.items()}
        self._after = ModelSessions(model, model.threads, changed)
        self.length_change = 0.0
        self.suffix = next(iter(artifacts.values())).path.name.split(".")[-2]
        self.noise = self._same_noise()

    def run(self, sample: Sample, seed: list[int]) -> tuple[Outputs, Outputs, dict[str, dict[str, float]]]:
        """Return the outputs before and after, and the tensor metrics of each output of each quantized graph."""
        calls: tuple[list[Call], list[Call]] = ([], [])
        baseline = self._model.infer(sample, self._before.runner(seed, calls[0]))
        quantized = self._model.infer(sample, self._after.runner(seed, calls[1]))
        self.length_change = max(self.length_change, length_change(baseline, quantized))
        for call in calls[1]:
            _check_finite(call, self._artifacts)
        fidelity: dict[str, dict[str, float]] = {}
        rerun = self._after.runner(seed)
        for graph in self._artifacts:
            scores = []
            for call in calls[0]:
                if call.graph == graph:
                    # Only the first graph is sure to have been given the same in both runs.
                    same = call is calls[0][0]
                    outputs = calls[1][0].outputs if same else rerun(graph, call.sample)
                    scores.append(tensor_scores(call.outputs, outputs))
            fidelity |= {self._name(graph, output): mean for output, mean in _mean_by_output(scores).items()}
        return baseline, quantized, fidelity

    def _name(self, graph: str, output: str) -> str:
        return output if len(self._artifacts) == 1 else f"{graph}.{output}"

    def _same_noise(self) -> str | None:
        drawing = []
        for graph in self._artifacts:
            before, after = self._before.noise_of(graph), self._after.noise_of(graph)
            if others := sorted(after - before):  # fewer are fine: a branch that is never taken is gone
                path = self._artifacts[graph].path
                raise StageError(f"{path.name} draws noise in {others[0]}, its original does not; they cannot be compared.")
            if before:
                drawing.append(f"{len(before)} random node{'s' if len(before) > 1 else ''} of {graph}")
        if not drawing:
            return None
        return (
            f"{' and '.join(drawing)}: in the copies that are evaluated they read an input, which is fed with the same seeded "
            "values for both models; frame t sees the same noise whatever length a model predicts"
        )


def scorer_of(
    model: SpeechModel,
    source: SourceGraph,
    config: EvaluationConfig,
    run_log: RunLog,
    threads: int,
    only: str | None = None,
) -> Scorer:
    """Return what scores samples of the configured kind; in one metric alone, where others take time."""
    match config.kind:
        case EvaluationKind.tensors:
            return tensor_scorer.TensorScorer()
        case EvaluationKind.audio:
            assert isinstance(model, Speaks)
            reader = audio_reader(config.on_sample_rate, run_log)
            return audio_scorer.AudioScorer(model, _sample_rate(model, source, config), reader, only)
        case EvaluationKind.asr:
            assert isinstance(model, Transcribes)
            return asr_scorer.AsrScorer(model)
        case EvaluationKind.tts:
            assert isinstance(model, TextToSpeech)
            return tts_scorer.TtsScorer(model, threads)
        case _:
            assert_never(config.kind)


def _sample_rate(model: SpeechModel, source: SourceGraph, config: EvaluationConfig) -> int:
    metadata = {entry.key: entry.value for entry in source.model.metadata_props}
    rate = config.sample_rate_hz or getattr(model, "rate_hz", None) or metadata.get("sample_rate")
    if rate is None:
        raise ConfigError("evaluation.sample_rate_hz: not set, and the model's metadata does not tell it.")
    return int(rate)


def _check_finite(call: Call, artifacts: Mapping[str, Artifact]) -> None:
    file = artifacts[call.graph].path.name if call.graph in artifacts else f"the graph {call.graph}"
    for name, array in call.outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"{file}: the output {name!r} holds NaN or Inf on sample {call.sample.id!r}.")


def _write_audio(directory: RunDirectory, name: str, suffix: str, heard: tuple[Any, Any], sample_rate_hz: int) -> Path:
    folder = directory.path / "samples"
    folder.mkdir(exist_ok=True)
    for label, wave in zip(("fp32", suffix), heard, strict=True):
        file = folder / f"{name.replace('/', '_')}.{label}.wav"
        soundfile.write(file, np.clip(wave, -1.0, 1.0), sample_rate_hz, subtype="PCM_16")
    return folder


def _mean_by_output(by_output: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        output: {metric: float(np.mean([scores[output][metric] for scores in by_output])) for metric in TENSOR_METRICS}
        for output in by_output[0]
    }


def _with_intervals(metrics: dict[str, dict[str, Any]], samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    def ends(interval: Interval | None) -> dict[str, float] | None:
        return None if interval is None else {"low": interval.low, "high": interval.high}

    return {
        name: metric
        | {"interval": ends(sample_interval(samples, name)), "delta_interval": ends(change_interval(samples, name))}
        for name, metric in metrics.items()
    }
