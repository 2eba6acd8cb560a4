"""Why a node is what it is: words with units, and no gain that is none."""

import pytest

from pipeline.config.mode_settings import AutoConfig
from pipeline.config.settings import EvaluationConfig
from pipeline.evaluation_kind import EvaluationKind
from pipeline.mixed_precision.cost_model import KernelSaving
from pipeline.mixed_precision.decision_reasons import why_chosen, why_float
from pipeline.mixed_precision.default_budget import budget_of
from pipeline.models.onnx_file import OnnxFile
from pipeline.quantize.plan import Precision


@pytest.mark.parametrize(
    ("gain", "loss", "words"),
    [
        (
            KernelSaving(0.4, 0.5, 2048), 0.00312,
            "alone it is 0.4 ms faster and 2.0 KiB smaller; log_mel_l1 gets worse by 0.00312 nat",
        ),
        (
            KernelSaving(-0.005, 0.2, -956), 0.003,
            "between int8 neighbours, where nothing is converted, it is 0.2 ms faster and 0.9 KiB larger; "
            "log_mel_l1 gets worse by 0.003 nat",
        ),
        (KernelSaving(-0.1, -0.1, 4096), 0.0, "it is not faster, but 4.0 KiB smaller; log_mel_l1 does not change"),
    ],
)  # fmt: skip
def test_a_quantized_node_is_explained_by_what_it_really_saves(gain, loss, words):
    assert why_chosen(gain, loss, "log_mel_l1") == words


def test_a_node_that_stayed_float_is_explained_by_what_int8_would_have_done():
    static = Precision.static_int8
    assert (
        why_float(static, KernelSaving(-0.1, 0.0, 1), 0.1, "mse")
        == "as int8, static ranges it would be 0.1 ms slower than as float"
    )
    told = why_float(static, KernelSaving(0.1, 0.2, 1), 0.05, "posterior_kl")
    assert told == (
        "as int8, static ranges it would be 0.1 ms faster, but posterior_kl gets worse by 0.05 nat: "
        "other nodes gain more for that"
    )


def test_a_limit_that_nobody_gave_was_not_asked_for():
    evaluation, model = EvaluationConfig(kind=EvaluationKind.audio), OnnxFile(name="x")
    assert budget_of(AutoConfig(), evaluation, model, "x").asked == ()
    assert budget_of(AutoConfig(max_loss=0.2, min_speedup=1.5), evaluation, model, "x").asked == ("max_loss", "min_speedup")
