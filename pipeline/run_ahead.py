"""Results in order, computed ahead by threads of this process where cores are idle.

ONNX Runtime lets go of Python's lock while it runs a graph, so that two samples run on two cores while a third is scored. What
is computed does not depend on it. Nothing runs ahead while something is timed: whoever takes the results has all threads ended
before it goes on, also where it takes only some of them.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import psutil

Given = TypeVar("Given")
Result = TypeVar("Result")

MOST_WORKERS = 2  # each may hold the memory of an inference
LOOK_SECONDS = 0.25  # less than that says nothing of what the machine does
SPARE = 0.25  # of a core, that any machine uses in the background


@contextmanager
def in_order(
    function: Callable[[Given], Result], given: Iterable[Given], *, threads: int, workers: int | None = None
) -> Iterator[Iterator[Result]]:
    """Give the results of a function, in order; an exception is raised where its result would have been.

    The first is computed when it is asked for, in this thread: it opens what the others use.

    Args:
        function: of each item; where there are idle cores, it runs in several threads at once.
        given: the items.
        threads: that one call keeps busy.
        workers: how many calls may run at once; None: as many as cores are idle, two at most.
    """
    items = iter(given)
    count = idle_cores() // max(threads, 1) if workers is None else workers
    count = min(count, MOST_WORKERS)
    if count < 2:
        yield map(function, items)
        return
    with ThreadPoolExecutor(count, "ahead") as pool:
        try:
            yield _ahead(pool, function, items, count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Given], Result], items: Iterator[Given], count: int
) -> Iterator[Result]:
    for first in islice(items, 1):
        yield function(first)
    running: list[Future[Result]] = [pool.submit(function, item) for item in islice(items, count)]
    while running:
        result = running.pop(0).result()
        running += [pool.submit(function, item) for item in islice(items, 1)]
        yield result


def idle_cores() -> int:
    """Return how many cores other programs leave to this one, one at least."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(int(usable - _load.of_others() + SPARE), 1)


class _Load:
    """What other programs use of the machine, between one look and the next."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None  # when, and CPU seconds of others by then
        self._cores = 0.0

    def of_others(self) -> float:
        now, seconds = time.monotonic(), _seconds_of_others()
        if self._last is None:
            self._last, self._cores = (now, seconds), psutil.getloadavg()[0]
        elif now - self._last[0] >= LOOK_SECONDS:
            self._cores = max(0.0, (seconds - self._last[1]) / (now - self._last[0]))
            self._last = (now, seconds)
        return self._cores


def _seconds_of_others() -> float:
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # Linux counts guests' time twice: in `user` as well.
    idle = sum(getattr(machine, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    return float(sum(machine) - idle - own.user - own.system)


_load = _Load()
