"""Commands as they are pasted into a shell."""

import shlex
from collections.abc import Iterable

NOT_IN_DOUBLE_QUOTES = frozenset('"$`\\!')


def shell_line(words: Iterable[str]) -> str:
    """Return words as one line for a shell, such as bash or zsh, that gets them unchanged."""
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """Return a word as it is typed into a shell: as it is where that works, else in the quotes that are easiest to read."""
    if "'" in word and not NOT_IN_DOUBLE_QUOTES & set(word):
        return f'"{word}"'  # shlex would end its quotes at each of these, and begin them again
    return shlex.quote(word)
