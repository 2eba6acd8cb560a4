"""The settings `cache.*`, the cache that is used now, and what came from it."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cache.cache_store import CacheStore
from pipeline.cache.kinds import Kind
from pipeline.limits import MEGABYTE
from pipeline.paths import cache_directory

VARIABLE = "SPEECH_QUANTIZE_CACHE"
OFF = "off"
MEMORY_BYTES = 256 << 20  # of entries that are kept in memory too


@dataclass
class CacheConfig:
    """What runs have made and others need again: docs/cache.md.

    Attributes:
        enabled: false: nothing is taken from the cache, and nothing is kept.
        dir: where it is; null: $SPEECH_QUANTIZE_CACHE (`off`: nowhere), or else speech-quantization-pipeline/results in
            $XDG_CACHE_HOME or ~/.cache.
        max_mb: what it may take on the disk; what was not used for longest goes.
    """

    enabled: bool = True
    dir: str | None = None
    max_mb: int = 4000


@dataclass
class Use:
    """How often something of one kind was needed.

    Attributes:
        found: in the cache.
        made: anew.
    """

    found: int = 0
    made: int = 0


@dataclass
class Cache:
    """The cache as a run uses it.

    Attributes:
        store: the files; None: it is off.
        used: kind -> how often it was found or made.
    """

    store: CacheStore | None
    used: dict[str, Use] = field(default_factory=dict)

    def count(self, kind: Kind, *, found: bool) -> None:
        """Count that something was needed."""
        use = self.used.setdefault(kind.name, Use())
        if found:
            use.found += 1
        else:
            use.made += 1


class Memory:
    """What was found or made last, as long as it fits: for the next job of a sweep, in the same process."""

    def __init__(self, max_bytes: int) -> None:
        """Begin with nothing."""
        self._free, self._values = max_bytes, OrderedDict[str, tuple[Any, int]]()

    def get(self, key: str) -> Any:  # noqa: ANN401  what was put in
        """Return a value, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: str, value: Any, size: int) -> None:  # noqa: ANN401
        """Keep a value of so many bytes."""
        if key in self._values or size > MEMORY_BYTES:
            return
        self._values[key] = (value, size)
        self._free -= size
        while self._free < 0:
            _, (_, freed) = self._values.popitem(last=False)
            self._free += freed


MEMORY = Memory(MEMORY_BYTES)
_used = [Cache(None)]


def store_of(config: CacheConfig) -> CacheStore | None:
    """Return the files that the settings name; None: nothing is kept."""
    named = os.environ.get(VARIABLE) or None
    if not config.enabled or (config.dir is None and named == OFF):
        return None
    given = config.dir or named
    directory = cache_directory() / "results" if given is None else Path(given).expanduser().absolute()
    return CacheStore(directory, config.max_mb * MEGABYTE)


@contextmanager
def using(config: CacheConfig) -> Iterator[Cache]:
    """Use a cache, for a run."""
    cache = Cache(store_of(config))
    _used.append(cache)
    try:
        yield cache
    finally:
        _used.pop()
        if cache.store is not None:
            cache.store.close()


def current() -> Cache:
    """Return the cache that is used now: that of the run; outside of runs, none."""
    return _used[-1]
