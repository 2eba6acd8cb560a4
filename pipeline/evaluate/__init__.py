"""The evaluate stage: fp32 and quantized on the same inputs and the same noise, scored by the model's own metrics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import onnx
import onnxruntime
import soundfile

from pipeline.config import EvaluationConfig, EvaluationKind
from pipeline.dataset import find
from pipeline.errors import ConfigError, DataError, StageError, did_you_mean
from pipeline.evaluate import asr, audio, tensors, tts
from pipeline.evaluate.scores import TENSOR_METRICS, SampleScores, Scorer, summarize, tensor_scores
from pipeline.graph.noise import with_noise_inputs
from pipeline.journal import Journal
from pipeline.load import SourceGraph
from pipeline.metrics import METRICS
from pipeline.models import Outputs, Speaks, SpeechModel, Transcribes
from pipeline.models.matcha import Matcha
from pipeline.quantize.artifact import Artifact
from pipeline.run_directory import RunDirectory
from pipeline.sample_sets import EvaluationSample, audio_reader
from pipeline.samples import Sample
from pipeline.session import infer, open_session

METRICS_BY_KIND: dict[EvaluationKind, tuple[str, ...]] = {
    EvaluationKind.tensors: tensors.METRICS_OF_KIND,
    EvaluationKind.audio: audio.METRICS_OF_KIND,
    EvaluationKind.tts: tts.METRICS_OF_KIND,
    EvaluationKind.asr: asr.METRICS_OF_KIND,
}


@dataclass(frozen=True)
class Evaluation:
    """What the stage gives: the report's `evaluation`.

    Attributes:
        samples: how many were scored.
        metrics: name -> baseline, quantized, delta, unit, higher_is_better, version.
        outputs: output name -> tensor metrics, means over samples.
        per_sample: id, scores and transcripts of each sample.
        noise: how both models came to see the same noise; None where the graph draws none.
    """

    samples: int
    metrics: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, float]]
    per_sample: list[dict[str, Any]]
    noise: str | None


def check_evaluation(model: SpeechModel, config: EvaluationConfig) -> None:
    """Check, before anything runs, that the evaluation fits the model.

    Raises:
        ConfigError: the kind does not fit the model, or a metric does not exist or is not of this kind.
    """
    if config.kind not in model.evaluations:
        allowed = ", ".join(sorted(kind.name for kind in model.evaluations))
        raise ConfigError(f"evaluation.kind: {config.kind.name} does not fit the model {model.name}; allowed: {allowed}.")
    known = (*TENSOR_METRICS, *METRICS_BY_KIND[config.kind])
    for name in config.metrics:
        if name not in known:
            where = f" of evaluation={config.kind.name}" if name in METRICS else ""
            raise ConfigError(f"evaluation.metrics: {name!r} is no metric{where}.{did_you_mean(name, known)}")
    if config.labels is not None and config.kind is not EvaluationKind.tensors:
        raise ConfigError("evaluation.labels: classes are compared by evaluation=tensors only.")


def evaluate(
    model: SpeechModel,
    source: SourceGraph,
    artifact: Artifact,
    items: Sequence[EvaluationSample],
    config: EvaluationConfig,
    directory: RunDirectory,
    journal: Journal,
    *,
    seed: int,
    threads: int,
    on_sample: Callable[[], None],
) -> Evaluation:
    """Score a quantized graph against its original.

    Args:
        model: says what the outputs mean.
        source: the original.
        artifact: the quantized graph.
        items: the samples, with what is known about them.
        config: what to compare.
        directory: where audio goes.
        journal: notes what was read.
        seed: of the noise that a stochastic graph gets.
        threads: intra-op threads.
        on_sample: called after each sample.

    Raises:
        DataError: a sample lacks what the metrics need.
        StageError: outputs cannot be compared.
    """
    scorer = _scorer(model, source, config, len(items), journal, threads)
    run = _paired(source, artifact, threads)
    scored: list[SampleScores] = []
    by_output: list[dict[str, dict[str, float]]] = []
    for number, item in enumerate(items):
        baseline, quantized = run.outputs(item.sample, np.random.default_rng([seed, number]))
        _check_finite(artifact, item, quantized)
        scores = scorer.score(item, baseline, quantized)
        by_output.append(tensor_scores(baseline, quantized))
        scores.fidelity = {**next(iter(by_output[-1].values())), **scores.fidelity}
        heard = scores.notes.pop("audio", None)
        if heard is not None and number < config.listen:
            _write_audio(directory, item.sample.id, artifact, heard, _sample_rate(model, source, config))
        scored.append(scores)
        on_sample()
    return Evaluation(
        samples=len(items),
        metrics=summarize(config.metrics, scored, scorer.totals()),
        outputs=_mean_by_output(by_output),
        per_sample=[_per_sample(item, scores) for item, scores in zip(items, scored, strict=True)],
        noise=run.noise,
    )


@dataclass(frozen=True)
class _Pair:
    """Both graphs, ready to be run on the same inputs."""

    baseline: onnxruntime.InferenceSession
    quantized: onnxruntime.InferenceSession
    draw: Callable[[np.random.Generator], dict[str, Any]]
    noise: str | None

    def outputs(self, sample: Sample, rng: np.random.Generator) -> tuple[Outputs, Outputs]:
        given = Sample(sample.id, {**sample.inputs, **self.draw(rng)})
        return infer(self.baseline, given), infer(self.quantized, given)


def _paired(source: SourceGraph, artifact: Artifact, threads: int) -> _Pair:
    baseline = with_noise_inputs(source.model)
    if not baseline.tables:
        before, after = (open_session(path, threads) for path in (source.path, artifact.path))
        return _Pair(before, after, draw=lambda _: {}, noise=None)
    quantized = with_noise_inputs(onnx.load(artifact.path))
    if quantized.tables != baseline.tables:
        raise StageError(f"{artifact.path.name} draws other noise than its original; they cannot be compared.")
    nodes = ", ".join(node.op_type for node in source.model.graph.node if node.op_type.startswith("Random"))
    return _Pair(
        open_session(baseline.model, threads),
        open_session(quantized.model, threads),
        draw=baseline.noise,
        noise=f"{nodes}: in the copies that are evaluated it reads an input, which is fed with the same seeded values for "
        "both models; frame t sees the same noise whatever length a model predicts",
    )


def _scorer(
    model: SpeechModel, source: SourceGraph, config: EvaluationConfig, samples: int, journal: Journal, threads: int
) -> Scorer:
    match config.kind:
        case EvaluationKind.tensors:
            if config.labels is None:
                return tensors.TensorScorer(None)
            path = find(config.labels)
            journal.read(path)
            return tensors.TensorScorer(tensors.read_labels(path, samples))
        case EvaluationKind.audio:
            assert isinstance(model, Speaks)
            reader = audio_reader(config.on_sample_rate, journal)
            return audio.AudioScorer(model, _sample_rate(model, source, config), reader)
        case EvaluationKind.asr:
            assert isinstance(model, Transcribes)
            return asr.AsrScorer(model)
        case EvaluationKind.tts:
            assert isinstance(model, Matcha)
            scorer = tts.TtsScorer(model, threads)
            journal.read(*scorer.files)
            return scorer
        case _:
            assert_never(config.kind)


def _sample_rate(model: SpeechModel, source: SourceGraph, config: EvaluationConfig) -> int:
    metadata = {entry.key: entry.value for entry in source.model.metadata_props}
    rate = config.sample_rate_hz or getattr(model, "sample_rate_hz", None) or metadata.get("sample_rate")
    if rate is None:
        raise ConfigError("evaluation.sample_rate_hz: not set, and the model's metadata does not tell it.")
    return int(rate)


def _check_finite(artifact: Artifact, item: EvaluationSample, outputs: Outputs) -> None:
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"{artifact.path.name}: the output {name!r} holds NaN or Inf on sample {item.sample.id!r}.")


def _write_audio(directory: RunDirectory, name: str, artifact: Artifact, heard: tuple[Any, Any], sample_rate_hz: int) -> Path:
    folder = directory.path / "samples"
    folder.mkdir(exist_ok=True)
    suffix = artifact.path.name.split(".")[-2]
    for label, wave in zip(("fp32", suffix), heard, strict=True):
        soundfile.write(folder / f"{name}.{label}.wav", np.clip(wave, -1.0, 1.0), sample_rate_hz, subtype="PCM_16")
    return folder


def _mean_by_output(by_output: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        output: {metric: float(np.mean([scores[output][metric] for scores in by_output])) for metric in TENSOR_METRICS}
        for output in by_output[0]
    }


def _per_sample(item: EvaluationSample, scores: SampleScores) -> dict[str, Any]:
    truth = {name: {"baseline": pair[0], "quantized": pair[1]} for name, pair in scores.truth.items()}
    return {"id": item.sample.id, "fidelity": scores.fidelity, "truth": truth, **scores.notes}
