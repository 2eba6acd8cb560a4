"""What Piper keeps beside a voice, `<voice>.onnx.json`: how it speaks, its phonemes, its speakers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

ESPEAK, CHARACTERS = "espeak", "text"  # what Piper calls phonemes of espeak-ng, and letters as they are
BEGIN, PAD, END = "^", "_", "$"


@dataclass(frozen=True)
class PiperVoice:
    """The settings of a voice.

    Attributes:
        path: of the file.
        sample_rate_hz: of the speech.
        phoneme_type: what the voice reads: `espeak` or `text`.
        voice: of espeak-ng.
        language: its English name, or its code where it has none.
        speakers: how many it has.
        tokens: phoneme -> token id.
        scales: those of `inference` that are given: noise_scale, length_scale, noise_w.
    """

    path: Path
    sample_rate_hz: int
    phoneme_type: str
    voice: str
    language: str
    speakers: int
    tokens: Mapping[str, int]
    scales: Mapping[str, float]

    @property
    def client_metadata(self) -> dict[str, str]:
        """What sherpa-onnx asks the graph for."""
        found = {
            "model_type": "vits", "comment": "piper", "language": self.language, "voice": self.voice,
            "has_espeak": "1" if self.phoneme_type == ESPEAK else "0", "n_speakers": str(self.speakers),
            "sample_rate": str(self.sample_rate_hz),
        }  # fmt: skip
        if self.phoneme_type == CHARACTERS:
            ends = {"blank_id": PAD, "pad_id": PAD, "bos_id": BEGIN, "eos_id": END}
            found |= {"frontend": "characters", "add_blank": "1", "use_eos_bos": "1"}
            found |= {key: str(self.tokens[symbol]) for key, symbol in ends.items()}
        return found

    @property
    def token_table(self) -> str:
        """tokens.txt as sherpa-onnx reads it, which ends the process at a symbol of more than one code point."""
        return "".join(f"{symbol} {index}\n" for symbol, index in self.tokens.items() if len(symbol) == 1)


def piper_voice(model: Path) -> PiperVoice | None:
    """Return what lies beside a voice; None where nothing does.

    Args:
        model: the ONNX file.

    Raises:
        ModelError: it is not what Piper writes.
    """
    path = model.with_name(f"{model.name}.json")
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


@cache
def _read(path: Path, _modified: int) -> PiperVoice:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"model.path: {path} is not JSON ({error}); give the file that came with the voice.") from error
    kind = _value(held, path, "phoneme_type", str, ESPEAK)
    if kind not in (ESPEAK, CHARACTERS):
        raise ModelError(f"model.path: {path} has phoneme_type {kind!r}; known are {ESPEAK} and {CHARACTERS}.")
    table = _value(held, path, "phoneme_id_map", dict)
    tokens = {}
    for symbol, ids in table.items():
        if not (isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], int)):
            raise ModelError(
                f"model.path: {path} has phoneme_id_map[{symbol!r}] = {ids!r}; one token id in a list is expected."
            )
        tokens[symbol] = ids[0]
    if lacking := [symbol for symbol in (BEGIN, PAD, END) if symbol not in tokens]:
        raise ModelError(f"model.path: {path} has no {lacking[0]!r} in phoneme_id_map, which every sentence of Piper's has.")
    language = _value(held, path, "language", dict, {})
    code = _value(held, path, "espeak.voice", str, "en-us")
    scales = {
        name: float(_value(held, path, f"inference.{name}", (int, float)))
        for name in ("noise_scale", "length_scale", "noise_w")
        if name in _value(held, path, "inference", dict, {})
    }
    return PiperVoice(
        path, _value(held, path, "audio.sample_rate", int), kind, code,
        str(language.get("name_english") or language.get("code") or code), _value(held, path, "num_speakers", int, 1), tokens,
        scales,
    )  # fmt: skip


MISSING = object()


def _value(held: Any, path: Path, key: str, kind: type | tuple[type, ...], default: object = MISSING) -> Any:  # noqa: ANN401
    """Return a value of the file by its dotted key.

    Raises:
        ModelError: it is not there and has no default, or is of another type.
    """
    for part in key.split("."):
        held = held.get(part, MISSING) if isinstance(held, dict) else MISSING
    if held is MISSING and default is not MISSING:
        return default
    if held is MISSING or not isinstance(held, kind) or isinstance(held, bool):
        found = "nothing" if held is MISSING else repr(held)[:60]
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ModelError(f"model.path: {path} has {found} at {key}, where Piper has a value of the type {names}.")
    return held
