"""From text to the tokens of Matcha, and from phoneme times to the number of frames of every token.

The tokens are those of icefall's `matcha-icefall-en_US-ljspeech`, so that sherpa-onnx's own front end makes the same ones:
each code point of espeak-ng's IPA is a token, stress and length marks, spaces and punctuation too. There is no token for
the beginning or the end (`use_eos_bos=0`), and a blank, the token `_`, stands before, between and after all others:

    "no, yes."  ->  n ˈ o ʊ , _ j ˈ ɛ s .  ->  _ n _ ˈ _ o _ ʊ _ , _   _ j _ ˈ _ ɛ _ s _ . _
"""

import re
import unicodedata

import numpy as np

from data.recipes.espeak import Utterance, phonemize
from data.recipes.signals import HOP

PUNCTUATION = ",.?!;:"
SYMBOLS = [*"_^$ !'(),-.:;?", *"abcdefghijklmnopqrstuvwxyz", *"æçðŋɐɑɒɔəɚɛɜɡɪɫɬɹɾʃʊʌʒʔʰʲˈˌː̩̃θᵊᵻ"]
IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}
PAD = IDS["_"]


def tokens_txt() -> str:
    """The table as icefall writes it: a symbol, a space and its number in each line."""
    return "".join(f"{symbol} {index}\n" for symbol, index in IDS.items())


def symbols_of(text: str) -> list[str]:
    """The symbols of one sentence, without blanks.

    Raises:
        KeyError: If espeak-ng uses a symbol that is not in the table.
    """
    marks = re.findall(f"[{re.escape(PUNCTUATION)}]", text)
    clauses = [unicodedata.normalize("NFD", clause) for clause in phonemize(text)]
    symbols = []
    for index, clause in enumerate(clauses):
        symbols += clause
        if index < len(marks):
            symbols.append(marks[index])
            if index < len(clauses) - 1:
                symbols.append(" ")
    unknown = set(symbols) - set(IDS)
    if unknown:
        raise KeyError(f"tokens.txt lacks {sorted(unknown)}, which espeak-ng uses for {text!r}")
    return symbols


def tokens_of(text: str) -> list[int]:
    """The token numbers of one sentence, with blanks."""
    return with_blanks(symbols_of(text))


def with_blanks(symbols: list[str]) -> list[int]:
    tokens = [PAD] * (2 * len(symbols) + 1)
    tokens[1::2] = [IDS[symbol] for symbol in symbols]
    return tokens


def groups_of(symbols: list[str], utterance: Utterance) -> list[tuple[list[str], int]]:
    """Cuts the symbols of a sentence where espeak-ng's phonemes begin.

    A space belongs to the phoneme after it, a punctuation mark to the pause after the clause.

    Returns:
        Symbols and first sample of every phoneme and pause.

    Raises:
        ValueError: If text and events tell different stories (espeak-ng reads a few words differently when it speaks).
    """
    groups: list[tuple[list[str], int]] = []
    position = 0
    for name, start in utterance.phonemes:
        wanted = unicodedata.normalize("NFD", name)
        begin = position
        if not wanted:  # a pause: nothing to do unless a punctuation mark is due
            while position < len(symbols) and symbols[position] in PUNCTUATION:
                position += 1
            if position > begin:
                groups.append((symbols[begin:position], start))
            continue
        while position < len(symbols) and symbols[position] == " ":
            position += 1
        spaces = symbols[begin:position]
        cut = _find(symbols, position, wanted)
        if cut > position:  # espeak-ng cut a long name after eight bytes: the rest belongs to the phoneme before
            groups[-1][0].extend(symbols[begin:cut])
            spaces = []
        position = cut + len(wanted)
        groups.append((spaces + symbols[cut:position], start))
    if position < len(symbols):
        raise ValueError(f"espeak-ng did not speak {''.join(symbols[position:])!r}")
    return groups


def _find(symbols: list[str], position: int, wanted: str) -> int:
    for cut in range(position, min(position + 3, len(symbols))):
        if "".join(symbols[cut : cut + len(wanted)]) == wanted:
            return cut
    raise ValueError(f"espeak-ng spoke {wanted!r} where {''.join(symbols[position : position + 4])!r} was due")


def frames_of(groups: list[tuple[list[str], int]], frames: int) -> np.ndarray:
    """Shares the frames of an utterance among its tokens.

    Every token lasts one frame at least, as Matcha's `ceil` demands. What a phoneme has beyond that goes to its letters;
    marks, spaces and blanks stay at one frame. So each phoneme has one number that is hard to predict, not six.

    Args:
        groups: Symbols and first sample of every phoneme; the first must leave room for the leading blank.
        frames: Frames of the utterance's mel.

    Returns:
        int64 (2 * symbols + 1,), their sum is `frames`.

    Raises:
        ValueError: If there are more tokens than frames.
    """
    needs = [1] + [2 * len(symbols) for symbols, _ in groups]
    edges = [0] + [round(start / HOP) for _, start in groups] + [frames]
    for index, need in enumerate(needs):
        edges[index + 1] = max(edges[index + 1], edges[index] + need)
    edges[-1] = frames
    for index in range(len(needs) - 1, 0, -1):
        edges[index] = min(edges[index], edges[index + 1] - needs[index])
    if edges[1] < 1:
        raise ValueError(f"{sum(needs)} tokens do not fit into {frames} frames")
    shares = [np.array([edges[1]])]
    for (symbols, _), begin, end in zip(groups, edges[1:-1], edges[2:], strict=True):
        share = np.ones(2 * len(symbols), np.int64)
        letters = [2 * i for i, symbol in enumerate(symbols) if symbol.isalpha() and symbol not in "ˈˌː"]
        letters = letters or [0]
        extra = end - begin - len(share)
        for rank, index in enumerate(letters):
            share[index] += extra // len(letters) + (rank < extra % len(letters))
        shares.append(share)
    return np.concatenate(shares)
