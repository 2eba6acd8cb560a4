"""Commands as they are pasted into a shell."""

import shlex
from collections.abc import Iterable, Mapping

NOT_IN_DOUBLE_QUOTES = frozenset('"$`\\!')


def shell_line(words: Iterable[str]) -> str:
    """Return words as one line for a shell, such as bash or zsh, that gets them unchanged."""
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """Return a word as it is typed into a shell: as it is where that works, else in the quotes that are easiest to read."""
    if "'" in word and not NOT_IN_DOUBLE_QUOTES & set(word):
        return f'"{word}"'  # shlex would end its quotes at each of these, and begin them again
    return shlex.quote(word)


def settings_as_given(settings: Mapping[str, object]) -> list[str]:
    """Return settings as they are given on a command line: `key=value` each, with null, true and lists as Hydra has them."""
    return [f"{key}={_value(value)}" for key, value in settings.items()]


def _value(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list() | tuple():
            return f"[{','.join(map(_value, value))}]"
        case _:
            return str(value)
