"""A set of utterances is what its path is: a manifest, a file of sentences, Kaldi's folder, or a folder of audio."""

import numpy as np
import pytest
import soundfile

from pipeline.config.choices import CalibrationKind
from pipeline.data.utterance_sets import check_kind, kind_of, utterances_in
from pipeline.errors import DataError


def refuse(sample, reason):
    raise DataError(reason)


@pytest.fixture
def clips(tmp_path):
    """Return a folder with recordings of a tone: two good ones, one in stereo, one empty, and a text."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    tone = (0.3 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
    for name, audio in (
        ("b.wav", tone), ("a.flac", tone), ("more/c.wav", np.stack([tone, tone], 1)), ("more/d.wav", tone[:0]),
    ):  # fmt: skip
        soundfile.write(folder / name, audio, 16_000)
    (folder / "notes.md").write_text("no audio", encoding="utf-8")
    return folder


@pytest.fixture
def kaldi(tmp_path, clips):
    """Return a Kaldi folder on two of them."""
    folder = tmp_path / "kaldi"
    folder.mkdir()
    (folder / "wav.scp").write_text(f"u1 {clips}/a.flac\nu2 {clips}/b.wav\n", encoding="utf-8")
    (folder / "text").write_text("u1 hello world\nu2 good bye\n", encoding="utf-8")
    return folder


def read(path, on_bad=refuse):
    return list(utterances_in(path, "key", on_bad))


def test_a_folder_of_audio_gives_its_recordings_by_name(clips):
    assert [utterance.id for utterance in read(clips)] == ["a", "b", "more/c", "more/d"]


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no audio file"):
        read(tmp_path)


def test_a_kaldi_folder_gives_recordings_with_their_text(kaldi, clips):
    first, second = read(kaldi)
    assert (first.id, first.text, first.audio) == ("u1", "hello world", clips / "a.flac")
    assert second.text == "good bye"


def test_paths_of_a_kaldi_folder_may_be_relative_to_it(kaldi, clips):
    (kaldi / "wav.scp").write_text("u1 ../clips/a.flac\nu2 ../clips/b.wav\n", encoding="utf-8")
    assert all(utterance.audio.exists() for utterance in read(kaldi))


def test_a_transcript_for_no_audio_is_named(kaldi):
    (kaldi / "text").write_text("u1 hello\nu9 nothing\n", encoding="utf-8")
    with pytest.raises(DataError, match="a transcript of 'u9'"):
        read(kaldi)
    told = []
    assert [utterance.id for utterance in read(kaldi, lambda *seen: told.append(seen))] == ["u1", "u2"]
    assert [sample for sample, _ in told] == ["u9"]


def test_a_command_in_place_of_a_file_is_never_run(kaldi, tmp_path):
    (kaldi / "wav.scp").write_text(f"u1 touch {tmp_path}/ran |\n", encoding="utf-8")
    (kaldi / "text").unlink()
    with pytest.raises(DataError, match=r"is a command .*never run"):
        read(kaldi)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "message"), [("u1\n", "line 1: expected"), ("u1 a.wav\nu1 b.wav\n", "line 2: the id 'u1' is there twice")]
)
def test_a_bad_line_of_a_kaldi_table_is_named(kaldi, line, message):
    (kaldi / "wav.scp").write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(kaldi)


def test_text_without_recordings_is_refused(kaldi):
    (kaldi / "wav.scp").unlink()
    with pytest.raises(DataError, match=r"no file .*wav\.scp"):
        read(kaldi)


def test_segments_are_refused_since_they_are_not_read(kaldi):
    (kaldi / "segments").write_text("u1 r1 0 1\n", encoding="utf-8")
    with pytest.raises(DataError, match="segments"):
        read(kaldi)


def test_a_file_of_sentences_gives_one_a_line(tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeffhello\n\n 你好 \n", encoding="utf-8")
    assert [(utterance.id, utterance.text) for utterance in read(tmp_path / "lines.txt")] == [
        ("lines_001", "hello"), ("lines_003", "你好"),
    ]  # fmt: skip


def test_sentences_that_are_not_utf8_are_refused(tmp_path):
    (tmp_path / "lines.txt").write_bytes("你好".encode("gbk"))
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path / "lines.txt")


def test_a_path_tells_what_it_is(clips, kaldi, tmp_path):
    paths = (clips, kaldi, tmp_path / "a.txt", tmp_path / "a.jsonl")
    assert [kind_of(path).name for path in paths] == ["audio", "manifest", "sentences", "manifest"]


def test_a_path_that_is_not_what_was_said_is_refused_with_what_to_say(clips):
    with pytest.raises(DataError, match=r"needs a \.txt file.*Use calibration=audio"):
        check_kind(clips, CalibrationKind.sentences)
    check_kind(clips, CalibrationKind.audio)
    check_kind(clips, CalibrationKind.real)


# The command


def test_the_command_calibrates_on_a_folder_of_audio_and_lists_the_clips_that_it_skipped(run_quickly, clips):
    command = (
        "model=vocoder", "mode=static", "stages=[load,quantize]", "evaluation.samples=1", "calibration=audio",
        f"calibration.path={clips}",
    )  # fmt: skip
    refused = run_quickly(*command)
    assert refused.exit_code == 2
    assert "more/c.wav" in refused.stderr.replace("\n", "")
    assert "calibration.on_bad_sample=skip" in refused.stderr
    run = run_quickly(*command, "calibration.on_bad_sample=skip").succeeded()
    assert run.report["calibrated_on"] == "2 audio samples"
    assert {(entry["sample"], entry["set"]) for entry in run.report["skipped"]} == {
        ("more/c", "calibration.path"), ("more/d", "calibration.path"),
    }  # fmt: skip


def test_the_command_evaluates_on_a_kaldi_folder(run_quickly, kaldi):
    run = run_quickly("model=asr", "mode=dynamic", "stages=[load,quantize,evaluate]", f"evaluation.path={kaldi}").succeeded()
    texts = {"hello world", "good bye"}  # one is set aside for choices, the other is reported
    assert {sample["text"] for sample in run.report["evaluation"]["per_sample"]} < texts
    assert len(run.report["samples"]["selection"]) == len(run.report["samples"]["report"]) == 1
    assert any(entry["path"].endswith("wav.scp") for entry in run.report["inputs"])


def test_a_kind_of_calibration_without_a_path_is_refused(run_quickly):
    run = run_quickly("model=vocoder", "mode=static", "stages=[load,quantize]", "evaluation.samples=1", "calibration=audio")
    assert run.exit_code == 2
    assert "calibration.path" in run.stderr
    assert "a folder of audio files" in run.stderr
