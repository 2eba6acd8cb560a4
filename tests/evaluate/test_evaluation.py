"""A model against itself loses nothing: every distance is exactly zero, whatever the kind of evaluation."""

import dataclasses
import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.config.settings import EvaluationConfig
from pipeline.data.arrays import read_labels
from pipeline.data.datasets import EvaluationSample, evaluation_samples
from pipeline.errors import DataError, StageError
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluate.sample_scores import SampleScores, comparable, summarize, tensor_scores
from pipeline.evaluate.uncertainty import sample_interval
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics.metric_registry import METRICS, Source, metrics_of
from pipeline.models.ctc import Ctc
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.matcha import Matcha
from pipeline.models.onnx_file import OnnxFile
from pipeline.models.vocoder import Vocoder
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample


def artifact_of(source, path=None):
    return Artifact(source.name, path or source.path, source.sha256, source.size_bytes, source.size_bytes, {}, (), {})


def loaded(model, source):
    return LoadedModel(model, {source.name: source}, threads=1)


def evaluated(model, source, kind, directory, samples=2, artifact=None, **settings):
    config = EvaluationConfig(kind=kind, samples=samples, listen=0, **settings)
    items = evaluation_samples(model, source, config, 0, RunLog())
    artifacts = {source.name: artifact or artifact_of(source)}
    return evaluate(loaded(model, source), artifacts, items, config, directory, RunLog(), seed=0)


def adapters(repo):
    data = repo / "data"
    vocoder, asr = (str(data / "models" / path) for path in ("vocoder/vocos.onnx", "asr/model.onnx"))
    sentences = str(data / "sentences/evaluation.jsonl")
    return {
        "matcha": Matcha(
            "matcha",
            str(data / "models/matcha/model-steps-3.onnx"),
            evaluation_path=sentences,
            vocoder_path=vocoder,
            asr_path=asr,
        ),
        "vocoder": Vocoder("vocoder", vocoder, evaluation_path=str(data / "voice/evaluation/manifest.jsonl")),
        "asr": Ctc("asr", asr, evaluation_path=str(data / "clips/evaluation/manifest.jsonl")),
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("matcha", EvaluationKind.tts), ("vocoder", EvaluationKind.audio), ("asr", EvaluationKind.asr)]
)
def test_a_model_against_itself_loses_exactly_nothing(shipped, repo, run_directory, name, kind):
    found = evaluated(adapters(repo)[name], shipped(name), kind, run_directory)
    for metric, values in found.metrics.items():
        if metric == "sqnr_db":
            assert values["quantized"] == math.inf
        elif metric == "cosine":
            assert values["quantized"] == 1.0
        else:
            assert values["quantized"] == values["baseline"], metric
    assert found.metrics["mse"]["quantized"] == 0
    assert found.worst is None


def test_noise_is_given_to_both_only_where_the_graph_draws_some(shipped, repo, run_directory):
    matcha = evaluated(adapters(repo)["matcha"], shipped("matcha"), EvaluationKind.tts, run_directory, samples=1)
    vocoder = evaluated(adapters(repo)["vocoder"], shipped("vocoder"), EvaluationKind.audio, run_directory, samples=1)
    assert "same seeded values for both models" in matcha.noise
    assert vocoder.noise is None


def test_only_the_metrics_that_are_asked_for_are_reported(shipped, repo, run_directory):
    found = evaluated(
        adapters(repo)["vocoder"], shipped("vocoder"), EvaluationKind.audio, run_directory, metrics=["mse", "mr_stft"]
    )
    assert set(found.metrics) == {"mse", "mr_stft"}


@pytest.fixture
def classifier(tmp_path, source_of, build, write_arrays):
    """Return a model that repeats its input as scores of three classes, its source, and arrays of classes 2, 0 and 1."""
    source = source_of(build("g (float[1, 3] x) => (float[1, 3] y) { [same] y = Relu (x) }"))
    rows = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    write_arrays(tmp_path / "eval.npz", {f"s{k}": {"x": row[None]} for k, row in enumerate(rows)})
    return OnnxFile("onnx", str(source.path), evaluation_path=str(tmp_path / "eval.npz")), source


def test_accuracy_counts_the_right_classes(classifier, tmp_path, run_directory):
    model, source = classifier
    np.save(tmp_path / "labels.npy", np.array([2, 0, 2]))
    labels = str(tmp_path / "labels.npy")
    found = evaluated(model, source, EvaluationKind.tensors, run_directory, samples=3, labels=labels)
    assert found.metrics["accuracy_percent"]["baseline"] == pytest.approx(200 / 3)
    assert [sample["baseline_class"] for sample in found.per_sample] == [2, 0, 1]


def test_an_output_that_is_not_finite_is_refused_by_sample_and_output(classifier, build, source_of, run_directory):
    model, source = classifier
    broken = source_of(build("g (float[1, 3] x) => (float[1, 3] y) { [log] y = Log (x) }"), "broken")
    with pytest.raises(DataError, match="'y' holds NaN or Inf on sample 's0'"):
        evaluated(model, source, EvaluationKind.tensors, run_directory, artifact=artifact_of(source, broken.path))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([1.5, 2.0]), "integer class"),
        (np.array([[1], [2]]), "integer class"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(tmp_path, labels, message):
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / "labels.npy")


def test_labels_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"evaluation\.labels: .*labels\.npy"):
        read_labels(tmp_path / "labels.npy")


def test_a_mel_of_another_length_is_aligned_before_it_is_compared(rng_mel):
    longer = np.repeat(rng_mel, [2 if frame == 5 else 1 for frame in range(rng_mel.shape[2])], axis=2)
    a, b = comparable("mel", rng_mel, longer)
    assert a.shape == b.shape
    np.testing.assert_array_equal(a, b)


@pytest.fixture
def rng_mel():
    """Return a mel spectrogram of noise (1, 80, 20)."""
    return np.random.default_rng(0).standard_normal((1, 80, 20)).astype(np.float32)


def test_outputs_of_other_shapes_without_a_time_axis_are_refused():
    with pytest.raises(StageError, match=r"'y' is of shape \[1, 4\], fp32's of \[1, 3\]"):
        comparable("y", np.zeros((1, 3), np.float32), np.zeros((1, 4), np.float32))


def test_each_output_is_scored_floats_by_their_distance_and_integers_by_their_agreement():
    outputs = {"n": np.array([3, 4]), "a": np.ones((2, 2), np.float32), "b": np.ones(3, np.float32)}
    worse = {**outputs, "n": np.array([3, 5]), "b": np.array([1, 1, 4], np.float32)}
    scores = tensor_scores(outputs, worse)
    assert set(scores) == {"n", "a", "b"}
    assert scores["n"] == {"agreement_percent": 50.0, "relative_error": 0.5}
    assert scores["a"]["mse"] == 0
    assert scores["b"]["mse"] == pytest.approx(3.0)
    assert scores["b"]["max_abs_error"] == pytest.approx(3.0)


def test_a_sample_keeps_its_scores_and_its_name(classifier, run_directory):
    model, source = classifier
    found = evaluated(model, source, EvaluationKind.tensors, run_directory, samples=3)
    assert [sample["id"] for sample in found.per_sample] == ["s0", "s1", "s2"]
    assert all("mse" in sample["fidelity"] for sample in found.per_sample)
    assert set(found.outputs) == {"y"}


def test_metrics_come_with_an_interval_over_samples_and_the_worst_samples_are_named(
    classifier, build, source_of, run_directory
):
    model, source = classifier
    worse = source_of(build("g (float[1, 3] x) => (float[1, 3] y) { [tanh] y = Tanh (x) }"), "worse")
    model.evaluation_path = str(source.path.parent / "uneven.npz")
    rows = {f"s{k}/x": np.array([[0, 0, 0.5 * k]], np.float32) for k in range(1, 4)}
    np.savez(model.evaluation_path, **rows)
    found = evaluated(model, source, EvaluationKind.tensors, run_directory, samples=3, artifact=artifact_of(source, worse.path))
    mse = found.metrics["mse"]
    per_sample = [sample["fidelity"]["mse"] for sample in found.per_sample]
    assert min(per_sample) <= mse["interval"]["low"] < mse["quantized"] < mse["interval"]["high"] <= max(per_sample)
    assert mse["samples"] == 3
    assert found.worst == {"metric": "relative_error", "samples": ["s3", "s2", "s1"]}


def test_a_recording_without_text_is_refused_where_words_are_counted(shipped, repo, run_directory):
    from pipeline.evaluate.asr_scorer import AsrScorer

    item = EvaluationSample(Sample("clip", {}), None)
    with pytest.raises(DataError, match="'clip' has no text"):
        AsrScorer(adapters(repo)["asr"]).score(item, {}, {})


def test_samples_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample("s", {}).id = "t"


OF_VOCODERS = [
    name
    for name in metrics_of(EvaluationKind.audio)
    if METRICS[name].needs_scorer and METRICS[name].source is not Source.enhanced
]


@pytest.mark.parametrize("metric", OF_VOCODERS)
def test_the_loss_in_one_metric_is_what_the_evaluation_finds(shipped, repo, run_directory, tmp_path, metric):
    source, vocoder = shipped("vocoder"), adapters(repo)["vocoder"]
    config = EvaluationConfig(kind=EvaluationKind.audio, samples=2, listen=0)
    items = evaluation_samples(vocoder, source, config, 0, RunLog())
    worse = onnx.ModelProto()
    worse.CopyFrom(source.model)
    weight = max(worse.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.1), weight.name))
    onnx.save(worse, tmp_path / "worse.onnx")
    artifact = artifact_of(source, tmp_path / "worse.onnx")
    found = evaluated(vocoder, source, EvaluationKind.audio, run_directory, artifact=artifact).metrics[metric]
    loss = LossEvaluator(loaded(vocoder, source), source.name, items, config, metric, seed=0).loss(worse).loss
    assert loss == pytest.approx(found["quantized"] - found["baseline"], rel=1e-6)
    assert loss > 0


@pytest.mark.parametrize(
    ("values", "mean", "samples"),
    [((20.0, math.inf, 30.0), 25.0, 2), ((math.inf, math.inf), math.inf, 2), ((-math.inf,), -math.inf, 1)],
)
def test_samples_that_nothing_happens_to_do_not_make_a_ratio_perfect(values, mean, samples):
    found = summarize(["sqnr_db", "mse"], [SampleScores({"sqnr_db": value, "mse": 1.0}) for value in values], {})
    assert (found["sqnr_db"]["quantized"], found["sqnr_db"]["samples"]) == (mean, samples)
    assert found["mse"]["samples"] == len(values)


def test_the_interval_of_a_ratio_is_over_the_samples_that_it_is_the_mean_of():
    entries = [{"fidelity": {"sqnr_db": value}} for value in (20.0, None, math.inf, 30.0)]
    interval = sample_interval(entries, "sqnr_db")
    assert interval.value == 25.0
    assert 20 <= interval.low <= interval.high <= 30
