"""A sentence that quantization has pinned to a rail or moved off zero breaks the verdict, though it is one of many."""

import json

import numpy as np
import onnx
import pytest

from pipeline.evaluate.broken_speech import broken_limits_of
from pipeline.metrics.audio_metrics import dc_offset, full_scale_percent
from tests.small_kokoro import styles

# What token 9 is multiplied with is too small for int8: there fp32 divides by 0.003, and int8 by zero.
GRAPH = """voice (int64[1, L] tokens, float[1, 16] style, float[1] speed) => (float[samples] audio) {{
    [embed] e = Gather (table, tokens)
    [small] d = MatMul (e, w)
    least = ReduceMin <keepdims = 0> (d)
    gain = Div (little, least)
    numbers = Cast <to = 1> (tokens)
    last = Constant <value = int64[1] {{-1}}> ()
    each = Unsqueeze (numbers, last)
    nothing = Mul (each, zero)
    times = Add (nothing, ramp)
    waves = Sin (times)
    flat = Reshape (waves, last)
    {audio}
}}"""
FAULTS = {
    "full_scale_percent": "loud = Abs (flat)\n rail = Mul (loud, gain)\n audio = Clip (rail, low, high)",
    "dc_offset": "beside = Min (gain, most)\n audio = Add (flat, beside)",
}


def voice(build, fault):
    table = np.zeros((12, 2), np.float32)
    table[:, 0], table[9] = 1, (0, 1)
    return build(
        GRAPH.format(audio=FAULTS[fault]), table=table, w=np.array([[1.0], [0.003]], np.float32), little=np.float32(0.0003),
        zero=np.float32(0), ramp=np.linspace(0.01, 40, 400, dtype=np.float32), low=np.float32(-1), high=np.float32(1),
        most=np.float32(0.3),
    )  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_one_sentence_that_is_no_speech_any_more_is_said_first_and_breaks_the_verdict(run_quickly, tmp_path, build, fault):
    model = voice(build, fault)
    onnx.helper.set_model_props(model, {"model_type": "kokoro", "sample_rate": "24000", "style_dim": "90,1,16"})
    onnx.save(model, tmp_path / "model.onnx")
    styles().tofile(tmp_path / "voices.bin")
    sentences = [{"id": f"s{k}", "tokens": [0, 1, 2, 9 if k == 4 else 3, 5, 6, 7, 0]} for k in range(6)]
    (tmp_path / "set.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in sentences), encoding="utf-8")
    report = run_quickly(
        "model=kokoro", f"model.dir={tmp_path}", "mode=dynamic", "evaluation.path=set.jsonl", "evaluation.samples=6",
        "evaluation.listen=1", "evaluation.node_samples=0", "stages=[load,quantize,evaluate]",
    ).succeeded().report  # fmt: skip
    assert [*report["artifacts"][0]["quantized_nodes"]] == ["small"]
    assert report["warnings"][0].startswith("1 of 3 sentences are no speech any more in the quantized model: s4 (")
    assert report["verdict"]["quality"].startswith("beyond the limit: ")
    assert fault in report["verdict"]["quality"]
    [pair] = [sample["truth"][fault] for sample in report["evaluation"]["per_sample"] if sample["id"] == "s4"]
    expected = {"full_scale_percent": (0, 100), "dc_offset": (0.1, 0.3)}[fault]
    assert pair["baseline"] == pytest.approx(expected[0], abs=0.05)
    assert pair["quantized"] == pytest.approx(expected[1], abs=0.05)
    assert all(
        sample["truth"][fault]["quantized"] <= sample["truth"][fault]["baseline"]
        for sample in report["evaluation"]["per_sample"]
        if sample["id"] != "s4"
    )


def test_what_fp32_has_as_well_is_no_fault_of_the_quantized_model():
    same = [{"id": "a", "truth": {"dc_offset": {"baseline": 0.3, "quantized": 0.31}}}, {"id": "b", "truth": {}}, {"id": "c"}]
    assert broken_limits_of(same) == ([], "")


def test_the_worst_sentence_is_the_loss_and_three_are_named():
    samples = [{"id": f"s{k}", "truth": {"full_scale_percent": {"baseline": 0.5, "quantized": 10.0 * k}}} for k in range(1, 6)]
    [check], warning = broken_limits_of(samples)
    assert (check.metric, check.loss, check.outcome, check.decides) == ("full_scale_percent", 49.5, "beyond the limit", False)
    assert warning.startswith("5 of 5 sentences")
    assert "s3 (share of the speech at full scale or beyond it: 30 %, fp32's 0.5 %), and 2 more" in warning


def test_the_measures_are_a_share_and_a_mean():
    wave = np.array([0.5, 1.0, -1.0, -2.0, 0.99, -0.5, 0.0, 0.01], np.float32)
    assert full_scale_percent(wave) == 37.5
    assert dc_offset(wave) == pytest.approx(1 / 8)
    assert full_scale_percent(wave[:0]) == dc_offset(wave[:0]) == 0.0
