"""`cache info|clear|verify`: what is kept, remove it, look for damage."""

import argparse
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

from pipeline.cache.cache_store import CacheStore, EntryFile
from pipeline.cache.current_cache import VARIABLE, CacheConfig, store_of
from pipeline.config.help_text import program
from pipeline.errors import ConfigError
from pipeline.limits import MEGABYTE
from pipeline.record.console import Paragraph, result_console

CACHE, KEY = "cache", "cache.dir="
_DESCRIPTION = f"""\
What runs have made and others need again (docs/cache.md). info: where it is, and how much of what; clear: remove it; verify:
look for entries that are damaged, and remove them (exit status 2 where there were some). The place is cache.dir, or else
${VARIABLE}, or else speech-quantization-pipeline/results in $XDG_CACHE_HOME or ~/.cache."""


class _Arguments(argparse.ArgumentParser):
    """A parser whose errors are like all others of this command."""

    def error(self, message: str) -> NoReturn:
        """Raise what ends the command with one line."""
        raise ConfigError(f"{CACHE}: {message}. As in: {CACHE} info, {CACHE} clear {KEY}<directory>")


def cache(given: list[str]) -> NoReturn:
    """Do what the command line says about the cache.

    Args:
        given: what the command line has behind `cache`.

    Raises:
        ConfigError: it says something else, there is no cache, or not all of it could be removed.
    """
    parser = _Arguments(prog=f"{program(sys.argv[0])} {CACHE}", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("what", choices=("info", "clear", "verify"))
    parser.add_argument("where", nargs="?", metavar="cache.dir=<directory>", help="where it is")
    options = parser.parse_args(given)
    directory = None
    if options.where is not None:
        directory = options.where.removeprefix(KEY).strip()
        if not options.where.startswith(KEY) or not directory:
            parser.error(f"{options.where!r} names no directory")
    store = store_of(CacheConfig(dir=directory))
    if store is None:
        raise ConfigError(f"{CACHE}: ${VARIABLE} switches it off. Name a directory: {CACHE} {options.what} {KEY}<directory>")
    sys.exit({"info": _info, "clear": _clear, "verify": _verify}[options.what](store))


def _info(store: CacheStore) -> int:
    kinds: dict[str, list[EntryFile]] = defaultdict(list)
    for entry in store.entries():
        kinds[entry.kind].append(entry)
    _say(f"cache: {store.directory}")
    for kind, entries in sorted(kinds.items()):
        _say(f"  {kind}: {len(entries)} entries, {_megabytes(entries)}")
    everything = [entry for entries in kinds.values() for entry in entries]
    _say(f"together: {len(everything)} entries, {_megabytes(everything)}; by default at most {CacheConfig().max_mb} MB")
    if (place := _existing(store.directory)) is not None:
        _say(f"free on the disk: {shutil.disk_usage(place).free / MEGABYTE:.0f} MB")
    return 0


def _clear(store: CacheStore) -> int:
    entries = list(store.entries())
    if left := store.clear():
        raise ConfigError(f"{CACHE}: {left} files of {store.directory} could not be removed: do they belong to another user?")
    _say(f"removed from {store.directory}: {len(entries)} entries, {_megabytes(entries)}")
    return 0


def _verify(store: CacheStore) -> int:
    count, damaged = sum(1 for _ in store.entries()), list(store.damaged())
    for entry in damaged:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            _say(f"damaged, and not removed: {entry.path}: {error}")
        else:
            _say(f"damaged, and removed: {entry.path}")
    _say(f"{count - len(damaged)} of {count} entries of {store.directory} hold what was written")
    return 2 if damaged else 0


def _megabytes(entries: list[EntryFile]) -> str:
    return f"{sum(entry.bytes for entry in entries) / MEGABYTE:.1f} MB"


def _existing(place: Path) -> Path | None:
    return next((folder for folder in (place, *place.parents) if folder.is_dir()), None)


def _say(text: str) -> None:
    result_console().print(Paragraph(text), crop=False)
