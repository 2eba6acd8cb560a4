"""The values of settings, quoted where Hydra's grammar would not take them as they are.

Hydra's grammar knows no text in other scripts than ASCII, and gives brackets, commas, `=`, `~` and quotes a meaning of their
own. A shell hands a path over as it is; so whatever the grammar refuses is put into quotes here. Values that it takes stay
what they are, but for paths: a path that it would read as a number or as a list of values is a path.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from pipeline.paths import config_directory

PATH_NAMES = frozenset(
    {"path", "dir", "labels", "rerun", "compare", "subdir", "runtime", "run", "transcribe", "python", "resume", "verify"}
)  # runtime: a version, or a python
TEXT_NAMES = frozenset({"name", "url", "sha256", "input_name", "features", "sort_by", "metric", "say", "host"})
LISTS_OF_PATHS = frozenset({"compare"})
SWEEPS = re.compile(r"(choice|range|glob|interval|sort|shuffle|tag|extend_list)\s*\(")
"""How a value begins that Hydra makes a list of values of."""
PLAIN = re.compile(r"[A-Za-z0-9_./\\+\-$%@*?|: ]*")


def split_override(text: str) -> tuple[str, str, str] | None:
    """Return prefix (`+`, `++` or nothing), key and value of `key=value`; None for anything else."""
    key, equals, value = text.partition("=")
    name = key.lstrip("+")
    return (key[: len(key) - len(name)], name, value) if equals and name else None


def protected(text: str, *, in_sweep: bool = False) -> str:
    """Return an override that Hydra reads as it was meant.

    Args:
        text: `key=value` as the shell hands it over.
        in_sweep: commas separate values (`-m`), but for those in the name of a file that is there.
    """
    parts = split_override(text)
    if parts is None or text.startswith("~"):
        return text
    prefix, key, value = parts
    last = key.rpartition(".")[2]
    if "." in key and not {"@", "/"} & set(key) and (prefix == "+" or (key.startswith("model.") and last not in _in_files())):
        prefix = "++"  # adds or overrides: which of the two it is depends on the file of the option; names are checked later
    if last in LISTS_OF_PATHS or (is_listed(value) and not is_text(key)):
        return f"{prefix}{key}={_list(value, paths=last in LISTS_OF_PATHS)}"
    if not is_text(key):
        return f"{prefix}{key}={value if parsed(f'key={value}') is not None else _each(value, str, in_sweep=in_sweep)}"
    expand = with_home if is_path(key) else str
    return f"{prefix}{key}={_each(value, expand, in_sweep=in_sweep)}"


def is_path(key: str) -> bool:
    """Say whether a setting names a file or a folder, a list of such included."""
    last = key.rpartition(".")[2]
    return last in PATH_NAMES or last.endswith("_path") or key in ("hydra.run.dir", "hydra.sweep.dir")


def is_text(key: str) -> bool:
    """Say whether a setting is a text, which no character has a meaning in."""
    return is_path(key) or key.rpartition(".")[2] in TEXT_NAMES


def is_listed(value: str) -> bool:
    """Say whether a value is written as a list."""
    return value.startswith("[") and value.endswith("]")


def quoted(text: str) -> str:
    """Return a text between quotes, as Hydra's grammar escapes it."""
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return "'" + escaped + "\\" * trailing + "'"


def literal(text: str) -> str:
    """Return a text so that Hydra reads it as this text: between quotes, where it would read anything else."""
    if not PLAIN.fullmatch(text):
        return quoted(text)
    found = parsed(f"key={text}")
    return text if found is not None and found._value == text else quoted(text)


def parsed(override: str) -> Override | None:
    """Return what Hydra reads; None where its grammar refuses it."""
    try:
        return _parser().parse_override(override)
    except HydraException:
        return None


def pieces(text: str) -> list[str]:
    """Split at the commas outside of quotes and brackets."""
    found, start, depth, quote = [], 0, 0, ""
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote and text[place - 1] != "\\" else quote
        elif char in "'\"" and not text[start:place].strip():
            quote = char
        elif char in "[({":
            depth += 1
        elif char in "])}":
            depth -= 1
        elif char == "," and depth <= 0:
            found.append(text[start:place])
            start = place + 1
    return [piece.strip() for piece in (*found, text[start:])]


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@cache
def _in_files() -> frozenset[str]:
    """Return the settings that the files of `conf/model/` hold; what a model has beside them, Hydra does not know."""
    files = (config_directory() / "model").glob("*.yaml")
    return frozenset(name for file in files for name in re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), flags=re.M))


def _each(value: str, expand: Any, *, in_sweep: bool) -> str:  # noqa: ANN401
    """Return a text, or the texts of a sweep."""
    if _has_a_meaning(value):
        return value
    if not in_sweep or exists(expand(value)):
        return literal(expand(value))
    return ",".join(piece if _has_a_meaning(piece) else literal(expand(piece)) for piece in _regrouped(pieces(value), expand))


def _has_a_meaning(value: str) -> bool:
    """Say whether a value is one that is not meant as it is written: quoted, null, an interpolation, a list of a sweep."""
    found = parsed(f"key={value}")
    if found is None:
        return False
    meant = found._value
    escaped = isinstance(meant, str) and "\\" in value and not exists(value)
    return (
        meant is None or meant == "" or isinstance(meant, QuotedString) or "${" in value or escaped
        or (bool(SWEEPS.match(value)) and not exists(value))
    )  # fmt: skip


def _regrouped(parts: Sequence[str], expand: Any) -> list[str]:  # noqa: ANN401
    """Join neighbouring parts that together are the name of a file that is there."""
    found, start = [], 0
    while start < len(parts):
        ends = range(len(parts), start + 1, -1)
        end = next((end for end in ends if exists(expand(",".join(parts[start:end])))), start + 1)
        found.append(",".join(parts[start:end]))
        start = end
    return found


def _list(value: str, *, paths: bool) -> str:
    """Return a list whose elements are texts; a single path is a list of one."""
    expand = with_home if paths else str
    if not is_listed(value):
        return value if _has_a_meaning(value) else f"[{literal(expand(value))}]"
    if len(lists := pieces(value)) > 1 and all(map(is_listed, lists)):  # a sweep over lists
        return ",".join(_list(each, paths=paths) for each in lists)
    inner = pieces(value[1:-1])
    if not paths and parsed(f"key={value}") is not None:
        return value
    return f"[{','.join(piece if _has_a_meaning(piece) or not piece else literal(expand(piece)) for piece in inner)}]"


def with_home(path: str) -> str:
    """Return a path with the home directory in the place of `~`, as a shell writes it at the start of a word only."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # there is no such user: the file is looked for under the name that was given
        return path


def exists(path: str) -> bool:
    """Return whether there is a file or a folder of this name, in which `~` is the home directory."""
    try:
        return Path(with_home(path)).exists()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False
