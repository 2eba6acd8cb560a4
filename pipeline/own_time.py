"""A clock of this process's own time: it stands still while the process waits for another one.

A search that may take a minute, or a stage whose time is told, is not to pay for the benchmark of another process that holds
the machine.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class _Waits:
    """How long this process has waited: what is over, and when the wait began that is not; None: it waits for nothing."""

    seconds: float = 0.0
    since: float | None = None


_waits = _Waits()


def own_time() -> float:
    """Return seconds, of which only differences mean something: those of `time.monotonic` without waits."""
    now = time.monotonic()
    return now - _waits.seconds - (now - _waits.since if _waits.since is not None else 0.0)


@contextmanager
def waiting() -> Iterator[None]:
    """Enclose a wait for another process; waits do not nest."""
    _waits.since = time.monotonic()
    try:
        yield
    finally:
        _waits.seconds += time.monotonic() - _waits.since
        _waits.since = None
