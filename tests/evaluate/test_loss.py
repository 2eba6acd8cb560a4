"""What a changed graph loses, where it decides other lengths than the original."""

from itertools import islice

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pipeline.audio.mel import log_mel
from pipeline.config.choices import SampleRateMismatch
from pipeline.config.compose import register_schemas, to_run_config
from pipeline.config.settings import EvaluationConfig
from pipeline.data.audio_files import read_audio
from pipeline.data.datasets import EvaluationSample
from pipeline.data.evaluation_set import EvaluationSet
from pipeline.data.utterance_sets import utterances_in
from pipeline.evaluate import audio_scorer, kinds_of_scorer
from pipeline.evaluate.loss import LossEvaluator
from pipeline.evaluation_kind import EvaluationKind
from pipeline.graph.source_graph import load_graph
from pipeline.metrics.metric_registry import METRICS
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.onnx_file import OnnxFile
from pipeline.models.vocoder import Vocoder
from pipeline.record.run_log import RunLog
from pipeline.sample import Sample
from pipeline.stages.load import load
from tests.conftest import SHIPPED

FRAMES = """frames (float[1, n, 4] x) => (float[1, m, 4] y) { y = Slice (x, zero, end, axis) }"""
SPOKEN = """spoken (float[1, n, 4] x) => (float[1, m] y) { s = Slice (x, zero, end, axis) y = Reshape (s, flat) }"""


@pytest.fixture
def loss_of(build, source_of):
    """Return a function: graph, frames -> what is lost where it gives so many frames, of ten that the original gives."""

    def graph_of(text, frames):
        ends = {"zero": np.array([0]), "end": np.array([frames]), "axis": np.array([1])}
        return build(text, **ends, **({"flat": np.array([1, -1])} if "Reshape" in text else {}))

    def loss(text, frames):
        source = source_of(graph_of(text, 10))
        x = np.random.default_rng(0).standard_normal((1, 12, 4)).astype(np.float32)
        items = [EvaluationSample(Sample("x", {"x": x}))]
        config = EvaluationConfig(kind=EvaluationKind.tensors)
        model = OnnxFile("onnx", str(source.path))
        loaded = LoadedModel(model, {"model": source}, threads=1)
        return LossEvaluator(loaded, "model", items, config, "relative_error", seed=0).loss(graph_of(text, frames))

    return loss


@pytest.mark.parametrize("frames", [9, 11])
def test_audio_of_another_length_loses_all_and_the_length_is_told(loss_of, frames):
    found = loss_of(SPOKEN, frames)
    assert found.loss == np.inf
    assert found.length_change == pytest.approx(0.1)


@pytest.mark.parametrize("frames", [9, 11])
def test_frames_of_another_number_are_aligned_along_either_axis(loss_of, frames):
    found = loss_of(FRAMES, frames)
    assert 0 < found.loss < 0.5
    assert found.length_change == pytest.approx(0.1)


def test_the_same_graph_loses_nothing(loss_of):
    assert loss_of(SPOKEN, 10).loss == loss_of(FRAMES, 10).loss == 0


def test_a_loss_in_accuracy_has_the_interval_that_its_samples_give(build, source_of):
    """Errors are counted over all samples; the interval needs what each of them was taken for."""
    source = source_of(build("classifier (float[1, 2] x) => (float[1, 2] y) { y = Identity (x) }"))
    swapped = build("classifier (float[1, 2] x) => (float[1, 2] y) { y = Mul (x, first) }", first=np.float32([[-1, 1]]))
    rows = np.float32([[1, 0]] * 5 + [[0, 1]] * 15)
    items = [EvaluationSample(Sample(str(n), {"x": row[None]}), label=int(row.argmax())) for n, row in enumerate(rows)]
    loaded = LoadedModel(OnnxFile("onnx", str(source.path)), {"model": source}, threads=1)
    config = EvaluationConfig(kind=EvaluationKind.tensors)
    found = LossEvaluator(loaded, "model", items, config, "accuracy_percent", seed=0).loss(swapped, with_interval=True)
    assert found.loss == pytest.approx(25.0)
    assert 0 < found.measured.low < 25 < found.measured.high < 60


def test_what_follows_from_fp32_alone_is_computed_once_for_a_whole_search(repo, monkeypatch):
    read, made = [], []

    def recording(*given):
        read.append(given)
        return read_audio(*given, SampleRateMismatch.resample, [])

    def mel(*given):
        made.append(given)
        return log_mel(*given)

    monkeypatch.setattr(audio_scorer, "log_mel", mel)
    monkeypatch.setattr(kinds_of_scorer, "audio_reader", lambda *_: recording)
    model = Vocoder("vocoder", str(repo / SHIPPED["vocoder"][0]))
    source = load_graph("vocoder", str(repo / SHIPPED["vocoder"][0]))
    utterances = list(
        islice(utterances_in(repo / "data/voice/evaluation/manifest.jsonl", "evaluation.path", lambda *_: None), 2)
    )
    items = [EvaluationSample(model.sample(one, recording), one) for one in utterances]
    read.clear()
    loaded = LoadedModel(model, {"vocoder": source}, threads=1)
    config = EvaluationConfig(kind=EvaluationKind.audio)
    evaluator = LossEvaluator(loaded, "vocoder", items, config, "truth_log_mel_l1", seed=0)
    losses = [evaluator.loss(source.model).loss for _ in range(3)]
    assert losses == [0.0] * 3
    assert len(read) == 2, "each recording once"
    assert len(made) == 2 * (2 + 3), "of each: of the recording, of fp32's audio, and one for each of three losses"


@pytest.mark.parametrize("model", SHIPPED)
def test_a_search_can_be_limited_in_each_metric_that_a_run_of_the_model_reports(repo, shipped_run, model):
    register_schemas()
    with initialize_config_dir(str(repo / "conf"), version_base="1.3"):
        config = to_run_config(compose("config", [f"model={model}", "evaluation.samples=2"]))
    loaded = load(config.model)
    [source] = loaded.graphs.values()
    items = EvaluationSet(loaded, config.evaluation, config.seed, RunLog()).report.samples
    reported = [name for name in shipped_run(model, "static").report["evaluation"]["metrics"] if METRICS[name].baseline is None]
    assert reported
    for metric in reported:
        evaluator = LossEvaluator(loaded, source.name, items, config.evaluation, metric, seed=0)
        assert evaluator.loss(source.path).loss == pytest.approx(0, abs=1e-6), metric


def test_the_sample_rate_of_a_file_of_ones_own_is_that_of_its_evaluation(source_of, conv_net):
    source = source_of(conv_net())
    model, audio = OnnxFile("onnx", str(source.path)), EvaluationConfig(kind=EvaluationKind.audio, sample_rate_hz=22_050)
    assert kinds_of_scorer.audio_rate_of(model, source, audio) == 22_050
    assert kinds_of_scorer.audio_rate_of(model, source, EvaluationConfig(kind=EvaluationKind.audio)) is None
    told = source_of(conv_net(sample_rate="16000"), "told")
    assert kinds_of_scorer.audio_rate_of(model, told, EvaluationConfig(kind=EvaluationKind.audio)) == 16_000
    assert kinds_of_scorer.audio_rate_of(model, told, EvaluationConfig(kind=EvaluationKind.tensors)) is None
