"""What espeak-ng makes of a text, checked: letters that the voice cannot read, and phonemes that the model does not know."""

from collections.abc import Mapping, Sequence

from pipeline.errors import DataError
from pipeline.models.text.scripts import foreign_letters


def spoken_symbols(text: str, voice: str, where: str, model: str) -> list[str]:
    """Return the IPA code points of a text, with spaces and punctuation.

    Args:
        text: one or more sentences.
        voice: of espeak-ng, such as `en-us`.
        where: the utterance, for messages.
        model: its name, for messages.

    Raises:
        DataError: the voice cannot read the text, or espeak-ng is not installed or has no such voice.
    """
    from pipeline.models.text.espeak import symbols_of

    if foreign := foreign_letters(text, voice):
        raise DataError(
            f"{where}: the voice {voice!r} of {model} cannot read {', '.join(map(repr, foreign[:5]))}, of the text {text!r}: "
            "espeak-ng would name the letters. Give text in the language of the model."
        )
    return symbols_of(text, voice)


def ids_of(symbols: Sequence[str], table: Mapping[str, int], text: str, where: str, model: str) -> list[int]:
    """Return the token ids of symbols.

    Args:
        symbols: what is spoken.
        table: token -> id.
        text: that they are of, for messages.
        where: the utterance, for messages.
        model: its name, for messages.

    Raises:
        DataError: a symbol is no token of the model.
    """
    if lacking := sorted(set(symbols) - set(table)):
        raise DataError(f"{where}: tokens.txt of {model} lacks {', '.join(map(repr, lacking))}, of the text {text!r}.")
    return [table[symbol] for symbol in symbols]
