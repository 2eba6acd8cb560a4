"""Manifests of NeMo and Lhotse are read where a line is a whole utterance, and refused with what to do where it is not."""

import gzip
import json

import pytest

from pipeline.data.manifest import manifest_lines
from pipeline.data.utterance_sets import kind_of
from pipeline.errors import DataError

NEMO = {"audio_filepath": "clips/a.wav", "text": "good morning", "duration": 1.5}
RECORDING = {
    "id": "a", "sources": [{"type": "file", "channels": [0], "source": "clips/a.wav"}], "sampling_rate": 16000,
    "num_samples": 24000, "duration": 1.5, "channel_ids": [0],
}  # fmt: skip
SUPERVISION = {"id": "a", "recording_id": "a", "start": 0.0, "duration": 1.5, "channel": 0, "text": "good morning"}
CUT = {
    "id": "a-0", "start": 0.0, "duration": 1.5, "channel": 0, "supervisions": [SUPERVISION], "recording": RECORDING,
    "type": "MonoCut",
}  # fmt: skip


@pytest.fixture
def read(tmp_path):
    """Return a function that writes lines and reads them as a manifest."""

    def lines(*entries):
        path = tmp_path / "manifest.jsonl"
        path.write_text("\n".join(json.dumps(entry) for entry in entries), encoding="utf-8")
        return list(manifest_lines(path, "calibration.path"))

    return lines


@pytest.mark.parametrize(("entry", "name"), [(NEMO, "clips/a"), (CUT, "a-0")], ids=["NeMo", "Lhotse"])
def test_an_utterance_of_another_tool_is_read(read, tmp_path, entry, name):
    [utterance] = read(entry)
    assert (utterance.id, utterance.text, utterance.audio) == (name, "good morning", tmp_path / "clips" / "a.wav")


def test_a_packed_manifest_is_read(tmp_path):
    path = tmp_path / "cuts.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(CUT).encode()))
    assert kind_of(path).name == "manifest"
    assert [utterance.id for utterance in manifest_lines(path, "calibration.path")] == ["a-0"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (NEMO | {"offset": 2.0}, ("an offset of 2.0 s", "Write the parts as files")),
        (NEMO | {"audio_filepath": ["a.wav", "b.wav"]}, ("audio_filepath must be a string",)),
        (CUT | {"start": 0.5, "duration": 1.0}, ("from 0.5 to 1.5 s of a recording of 1.5 s", "Write the parts as files")),
        (RECORDING, ("a recording of Lhotse", "lhotse cut simple")),
        (SUPERVISION, ("a supervision of Lhotse", "lhotse cut simple")),
        (CUT | {"recording": RECORDING | {"sources": [{"type": "url", "source": "x"}]}}, ("the sources url",)),
    ],
)
def test_a_part_of_a_recording_is_refused_with_what_to_do(read, entry, words):
    with pytest.raises(DataError, match=r"calibration\.path: .*manifest\.jsonl, line 1: ") as refused:
        read(entry)
    for word in words:
        assert word in str(refused.value)
