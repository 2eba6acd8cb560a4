"""A JSON-lines manifest: one utterance a line, with text, token ids, a recording, or all of them."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.data.foreign_manifests import as_ours
from pipeline.errors import DataError, did_you_mean
from pipeline.paths import file_beside, near_files
from pipeline.utterance import Utterance

MANIFEST_KEYS = ("id", "text", "tokens", "audio")
MOST_BYTES = 500_000_000  # of a text file, unpacked
LABEL_KEYS = ("voice", "kind", "noisy")  # known, kept for the report, used by no model


def manifest_lines(path: Path, key: str) -> Iterator[Utterance]:
    """Yield the utterances of a manifest, one after the other.

    Raises:
        DataError: the file is missing or not UTF-8, or a line is not what it should be.
    """
    if not path.is_file():
        raise DataError(
            f"{key}: there is no file or folder {path}. It is a folder of recordings, or a JSON-lines manifest with the keys "
            f"{', '.join(MANIFEST_KEYS)}.{near_files(path)}"
        )
    seen: set[str] = set()
    for number, line in enumerate(text_lines(path, key), start=1):
        if not line.strip():
            continue
        utterance = _utterance(line, f"{key}: {path}, line {number}", path.parent)
        if utterance.id in seen:
            raise DataError(f"{key}: {path}, line {number}: the id {utterance.id!r} is there twice.")
        seen.add(utterance.id)
        yield utterance


def text_lines(path: Path, key: str) -> list[str]:
    """Return the lines of a text file; one that ends in .gz is unpacked.

    Raises:
        DataError: it is not UTF-8, or no gzip file.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            contents = stream.read(MOST_BYTES + 1)
        if len(contents) > MOST_BYTES:
            raise DataError(f"{key}: {path} holds more than {MOST_BYTES // 1_000_000} MB of text; split it.")
        return contents.decode("utf-8-sig").splitlines()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{key}: {path} is no gzip file ({error}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{key}: {path} is not UTF-8 text ({error}). Convert it, for example with iconv.") from error


def _utterance(line: str, where: str, folder: Path) -> Utterance:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error}).") from error
    if isinstance(entry, dict):
        entry = as_ours(entry, where)
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise DataError(f'{where}: expected an object with an "id", found {line[:60]!r}.')
    known = (*MANIFEST_KEYS, *LABEL_KEYS)
    for name in entry:
        if name not in known:
            raise DataError(f"{where}: unknown key {name!r}.{did_you_mean(name, known)}")
    for name in ("text", "audio"):
        if not isinstance(entry.get(name), str | None):
            raise DataError(f"{where}: {name} must be a string.")
    tokens = entry.get("tokens")
    if tokens is not None and not (isinstance(tokens, list) and all(type(token) is int for token in tokens)):
        raise DataError(f"{where}: tokens must be a list of integers.")
    audio = file_beside(folder, entry["audio"]) if entry.get("audio") else None
    return Utterance(entry["id"], entry.get("text"), None if tokens is None else tuple(tokens), audio)
