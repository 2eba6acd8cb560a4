"""Text to the International Phonetic Alphabet, by espeak-ng's C library: what English Matcha and Piper models read.

sherpa-onnx's front end is the reference: each code point of the decomposed (NFD) IPA is a token, and so are spaces and the
punctuation mark that ends a clause. The library and its data come with the PyPI package `espeakng-loader`.
"""

import ctypes
import re
import unicodedata
from functools import cache
from typing import Any

from pipeline.errors import DataError
from pipeline.extras import how_to_install

INSTALL = f"{how_to_install('espeak')}, or give a manifest with token ids"
MARKS = ",.?!;:"
SAMPLE_RATE_HZ = 22_050  # what espeak_Initialize returns where it has found its data
SYNCHRONOUS, UTF8, IPA = 2, 1, 0x02


def symbols_of(text: str, voice: str) -> list[str]:
    """Return the IPA code points of a text, with spaces and punctuation.

    Args:
        text: one or more sentences.
        voice: a language that espeak-ng speaks, such as `en-us`.

    Raises:
        DataError: the library is not installed, or has no such voice.
    """
    library = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise DataError(f"espeak-ng has no voice {voice!r}, which the metadata of the model names.")
    symbols: list[str] = []
    for clause, mark in _clauses(text):
        encoded = ctypes.create_string_buffer(clause.encode())
        rest = ctypes.c_void_p(ctypes.addressof(encoded))
        phonemes = []
        while rest.value:  # the library may cut a long clause once more
            phonemes.append(library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA).decode())
        if symbols:
            symbols.append(" ")
        symbols += unicodedata.normalize("NFD", " ".join(filter(None, phonemes)))
        symbols += mark
    return symbols


def _clauses(text: str) -> list[tuple[str, str]]:
    """Return the clauses of a text, each with its final mark; a mark inside of a number or a word (3.5, 1,000) ends none."""
    parts = re.split(rf"([{re.escape(MARKS)}]+)(?=\s|$)", text.strip())
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
    return [(words.strip(), mark[:1]) for words, mark in pairs if words.strip()]


@cache
def _library() -> Any:  # noqa: ANN401  a C library has no type
    """Return the C library, initialised."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise DataError(f"this model reads espeak-ng's phonemes, and espeak-ng is not installed: {INSTALL}.") from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate != SAMPLE_RATE_HZ:
        raise DataError(f"espeak-ng does not find its data in {espeakng_loader.get_data_path()}; install it again: {INSTALL}.")
    return library
