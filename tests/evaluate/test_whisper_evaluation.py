"""A recogniser that goes on from its own words is compared on fp32's words, and is also given clips in which nobody speaks."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.audio.silent_clips import KINDS, silent_clips
from pipeline.config.settings import EvaluationConfig
from pipeline.data.datasets import evaluation_samples
from pipeline.errors import ConfigError
from pipeline.evaluate.evaluation import evaluate
from pipeline.evaluate.loss import LossEvaluator, check_metric
from pipeline.evaluate.silence_scorer import silent_clips_of, words_in
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics.text_metrics import first_difference, posterior_kl, same_until_percent
from pipeline.models.ctc import Ctc
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.whisper import Whisper
from pipeline.paths import resolve_path
from pipeline.quantize.artifact import Artifact
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.stages.load import load
from tests.whisper_graphs import EOT, write_whisper

CLIPS = 6


@pytest.fixture
def folder(tmp_path, build):
    """Return a directory with the small model."""
    return write_whisper(tmp_path / "whisper", build)


@pytest.fixture
def loaded(folder, repo):
    """Return the small model, loaded."""
    return load(Whisper("w", dir=str(folder), evaluation_path=str(repo / "data/clips/evaluation/manifest.jsonl")))


@pytest.fixture
def evaluated(loaded, tmp_path):
    """Return a function that evaluates the small model beside a copy whose embedding, and so its head, was changed."""

    def run(change, **settings):
        model = onnx.load(loaded["decoder"].path)
        [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == "embedding"]
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), "embedding"))
        onnx.save(model, tmp_path / "decoder.int8.onnx")
        source = loaded["decoder"]
        artifact = Artifact("decoder", tmp_path / "decoder.int8.onnx", source.sha256, 1, 1, {}, (), {})
        config = EvaluationConfig(kind=EvaluationKind.asr, samples=CLIPS, **({"silent_clips": 0} | settings))
        items = evaluation_samples(loaded.adapter, loaded.entry, config, 0, RunLog())
        directory = RunDirectory(tmp_path)
        return artifact, items, evaluate(loaded, {"decoder": artifact}, items, config, directory, RunLog(), seed=0)

    return run


def test_a_model_that_is_as_it_was_writes_the_same_tokens(evaluated):
    _, _, found = evaluated(lambda embedding: embedding)
    exact = {"posterior_kl": 0.0, "next_token_percent": 100.0, "same_until_percent": 100.0}
    assert {name: found.metrics[name]["quantized"] for name in exact} == exact
    assert all(sample["first_difference"] is None for sample in found.per_sample)


def test_logits_are_compared_after_fp32_s_tokens_and_words_are_the_model_s_own(evaluated, loaded):
    rng = np.random.default_rng(0)
    artifact, items, found = evaluated(lambda embedding: embedding + 0.3 * rng.standard_normal(embedding.shape, np.float32))
    model = loaded.adapter
    after = ModelSessions(loaded, 1, {"decoder": artifact.path})
    for item, scored in zip(items, found.per_sample, strict=True):
        fp32 = model.infer(item.sample, loaded.originals.runner([0]))
        own = model.infer(item.sample, after.runner([0]))
        forced = model.given_decisions(item.sample, after.runner([0]), fp32)["logits"]
        assert scored["fidelity"]["posterior_kl"] == pytest.approx(posterior_kl(fp32["logits"], forced))
        agreed = 100 * np.mean(fp32["logits"].argmax(axis=1) == forced.argmax(axis=1))
        assert scored["fidelity"]["next_token_percent"] == pytest.approx(agreed)
        assert scored["first_difference"] == first_difference(fp32["tokens"].tolist(), own["tokens"].tolist())
        assert scored["quantized_transcript"] == model.transcript(own)
    assert found.metrics["same_until_percent"]["quantized"] < 100, "or the change is too small to show anything"


def test_the_loss_that_a_search_asks_for_is_what_the_evaluation_finds(evaluated, loaded):
    rng = np.random.default_rng(0)
    change = lambda embedding: embedding + 0.3 * rng.standard_normal(embedding.shape, np.float32)  # noqa: E731
    artifact, items, found = evaluated(change)
    config = EvaluationConfig(kind=EvaluationKind.asr)
    for metric in ("posterior_kl", "next_token_percent", "wer_percent"):
        evaluator = LossEvaluator(loaded, "decoder", items, config, metric, seed=0)
        worse = abs(found.metrics[metric]["delta"])
        assert evaluator.loss(artifact.path).loss == pytest.approx(worse), metric


def test_silence_counts_where_words_are_written_not_where_it_says_what_it_hears(evaluated):
    def mute(embedding):
        embedding[:EOT] = 0.0
        embedding[EOT] *= 10
        return embedding

    _, _, found = evaluated(mute, silent_clips=7)
    metric = found.metrics["hallucination_percent"]
    assert [sample["id"].partition("_")[0] for sample in found.silence] == list(KINDS)
    spoken = [bool(sample["baseline_transcript"]) for sample in found.silence]
    assert metric["samples"] == 7
    assert metric["baseline"] == pytest.approx(100 * np.mean(spoken))
    assert metric["baseline"] > metric["quantized"] == 0


@pytest.mark.parametrize(
    ("transcript", "words"),
    [
        ("[SILENCE]", ""),
        (" (wind blowing", ""),
        ("*sighs* ♪", ""),
        ("[MUSIC] You.", "you"),
        ("Thank you (laughs)", "thank you"),
    ],
)
def test_what_is_heard_is_told_in_brackets(transcript, words):
    assert words_in(transcript) == words


def test_a_model_that_does_not_go_on_from_itself_is_given_no_silence_unless_it_is_asked_for(loaded):
    ctc = Ctc("asr", "model.onnx")
    asked = EvaluationConfig(kind=EvaluationKind.asr, silent_clips=5)
    assert silent_clips_of(ctc, asked) == 5
    assert silent_clips_of(ctc, EvaluationConfig(kind=EvaluationKind.asr)) == 0
    assert silent_clips_of(loaded.adapter, EvaluationConfig(kind=EvaluationKind.asr)) == 42
    assert silent_clips_of(loaded.adapter, EvaluationConfig(kind=EvaluationKind.asr, metrics=["wer_percent"])) == 0
    assert silent_clips_of(loaded.adapter, EvaluationConfig(kind=EvaluationKind.tensors)) == 0


def test_a_search_does_not_run_on_silence():
    with pytest.raises(ConfigError, match="it is measured on clips of silence, which a search does not run on"):
        check_metric("hallucination_percent", EvaluationKind.asr, "mode.metric")


def test_clips_are_the_same_for_a_seed_and_of_the_levels_of_rooms():
    clips = dict(silent_clips(14, 3, 16_000))
    again = dict(silent_clips(7, 3, 16_000))
    assert all(np.array_equal(clips[name], audio) for name, audio in again.items())
    assert not any(
        np.array_equal(a, b) for (_, a), (_, b) in zip(silent_clips(7, 4, 16_000), clips.items(), strict=False) if a.any()
    )
    for name, audio in clips.items():
        assert 16_000 <= len(audio) <= 8 * 16_000
        level = np.sqrt(np.mean(audio**2.0))
        assert level == 0 if name.startswith("silence") else level < 0.1


def test_tokens_differ_where_the_shorter_text_ends():
    assert first_difference([1, 2, 3], [1, 2]) == 3
    assert first_difference([], []) is None
    assert same_until_percent([1, 2, 3, 4], [1, 2, 9, 4]) == 50.0
    assert same_until_percent([1, 2], [1, 2, 3]) == 100.0
    assert same_until_percent([], [1]) == 0.0


@pytest.mark.parametrize("mode", ["dynamic", "static", "fp16"])
def test_a_run_quantizes_both_graphs_and_keeps_what_the_client_reads(folder, run_quickly, mode):
    calibrated = ["calibration.samples=4"] if mode == "static" else []
    run = run_quickly(
        "model=whisper", f"model.dir={folder}", f"mode={mode}", "evaluation.samples=4", "evaluation.silent_clips=2",
        *calibrated, "stages=[load,quantize,evaluate]",
    ).succeeded()  # fmt: skip
    files = {artifact["graph"]: run.directory / artifact["file"] for artifact in run.report["artifacts"]}
    assert set(files) == {"encoder", "decoder"}
    original, kept = (
        {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        for path in (resolve_path(str(folder / "small-encoder.onnx")), files["encoder"])
    )
    assert kept.items() >= original.items()
    metrics = run.report["evaluation"]["metrics"]
    assert metrics["posterior_kl"]["quantized"] > 0
    assert metrics["hallucination_percent"]["samples"] == 2
    assert "hallucination_percent" in run.stdout


def test_silence_is_for_recognisers(run_quickly):
    run = run_quickly("model=vocoder", "mode=dynamic", "evaluation.silent_clips=3", "stages=[load]")
    assert run.exit_code == 2
    assert "evaluation.silent_clips" in run.stderr
    assert "evaluation=asr" in run.stderr
