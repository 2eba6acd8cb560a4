"""Make something, or find it: what was made before from the same things, with the same code, on the same kind of machine."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.cache.cache_key import key_of
from pipeline.cache.current_cache import MEMORY, current
from pipeline.cache.entry_format import Entry, NotPlainError, packed, unpacked
from pipeline.cache.kinds import Kind
from pipeline.errors import PipelineError
from pipeline.outside_errors import unless_memory_is_used_up
from pipeline.typed_json import from_json

T = TypeVar("T")

READING_S, READ_BYTES_PER_S = 0.001, 300e6  # opening a file, and reading and checking it, on a busy machine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Form(Generic[T]):
    """How a value is kept.

    Attributes:
        entry_of: the value as JSON and arrays; None: this one is not kept.
        value_of: the reverse; whatever it raises, the value is made again.
    """

    entry_of: Callable[[T], Entry | None]
    value_of: Callable[[Entry], T]


def typed(kind: type[T]) -> Form[T]:
    """Return the form of dataclasses that are made of what JSON holds; infinity and NaN are kept."""
    return Form(
        lambda value: Entry(dataclasses.asdict(value)),  # type: ignore[call-overload]
        lambda entry: from_json(kind, entry.facts, strict=True),
    )


def remembered(kind: Kind, depends_on: Callable[[], tuple[object, ...]], form: Form[T], make: Callable[[], T]) -> T:
    """Return what was made before from the same things, or make it, and keep it.

    Args:
        kind: what it is.
        depends_on: all that could change it, beside code, versions and the processor; not asked for where the cache is off.
            Where it fails for a reason that a user is told of, `make` tells of it, at its own time.
        form: how it is kept.
        make: makes it. What it raises is raised, and nothing is kept.
    """
    if current().store is None:
        return make()
    try:
        key = key_of(kind, *depends_on())
    except PipelineError:
        return make()
    found = recalled(kind, key, form)
    if found is not None:
        return found
    start = time.perf_counter()
    made = make()
    keep(kind, key, form, made, seconds=time.perf_counter() - start)
    return made


def renewed(kind: Kind, depends_on: Callable[[], tuple[object, ...]], form: Form[T], make: Callable[[], T]) -> T:
    """Make something in any case, and keep it in the place of what was made before; as `remembered` otherwise."""
    made = make()
    if current().store is not None:
        keep(kind, key_of(kind, *depends_on()), form, made, seconds=math.inf)
    return made


def recalled(kind: Kind, key: str, form: Form[T]) -> T | None:
    """Return what the cache has under a key, or None."""
    cache = current()
    if cache.store is None:
        return None
    value: T | None = MEMORY.get(key) if kind.in_memory else None
    if value is None and (content := cache.store.read(kind.name, key)) is not None:
        try:
            value = form.value_of(unpacked(content))
        except Exception as error:  # whatever was kept, it is made again
            unless_memory_is_used_up(error)
            log.debug("an entry of the cache", exc_info=True)
            cache.store.forget(kind.name, key, f"cannot be understood ({error})")
        else:
            if kind.in_memory:
                MEMORY.put(key, value, len(content))
    if value is not None:
        cache.count(kind, found=True)
    return value


def keep(kind: Kind, key: str, form: Form[T], value: T, *, seconds: float) -> None:
    """Keep a value that was made, unless reading it would take longer.

    Args:
        kind: what it is.
        key: of all that it depends on.
        form: how it is kept.
        value: what was made.
        seconds: that it took.
    """
    cache = current()
    if cache.store is None:
        return
    cache.count(kind, found=False)
    try:
        entry = form.entry_of(value)
        content = None if entry is None else packed(entry)
    except NotPlainError as error:
        log.debug("%s: not kept: %s", kind.name, error)
        return
    if content is None:
        return
    if kind.in_memory:
        MEMORY.put(key, value, len(content))
    if not kind.cheap or seconds > READING_S + len(content) / READ_BYTES_PER_S:
        cache.store.write(kind.name, key, content)
