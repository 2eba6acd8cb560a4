"""Lines of manifests that other tools write: NeMo's, and the cuts of Lhotse.

NeMo: `{"audio_filepath": "a.wav", "text": "...", "duration": 1.2}`, one line for each recording
(docs.nvidia.com/nemo-framework, "Preparing Custom ASR Data"). Lhotse: a `MonoCut` with its recording and its supervisions
(lhotse.readthedocs.io, "Cuts"). Only whole recordings are read: a model is fed with files.
"""

from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import DataError

NEMO_KEY = "audio_filepath"
LHOTSE_KEYS = {"recording", "supervisions", "sources", "recording_id"}
CLOSE_S = 0.02  # of a cut's ends to those of its recording


def as_ours(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a line in the keys of our own manifest: id, text, audio; our own lines come back as they are.

    Args:
        entry: the line.
        where: file and line, for messages.

    Raises:
        DataError: it is of another tool and cannot be read as an utterance.
    """
    if NEMO_KEY in entry:
        return _of_nemo(entry, where)
    if LHOTSE_KEYS & set(entry):
        return _of_lhotse(entry, where)
    return entry


def _of_nemo(entry: dict[str, Any], where: str) -> dict[str, Any]:
    audio = entry[NEMO_KEY]
    if not isinstance(audio, str):
        raise DataError(f"{where}: {NEMO_KEY} must be a string: one recording with one channel.")
    if entry.get("offset"):
        raise DataError(f"{where}: an offset of {entry['offset']} s cuts a part out of {audio}, which is not read. {CUT}")
    return {"id": str(entry.get("id") or PurePosixPath(audio).with_suffix("")), "audio": audio, "text": entry.get("text")}


def _of_lhotse(entry: dict[str, Any], where: str) -> dict[str, Any]:
    recording = entry.get("recording")
    if not isinstance(recording, dict):
        what = (
            "a recording"
            if "sources" in entry
            else "a supervision"
            if "recording_id" in entry
            else "a cut without its recording"
        )
        raise DataError(
            f"{where}: {what} of Lhotse; an utterance needs its text and its audio in one line. Join them: lhotse cut simple "
            "-r recordings.jsonl.gz -s supervisions.jsonl.gz cuts.jsonl"
        )
    sources = recording.get("sources") or []
    if len(sources) != 1 or sources[0].get("type") != "file":
        kinds = ", ".join(str(source.get("type")) for source in sources) or "none"
        raise DataError(f"{where}: its recording has the sources {kinds}; one of type file is read. {CUT}")
    start, length = float(entry.get("start", 0.0)), float(recording.get("duration", 0.0))
    end = start + float(entry.get("duration", length))
    if start > CLOSE_S or end < length - CLOSE_S:
        raise DataError(f"{where}: a cut from {start:g} to {end:g} s of a recording of {length:g} s, which is not read. {CUT}")
    texts = [str(part["text"]) for part in entry.get("supervisions") or [] if part.get("text")]
    return {"id": str(entry.get("id")), "audio": sources[0].get("source"), "text": " ".join(texts) or None}


CUT = "Write the parts as files of their own and name those, as a folder or a Kaldi folder."
