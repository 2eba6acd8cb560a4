"""The language of a page: English texts stand in the code and the templates, their translations in templates/chinese.yaml.

What a report itself holds in words (verdicts, warnings, reasons, notes) is translated where the sentence is known; others, and
names, are shown as they were written.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import yaml
from markupsafe import Markup

TRANSLATIONS = {"zh": Path(__file__).parent / "templates" / "chinese.yaml"}
HTML_NAMES = {"en": "en", "zh": "zh-Hans"}  # for the attribute `lang`

_language: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def in_language(language: str) -> Iterator[None]:
    """Make pages in a language: en or zh."""
    token = _language.set(language)
    try:
        yield
    finally:
        _language.reset(token)


def html_language() -> str:
    """Return the language of the page as HTML names it."""
    return HTML_NAMES[_language.get()]


def tr(text: str, /, **values: object) -> str:
    """Return a text in the language of the page, with values in the place of {names}.

    A text without a translation stays English: it may come from a file that another version has written.
    """
    found = _translation(text)
    return found.format(**values) if values else found


def tr_html(text: str, /, **values: object) -> Markup:
    """Return a text that holds HTML in the language of the page; values are escaped."""
    found = Markup(_translation(text))  # the texts are the project's own
    return found.format(**values) if values else found


def listed(items: Iterable[object]) -> str:
    """Return items as a list in a sentence."""
    return tr(", ").join(map(str, items))


def said(sentence: str) -> str:
    """Return what a report holds in words, with its values in it, in the language of the page; English where it is not known.

    The translation of "Faster than fp32: {factor} times its speed" is that of "Faster than fp32: 1.50 times its speed". A value
    that is a known sentence itself is translated as well.
    """
    language = _language.get()
    if language == "en":
        return sentence
    return texts(language).get(sentence) or _sentence(sentence, TRANSLATIONS[language])


def _sentence(sentence: str, path: Path) -> str:
    known = _read(path)["sentences"]
    if sentence in known:
        return known[sentence]
    for pattern, translation in _patterns(path):
        if found := pattern.fullmatch(sentence):
            return translation.format(**{name: _sentence(value, path) for name, value in found.groupdict().items()})
    first, *others = sentence.split("; ")
    return tr("; ").join(_sentence(part, path) for part in (first, *others)) if others else sentence


def said_of(parts: str) -> str:
    """Return what a report names one after the other, each part in the language of the page."""
    return tr(", ").join(map(said, parts.split(", ")))


def texts(language: str) -> dict[str, str]:
    """Return the texts of the pages: English -> translation."""
    return _read(TRANSLATIONS[language])["texts"]


def _translation(text: str) -> str:
    language = _language.get()
    return text if language == "en" else texts(language).get(text, text)


@cache
def _read(path: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@cache
def _patterns(path: Path) -> list[tuple[re.Pattern[str], str]]:
    return [
        (re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(sentence))), translation)
        for sentence, translation in _read(path)["sentences"].items()
    ]
