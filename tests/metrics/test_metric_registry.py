"""The table of metrics names what the report's contract names, says all that is known of them, and costs nothing to import."""

import ast
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.evaluation_kind import EvaluationKind
from pipeline.metrics import audio_metrics, decision_metrics, tensor_metrics, text_metrics
from pipeline.metrics.metric_registry import (
    METRICS,
    Source,
    default_metric,
    in_reading_order,
    leading_metrics,
    metrics_of,
    proxy_of,
    sample_metrics,
)

CONTRACT = [
    "mse",
    "relative_error",
    "sqnr_db",
    "cosine",
    "max_abs_error",
    "agreement_percent",
    "log_mel_l1",
    "mcd_db",
    "mr_stft",
    "posterior_kl",
    "next_token_percent",
    "same_until_percent",
    "duration_mae_frames",
    "decision_auc",
    "segment_f1",
    "si_sdr_db",
    "pause_floor_db",
    "wer_percent",
    "cer_percent",
    "deletion_percent",
    "hallucination_percent",
    "roundtrip_wer_percent",
    "full_scale_percent",
    "dc_offset",
    "accuracy_percent",
    "truth_log_mel_l1",
    "truth_mr_stft",
]


def test_the_table_holds_exactly_the_names_of_the_contract():
    assert list(METRICS) == CONTRACT
    assert all(metric.name == name for name, metric in METRICS.items())


def test_a_metric_that_grows_with_quality_says_so():
    assert {name for name, metric in METRICS.items() if metric.higher_is_better} == {
        "sqnr_db",
        "cosine",
        "agreement_percent",
        "next_token_percent",
        "same_until_percent",
        "accuracy_percent",
        "decision_auc",
        "segment_f1",
        "si_sdr_db",
    }


def test_the_baseline_of_the_table_is_what_each_function_gives_for_identical_outputs(rng):
    wave = rng.standard_normal(8000)
    mel = audio_metrics.log_mel(wave, 22_050)
    measured = {
        "mse": tensor_metrics.mse(mel, mel),
        "relative_error": tensor_metrics.relative_error(mel, mel),
        "sqnr_db": tensor_metrics.sqnr_db(mel, mel),
        "cosine": tensor_metrics.cosine(mel, mel.copy()),
        "max_abs_error": tensor_metrics.max_abs_error(mel, mel),
        "agreement_percent": tensor_metrics.agreement_percent([3, 1], [3, 1]),
        "log_mel_l1": audio_metrics.log_mel_l1(mel, mel),
        "mcd_db": audio_metrics.mcd_db(mel, mel),
        "mr_stft": audio_metrics.mr_stft(wave, wave),
        "posterior_kl": text_metrics.posterior_kl(mel, mel),
        "next_token_percent": text_metrics.next_token_percent(mel, mel),
        "same_until_percent": text_metrics.same_until_percent([31, 7], [31, 7]),
        "duration_mae_frames": text_metrics.duration_mae_frames([31, 7], [31, 7]),
        "decision_auc": decision_metrics.decision_auc(np.float64([0.1, 0.9]), np.float64([0.1, 0.9])),
        "segment_f1": decision_metrics.segment_f1(np.float64([0.1, 0.9]), np.float64([0.1, 0.9])),
    }
    expected = {name: metric.baseline for name, metric in METRICS.items() if metric.baseline is not None}
    assert measured == expected
    assert expected["sqnr_db"] == math.inf


def test_every_tensor_metric_of_the_table_has_its_function_and_is_computed_by_every_evaluation():
    names = [name for name, metric in METRICS.items() if metric.source is Source.tensors]
    assert names == list(tensor_metrics.TENSOR_METRICS)
    assert all(set(names) <= set(metrics_of(kind)) for kind in EvaluationKind)


@pytest.mark.parametrize("name", METRICS)
def test_what_stands_for_a_metric_is_finer_and_computed_by_the_same_evaluations(name):
    proxy = METRICS[proxy_of(name)]
    assert proxy.proxy is None
    assert not proxy.against_truth
    assert set(METRICS[name].evaluations) <= set(proxy.evaluations)


@pytest.mark.parametrize("kind", EvaluationKind)
def test_each_evaluation_has_one_metric_that_a_search_keeps_to_and_it_has_a_limit(kind):
    assert [name for name in METRICS if kind in METRICS[name].default_of] == [default_metric(kind)]
    assert default_metric(kind) in metrics_of(kind)
    assert METRICS[default_metric(kind)].default_limit is not None


def test_a_search_keeps_to_classes_that_are_known_to_audio_to_decisions_and_to_clean_speech():
    assert default_metric(EvaluationKind.tensors, labels=True) == "accuracy_percent"
    assert default_metric(EvaluationKind.tts, audio_only=True) == "mr_stft"
    assert default_metric(EvaluationKind.tensors, source=Source.decisions) == "segment_f1"
    assert default_metric(EvaluationKind.audio, source=Source.enhanced) == "si_sdr_db"


def test_a_report_is_read_by_what_users_know_first_and_by_what_changes_sooner_after_that():
    truths = [METRICS[name].against_truth for name in leading_metrics()]
    assert truths == sorted(truths, reverse=True)
    assert set(in_reading_order()) == set(METRICS)
    assert in_reading_order()[: len(leading_metrics())] == leading_metrics()


def test_single_samples_are_sorted_by_a_metric_that_is_worse_where_larger():
    assert sample_metrics()
    assert not any(METRICS[name].higher_is_better or METRICS[name].against_truth for name in sample_metrics())


def test_no_two_metrics_have_the_same_place_in_the_order_of_reading():
    places = [metric.priority for metric in METRICS.values() if metric.priority is not None]
    assert len(places) == len(set(places))


def test_metrics_are_named_by_their_table_their_functions_and_the_scorers_alone():
    """A table of names elsewhere would have to be found, and changed, with every metric that is added."""
    folder = Path(pipeline.__file__).parent
    own = ("metric_registry.py", "_metrics.py", "_scorer.py")
    named = {
        f"{path.relative_to(folder)}: {node.value}"
        for path in folder.rglob("*.py")
        if not path.name.endswith(own)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in METRICS
    }
    assert named <= {"config/choices.py: mse"}  # a range method has the same name


def test_importing_the_table_loads_neither_scipy_nor_jiwer():
    code = "import sys, pipeline.metrics; print(sorted({'scipy', 'jiwer', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
