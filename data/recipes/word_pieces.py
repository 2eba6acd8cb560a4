"""The tokens of the recogniser: letters, and the pairs of tokens that occur most often, merged again and again.

This is byte-pair encoding (Sennrich et al., 2016) over whole words. A token that begins a word starts with "▁".
"""

import itertools
from collections import Counter
from collections.abc import Iterable

BLANK = "<blk>"
MERGES = 100
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

Pair = tuple[str, str]


def _letters(word: str) -> list[str]:
    return [f"▁{word[0]}", *word[1:]]


def _merge(tokens: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for token in tokens:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


class WordPieces:
    """A vocabulary of word pieces: `symbols[0]` is the blank of CTC, then letters, then merged pairs."""

    def __init__(self, texts: Iterable[str]):
        counts = Counter(word for text in texts for word in text.split())
        spelling = {word: _letters(word) for word in counts}
        self._merges: list[Pair] = []
        for _ in range(MERGES):
            pairs: Counter[Pair] = Counter()
            for word, tokens in spelling.items():
                for pair in itertools.pairwise(tokens):
                    pairs[pair] += counts[word]
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            self._merges.append(best)
            spelling = {word: _merge(tokens, best) for word, tokens in spelling.items()}
        merged = ["".join(pair) for pair in self._merges]
        self.symbols = [BLANK, *sorted([*_LETTERS, *(f"▁{letter}" for letter in _LETTERS)]), *merged]
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Token numbers of a lower-case text without punctuation."""
        return [token for word in text.split() for token in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        if word not in self._known:
            tokens = _letters(word)
            for pair in self._merges:
                tokens = _merge(tokens, pair)
            self._known[word] = [self._ids[token] for token in tokens]
        return self._known[word]


def decode(best: Iterable[int], symbols: list[str]) -> str:
    """Greedy decoding of CTC: the best token of every frame, repetitions and blanks dropped, as text."""
    text, previous = "", 0
    for token in best:
        if token not in (0, previous):
            text += symbols[token]
        previous = token
    return text.replace("▁", " ").strip()
