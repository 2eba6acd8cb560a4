"""The table of metrics names what the report's contract names, and costs nothing to import."""

import math
import subprocess
import sys

from pipeline.metrics import audio_metrics, tensor_metrics, text_metrics
from pipeline.metrics.metric_registry import METRICS

CONTRACT = [
    "mse",
    "relative_error",
    "sqnr_db",
    "cosine",
    "max_abs_error",
    "log_mel_l1",
    "mcd_db",
    "mr_stft",
    "posterior_kl",
    "duration_mae_frames",
    "wer_percent",
    "cer_percent",
    "roundtrip_wer_percent",
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
        "accuracy_percent",
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
        "log_mel_l1": audio_metrics.log_mel_l1(mel, mel),
        "mcd_db": audio_metrics.mcd_db(mel, mel),
        "mr_stft": audio_metrics.mr_stft(wave, wave),
        "posterior_kl": text_metrics.posterior_kl(mel, mel),
        "duration_mae_frames": text_metrics.duration_mae_frames([31, 7], [31, 7]),
    }
    expected = {name: metric.baseline for name, metric in METRICS.items() if metric.baseline is not None}
    assert measured == expected
    assert expected["sqnr_db"] == math.inf


def test_importing_the_table_loads_neither_scipy_nor_jiwer():
    code = "import sys, pipeline.metrics; print(sorted({'scipy', 'jiwer', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
