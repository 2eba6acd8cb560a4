"""Which file an address means: one below the served directory, never through a link, and nothing hidden."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

BAD_CHARACTERS = frozenset("/\\") | {chr(code) for code in (*range(32), 127)} | frozenset(":" if os.name == "nt" else "")
DIRECTORY = getattr(os, "O_DIRECTORY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody writes to must not hold a thread


class RefusedError(Exception):
    """An address that no file may have, or that leads out of the directory."""


def names_in(path: str) -> list[str]:
    """Return the names in the path of an address, decoded once, each for itself: an encoded slash stays in its name.

    Raises:
        RefusedError: a name is empty, hidden, `..`, or holds a separator or a character that no served file has.
    """
    if not path.startswith("/"):
        raise RefusedError("an address begins with /")
    names = []
    for part in path[1:].split("/"):
        try:
            name = unquote(part, errors="strict")
        except UnicodeDecodeError:
            raise RefusedError("the address is not UTF-8") from None
        if not is_plain(name):
            raise RefusedError("no file is served under this address")
        names.append(name)
    return names


def is_plain(name: str) -> bool:
    """Whether a name is that of one file or folder: not empty, not hidden, no `..`, and nothing that separates paths."""
    return bool(name) and not name.startswith(".") and not BAD_CHARACTERS & set(name)


def is_inside(root: Path, names: Sequence[str]) -> bool:
    """Whether names lead from a directory to something in it, without a link on the way."""
    place = root
    for name in names:
        place = place / name
        if place.is_symlink():
            return False
    return place.exists()


def open_inside(root: Path, names: Sequence[str]) -> BinaryIO:
    """Open a file below a directory to read it.

    Where the system can, each folder is opened from the one before: a folder that is exchanged for a link meanwhile is refused.

    Args:
        root: the directory; it holds no link itself.
        names: of the folders below it, and of the file.

    Raises:
        RefusedError: there is a link on the way, or what is there is no file.
        OSError: there is no such file, or it cannot be read.
    """
    if os.open in os.supports_dir_fd and NO_LINK:
        handle = _opened_step_by_step(root, names)
    else:
        path = root.joinpath(*names)
        if path.resolve(strict=True) != path or not path.is_file():
            raise RefusedError("links are not followed")
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise RefusedError("it is no file")
    return os.fdopen(handle, "rb")


def _opened_step_by_step(root: Path, names: Sequence[str]) -> int:
    folder = os.open(root, os.O_RDONLY | DIRECTORY)
    try:
        for name in names[:-1]:
            below = os.open(name, os.O_RDONLY | DIRECTORY | NO_LINK, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(names[-1], os.O_RDONLY | NO_LINK | NO_WAIT, dir_fd=folder)
    finally:
        os.close(folder)
