"""A sentence in a script that the voice of a model cannot read is a bad sample."""

import json

import pytest

from pipeline.models.text.scripts import foreign_letters


@pytest.mark.parametrize(
    ("text", "voice", "foreign"),
    [
        ("Hello, world 3.5!", "en-us", []),
        ("naïve Ünïcode œuvre", "en-us", []),
        ("你好", "en-us", ["你", "好"]),
        ("Say привет", "en-gb", ["п", "р", "и", "в", "е", "т"]),
        ("你好 iPhone", "cmn", []),
        ("Привет, iPhone", "ru", []),
        ("カタカナー漢字ひらがな", "ja", []),
        ("Γειά", "el", []),
        ("नमस्ते", "hi", []),
        ("你好", "ja", []),
        ("привет", "cmn", ["п", "р", "и", "в", "е", "т"]),
    ],
)
def test_letters_that_a_voice_cannot_read_are_named(text, voice, foreign):
    assert foreign_letters(text, voice) == foreign


@pytest.fixture
def lines(tmp_path):
    pytest.importorskip("espeakng_loader")
    (tmp_path / "zh.txt").write_text("今天天气很好。\n我们去公园。\n", encoding="utf-8")
    (tmp_path / "mixed.txt").write_text("The weather is fine.\n我们去公园。\nWe walk.\n", encoding="utf-8")


COMMAND = (
    "model=matcha",
    "mode=static",
    "model.vocoder_path=null",
    "model.asr_path=null",
    "evaluation=tensors",
    "evaluation.samples=2",
    "stages=[load,quantize]",
)


@pytest.mark.usefixtures("lines")
def test_chinese_sentences_do_not_calibrate_an_english_voice_and_skipping_them_all_is_not_advised(run_quickly):
    run = run_quickly(*COMMAND, "calibration.path=zh.txt")
    assert run.exit_code == 2
    assert "'en-us'" in run.stderr
    assert "cannot read '今'" in run.stderr
    assert "on_bad_sample" not in run.stderr


@pytest.mark.usefixtures("lines")
def test_a_sentence_that_cannot_be_read_is_refused_or_skipped_as_any_bad_sample(run_quickly):
    refused = run_quickly(*COMMAND, "calibration.path=mixed.txt")
    assert refused.exit_code == 2
    assert "To go on without such samples: calibration.on_bad_sample=skip" in refused.stderr
    run = run_quickly(*COMMAND, "calibration.path=mixed.txt", "calibration.on_bad_sample=skip").succeeded()
    assert [skipped["sample"] for skipped in run.report["skipped"]] == ["mixed_002"]
    saved = json.loads((run.directory / "report.json").read_text(encoding="utf-8"))
    assert saved["status"] == "done"
