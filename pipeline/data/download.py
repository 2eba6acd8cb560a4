"""A model's files from a server: with a progress bar, resumed where it was cut off, verified, kept in a cache."""

import hashlib
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigError, DataError
from pipeline.limits import MEGABYTE, limits

ATTEMPTS = 5  # how often a connection may break in a row before any byte has come
TIMEOUT_S = 30
BLOCK = 1 << 16
MOST_FILES = 100_000  # in an archive
ARCHIVES = (".tar.bz2", ".tar.gz", ".tgz", ".tar.xz", ".tar", ".zip")

OnProgress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all or None) -> None."""


@dataclass(frozen=True)
class Download:
    """What was downloaded.

    Attributes:
        file: in the cache.
        sha256: of the file.
        folder: where its content is, if it is an archive.
    """

    file: Path
    sha256: str
    folder: Path | None


def download(url: str, sha256: str | None, cache: Path, on_progress: OnProgress) -> Download:
    """Return what is at a URL, from the cache where it is there already.

    Args:
        url: http or https.
        sha256: what the file must be, in hexadecimal; None: anything.
        cache: the directory that keeps it.
        on_progress: called with the bytes so far.

    Raises:
        ConfigError: the URL or the hash is invalid.
        DataError: the server does not answer, has no such file, or the file is another one; or an archive is damaged.
    """
    parts = urlsplit(url)
    name = Path(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or not name:
        raise ConfigError(f"model.url: {url!r} is not an http or https address of a file.")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ConfigError(f"model.sha256: {sha256!r} is not a SHA-256: 64 hexadecimal digits are needed.")
    place = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    file = place / name
    if not file.exists():
        _fetch(url, file, on_progress)
    found = _hash(file)
    if sha256 is not None and found != sha256.lower():
        file.unlink()
        raise DataError(
            f"model.sha256: {url} gave a file with the SHA-256 {found}, expected {sha256.lower()}. It is not used and was "
            "removed; make sure that the address and the hash belong together."
        )
    return Download(file, found, _extracted(file, found) if name.endswith(ARCHIVES) else None)


def _fetch(url: str, file: Path, on_progress: OnProgress) -> None:
    """Write a file, going on where a connection broke, in this run or in an earlier one."""
    partial = file.with_name(f"{file.name}.part")
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if _receive(url, partial, on_progress):
                partial.replace(file)
                return
            problem = "the connection broke"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is longer than the file, so it belongs to another file
                partial.unlink(missing_ok=True)
            elif error.code < 500:
                raise DataError(
                    f"model.url: {url}: the server answers {error.code} {error.reason}. Check the address."
                ) from error
            problem = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, HTTPException, OSError) as error:
            problem = str(getattr(error, "reason", error))
        after = partial.stat().st_size if partial.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures == ATTEMPTS:
            raise DataError(
                f"model.url: {url}: {problem}, {ATTEMPTS} times in a row, after {after} bytes. They are kept: the next run "
                "goes on from there."
            )


def _receive(url: str, partial: Path, on_progress: OnProgress) -> bool:
    """Append to a partial file what it lacks; return whether it is complete."""
    done = partial.stat().st_size if partial.exists() else 0
    validator = partial.with_name(f"{partial.name}.etag")
    headers = {"User-Agent": "speech-quantization-pipeline"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if validator.exists():  # of a file that has changed meanwhile, all of it is sent
            headers["If-Range"] = validator.read_text(encoding="utf-8")
    response: HTTPResponse
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        resumed = response.status == 206
        if etag := response.headers.get("ETag") or response.headers.get("Last-Modified"):
            validator.write_text(etag, encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = None if length is None else int(length) + (done if resumed else 0)
        done = done if resumed else 0
        with partial.open("ab" if resumed else "wb") as stream:
            while block := response.read1(BLOCK):
                stream.write(block)
                done += len(block)
                on_progress(done, total)
    complete = total is None or done == total
    if complete:
        validator.unlink(missing_ok=True)
    return complete


def _extracted(archive: Path, digest: str) -> Path:
    """Return the folder with an archive's content; where that is one directory, the directory."""
    folder = archive.parent / digest[:16]
    if not folder.exists():
        unfinished = archive.parent / f"{digest[:16]}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _extract(archive, unfinished)
        except DataError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, zlib.error) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise DataError(f"model.url: {archive} cannot be unpacked: {error}. Remove it to download it again.") from error
        unfinished.replace(folder)
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _extract(archive: Path, folder: Path) -> None:
    folder.mkdir()
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:  # extractall drops absolute paths and `..` by itself
            _check_content(archive, (member.file_size for member in packed.infolist()))
            packed.extractall(folder)
    else:
        with tarfile.open(archive) as packed_tar:
            _check_content(archive, (member.size for member in packed_tar))
            packed_tar.extractall(folder, filter="data")  # refuses what would land outside of the folder


def _check_content(archive: Path, sizes: Iterable[int]) -> None:
    """Refuse an archive that holds more than a model may have, before anything is unpacked; nobody reads on behind that."""
    total = 0
    for number, size in enumerate(sizes):
        total += max(size, 0)
        if total > limits().model_mb * MEGABYTE or number >= MOST_FILES:
            raise DataError(
                f"limits.model_mb: {limits().model_mb}, but {archive} holds more than {total // MEGABYTE} MB in {number} files."
            )


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
