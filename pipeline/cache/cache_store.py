"""The files of the cache: each whole or not there, checked when it is read, the least recently used removed when it is full.

<directory>/<kind>/<key>.entry holds a line that says what it is, the SHA-256 of what follows, and the entry. A file appears
under its name when it is complete (written beside it, then renamed), so any number of processes may write, read and remove at
the same time, on a network file system too; a process that is killed leaves a file of another name, which is removed later.
No error of the disk leaves this module: a cache that cannot be used is none.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"speech-quantize cache 1\n"
HEAD = len(MAGIC) + 32
SUFFIX = ".entry"
NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
UNFINISHED = ".unfinished-"
GIVEN_UP_S = 3600.0  # after which a file that is not finished belongs to a process that was killed
KEPT_FREE = 256 << 20  # bytes of the disk that a cache leaves to the runs themselves
CHECKED_EVERY = 0.1  # of its size, after which what others write is looked at again
FILLED_TO = 0.9  # when something has to go, so that it is not looked for again at once

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntryFile:
    """One file of the cache.

    Attributes:
        kind: the folder that it lies in.
        path: where.
        bytes: its size.
        used: when it was last written or read, in seconds since 1970.
    """

    kind: str
    path: Path
    bytes: int
    used: float


class CacheStore:
    """Entries in a directory."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Touch nothing yet.

        Args:
            directory: that the entries are in; it need not exist.
            max_bytes: what they may take together.
        """
        self.directory, self._max_bytes = directory, max_bytes
        self._unchecked: float | None = None  # bytes that were written since the directory was last looked through
        self._is_writable = self._is_readable = True

    def read(self, kind: str, key: str) -> memoryview | None:
        """Return what an entry holds; None where there is none, or not what was once written."""
        path = self._path(kind, key)
        try:
            content = memoryview(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._is_readable:  # said once: it may hold of every entry
                log.warning("The cached file %s cannot be read: %s", path, error)
            self._is_readable = False
            return None
        if not _is_whole(content):
            self.forget(kind, key, "is damaged")
            return None
        with contextlib.suppress(OSError):  # it was used now; a disk that cannot be written keeps its order
            os.utime(path)
        return content[HEAD:]

    def forget(self, kind: str, key: str, why: str) -> None:
        """Remove an entry that is of no use, and say so."""
        path = self._path(kind, key)
        log.warning("The cached file %s %s: what it held is made anew.", path, why)
        with contextlib.suppress(OSError):
            path.unlink()

    def write(self, kind: str, key: str, content: bytes) -> None:
        """Write an entry, which appears under its name complete or not at all; after an error, no further ones.

        It does not wait for the disk: what a crash of the machine leaves of it does not fit its checksum.
        """
        size = HEAD + len(content)
        if not self._is_writable or size > self._max_bytes:
            return
        path = self._path(kind, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < size + KEPT_FREE:
                raise OSError(f"the disk is nearly full, less than {KEPT_FREE >> 20} MiB are free")
            _write(path, content)
        except OSError as error:
            self._is_writable = False
            log.warning("Nothing more is cached in %s: %s", self.directory, error)
            return
        self._unchecked = None if self._unchecked is None else self._unchecked + size
        if self._unchecked is None or self._unchecked > CHECKED_EVERY * self._max_bytes:
            self.shrink()

    def close(self) -> None:
        """Keep to the size at the end of a run that has written."""
        if self._unchecked:
            self.shrink()

    def shrink(self) -> None:
        """Remove the entries that were not used for longest, until the others fit; and what killed processes have left."""
        self._unchecked = 0.0
        found = list(self.entries())
        total = sum(entry.bytes for entry in found)
        if total > self._max_bytes:
            for entry in sorted(found, key=lambda entry: entry.used):
                if total <= FILLED_TO * self._max_bytes:
                    break
                with contextlib.suppress(OSError):  # another process has removed it, or reads it (Windows)
                    entry.path.unlink()
                total -= entry.bytes
        newest = max((entry.used for entry in found), default=0.0)  # by the clock of the disk; another may jump
        for path in self._unfinished():
            with contextlib.suppress(OSError):
                if newest - path.stat().st_mtime > GIVEN_UP_S:
                    path.unlink()

    def entries(self) -> Iterator[EntryFile]:
        """Yield the files of the cache; whatever else lies there is none of them."""
        for folder in self._folders():
            for path in _in(folder):
                if NAME.fullmatch(path.name):
                    with contextlib.suppress(OSError):
                        found = path.stat(follow_symlinks=False)
                        yield EntryFile(folder.name, path, found.st_size, found.st_mtime)

    def clear(self) -> int:
        """Remove all entries, and what is left of others; return how many files could not be removed."""
        left = 0
        for path in [*(entry.path for entry in self.entries()), *self._unfinished()]:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                left += 1
        for folder in self._folders():
            with contextlib.suppress(OSError):  # the user's own files
                folder.rmdir()
        return left

    def damaged(self) -> Iterator[EntryFile]:
        """Yield the entries that do not hold what was once written."""
        for entry in self.entries():
            try:
                if not _is_whole(memoryview(entry.path.read_bytes())):
                    yield entry
            except FileNotFoundError:  # removed meanwhile
                continue
            except OSError:
                yield entry

    def _path(self, kind: str, key: str) -> Path:
        return self.directory / kind / f"{key}{SUFFIX}"

    def _folders(self) -> list[Path]:
        return [path for path in _in(self.directory) if path.is_dir() and not path.is_symlink()]

    def _unfinished(self) -> list[Path]:
        return [path for folder in self._folders() for path in _in(folder) if path.name.startswith(UNFINISHED)]


def _in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_whole(content: memoryview) -> bool:
    return content[:HEAD] == MAGIC + hashlib.sha256(content[HEAD:]).digest()


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears under its name complete or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")  # for others to read as well, as the user's umask says
    try:
        with temporary.open("xb") as file:
            file.write(MAGIC + hashlib.sha256(content).digest())
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
