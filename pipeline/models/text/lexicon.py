"""Text to tokens by a lexicon: the longest word that lexicon.txt has, from left to right, as sherpa-onnx matches it."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError
from pipeline.models.text.tokens import read_tokens

LONGEST = 10  # characters of a word that is looked for
SAME = ((",", "，、；;："), (".", "。"), ("!", "！"), ("?", "？"), (":", "："), ('"', "“”"), ("'", "‘’"), (";", "；"))


@dataclass(frozen=True)
class Lexicon:
    """Words and their tokens.

    Attributes:
        words: word, in lower case -> token ids.
        tokens: token -> id, with both forms of each punctuation mark.
        path: of lexicon.txt, for messages.
        tones_of: word, in lower case -> the tone of each of its tokens; None for a lexicon without tones.
    """

    words: dict[str, list[int]]
    tokens: dict[str, int]
    path: Path
    tones_of: dict[str, list[int]] | None = None

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text.

        Raises:
            DataError: a character is in no word of the lexicon and no token of its own.
        """
        return [
            token for unit in self._units(text) for token in (self.words[unit] if unit in self.words else [self.tokens[unit]])
        ]

    def tones(self, text: str) -> list[int] | None:
        """Return the tone of each token of a text, 0 for a punctuation mark; None for a lexicon without tones.

        Raises:
            DataError: a character is in no word of the lexicon and no token of its own.
        """
        tones = self.tones_of
        return None if tones is None else [tone for unit in self._units(text) for tone in tones.get(unit, [0])]

    def _units(self, text: str) -> list[str]:
        """Return the words of the lexicon that a text is made of, and the tokens between them.

        Raises:
            DataError: a character is in no word of the lexicon and no token of its own.
        """
        units = re.findall(r"[a-z0-9']+|\S", text.lower())
        found: list[str] = []
        position = 0
        while position < len(units):
            for end in range(min(position + LONGEST, len(units)), position, -1):
                word = "".join(units[position:end])
                if word in self.words:
                    found.append(word)
                    break
            else:
                end = position + 1
                if units[position] not in self.tokens:
                    raise DataError(
                        f"{self.path} has no word that begins with {units[position]!r}, of the text {text!r}, and tokens.txt "
                        "no such token. Add the word, or change the text."
                    )
                found.append(units[position])
            position = end
        return found


def read_lexicon(lexicon: Path, tokens: Path, *, toned: bool = False) -> Lexicon:
    """Read lexicon.txt: a word and its tokens in each line; the first entry of a word counts.

    Args:
        lexicon: the file.
        tokens: tokens.txt.
        toned: the tokens of a word are followed by as many tones (MeloTTS).

    Raises:
        DataError: a file is missing or damaged, or a word has a token that tokens.txt lacks.
    """
    table = read_tokens(tokens, "model.dir")
    words: dict[str, list[int]] = {}
    tones: dict[str, list[int]] = {}
    try:
        lines = lexicon.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"model.dir: {lexicon} is not UTF-8 text ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        word, *phones = line.split()
        if toned:
            spoken = len(phones) // 2
            phones, sung = phones[:spoken], phones[spoken:]
            if len(sung) != spoken or not all(tone.isdigit() for tone in sung):
                raise DataError(
                    f"model.dir: {lexicon}, line {number}: {word!r} has {line.split()[1:]}, where as many tones as tokens are "
                    "expected, after them."
                )
            tones.setdefault(word.lower(), [int(tone) for tone in sung])
        if lacking := [phone for phone in phones if phone not in table]:
            raise DataError(
                f"model.dir: {lexicon}, line {number}: {word!r} has the token {lacking[0]!r}, which {tokens} lacks."
            )
        words.setdefault(word.lower(), [table[phone] for phone in phones])
    return Lexicon(words, _with_both_forms(table), lexicon, tones if toned else None)


def _with_both_forms(table: dict[str, int]) -> dict[str, int]:
    """Return the table with each punctuation mark in its ASCII and its Chinese form, where it has one of them."""
    known = dict(table)
    for ascii_form, forms in SAME:
        for form in forms:
            if ascii_form in known:
                known.setdefault(form, known[ascii_form])
            elif form in known:
                known[ascii_form] = known[form]
    return known
